"""What the tests share."""

import types
from pathlib import Path

import faulty_disk
import published_models
import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The demo first, then what is slow: two run at a time, and the last ones should end together."""
    slow = {scope(item) for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.get_closest_marker("notebooks") is None, scope(item) not in slow))


def scope(item: pytest.Item) -> str:
    """What pytest-xdist gives to one worker: a module or a class."""
    return item.nodeid.rpartition("::")[0]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the project; the test skips where it is missing."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("real data not here: ../shared/data is missing")
    return folder / "data"


@pytest.fixture(scope="session")
def old_python() -> Path:
    """The interpreter with the versions that published the models; the test skips where it is missing."""
    if not published_models.PYTHON.exists():
        pytest.skip(f"{published_models.ENVIRONMENT.name} is missing: make test makes it")
    return published_models.PYTHON


@pytest.fixture(scope="session")
def published(old_python) -> Path:
    """Small models and real tokenizers in published form: see `published/make.py`."""
    return published_models.folder()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """An untrained base model of the demo's size, saved the usual way."""
    from tools import base_model

    folder = tmp_path_factory.mktemp("tiny_base")
    processor = base_model.new_processor(["lung: clear. heart: normal. No pleural effusion or pneumothorax."])
    processor.save_pretrained(folder)
    base_model.new_model(processor).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def phantom_studies(tmp_path_factory):
    """12 training, 4 validation and 5 test phantoms, with the truth of validation filled in, by split."""
    from utils import split
    from utils.data import phantoms, studies

    folder = phantoms.write(tmp_path_factory.mktemp("phantoms") / "data", 12, 4, 5, seed=3, processes=1)
    texts = {study.id: study.original_report for study in studies.load_studies(folder)["val"]}
    findings = dict(zip(texts, split.split_findings(list(texts.values())), strict=True))
    annotation = studies.write_annotation(folder / "annotation_with_val.json", folder, findings)
    return studies.load_studies(folder, annotation)


@pytest.fixture(scope="session")
def phantom_folder(phantom_studies, tmp_path_factory):
    """The dataset of `phantom_studies` as step 2 leaves it."""
    from utils.data import hf_dataset
    from utils.settings import DatasetSettings

    folder = tmp_path_factory.mktemp("phantom_dataset") / "dataset"
    hf_dataset.build(phantom_studies, DatasetSettings(), folder, data_label="phantoms")
    return folder


@pytest.fixture(scope="session")
def phantom_dataset(phantom_folder):
    """The dataset in `phantom_folder`."""
    from utils.data import hf_dataset

    return hf_dataset.load(phantom_folder)


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, and what displays are brought up to date with, as (kind, content)."""
    from utils.pages import page

    found = []

    def display(content, **_):
        found.append(("display", content))
        return types.SimpleNamespace(update=lambda content: found.append(("update", content)))

    monkeypatch.setattr(page, "display", display)
    return found


@pytest.fixture
def found(monkeypatch):
    """What a notebook shows when it begins with a workspace."""
    from page_text import text

    from utils import settings
    from utils.pages import opening

    def begin(run, size: str = "demo", step: str = "regions") -> str:
        shown = []
        monkeypatch.setattr(opening, "display", shown.append)
        workspace, chosen = opening.begin(step, str(run.root), size)
        assert workspace.root == run.root and chosen == settings.preset(size)
        return text(*shown)

    return begin


@pytest.fixture
def impatient(monkeypatch, tmp_path):
    """A disk that is away is not tried again, and what waits for it waits in the test's own folder."""
    from utils.run import disk

    monkeypatch.setattr(disk, "PATIENCE", 0)
    monkeypatch.setattr(disk, "WAITING", tmp_path / "waiting")


@pytest.fixture(params=[faulty_disk.Mounted, faulty_disk.Patched], ids=["mounted", "patched"])
def drive(request, impatient, monkeypatch, tmp_path):
    """A disk that goes away and comes back, by a dead mount and by calls that fail."""
    disk = request.param(tmp_path / "drive", monkeypatch)
    yield disk
    disk.back()


@pytest.fixture
def faulty(impatient, monkeypatch, tmp_path):
    """A disk whose calls fail with any error."""
    return faulty_disk.Patched(tmp_path / "drive", monkeypatch)
