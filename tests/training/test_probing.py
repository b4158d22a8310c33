"""The probe of a run: made once, anew where texts change, and its findings in the headings of reports."""

import numpy as np
import pandas as pd
import pytest
from datasets import DatasetDict, Value

from utils.findings.groups import GROUPS
from utils.findings.plans import Words, words_of
from utils.models.features import FOLDER
from utils.models.loading import PROBE
from utils.regions import REGIONS, render, without_plan
from utils.settings import preset, with_values
from utils.training import on_validation, probing, run_probe

BIG, NORMAL = "The heart is enlarged.", "The heart is normal."


def with_hearts(split, texts):
    """`split` with these texts on the heart."""
    return split.remove_columns("heart").add_column("heart", texts, feature=Value("string"))


@pytest.fixture(scope="module")
def dataset(phantom_dataset):
    """Each training phantom twice, every other one with a big heart: enough to learn from."""
    train = phantom_dataset["train"]
    train = train.select([*range(len(train))] * 2).flatten_indices()
    val = with_hearts(phantom_dataset["val"], [BIG, NORMAL, BIG, ""])
    return DatasetDict(train=with_hearts(train, [BIG, NORMAL] * (len(train) // 2)), val=val)


@pytest.fixture(scope="module")
def settings(tiny_base):
    return with_values(preset("demo").training, {"base": str(tiny_base)})


@pytest.fixture(scope="module")
def run(settings, dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, run_probe(settings, dataset, folder)


def test_answers_name_in_their_headings_what_their_texts_name(phantom_dataset):
    rows = phantom_dataset["train"]
    words = words_of(probing.findings(rows), GROUPS)
    found = probing.planned(rows, words)
    assert set(found.column_names) == set(rows.column_names)
    assert found.features["completion"] == rows.features["completion"]
    some = False
    for study, before, after in zip(
        probing.findings(rows), rows["completion"], found["completion"], strict=True
    ):
        ((was,), (now,)) = before, after
        plan = words.plan(study)
        texts = {region: probing.lead(text, region, plan[region]) for region, text in study.items()}
        assert now == {"role": "assistant", "content": render(texts, plan)}
        assert without_plan(now["content"]) == render(texts)
        assert sorted(was["content"].split()) == sorted(render(texts).split())
        some = some or now != was
    assert some
    assert probing.planned(rows, Words((), {}))["completion"][:] == rows["completion"][:]


def test_what_the_heading_names_is_said_first_and_all_else_in_its_order():
    text = "No acute fracture. Ribs are intact. Mild degenerative changes, and scoliosis. Old T12 wedge"
    led = "Mild degenerative changes, and scoliosis. No acute fracture. Ribs are intact. Old T12 wedge"
    assert probing.lead(text, "bone", ("degenerative change",)) == led
    assert probing.lead(text, "bone", ("normal",)) == probing.lead(text, "bone", ()) == text


def test_the_probe_of_a_run_is_kept_with_the_features_it_was_made_of(run, settings, dataset, monkeypatch):
    folder, probe = run
    assert "cardiomegaly" in probe.names
    assert (folder / PROBE).is_file() and len(list((folder / FOLDER).iterdir())) == 2  # of two splits
    assert len(probe.calibration) == len(dataset["val"])
    monkeypatch.setattr(probing, "study_features", lambda *_, **__: pytest.fail("it looked again"))
    again = run_probe(settings, dataset, folder)
    assert again.made_of == probe.made_of
    np.testing.assert_allclose(again.weight, probe.weight, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_texts_make_another_probe_of_the_same_features(run, settings, dataset, split, monkeypatch):
    folder, probe = run
    texts = [NORMAL if text == BIG else BIG for text in dataset[split]["heart"]]
    changed = DatasetDict({**dataset, split: with_hearts(dataset[split], texts)})
    monkeypatch.setattr(probing.Tower, "see", lambda *_: pytest.fail("it looked again"))
    made = run_probe(settings, changed, folder)
    assert made.made_of != probe.made_of and run_probe(settings, changed, folder).made_of == made.made_of
    assert not np.allclose(made.calibration, probe.calibration)
    assert run_probe(settings, dataset, folder).made_of == probe.made_of


def test_another_tower_makes_another_probe(run, settings, dataset):
    folder, probe = run
    one_view = with_values(settings, {"views": 1})
    assert run_probe(one_view, dataset, folder).made_of != probe.made_of
    assert run_probe(settings, dataset, folder).made_of == probe.made_of


def test_on_validation_the_probe_is_counted_and_its_tables_kept(run, settings, dataset):
    folder, probe = run
    seen = on_validation(probe, settings, dataset, folder)
    heart = seen.quality.set_index("finding").loc["cardiomegaly"]
    assert (heart["n"], heart["present"]) == (3, 2)  # the fourth report does not speak of the heart
    assert len(seen.points) and (seen.points["present"] >= 2).all()
    for name, table in ((probing.POINTS, seen.points), (probing.QUALITY, seen.quality)):
        pd.testing.assert_frame_equal(pd.read_csv(folder / name), table)


def test_without_validation_studies_training_ones_set_the_thresholds_and_there_is_nothing_to_show(
    settings, dataset, tmp_path
):
    alone = DatasetDict(train=dataset["train"])
    probe = run_probe(settings, alone, tmp_path)
    assert len(probe.calibration) == len(dataset["train"])
    seen = on_validation(probe, settings, alone, tmp_path)
    assert seen.quality.empty and seen.points.empty and list(seen.quality)[-1] == "auc"
    assert pd.read_csv(tmp_path / probing.POINTS).empty


def test_where_nothing_is_frequent_the_run_goes_on_without_plans(settings, phantom_dataset, tmp_path):
    normal = dict.fromkeys(REGIONS, "Normal.")
    few = {
        name: with_hearts(split, [NORMAL] * len(split)).map(lambda row: normal)
        for name, split in phantom_dataset.items()
    }
    probe = run_probe(settings, DatasetDict(few), tmp_path)
    assert probe.names == () and run_probe(settings, DatasetDict(few), tmp_path).made_of == probe.made_of
    seen = on_validation(probe, settings, DatasetDict(few), tmp_path)
    assert seen.quality.empty and seen.points.empty
