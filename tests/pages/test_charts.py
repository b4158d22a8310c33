"""The figures: what they say inside the picture, and how they are kept."""

import base64
import re
from html import unescape
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from judged_rows import OFFLINE, judgement, seen_rows, table
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from utils import scores
from utils.findings.groups import GROUPS
from utils.models.systems import SYSTEMS
from utils.pages import charts, finding_charts, score_charts
from utils.regions import REGIONS
from utils.scores import baselines, findings, statistics
from utils.settings import RECALL_WEIGHT

PHANTOMS = "phantom radiographs"
_COUNTS = {"recall_weight": [0.25, RECALL_WEIGHT, 1.0], "present": [20, 20, 20], "named": [0, 10, 30]}
_RATES = {"right": [0, 7, 15], "precision": [np.nan, 0.7, 0.5], "recall": [0, 0.35, 0.75]}
POINTS = pd.DataFrame(_COUNTS | _RATES)  # of a probe


@pytest.fixture(scope="module")
def judgements():
    values = np.random.default_rng(0).choice([0, 0.5, 0.8, 1], (2, 2, 6, 4))
    rows = [
        judgement(
            f"{split}{i}",
            region,
            values[s, p, i, r],
            system=system,
            split=split,
            significant=[s, 2, 0, 0, 0, 0],
        )
        for s, system in enumerate(("model", "constant"))
        for p, split in enumerate(("val", "test"))
        for i in range(6)
        for r, region in enumerate(REGIONS)
    ]
    rows[0] |= {"score": None}
    rows[1] |= {"score": 0.0, "prediction": ""}
    return table(*rows)


def view(shade=128, size=(60, 80)):
    return Image.new("L", size, shade)


def texts(fig):
    return [found.get_text() for found in fig.findobj(Text) if found.get_text().strip()]


def inside(fig):
    """Whether every text that is drawn lies within the picture."""
    fig.draw_without_rendering()
    boxes = [t.get_window_extent() for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip()]
    width, height = fig.canvas.get_width_height()
    return all(b.x0 >= -1 and b.y0 >= -1 and b.x1 <= width + 1 and b.y1 <= height + 1 for b in boxes)


@pytest.fixture(scope="module")
def drawn(judgements):
    log = pd.DataFrame({"step": [5, 10, 15], "loss": [2.0, 1.0, 0.5], "eval_loss": [np.nan, 1.1, 0.52]})
    counts = pd.DataFrame({"studies": [10, 4]} | {key: [7, 3] for key in REGIONS}, index=["train", "val"])
    studies = [
        {"id": f"s{i}", "views": [view(), view()], "caption": "Costs $5 and $6. " * 30} for i in range(4)
    ]
    return {
        "region_bars": score_charts.region_bars(scores.summary(judgements), data_label=PHANTOMS),
        "score_distribution": score_charts.score_distribution(judgements, data_label=PHANTOMS),
        "error_types": score_charts.error_types(statistics.error_counts(judgements), data_label=PHANTOMS),
        "loss_curve": charts.loss_curve(log, data_label=PHANTOMS),
        "region_coverage": charts.region_coverage(counts, data_label=PHANTOMS),
        "gallery": charts.gallery(studies, data_label=PHANTOMS),
        "findings_named": finding_charts.findings_named(
            findings.count([seen_rows()], GROUPS[:9]), data_label=PHANTOMS
        ),
        "operating_curve": finding_charts.operating_curve(POINTS, data_label=PHANTOMS),
    }


FIGURES = ["region_bars", "score_distribution", "error_types", "loss_curve", "region_coverage"]
FIGURES += ["gallery", "findings_named", "operating_curve"]


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_says_what_the_data_are_and_keeps_its_words_in_the_picture(drawn, name):
    assert any(PHANTOMS in text for text in texts(drawn[name]))
    assert inside(drawn[name])


@pytest.mark.parametrize("name", ["region_bars", "score_distribution", "error_types", "findings_named"])
def test_scores_name_their_judge_in_the_picture(drawn, name):
    assert any(OFFLINE in text for text in texts(drawn[name]))


def test_a_picture_of_studies_is_not_for_clinical_use(drawn):
    assert any("Not for clinical use" in text for text in texts(drawn["gallery"]))


def test_region_bars_label_each_mean_and_its_n(drawn, judgements):
    means = scores.summary(judgements)["mean"]
    shown = texts(drawn["region_bars"])
    assert all(f"{mean:.2f}" in shown for mean in means)
    assert "lung\nn=6" in shown and "validation" in shown and "test" in shown


def test_the_best_baseline_stands_beside_the_model_and_is_named_by_its_look(judgements):
    rows = judgements.replace({"system": {"constant": baselines.CONSTANT}})
    nearest = rows[rows["system"] == baselines.CONSTANT].assign(system=baselines.NEAREST)
    nearest["score"] = np.where(nearest["region"] == "bone", 1.0, 0.0)
    rows = pd.concat([rows, nearest])
    best = baselines.beside_best(rows, {f"test{i}": "abnormal" for i in range(3)})
    fig = score_charts.beside_best(best[best["split"] == "test"], data_label=PHANTOMS)
    said = texts(fig)
    assert {"test, all studies", "test, abnormal studies", "bone\nn=6", "bone\nn=3"} <= set(said)
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == ["model", baselines.CONSTANT, baselines.NEAREST]
    with pytest.raises(ValueError, match="one split"):
        score_charts.beside_best(best, data_label=PHANTOMS)
    bars = fig.axes[1].patches
    assert len(bars) == 8 and bars[7].get_hatch() != bars[5].get_hatch() == bars[1].get_hatch()
    mean = best.query("split == 'test' and studies == 'abnormal' and region == 'bone'")["mean"].item()
    assert f"test, abnormal studies, bone: model {mean:.2f}, {baselines.NEAREST} 1.00" in fig.alt
    assert any(OFFLINE in text and PHANTOMS in text for text in said) and inside(fig)


def test_systems_differ_by_hatch_as_well_as_colour(drawn):
    looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in drawn["region_bars"].axes[0].patches}
    assert len(looks) == len({hatch for _, hatch in looks}) == 2


def test_more_systems_than_can_be_told_apart_are_refused():
    rows = table(*(judgement(system=f"system {i}") for i in range(8)))
    with pytest.raises(ValueError, match="draw fewer"):
        score_charts.region_bars(scores.summary(rows), data_label=PHANTOMS)


def test_all_systems_of_step_4_are_named_within_the_picture():
    names = [*SYSTEMS, *baselines.BASELINES]
    rows = table(*(judgement(system=name, significant=[1, 0, 0, 0, 0, 0]) for name in names))
    bars = score_charts.region_bars(scores.summary(rows), data_label=PHANTOMS)
    for fig in (bars, score_charts.error_types(statistics.error_counts(rows), data_label=PHANTOMS)):
        (legend,) = fig.legends
        assert {text.get_text() for text in legend.get_texts()} == set(names) and inside(fig)
        fig.draw_without_rendering()
        titles = [ax.title for ax in fig.axes] + [t for ax in fig.axes for t in ax.texts]
        below = legend.get_window_extent().y0
        assert all(text.get_window_extent().y1 <= below + 1 for text in titles if text.get_text())
        assert len({colour for colour, _ in charts.SERIES}) == len(charts.SERIES) == len(names)


def test_a_region_without_any_judgement_is_said_not_drawn():
    rows = table(judgement(system="one"), judgement("v", split="val", system="two"))
    fig = score_charts.region_bars(scores.summary(rows), data_label=PHANTOMS)
    assert "two: ." not in fig.alt
    assert "bone\nnot mentioned" in texts(fig) and len(fig.axes[0].patches) == 1
    for ax in fig.axes[:2]:  # no room is kept for a system that the split does not have
        (bar,) = ax.patches
        assert bar.get_x() + bar.get_width() / 2 == pytest.approx(REGIONS.index("lung"))


def test_score_distribution_tells_empty_no_verdict_and_zero_apart():
    scored = {"s2": None, "s3": 0.0, "s4": 0.5, "s5": 0.9}
    rows = [judgement(name, score=score) for name, score in scored.items()]
    rows = table(judgement("s1", score=0.0, prediction=""), *rows)
    fig = score_charts.score_distribution(rows, data_label=PHANTOMS)
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == ["left empty", "no verdict", "0", "up to 0.5", "above 0.5"]
    assert texts(fig).count("20%") == 5


def test_bands_of_score_can_be_told_apart_in_grey():
    for (_, one, hatch), (_, two, other) in combinations(score_charts.BANDS, 2):
        grey = [np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) for colour in (one, two)]
        assert hatch != other or abs(grey[0] - grey[1]) > 0.3


def test_error_types_are_rates_of_the_judged_rows(drawn):
    shown = texts(drawn["error_types"])
    made = {"false finding", "missing finding"}
    assert shown.count("200") == 8 and {error for error in statistics.ERRORS if error in shown} == made


def test_loss_curve_names_its_lines_at_their_ends(drawn):
    shown = texts(drawn["loss_curve"])
    assert "training 0.500" in shown and "evaluation 0.520" in shown


def test_loss_curve_without_evaluation_or_without_anything():
    log = pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0], "eval_loss": [np.nan, np.nan]})
    assert not any("evaluation" in text for text in texts(charts.loss_curve(log, data_label=PHANTOMS)))
    assert "no loss logged yet" in texts(charts.loss_curve(log.assign(loss=np.nan), data_label=PHANTOMS))


def test_region_coverage_shows_share_and_count(drawn):
    shown = texts(drawn["region_coverage"])
    assert "70%\n7" in shown and "training (10 studies)" in shown


def test_save_keeps_the_alt_text_and_leaves_nothing_else(tmp_path, drawn):
    path = charts.save(drawn["loss_curve"], tmp_path / "figures" / "loss.png")
    with Image.open(path) as image:
        assert image.text["Description"] == drawn["loss_curve"].alt
        assert image.width == 990
    assert [p.name for p in path.parent.iterdir()] == ["loss.png"]


def test_a_failed_save_leaves_the_old_figure(tmp_path, drawn, monkeypatch):
    path = charts.save(drawn["loss_curve"], tmp_path / "loss.png")
    before = path.read_bytes()

    def fail(part, **_):
        part.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(drawn["loss_curve"], "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        charts.save(drawn["loss_curve"], path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("region_bars", "test, constant: lung "),
        ("score_distribution", "% score 1, n=12"),
        ("error_types", "lung: most often missing finding, 200 in 100"),
        ("loss_curve", "evaluation ends at 0.520, step 15"),
        ("region_coverage", "training: lung 70%"),
        ("gallery", "views and captions of s0, s1"),
        (
            "operating_curve",
            f"recall_weight {RECALL_WEIGHT:g}: of ten findings named about 7 are there, and of",
        ),
        ("findings_named", "images shuffled, named of those there: effusion 0 of 0"),
    ],
)
def test_alt_texts_tell_the_numbers(drawn, name, told):
    assert told in drawn[name].alt and PHANTOMS in drawn[name].alt


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_shows_a_figure_once_with_its_alt_text(drawn, name):
    shown, _ = DisplayFormatter().format(drawn[name])
    alt, picture = re.search(r'<img alt="(.+?)" .*base64,(.+)">', shown["text/html"]).groups()
    assert unescape(alt) == drawn[name].alt and base64.b64decode(picture).startswith(b"\x89PNG")
    assert set(shown) == {"text/html", "text/plain"}


def test_findings_stand_on_the_y_axis_with_their_counts(drawn):
    fig = drawn["findings_named"]
    said, (recall, precision) = texts(fig), fig.axes
    names = [label.get_text() for label in recall.get_yticklabels()]
    assert names == [*(group.name for group in GROUPS[:9]), "all together"]
    assert said.count("1/2") == 3  # recall of cardiomegaly and of all, and precision of all
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert legend == ["model (n=6)", "images shuffled (n=3)"]  # the constant names nothing
    assert "Not drawn, as they name none or there is no room: constant" in fig.alt
    assert len(recall.patches) == 4 and precision.get_xlim() == (0, 1)
    counted = findings.count([seen_rows()], GROUPS)
    with pytest.raises(ValueError, match="one split"):
        finding_charts.findings_named(pd.concat([counted, counted.assign(split="val")]), data_label="x")


def test_the_curve_has_a_mark_at_each_weight_and_another_at_the_chosen_one(drawn):
    fig = drawn["operating_curve"]
    (ax,), said = fig.axes, texts(fig)
    line, chosen = ax.lines
    np.testing.assert_array_equal(line.get_xydata(), POINTS[["recall", "precision"]])
    np.testing.assert_array_equal(chosen.get_xydata(), [[0.35, 0.7]])
    assert {f"{RECALL_WEIGHT:g}", "1"} <= set(said)
    assert "recall: of the findings that are there, named" in said
    assert "recall_weight 0.25: of ten findings named about none are there" in fig.alt
    other = finding_charts.operating_curve(POINTS, data_label=PHANTOMS, chosen=1.0)
    np.testing.assert_array_equal(other.axes[0].lines[1].get_xydata(), [[0.75, 0.5]])


def test_differences_say_who_is_ahead_and_fill_only_what_leaves_zero_out():
    pairs = pd.DataFrame(
        [
            {"split": "test", "region": region, "n": 9, "difference": d, "low": low, "high": high}
            for region, d, low, high in (("lung", 0.2, 0.1, 0.3), ("heart", -0.1, -0.2, 0.1))
        ]
    )
    fig = score_charts.differences(pairs, ("this run", "the other"), data_label=PHANTOMS, judge=OFFLINE)
    said = texts(fig)
    assert "this run minus the other, paired by study, with 95 % interval" in said
    assert {"+0.20", "-0.10"} <= set(said) and any(OFFLINE in text and PHANTOMS in text for text in said)
    assert "bone\nnot mentioned" in said and "lung, +0.20" not in fig.alt and "lung: +0.20, n=9" in fig.alt
    marks = [line for line in fig.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() for line in marks] == [charts.BLUE, "white"]
    assert inside(fig)
