"""The map at the top of each notebook."""

import pytest
from page_text import text

from utils.pages import opening
from utils.run import workspace
from utils.settings import TIMES


def test_the_map_shows_where_one_is_and_what_is_done(tmp_path):
    run = workspace.Workspace(tmp_path / "a & b")
    run.finish("regions", settings={}, outputs=[])
    view = opening.overview(run, "dataset")
    page = text(view)
    assert "step 01 Findings to regions ✓ finished" in page and "UTC · took " in page
    assert "step 02 · you are here Studies to a dataset ○ not done needs 01 · leaves dataset/" in page
    demo, small = (TIMES[name]["training"] for name in ("demo", "small"))
    estimate = f"two CPU cores: demo about {demo}, small about {small}"
    assert f"leaves training/<run>/ {estimate} · full size, T4: 2.2 h" in page
    assert f"leaves regions/ full size, T4: {opening.ABOUT['regions'].t4}" in page  # took what, above
    assert view.data.count("aria-current=step") == 1
    assert 'href="01_region_split.ipynb"' in view.data and "02_build" not in view.data
    assert "a &amp; b" in view.data


def test_in_colab_the_map_leads_to_the_public_notebooks_or_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    run = workspace.Workspace(tmp_path)
    monkeypatch.setattr(opening, "public_address", lambda: "")
    assert "href" not in opening.overview(run, "regions").data
    monkeypatch.setattr(opening, "public_address", lambda: "https://github.com/owner/name")
    shown = opening.overview(run, "regions").data
    assert shown.count('href="https://colab.research.google.com/github/owner/name/blob/main/notebooks/0') == 3


def test_on_kaggle_the_map_leads_to_notebooks_made_from_the_public_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setattr(opening, "public_address", lambda: "https://github.com/owner/name")
    shown = opening.overview(workspace.Workspace(tmp_path), "regions").data
    link = "https://kaggle.com/kernels/welcome?src=https://github.com/owner/name/blob/"
    assert shown.count(f'href="{link}') == 3


def test_an_unknown_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no step called 'five': steps are regions"):
        opening.overview(workspace.Workspace(tmp_path), "five")
