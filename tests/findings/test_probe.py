"""The findings probe: what it learns, what it takes for unknown, what it names, and how it is kept."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from utils.findings import probe as probes
from utils.findings.groups import GROUPS
from utils.findings.probe import WEIGHTS, Probe
from utils.regions import REGIONS
from utils.run.workspace import StepError

BIG, NORMAL, FLUID, CLEAR = "Cardiomegaly.", "The heart is normal.", "Pleural effusion.", "Lungs are clear."
HEART, LUNG = (next(g for g in GROUPS if g.name == name) for name in ("cardiomegaly", "effusion"))


def drawn(count, seed, width=8, noise=0.0):
    """Features, (count, 2, 2, width), whose first tells of the heart and which tell nothing of the lung."""
    chance = np.random.default_rng(seed)
    features = chance.normal(size=(count, 2, 2, width)).astype(np.float32)
    big = features[:, 0, 0, 0] + noise * chance.normal(size=count) > 0.6
    fluid = chance.random(count) < 0.3
    studies = [
        {"heart": BIG if one else NORMAL, "lung": FLUID if two else CLEAR}
        for one, two in zip(big, fluid, strict=True)
    ]
    return features, studies


@pytest.fixture(scope="module")
def probe():
    return probes.fit(*drawn(300, 0), held_out=drawn(200, 1), made_of="these")


def test_a_finding_that_is_there_is_seen_and_one_that_is_not_is_not(probe):
    assert probe.names == ("effusion", "cardiomegaly") and probe.groups == (LUNG, HEART)
    features, studies = drawn(400, 2)
    found = probes.quality(probe, features, studies).set_index("finding")
    assert found["auc"]["cardiomegaly"] > 0.97 and 0.4 < found["auc"]["effusion"] < 0.6
    assert found["n"].tolist() == [400, 400] and found["region"].tolist() == ["lung", "heart"]
    assert found["present"]["effusion"] == sum(study["lung"] == FLUID for study in studies)
    plans = probe.plans(features, 1.0)
    assert all(set(plan) == set(REGIONS) and not plan["bone"] for plan in plans)
    right = sum(
        (study["heart"] == BIG) == (plan["heart"] == ("cardiomegaly",))
        for study, plan in zip(studies, plans, strict=True)
    )
    assert right > 370


def test_a_region_that_a_report_leaves_out_is_unknown():
    studies = [{"heart": BIG}, {"heart": NORMAL, "lung": " "}, {"lung": FLUID}, {}]
    unknown = np.nan
    expected = [[unknown, 1], [unknown, 0], [1, unknown], [unknown, unknown]]
    np.testing.assert_array_equal(probes.labels(studies, [LUNG, HEART]), expected)
    assert probes.labels([], [LUNG]).shape == (0, 1) and probes.labels(studies, []).shape == (4, 0)


def test_silence_on_most_big_hearts_does_not_teach_that_they_are_normal():
    features, studies = drawn(600, 3)
    big = [number for number, study in enumerate(studies) if study["heart"] == BIG]
    for number in big[: 3 * len(big) // 4]:
        del studies[number]["heart"]
    seen = probes.fit(features, studies).probabilities(features)[:, -1]
    assert np.median(seen[big]) > 0.8  # a quarter, were silence a no


def of(calibration, names=("cardiomegaly",)):
    """A probe of one feature a finding, whose log-odds it is."""
    return Probe(names, np.eye(len(names)), np.zeros(len(names)), np.array(calibration))


RANKED = [[0.1], [0.9], [0.3], [0.6]]


@pytest.mark.parametrize(("weight", "expected"), [(0.25, 0.9), (1, 0.6), (2, 0.3)])
def test_a_threshold_is_that_of_the_best_f_to_be_expected(weight, expected):
    # weight 1: 2 x 0.9 / 2.9 = 0.62, 2 x 1.5 / 3.9 = 0.77, 2 x 1.8 / 4.9 = 0.73, 2 x 1.9 / 5.9 = 0.64
    assert of(RANKED).threshold(weight) == expected


def test_one_threshold_leaves_out_what_the_probe_cannot_see():
    """Of a finding that is as likely in each study, naming every study would be the best F."""
    both = of([[0.1, 0.2], [0.9, 0.2], [0.3, 0.2], [0.6, 0.2]], ("granuloma", "cardiomegaly"))
    assert both.threshold(1) == 0.6


def test_the_threshold_falls_as_recall_weighs_more(probe):
    along = [probe.threshold(weight) for weight in WEIGHTS]
    assert along == sorted(along, reverse=True) and along[0] > along[-1]


def test_a_region_without_a_finding_is_planned_as_normal_where_reports_say_so():
    probe = replace(of([[0.1], [0.9], [0.3], [0.6]]), normal=("lung", "heart"))
    likely, unlikely = probe.plans(np.array([[3.0], [-3.0]]), 1)
    assert likely == {"lung": ("normal",), "heart": ("cardiomegaly",), "mediastinal": (), "bone": ()}
    assert unlikely["heart"] == ("normal",)


def test_probabilities_are_honest_where_a_fit_would_be_too_sure(monkeypatch):
    """As many features as studies: the regression alone is far too sure of itself."""
    monkeypatch.setattr(probes, "STRENGTHS", (1.0,))
    features, studies = drawn(4000, 6, width=30, noise=0.5)
    truth = np.array([study["heart"] == BIG for study in studies])

    def wrong_by():
        made = probes.fit(*drawn(150, 4, width=30, noise=0.5), held_out=drawn(500, 5, width=30, noise=0.5))
        seen = made.probabilities(features)[:, -1]
        return [seen[part].mean() - truth[part].mean() for part in np.array_split(np.argsort(seen), 4)]

    calibrated = max(map(abs, wrong_by()))
    monkeypatch.setattr(probes, "_calibrate", lambda scores, wanted: (1.0, 0.0))
    assert calibrated < 0.08 < 0.12 < max(map(abs, wrong_by()))


def test_the_threshold_is_set_on_validation_studies_where_there_are_any(probe):
    features, _ = drawn(200, 1)
    seen = np.sort(probe.probabilities(features), axis=0)
    np.testing.assert_allclose(probe.calibration, seen, atol=1e-6)


def test_without_validation_studies_probabilities_are_out_of_fold():
    """Of noise with more features than studies a fit remembers every study; out of fold it knows nothing."""
    features, studies = drawn(120, 7, width=80)
    for study in studies:
        study["heart"] = ""
    made = probes.fit(features, studies)
    assert made.names == ("effusion",) and made.calibration.shape == (120, 1)
    assert probes.quality(made, features, studies)["auc"].item() > 0.9
    rate = np.mean([study["lung"] == FLUID for study in studies])
    assert np.abs(made.calibration - rate).max() < 0.25


def test_validation_studies_without_a_finding_leave_it_to_the_training_studies():
    features, _ = drawn(60, 8)
    normal = [{"heart": NORMAL, "lung": CLEAR}] * 60
    made, alone = (probes.fit(*drawn(200, 9), held_out=held) for held in ((features, normal), None))
    assert made.calibration.shape == (200, 2)
    assert made.threshold(1.0) == pytest.approx(alone.threshold(1.0))


def test_a_probe_is_kept_whole(probe, tmp_path):
    probe.save(tmp_path / "probe.safetensors")
    again = probes.load(tmp_path / "probe.safetensors")
    features, _ = drawn(50, 10)
    np.testing.assert_allclose(again.probabilities(features), probe.probabilities(features), atol=1e-5)
    for weight in WEIGHTS:
        assert again.threshold(weight) == pytest.approx(probe.threshold(weight), rel=1e-5)
    assert (again.names, again.normal, again.made_of) == (probe.names, probe.normal, "these")
    assert [path.name for path in tmp_path.iterdir()] == ["probe.safetensors"]
    once = (tmp_path / "probe.safetensors").read_bytes()
    for _ in range(8):  # a run that is resumed ends in the same bytes
        probe.save(tmp_path / "probe.safetensors")
        assert (tmp_path / "probe.safetensors").read_bytes() == once


def damaged(path):
    of(RANKED).save(path)
    path.write_bytes(path.read_bytes()[:-7])


def foreign(path):
    save_file({"weight": np.zeros((2, 2), np.float32)}, path)


def of_unknown_findings(path):
    of(RANKED, ("spleen",)).save(path)


def of_too_few_findings(path):
    tensors = {name: np.zeros((2, 2), np.float32) for name in ("weight", "bias", "calibration")}
    noted = {"names": ["cardiomegaly"], "normal": [], "made_of": ""}
    save_file(tensors, path, {"probe": json.dumps(noted)})


def no_file(path):
    assert not path.exists()


@pytest.mark.parametrize("wrong", [damaged, foreign, of_unknown_findings, of_too_few_findings, no_file])
def test_what_is_no_probe_is_named(wrong, tmp_path):
    path = tmp_path / "probe.safetensors"
    wrong(path)
    with pytest.raises(StepError, match=r"probe\.safetensors is not a findings probe .*run notebook 03"):
        probes.load(path)


def nobody_ill(count):
    return [{"heart": NORMAL, "lung": CLEAR} for _ in range(count)]


def too_few(count):
    return [{"heart": BIG if number < 9 else NORMAL} for number in range(count)]


def too_many(count):
    return [{"heart": NORMAL if number < 9 else BIG} for number in range(count)]


@pytest.mark.parametrize("texts", [nobody_ill, too_few, too_many])
def test_where_nothing_can_be_learnt_the_probe_names_nothing(texts, tmp_path):
    features, studies = drawn(100, 11)[0], texts(100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = probes.fit(features, studies, (features, studies), "nothing")
        made.save(tmp_path / "probe.safetensors")
        again = probes.load(tmp_path / "probe.safetensors")
        for one in (made, again):
            assert one.names == one.groups == () and one.made_of == "nothing"
            assert one.probabilities(features).shape == (100, 0) and one.threshold(1.0) == 0
            assert one.plans(features[:2], 0.35) == [dict.fromkeys(REGIONS, ())] * 2
            assert probes.quality(one, features, studies).empty
            assert probes.operating_points(one, features, studies).empty


def test_a_finding_that_too_few_name_leaves_the_others():
    features, studies = drawn(200, 12)
    for study in studies[8:]:
        study["lung"] = CLEAR
    assert probes.fit(features, studies).names == ("cardiomegaly",)


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    studies = [{"heart": text} for text in (NORMAL, BIG, NORMAL, BIG, "")]
    found = probes.quality(of(RANKED), np.array([[0.0], [1.0], [2.0], [3.0], [9.0]]), studies)
    assert found.to_dict("records") == [
        {"finding": "cardiomegaly", "region": "heart", "n": 4, "present": 2, "auc": 0.75}
    ]
    (none,) = probes.quality(of(RANKED), np.zeros((1, 1)), [{"heart": BIG}])["auc"]
    assert np.isnan(none)


def test_operating_points_count_what_would_be_named(monkeypatch):
    monkeypatch.setattr(probes, "WEIGHTS", (0.25, 1, 2))
    seen = np.array([0.95, 0.7, 0.4, 0.95])
    features = np.log(seen / (1 - seen))[:, None]
    studies = [{"heart": text} for text in (BIG, NORMAL, BIG, "")]  # the last does not count
    found = probes.operating_points(of(RANKED), features, studies)
    assert found["recall_weight"].tolist() == [0.25, 1, 2] and found["present"].tolist() == [2, 2, 2]
    assert found["named"].tolist() == [1, 2, 3] and found["right"].tolist() == [1, 1, 2]
    assert found["precision"].tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert found["recall"].tolist() == pytest.approx([1 / 2, 1 / 2, 1])
    low = probes.operating_points(of(RANKED), features - 9, studies)
    assert (low["named"] == 0).all() and low["precision"].isna().all() and (low["recall"] == 0).all()
