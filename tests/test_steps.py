"""The map at the top of each notebook."""

import pytest
from pages import text

from utils import steps, workspace


def test_the_map_shows_where_one_is_and_what_is_done(tmp_path):
    run = workspace.Workspace(tmp_path / "a & b")
    run.finish("regions", settings={}, outputs=[])
    view = steps.overview(run, "dataset")
    page = text(view)
    assert "step 1 Findings to regions ✓ finished" in page and "UTC" in page
    assert "step 2 · you are here Studies to a dataset ○ not done" in page
    assert view.data.count("aria-current=step") == 1
    assert 'href="01_region_split.ipynb"' in view.data and "02_build" not in view.data
    assert "a &amp; b" in view.data


def test_in_colab_the_map_has_no_dead_links(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "in_colab", lambda: True)
    assert "href" not in steps.overview(workspace.Workspace(tmp_path), "regions").data


def test_an_unknown_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no step called 'five': steps are regions"):
        steps.overview(workspace.Workspace(tmp_path), "five")
