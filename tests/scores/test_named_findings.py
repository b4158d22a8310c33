"""The findings that reports name, as tables and in words."""

import pytest
from judged_rows import OFFLINE, seen_rows

from utils.findings.groups import GROUPS
from utils.scores import findings

HEART_AND_LUNG = tuple(g for g in GROUPS if g.name in ("cardiomegaly", "effusion"))
SAME = "model, same studies as images shuffled"


@pytest.fixture(scope="module")
def counted():
    return findings.count([seen_rows()], HEART_AND_LUNG)


def test_every_finding_has_plain_words():
    assert set(findings.PLAIN) == {group.name for group in GROUPS}


def test_the_overview_has_a_row_a_system_with_the_model_on_the_same_studies(counted):
    rows = findings.overview(counted).set_index("system")
    assert list(rows.index) == ["model", "constant", SAME, "images shuffled"]
    assert rows["studies"].tolist() == [6, 6, 3, 3]
    assert rows.loc["model", ["there", "named", "right"]].tolist() == [2, 2, 1]
    assert rows.loc["model", "recall"].startswith("0.50 [0.00, 1.00]")
    assert rows.loc["constant", "precision"] == "–"  # it names nothing
    assert rows.loc["constant", "micro-F1"] == "0.000 [0.000, 0.000]"


def test_finding_by_finding_says_how_many_have_it(counted):
    rows = findings.by_finding(counted)
    assert list(rows["system"].unique()) == ["model", "constant", SAME, "images shuffled"]
    assert rows.query("system == 'model'")["have it"].tolist() == ["0 of 6", "2 of 6"]
    assert rows.query("system == 'model'")["recall"].iloc[0] == "–"  # no study has an effusion
    assert "split" not in rows


def test_the_tables_say_who_reads_and_what_counts(counted):
    text = findings.tables(counted, data_label="phantom radiographs")
    title = f"Findings named rightly, phantom radiographs, found by the reader of the {OFFLINE}"
    assert text.startswith(f"**{title}**")
    assert "Finding by finding, test, model:" in text and "too narrow" in text and "without width" in text
    assert "| cardiomegaly | 2 of 6 | 1 | 1 | 0.50" in text and "on the same studies" in text
    rest = findings.others(counted)
    assert "test, the others that name any:" in rest and "| cardiomegaly | 2 of 3 | 0 | 0 |" in rest
    assert SAME not in rest and "constant" not in rest


def test_in_words_an_enlarged_heart_comes_first(counted):
    said = list(findings.sentences(counted))
    assert said[0].startswith("Test: of 2 findings in 6 studies the model names 1 (recall 0.50 [0.00, 1.00])")
    assert "names 1 that are not there" in said[0] and "not GREEN" in said[0]
    assert said[1] == "Test: of 2 studies with an enlarged heart the model names 1, and 0 more without it."
    assert "images shuffled 0 of 2 (+0)" in said[2] and SAME in said[2]
    assert "images shuffled 0.00 [0.00, 0.00] n=3" in said[-1]


def test_one_system_alone_and_one_that_names_nothing():
    rows = seen_rows()
    counted = findings.count([rows[rows["system"] == "constant"]], HEART_AND_LUNG)
    assert "| cardiomegaly | 2 of 6 | 0 | 0 | 0.00" in findings.tables(counted, data_label="x")
    assert len(list(findings.sentences(counted))) == 2 and not findings.others(counted)


def test_without_findings_to_count_it_says_so():
    counted = findings.count([seen_rows()], ())
    assert findings.tables(counted, data_label="x").strip() == findings.NONE and not findings.others(counted)
    assert list(findings.sentences(counted)) == [findings.NONE]
    normal = seen_rows().assign(reference="Normal.")
    (said,) = findings.sentences(findings.count([normal], HEART_AND_LUNG))
    assert said == "Test: no study has any of the findings that are counted."


def test_recorded_predictions_count_on_the_models_studies():
    recorded = seen_rows().query("system == 'model'").assign(system="recorded")
    more = recorded.assign(id=recorded["id"] + "x", prediction=None)
    rows = seen_rows().query("system == 'model'")
    found = findings.overview(findings.count([rows, recorded, more], HEART_AND_LUNG))
    assert found["system"].tolist() == ["model", "recorded"] and found["studies"].tolist() == [6, 6]
