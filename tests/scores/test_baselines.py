"""The baselines: the nearest training study, and the constant chosen among training texts."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import DatasetDict
from judged_rows import OFFLINE, judgement, table

from utils import judge
from utils.findings.probe import Probe
from utils.models.loading import load_model, lora_config
from utils.models.writer import Writer
from utils.regions import REGIONS
from utils.scores import baselines, tables
from utils.settings import TrainingSettings


def test_a_region_comes_from_the_nearest_study_that_mentions_it():
    known = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]])
    findings = [{"lung": "up"}, {"lung": "right", "heart": "right"}, {"heart": "down"}, {}]
    seen = np.array([[0.3, 5.0], [4.0, 0.1], [0.2, -3.0]])
    assert baselines.nearest_reports(seen, known, findings) == [
        {"lung": "up", "heart": "right"},
        {"lung": "right", "heart": "right"},
        {"lung": "right", "heart": "down"},
    ]


def test_what_all_radiographs_share_does_not_count():
    known = np.array([[100.0, 1.0], [100.0, -1.0]])
    findings = [{"lung": "up"}, {"lung": "down"}]
    (report,) = baselines.nearest_reports(np.array([[100.0, -0.5]]), known, findings)
    assert report == {"lung": "down"}


@pytest.fixture(scope="module")
def writer(tiny_base, tmp_path_factory):
    from peft import get_peft_model

    adapter = tmp_path_factory.mktemp("adapter")
    reading = {"base": str(tiny_base), "image_tokens": "base", "precision": "fp32"}
    get_peft_model(load_model(**reading), lora_config(TrainingSettings())).save_pretrained(adapter)
    (adapter / "reading.json").write_text(json.dumps(reading | {"views": 2}))
    return Writer(adapter)


def test_each_study_gets_the_report_of_the_one_that_looks_most_like_it(writer, phantom_dataset):
    train = phantom_dataset["train"]
    found = baselines.nearest(writer, DatasetDict(train=train, val=train, test=train.select([3])))
    rows = train.select_columns(list(REGIONS))
    known = [{region: study[region] for region in REGIONS if study[region]} for study in rows]
    assert set(found) == {"val", "test"} and found["test"] == found["val"][3:4]
    assert all(report.items() >= own.items() for report, own in zip(found["val"], known, strict=True))


class Planned:
    """A writer that was told what to name."""

    def __init__(self, plans, names):
        self.told, self.probe = plans, Probe(names, *np.zeros((3, len(names), 1)))

    def features(self, studies, name):
        return studies["id"][:]

    def plans(self, features):
        return [self.told.get(study, {}) for study in features]


def test_the_probe_speaks_in_fixed_sentences_and_elsewhere_the_constant_stands(phantom_dataset):
    constant = {"lung": "Clear.", "heart": "Normal.", "bone": "Intact."}
    one, two, *others = phantom_dataset["test"]["id"]
    plans = {
        one: {"lung": ("effusion", "nodule"), "mediastinal": ("wide mediastinum",), "heart": (), "bone": ()},
        two: {"heart": ("cardiomegaly",)},
    }
    names = ("effusion", "nodule", "cardiomegaly", "wide mediastinum")
    found = baselines.probed(Planned(plans, names), phantom_dataset, constant)
    assert set(found) == {"val", "test"} and found["val"] == [constant] * len(phantom_dataset["val"])
    lung, wide = "There is a pleural effusion. There is a nodule.", "The mediastinum is widened."
    assert found["test"][0] == {"lung": lung, "heart": "Normal.", "bone": "Intact.", "mediastinal": wide}
    assert found["test"][1:] == [constant | {"heart": "The heart is enlarged."}] + [constant] * len(others)


def test_without_findings_to_read_there_is_no_such_baseline(phantom_dataset, monkeypatch):
    for writer in (SimpleNamespace(probe=None), Planned({}, ())):
        assert baselines.probed(writer, phantom_dataset, {"lung": "Clear."}) == {}
    copied = {"val": [{"lung": "One."}], "test": [{"lung": "Two."}]}
    monkeypatch.setattr(baselines, "nearest", lambda *_: copied)
    given, ranked = baselines.make(SimpleNamespace(probe=None), phantom_dataset)
    assert list(given) == [baselines.CONSTANT, baselines.FREQUENT, baselines.NEAREST]
    constant = baselines.chosen(ranked)
    assert constant and given[baselines.CONSTANT] == {"val": [constant], "test": [constant]}
    assert given[baselines.NEAREST] == copied and set(given[baselines.FREQUENT]) == {"val", "test"}
    given, _ = baselines.make(Planned({}, ("effusion",)), phantom_dataset)
    assert tuple(given) == baselines.BASELINES
    assert given[baselines.PROBED]["val"] == [constant] * len(phantom_dataset["val"])


def by_table(scores):
    """A judge that gives each prediction its own score for any reference."""
    return lambda pairs: [SimpleNamespace(score=scores[text](reference)) for reference, text in pairs]


def best_constant(train, judge, **options):
    return baselines.chosen(baselines.rank_constants(train, judge, **options))


def test_a_word_that_names_nothing_is_no_candidate_though_the_judge_would_let_it_win():
    texts = ("Unremarkable.", "Mediastinal contours are normal.", "No adenopathy.")
    train = [{"mediastinal": text} for text in texts for _ in range(10)]
    texts = [study["mediastinal"] for study in train[::10]]
    lenient = by_table({texts[0]: lambda said: 1.0} | {t: lambda said, t=t: said == t for t in texts[1:]})
    assert baselines.rank_constants(train, lenient)["text"].tolist() == texts[1:]
    assert best_constant(train, lenient) == {"mediastinal": texts[1]}
    assert best_constant(train[:10], lenient) == {"mediastinal": texts[0]}  # there is nothing else


def test_of_candidates_that_the_draw_cannot_tell_apart_the_most_frequent_is_given():
    common, rare, bad = "The heart is normal.", "Heart size is normal.", "Cardiomegaly."
    train = [{"heart": text} for text, n in ((common, 60), (rare, 40), (bad, 20)) for _ in range(n)]
    close = {common: {common: 1.0, rare: 0.5, bad: 0.0}, rare: {common: 0.5, rare: 1.0, bad: 0.6}}
    scores = {bad: lambda said: 0.0} | {text: known.get for text, known in close.items()}
    ranked = baselines.rank_constants(train, by_table(scores))
    assert ranked["text"].tolist() == [common, rare, bad]
    assert ranked["mean"][0] < ranked["mean"][1] and ranked["behind"][0] < ranked["error"][0]
    clear = by_table({common: lambda said: 0.5, rare: lambda said: 0.9, bad: lambda said: 0.0})
    ranked = baselines.rank_constants(train, clear)
    assert ranked["text"].tolist() == [rare, common, bad] and ranked["studies"].tolist() == [40, 60, 20]
    assert ranked["mean"].round(6).tolist() == [0.9, 0.5, 0.0]
    assert ranked["behind"].round(6).tolist() == [0.0, 0.4, 0.9] and (ranked["error"] < 1e-9).all()


def test_a_candidate_is_frequent_whichever_fold_is_left_out():
    often, once = "The heart is normal.", "Cardiomegaly."
    train = [{"heart": often}] * 12 + [{"heart": once}]
    ranked = baselines.rank_constants(train, by_table({often: lambda said: 0.1, once: lambda said: 1.0}))
    assert ranked["text"].tolist() == [often]


def test_without_training_findings_there_is_nothing_to_give():
    assert best_constant([{"others": "Clips."}], judge.judge_pairs) == {}


@pytest.mark.slow
def test_on_real_reports_another_draw_makes_the_same_choice(shared):
    studies = json.loads((shared / "iu_xray" / "annotation_quiz_all.json").read_text())["train"]
    train = [study["report"] for study in studies]
    one, two = (best_constant(train, judge.judge_pairs, seed=seed) for seed in (1, 2))
    assert one == two and set(one) == set(REGIONS)


def judged(system, scores, kind="", region="lung"):
    return [judgement(f"{kind}{i}", region, score, system=system) for i, score in enumerate(scores)]


def beside(*others):
    """The model on four normal and two abnormal studies, beside `others`, (system, scores, scores) each."""
    systems = [("model", [0.9, 0.9, 1.0, 1.0], [0.2, 0.4]), *others]
    rows = [row for name, good, bad in systems for row in judged(name, good, "n") + judged(name, bad, "a")]
    kinds = {row["id"]: "abnormal" if row["id"].startswith("a") else "normal" for row in rows}
    return baselines.beside_best(table(*rows), kinds)


def test_the_best_baseline_is_chosen_for_all_and_for_abnormal_studies_apart():
    constant = (baselines.CONSTANT, [1.0] * 4, [0.0, 0.0])
    nearest = (baselines.NEAREST, [0.5] * 4, [0.5, 0.5])
    found = beside(constant, nearest, ("images shuffled", [1.0] * 4, [1.0, 1.0])).set_index("studies")
    assert found.index.tolist() == ["all", "abnormal"] and found["n"].tolist() == [6, 2]
    assert found["baseline"].tolist() == [baselines.CONSTANT, baselines.NEAREST]  # a control is no baseline
    assert found["mean"].round(6).tolist() == [0.733333, 0.3]
    assert found["baseline_mean"].round(6).tolist() == [0.666667, 0.5]
    assert found["difference"].round(6).tolist() == [0.066667, -0.2]
    worse = found.loc["abnormal"]
    assert worse["difference_low"] == pytest.approx(-0.3) and worse["difference_high"] == pytest.approx(-0.1)
    assert worse["baseline_low"] == worse["baseline_high"] == 0.5 and worse["judge"] == OFFLINE


def test_baselines_are_taken_on_the_studies_that_the_model_wrote():
    rows = table(*judged("model", [0.5, 0.5]), *judged(baselines.CONSTANT, [0.25, 0.25, 1.0, 1.0]))
    (found,) = baselines.beside_best(rows, {}).to_dict("records")
    assert (found["n"], found["baseline_mean"], found["difference"]) == (2, 0.25, 0.25)


def test_without_a_baseline_or_an_abnormal_study_nothing_stands_beside_the_model():
    assert beside(("images shuffled", [1.0] * 4, [1.0, 1.0])).empty
    rows = table(*judged("model", [1.0]), *judged(baselines.CONSTANT, [1.0]))
    assert baselines.beside_best(rows, {"0": "normal"})["studies"].tolist() == ["all"]


def test_all_and_abnormal_stand_side_by_side_in_words():
    found = tables.beside(beside((baselines.CONSTANT, [1.0] * 4, [0.0, 0.0])))
    (row,) = found.to_dict("records")
    sides = ("model", "best baseline", "difference")
    names = [f"{studies}: {side}" for studies in ("all", "abnormal") for side in sides]
    assert list(row) == ["split", "region", *names]
    assert row["abnormal: model"] == "0.30 [0.20, 0.40] n=2"
    assert row["abnormal: best baseline"] == "0.00 [0.00, 0.00] best constant report"
    assert row["abnormal: difference"] == "+0.30 [+0.20, +0.40]"
    assert tables.markdown(found).splitlines()[0].startswith("| split | region | all: model |")
