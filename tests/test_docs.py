"""What the Markdown pages say of the project is so."""

import re
from pathlib import Path

import pytest
from conftest import ROOT

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    assert broken(page) == []


def broken(page: Path) -> list[str]:
    """The links of a page to files or headings that are not there."""
    links = re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8"))
    targets = [(page.parent / file if file else page, heading) for file, heading in links]
    return [
        f"{target}#{heading}"
        for target, heading in targets
        if not target.exists() or (heading and heading not in headings(target))
    ]


def headings(page: Path) -> set[str]:
    """The headings of a page, as GitHub writes them in links."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def test_the_plan_of_medgemma_is_the_one_that_its_lines_print(capsys):
    text = (ROOT / "docs" / "related.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    exec(compile(lines, "docs/related.md", "exec"), {})
    assert f"**{capsys.readouterr().out.strip()}**" in " ".join(text.split())
