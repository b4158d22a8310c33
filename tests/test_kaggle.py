"""A notebook opened alone on Kaggle, whose image is marked as Colab's: see `kaggle/` for the stand-in."""

import shutil

import papermill
import pytest
from conftest import ROOT
from test_colab import Runtime

from utils.data import phantoms
from utils.run.workspace import Workspace


class Session(Runtime):
    """A fresh Kaggle session: an empty output, nothing attached, and the project at a public address."""

    def __init__(self, folder, monkeypatch):
        super().__init__(folder, monkeypatch)
        self.content = self.kaggle / "working"
        self.content.mkdir(parents=True)
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
        monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "kaggle"))  # which has no google.colab

    def save_version(self, name: str) -> None:
        """End the session: what is in the output is attached to the next one, and the rest is gone."""
        attached = self.kaggle / "input" / "notebooks" / "me" / name
        attached.parent.mkdir(parents=True, exist_ok=True)
        self.content.rename(attached)
        shutil.rmtree(self.kaggle / "temp", ignore_errors=True)
        self.content.mkdir()


@pytest.fixture
def session(tmp_path, monkeypatch):
    return Session(tmp_path, monkeypatch)


@pytest.mark.slow
def test_the_next_notebook_goes_on_from_the_saved_version_of_the_last(session):
    data = str(phantoms.write(session.kaggle / "data", 6, 2, 2, seed=3, processes=1))
    shown = session.run("01_region_split", whole=True, DATA=data, SETTINGS={"gold_studies": 2})
    assert (
        "runtime Kaggle · python" in shown
        and "GPU no GPU" in shown
        and "Mounted" not in shown
        and "Drive is not" not in shown
    )
    assert (
        f"results in {session.content}/xray_reports/demo not saved yet Only a saved version keeps results"
        in shown
    )
    assert "choose Settings > Accelerator > GPU T4 x2, then Run all. Without a GPU, the demo runs" in shown
    session.save_version("step-1")
    dataset = session.kaggle / "input" / "datasets" / "me" / "chest-xray-regions"
    dataset.parent.mkdir(parents=True)
    session.public.rename(dataset)  # the project as a dataset, and no address
    session.public = dataset
    shown = session.run("02_build_hf_dataset", whole=True, REPOSITORY="", DATA=data)
    assert (
        "Copying the results of the attached version" in shown
        and "step 01 Findings to regions ✓ finished" in shown
    )
    assert not (session.content / "chest-xray-regions").exists()
    assert Workspace(session.content / "xray_reports/demo").require("dataset")


@pytest.mark.slow
def test_without_internet_it_says_what_to_switch_on(session):
    with pytest.raises(papermill.PapermillExecutionError, match="and, on Kaggle, that internet is on"):
        session.run("01_region_split", REPOSITORY="https://localhost:1/none")


def test_two_t4s_are_named(tmp_path, monkeypatch, found):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    card = type("Properties", (), {"name": "Tesla T4", "total_memory": 15_828_320_256, "major": 7})
    for name, value in {"is_available": True, "device_count": 2}.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda value=value: value)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: card)
    shown = found(Workspace(tmp_path), "t4")
    assert "runtime Kaggle" in shown and "GPU 2 x Tesla T4, 14.7 GiB" in shown and "Accelerator" not in shown
