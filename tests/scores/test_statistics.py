"""Judgements to tables."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from judged_rows import GREEN, OFFLINE, judgement, table

from utils import scores
from utils.models.systems import BASE, MODEL, OF_BASE
from utils.regions import REGIONS
from utils.scores import baselines, statistics
from utils.scores.tables import quiz_tables, table_markdown


def studies(values, **more):
    return [judgement(id=f"s{i}", score=value, **more) for i, value in enumerate(values)]


@pytest.fixture(scope="module")
def recorded(shared):
    rows = pd.read_json(shared / "recorded" / "green_test.jsonl.gz", lines=True)
    return rows.rename(columns={"green": "score"}).assign(system="published", judge=GREEN)


def test_the_recorded_judgements_give_the_published_table(recorded):
    means = scores.region_table(recorded)
    assert list(means.columns) == list(REGIONS) and list(means.index) == ["test"]
    assert means.loc["test"].round(3).tolist() == [0.704, 0.887, 0.657, 0.315]
    assert scores.summary(recorded)["n"].tolist() == [590, 582, 461, 312]


def test_the_published_convention_counts_refusals_as_zero(recorded):
    refused = recorded["completion"].str.contains("reference report is not provided")
    counted = refused & (recorded["reference"].str.strip() != "") & (recorded["prediction"].str.strip() != "")
    assert counted.sum() == 3 and (recorded.loc[counted, "score"] == 0).all()
    unjudged = recorded.assign(score=recorded["score"].where(~counted))
    means = scores.region_table(unjudged)
    assert means.loc["test"].round(3).tolist() == [0.704, 0.887, 0.657, 0.315]
    assert scores.summary(unjudged)["no_verdict"].sum() == 3


def test_the_recorded_run_wrote_sixteen_reports(recorded):
    found = statistics.diversity(recorded).iloc[0]
    assert (found["studies"], found["reports"]) == (590, 16)
    assert (found["empty"], found["described"]) == (219, 1945)


def test_only_regions_that_the_reference_mentions_count():
    rows = [judgement(score=0.5), judgement(id="s2", reference="  ", score=0.0)]
    rows.append(judgement(id="s3", reference=None))
    means = scores.region_table(rows)
    assert means.loc["test", "lung"] == 0.5 and scores.summary(table(*rows))["n"].tolist() == [1]
    assert np.isnan(means.loc["test", "bone"])


def test_others_is_never_scored():
    rows = [judgement(score=0.5), judgement(region="others", score=0.0)]
    assert scores.region_table(rows).loc["test"].dropna().tolist() == [0.5]


def test_splits_come_validation_first_then_test_then_others():
    rows = [judgement(split=split) for split in ("holdout", "test", "val")]
    assert list(scores.region_table(rows).index) == ["val", "test", "holdout"]


@pytest.mark.parametrize("score", [None, float("nan")])
def test_no_verdict_counts_as_zero_and_is_told(score):
    row = scores.summary(table(*studies([1.0, score]))).iloc[0]
    assert (row["mean"], row["n"], row["no_verdict"]) == (0.5, 2, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"split": "test", "region": "lung"}], "lack the column reference, score"),
        ([judgement(region="lungs")], "no such region: lungs"),
        ([judgement(score=1.5)], "outside 0 to 1"),
        ([judgement(), judgement()], "s1 has more than one judgement"),
        ([judgement(), judgement(system="other")], "one system at a time"),
    ],
)
def test_bad_rows_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        scores.region_table(rows)


def test_two_judges_never_share_a_table():
    with pytest.raises(ValueError, match="one judge"):
        scores.summary(table(judgement(), judgement(id="s2", judge=GREEN)))


def test_interval_agrees_with_the_plain_bootstrap():
    values = np.random.default_rng(1).choice([0, 1 / 3, 0.5, 1], 200)
    draws = np.random.default_rng(2).choice(values, (20000, 200)).mean(axis=1)
    assert statistics.interval(values) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.01)


@pytest.mark.parametrize("values", [[0.7], [0.1, 0.1, 0.1]])
def test_interval_of_one_study_or_equal_scores_is_a_point(values):
    assert statistics.interval(values) == pytest.approx((values[0], values[0]))


def test_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one study"):
        statistics.interval([])


def test_summary_is_the_same_each_time_and_whatever_stands_beside():
    model, other = studies([0, 0.5, 1, 1]), studies([0, 0, 0, 1], system="constant")
    alone, together = scores.summary(table(*model)), scores.summary(table(*model, *other))
    pd.testing.assert_frame_equal(alone, together[together["system"] == "model"])
    assert list(together["system"]) == ["model", "constant"]
    assert (together["low"] <= together["mean"]).all() and (together["mean"] <= together["high"]).all()


def test_summary_counts_predictions_left_empty():
    rows = table(judgement(), judgement(id="s2", prediction="", score=0.0))
    assert scores.summary(rows).iloc[0]["empty"] == 1


def test_compare_finds_a_small_steady_difference_that_intervals_hide():
    base = np.random.default_rng(3).choice([0.0, 0.5, 0.9], 100)
    a, b = table(*studies(base + 0.1)), table(*studies(base, system="other"))
    row = scores.compare(a, b).iloc[0]
    assert row["difference"] == pytest.approx(0.1) and row["low"] == pytest.approx(0.1)
    assert row["p"] < 0.001 and row["n"] == 100
    means = scores.summary(pd.concat([a, b]))
    assert means["low"].max() < means["high"].min()


def test_compare_of_a_system_with_itself_shows_nothing():
    rows = table(*studies([0, 0.5, 1]))
    result = scores.compare(rows, rows).iloc[0]
    assert (result["difference"], result["p"]) == (0, 1)


def test_sign_flip_agrees_with_counting_all_flips():
    differences = [0.5, 0.25, -0.25, 1.0, 0.5]
    signs = np.array(np.meshgrid(*[[1, -1]] * 5)).reshape(5, -1)
    sums = np.abs(np.array(differences) @ signs)
    exact = (sums >= abs(sum(differences)) - 1e-9).mean()
    assert statistics.sign_flip(differences, resamples=50000) == pytest.approx(exact, abs=0.01)


def test_compare_takes_the_studies_that_both_have():
    a, b = table(*studies([1, 1, 0.5])), table(*studies([0, 0], system="other"))
    row = scores.compare(a, b).iloc[0]
    assert (row["n"], row["mean_a"], row["difference"]) == (2, 1, 1)


def test_compare_refuses_what_cannot_be_paired():
    a = table(judgement())
    with pytest.raises(ValueError, match="different references"):
        scores.compare(a, table(judgement(reference="Opacity.")))
    with pytest.raises(ValueError, match="no judged study in common"):
        scores.compare(a, table(judgement(id="s9")))
    with pytest.raises(ValueError, match="one system on each side"):
        scores.compare(a, table(judgement(), judgement(system="other")))


TRAIN = [{"lung": "Clear lungs.", "heart": "Normal heart."}, {"lung": "clear  LUNGS."}]
TRAIN += [{"lung": "Clear lungs.", "bone": " "}, {"lung": "Opacity.", "others": "Clip"}, {"lung": "Opacity."}]


def test_most_frequent_sees_through_case_and_space():
    assert baselines.most_frequent(TRAIN) == {"lung": "Clear lungs.", "heart": "Normal heart."}


def best_constant(train, judge, **options):
    return baselines.chosen(baselines.rank_constants(train, judge, **options))


def test_best_constant_is_the_judges_choice_and_asks_each_pair_once():
    asked = []

    def judge(pairs):
        asked.extend(pairs)
        return [SimpleNamespace(score=None if a == b else float(b == "Opacity.")) for a, b in pairs]

    assert best_constant(TRAIN, judge)["lung"] == "Opacity."
    assert len(asked) == len(set(asked))


def test_best_constant_weighs_references_and_keeps_to_the_sample():
    calls = []

    def judge(pairs):
        calls.append(pairs)
        return [SimpleNamespace(score=float(a.casefold() == b.casefold())) for a, b in pairs]

    train = [{"lung": "A."}] * 3 + [{"lung": "B."}] * 5
    assert best_constant(train, judge) == {"lung": "B."}
    best_constant([{"lung": f"{i}."} for i in range(50)], judge, candidates=2, sample=10)
    assert len(calls[-1]) == 20


def test_error_counts_sum_what_the_judge_counted():
    rows = [judgement(significant=[1, 0, 0, 0, 0, 2])]
    rows.append(judgement(id="s2", significant=np.array([3, 0, 0, 0, 0, 0])))
    rows = table(*rows, judgement(id="s3", reference="", significant=[9] * 6))
    counts = statistics.error_counts(rows).set_index("error")
    assert counts["significant"].tolist() == [4, 0, 0, 0, 0, 2]
    assert (counts["n"] == 2).all()


def test_diversity_counts_reports_not_spellings():
    rows = [judgement(), judgement(id="s2", prediction="clear  lungs.")]
    rows = table(*rows, judgement(id="s3", prediction="", score=0.0))
    found = statistics.diversity(rows).iloc[0]
    assert (found["studies"], found["reports"], found["empty"], found["described"]) == (3, 2, 1, 3)


def two_splits(judge):
    rows = [r for split in ("test", "val") for r in studies([0.5, 1.0], split=split, judge=judge)]
    return scores.summary(table(*rows))


def test_the_quizs_tables_are_the_models_means_a_table_a_split():
    rows = [r for split in ("test", "val") for r in studies([0.5, 1.0], split=split)]
    text = quiz_tables(scores.summary(table(*rows, *studies([0.0], system="constant"))))
    head = "| Data Split | Lung | Heart | Mediastinal | Bone |\n| --- | --- | --- | --- | --- |\n"
    rest = "0.75 | not mentioned | not mentioned | not mentioned |\n"
    assert text == (f"Mean score, judge: {OFFLINE}\n\n{head}| Validation | {rest}\n{head}| Testing | {rest}")


def test_table_of_one_system():
    lines = table_markdown(two_splits(OFFLINE), data_label="phantom radiographs").splitlines()
    assert lines[0] == f"**Mean score by region, phantom radiographs, judge: {OFFLINE}**"
    assert lines[2] == "| split | lung | heart | mediastinal | bone |"
    cell = "0.75 [0.50, 1.00] n=2"
    rest = " | ".join(["not mentioned"] * 3)
    assert lines[4:6] == [f"| {split} | {cell} | {rest} |" for split in ("validation", "test")]
    assert any("Do not compare these scores with GREEN" in line for line in lines)


@pytest.mark.parametrize(
    ("judge", "iu_xray", "shown"), [(GREEN, True, True), (GREEN, False, False), (OFFLINE, True, False)]
)
def test_published_rows_stand_only_beside_green_on_iu_xray(judge, iu_xray, shown):
    text = table_markdown(two_splits(judge), data_label="IU X-Ray", iu_xray=iu_xray)
    assert ("| test | WangLab-OA LLaVA-NeXT (published) | 0.70 | 0.89 | 0.66 | 0.32 |" in text) == shown
    assert ("leaderboard" in text) == shown == ("counts as 0 there too" in text)


@pytest.mark.parametrize(
    ("values", "flat", "few"), [([1.0] * 20, True, False), ([1.0, 0.5] * 9, False, True), ([0.5], True, True)]
)
def test_table_says_where_an_interval_says_less_than_it_seems(values, flat, few):
    text = table_markdown(scores.summary(table(*studies(values))), data_label="x")
    assert ("not that the mean is certain" in text, "fewer than 20 studies" in text) == (flat, few)


def test_table_tells_how_many_had_no_verdict():
    text = table_markdown(scores.summary(table(*studies([1.0, None]))), data_label="x")
    assert "no verdict on 1 of 2 rows" in text


def test_a_table_with_the_base_model_says_what_it_lacks():
    rows = [judgement(system=MODEL), judgement(system=BASE)]
    shown = table_markdown(scores.summary(table(*rows)), data_label="phantoms")
    assert f"| test | {BASE} | 1.00" in shown and f"- {OF_BASE}\n" in shown
    alone = table_markdown(scores.summary(table(*rows[:1])), data_label="phantoms")
    assert OF_BASE not in alone


def test_scores_by_kind_of_study_leave_out_studies_without_a_kind():
    rows = table(*studies([1.0, 0.5, 0.0, 0.2]), *studies([0.0] * 4, system="constant"))
    found = scores.by_kind(rows, {"s0": "normal", "s1": "normal", "s2": "abnormal"})
    kinds = [["test", system, kind] for system in ("model", "constant") for kind in ("abnormal", "normal")]
    assert found[["split", "system", "studies"]].values.tolist() == kinds
    assert found["lung"].tolist()[:2] == ["0.00 [0.00, 0.00] n=1", "0.75 [0.50, 1.00] n=2"]
    assert set(found["bone"]) == {"not mentioned"}


def test_scores_by_kind_may_have_all_studies_first():
    rows = table(*studies([1.0, 0.5, 0.0, 0.2]))
    found = scores.by_kind(rows, {"s0": "normal", "s2": "abnormal"}, whole=True)
    assert found["studies"].tolist() == ["all", "abnormal", "normal"]
    assert found["lung"][0].endswith("n=4") and found["lung"][2] == "1.00 [1.00, 1.00] n=1"
    assert scores.by_kind(rows, {}, whole=True)["studies"].tolist() == ["all"]
