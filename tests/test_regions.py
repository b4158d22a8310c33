"""Reports as dicts and as text."""

import random

import pytest

from utils.regions import ALL, REGIONS, heading, mentioned, parse, render, tidy, without_plan

PIECES = ("clear", "No", "heart:", "lung:", "**bone:**", "OTHERS:", ":", "- ", "# ", "*", "> ", "1. ", "2)")
PIECES += (
    "“röntgen”",
    "心臓",
    "é",
    "\n",
    "\r\n",
    "\t",
    "\u2028",
    "\x85",
    " ",
    " ",
    "\nheart: ",
    "\n**Lung**: ",
)


def random_findings(rng: random.Random) -> dict[str, str]:
    """Some of the regions with hostile texts: headings, colons, marks, unicode and newlines inside."""
    names = rng.sample(ALL, rng.randint(0, len(ALL)))
    return {name: "".join(rng.choices(PIECES, k=rng.randint(0, 12))) for name in names}


def test_parse_gives_back_what_render_wrote():
    rng = random.Random(17)
    for _ in range(3000):
        findings = random_findings(rng)
        assert parse(render(findings)) == {name: tidy(text) for name, text in findings.items()}


def test_a_report_as_text_has_a_line_a_region_in_their_order():
    report = {"bone": "Scoliosis.", "lung": "Clear\nlungs.", "others": ""}
    assert render(report) == "lung: Clear lungs.\nbone: Scoliosis.\nothers:"
    assert list(parse(render(report))) == ["lung", "bone", "others"]


def test_a_name_that_is_no_region_is_refused():
    with pytest.raises(ValueError, match="no such region: spleen"):
        render({"lung": "Clear.", "spleen": "Large."})


@pytest.mark.parametrize(
    "text",
    [
        "LUNG: Clear.\nHeart: Big.",
        "**Lung:** Clear.\n**Heart**: Big.",
        "- lung: Clear.\n- heart : Big.",
        "## Lung:\nClear.\n\n## Heart:\nBig.",
        "1. Lung: Clear.\n2) **Heart:** Big.",
        "> lung: Clear.\r\n> heart: Big.",
        "Here is the report:\n\n  heart: Big.\n  lung: Clear.",
        "lung: Clear.\nheart:\nheart: Big.\nheart: Small.",
    ],
)
def test_headings_are_read_as_models_write_them(text):
    assert parse(text) == {"lung": "Clear.", "heart": "Big."}


@pytest.mark.parametrize(
    "text", ["", "\n", "No acute findings.", "The heart: big.", "lungs clear", "heart\n"]
)
def test_a_text_without_a_heading_has_no_regions(text):
    assert parse(text) == {}


def test_a_model_that_repeats_itself_is_read_at_once():
    assert parse("lung: clear" + "\n" * 20_000 + "*" * 20_000) == {"lung": "clear " + "*" * 20_000}


def test_only_regions_with_text_are_mentioned():
    report = {"bone": " ", "heart": None, "lung": " clear \n lungs", "others": "A tube.", "id": "CXR1"}
    assert mentioned(report) == {"lung": "clear lungs"}
    assert mentioned(report, ALL) == {"lung": "clear lungs", "others": "A tube."}
    assert mentioned(dict.fromkeys(reversed(REGIONS), "x")) == dict.fromkeys(REGIONS, "x")


def test_a_heading_names_the_findings_of_its_region_and_loses_them_again():
    report = {"lung": "Effusion (small): left.", "heart": "Big."}
    text = render(report, {"lung": ["effusion", "opacity"], "heart": ()})
    assert text == "lung (effusion, opacity): Effusion (small): left.\nheart: Big."
    assert heading("bone", ["fracture"]) == "bone (fracture):" and heading("bone") == "bone:"
    assert without_plan(text) == render(report)
    assert parse(without_plan(text)) == report
    assert without_plan(f" {text}") == f" {render(report)}"  # as an answer begins in many a model's tokens


@pytest.mark.parametrize(
    "text",
    ["spleen (large): Big.", "The lung (left): Clear.", "lung (left) is clear: yes.", "lung: (none): x"],
)
def test_only_the_headings_of_regions_lose_what_is_in_brackets(text):
    assert without_plan(text) == text
