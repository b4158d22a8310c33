"""The public address: one place, one command, and nothing that leads nowhere."""

import json
import shutil

import pytest
from conftest import ROOT

from tools import address
from utils.pages import opening
from utils.run.workspace import STEPS

PUBLIC = "https://github.com/owner/a-name.of-a-reasonable-length"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of every file that holds the address or a badge."""
    (tmp_path / "notebooks").mkdir()
    for path in address.files(""):
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    monkeypatch.setattr(address, "ROOT", tmp_path)
    monkeypatch.setattr(opening, "ROOT", tmp_path)
    return tmp_path


def test_notebooks_and_readme_are_what_the_command_writes():
    for path, text in address.files(opening.public_address()).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python tools/address.py"


def test_one_command_writes_badges_and_first_cells(copy):
    assert address.main([PUBLIC + "/"]) == 0
    assert opening.public_address() == PUBLIC
    readme = (copy / "README.md").read_text()
    for name in STEPS.values():
        link = f"https://colab.research.google.com/github/owner/a-name.of-a-reasonable-length/blob/main/notebooks/{name}.ipynb"
        cells = json.loads((copy / "notebooks" / f"{name}.ipynb").read_text())["cells"]
        title = "".join(cells[0]["source"])
        assert title.startswith("# ") and f"]({link})\n\n**What you get" in title and link in readme
        (line,) = [line for line in cells[2]["source"] if line.startswith(f'REPOSITORY = "{PUBLIC}"  #')]
        assert len(line) < 110  # as ruff asks


def test_another_address_takes_the_place_of_the_first_and_none_takes_it_away(copy):
    address.main([""])
    before = {path: path.read_text() for path in copy.rglob("*.*") if path.is_file()}
    assert not any("colab-badge" in text for text in before.values())
    address.main([PUBLIC])
    address.main(["https://github.com/fork/name.git"])
    assert "owner" not in (copy / "notebooks/01_region_split.ipynb").read_text()
    address.main([""])
    assert {path: path.read_text() for path in before} == before


@pytest.mark.parametrize(
    "wrong", ["owner/name", "https://github.com/owner", "https://github.com/a/b/tree/main"]
)
def test_what_is_no_address_is_refused(copy, wrong, capsys):
    before = {path: path.read_text() for path in copy.rglob("*.*") if path.is_file()}
    assert address.main([wrong]) == 1 and "not the address of a GitHub repository" in capsys.readouterr().out
    assert {path: path.read_text() for path in before} == before
