"""Findings counted by hand: recall, precision, F1, and their intervals."""

import warnings

import numpy as np
import pandas as pd
import pytest

from utils.findings import counts
from utils.findings.groups import GROUPS

HEART, EFFUSION = (next(g for g in GROUPS if g.name == name) for name in ("cardiomegaly", "effusion"))
BIG, NORMAL = "Cardiomegaly.", "Heart size is normal."
FLUID, CLEAR = "Left pleural effusion.", "Lungs are clear."


def row(id, region, reference, prediction, system="model", split="test"):
    return dict(zip(counts.COLUMNS, (system, split, id, region, reference, prediction), strict=True))


def table(*rows):
    return pd.DataFrame(list(rows))


# Two studies have a big heart, of which one is named; one heart is called big without need; of one
# nobody knows. One effusion of two is named, nothing else is said of lungs.
ROWS = table(
    row("a", "heart", BIG, BIG),
    row("b", "heart", BIG, NORMAL),
    row("c", "heart", NORMAL, BIG),
    row("d", "heart", "", BIG),
    row("a", "lung", FLUID, FLUID),
    row("b", "lung", FLUID, None),
    row("c", "lung", CLEAR, ""),
    row("d", "lung", CLEAR, CLEAR),
)


def counted(rows=ROWS, groups=(HEART, EFFUSION), **options):
    return counts.count(rows, groups, **options).set_index("finding")


def test_counts_are_those_made_by_hand():
    found = counted()
    assert list(found.index) == ["cardiomegaly", "effusion", "micro", "macro"]
    numbers = found[["n", "present", "named", "right"]].to_numpy().tolist()
    assert numbers == [[3, 2, 2, 1], [4, 2, 1, 1], [4, 4, 3, 2], [4, 4, 3, 2]]
    assert found.loc["cardiomegaly", ["recall", "precision", "f1"]].tolist() == [0.5, 0.5, 0.5]
    assert found.loc["effusion", ["recall", "precision"]].tolist() == [0.5, 1.0]
    assert found.loc["effusion", "f1"] == pytest.approx(2 / 3)
    assert found.loc["micro", "f1"] == pytest.approx(4 / 7)
    assert found.loc["macro", "f1"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found.loc["macro", ["recall", "precision"]].isna().all()


def test_a_region_that_the_reference_leaves_out_counts_for_nothing():
    unknown = table(row("d", "heart", " ", BIG), row("e", "heart", None, NORMAL))
    with_unknown = pd.concat([ROWS[ROWS["id"] != "d"], unknown], ignore_index=True)
    assert counted(with_unknown).loc["cardiomegaly", ["n", "named"]].tolist() == [3, 2]


def test_a_finding_is_looked_for_in_its_own_region_only():
    rows = table(row("a", "heart", BIG, NORMAL), row("a", "lung", CLEAR, f"{CLEAR} {BIG}"))
    assert counted(rows).loc["micro", ["present", "named", "right"]].tolist() == [1, 0, 0]


def test_precision_of_nothing_named_is_undefined_and_its_f1_is_0():
    found = counted(ROWS.assign(prediction=""))
    assert found["precision"].isna().all() and found["precision_low"].isna().all()
    assert (found["f1"] == 0).all() and (found["f1_high"] == 0).all()


def test_a_finding_that_no_study_has_is_left_out_of_macro_but_not_of_micro():
    rows = ROWS[ROWS["region"] == "heart"].assign(reference=BIG, prediction=BIG)
    lungs = table(row("a", "lung", CLEAR, FLUID), row("b", "lung", CLEAR, CLEAR))
    found = counted(pd.concat([rows, lungs]))
    assert np.isnan(found.loc["effusion", "recall"]) and found.loc["effusion", "f1"] == 0
    assert found.loc["macro", "f1"] == 1
    assert found.loc["micro", "precision"] == 4 / 5
    assert np.isnan(counted(lungs, [HEART]).loc["macro", "f1"])  # of nothing at all


def test_intervals_hold_the_value_and_come_out_the_same_again():
    rng = np.random.default_rng(0)
    texts = np.where(rng.random((2, 200)) < 0.3, BIG, NORMAL)
    rows = table(*(row(str(i), "heart", *pair) for i, pair in enumerate(texts.T)))
    found = counted(rows, [HEART])
    for name in counts.VALUES:
        at = found.loc["cardiomegaly"]
        assert at[f"{name}_low"] < at[name] < at[f"{name}_high"]
        assert 0.1 < at[f"{name}_high"] - at[f"{name}_low"] < 0.35
    assert found.equals(counted(rows, [HEART]))
    recall = found.loc["cardiomegaly", "recall"]  # the textbook's interval of a share
    width = 2 * 1.96 * (recall * (1 - recall) / found.loc["cardiomegaly", "present"]) ** 0.5
    assert found.loc["cardiomegaly", "recall_high"] - found.loc["cardiomegaly", "recall_low"] == (
        pytest.approx(width, rel=0.15)
    )


def test_the_bootstrap_draws_whole_studies():
    """Two findings that always come together are no more certain than one of them."""
    rng = np.random.default_rng(0)
    right = rng.random(60) < 0.5
    heart = [row(str(i), "heart", BIG, BIG if ok else NORMAL) for i, ok in enumerate(right)]
    lung = [row(str(i), "lung", FLUID, FLUID if ok else CLEAR) for i, ok in enumerate(right)]
    found = counted(table(*heart, *lung))
    widths = found["recall_high"] - found["recall_low"]
    assert widths["micro"] == pytest.approx(widths["cardiomegaly"]) == pytest.approx(widths["effusion"])


def test_systems_and_splits_stand_apart_and_nothing_warns():
    other = ROWS.assign(system="other", prediction="")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = counts.count(pd.concat([ROWS, ROWS.assign(split="val"), other]), [HEART])
        assert counts.count(ROWS[:0], [HEART]).empty
        assert counts.count(ROWS, []).empty
    assert found.groupby(["system", "split"], sort=False).size().to_dict() == {
        ("model", "test"): 3,
        ("model", "val"): 3,
        ("other", "test"): 3,
    }


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="lack the column prediction"):
        counts.count(ROWS.drop(columns="prediction"), [HEART])
    with pytest.raises(ValueError, match="study a is given twice"):
        counts.count(pd.concat([ROWS, ROWS]), [HEART])


def test_a_control_on_fewer_studies_gets_the_model_on_the_same_before_it():
    few = ROWS[ROWS["id"].isin(["a", "b"])].assign(system="shuffled")
    again, whole = few.assign(system="fewer too"), ROWS.assign(system="constant")
    rows = pd.concat([ROWS, ROWS.assign(split="val"), whole, few, again])
    found = counts.on_same_studies(rows)
    same = "model, same studies as shuffled"
    assert list(found["system"].unique()) == ["model", "constant", same, "shuffled", "fewer too"]
    added = found[found["system"] == same]
    assert set(added["split"]) == {"test"} and set(added["id"]) == {"a", "b"} and len(added) == 4
    assert len(counts.on_same_studies(ROWS)) == len(ROWS)
