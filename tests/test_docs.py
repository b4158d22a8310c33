"""What the pages in docs say of the project is so."""

import re

import pytest
from conftest import ROOT

PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_plan_of_medgemma_is_the_one_that_its_lines_print(capsys):
    text = (ROOT / "docs" / "related.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    exec(compile(lines, "docs/related.md", "exec"), {})
    assert f"**{capsys.readouterr().out.strip()}**" in " ".join(text.split())
