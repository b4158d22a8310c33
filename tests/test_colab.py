"""A notebook opened alone, on a machine that looks like Colab: see `colab/` for the stand-in."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import nbformat
import papermill
import pytest
from conftest import ROOT
from page_text import text

from utils.pages import opening
from utils.run.workspace import STEPS, StepError, Workspace


def git(*arguments, cwd):
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run(["git", *who, *arguments], cwd=cwd, check=True, capture_output=True)


class Runtime:
    """A fresh Colab runtime: an empty /content, a Drive, and the project at a public address.

    Nothing lies in `kaggle`, which stands for Kaggle's folder of that name.
    """

    def __init__(self, folder: Path, monkeypatch):
        self.content, self.drive, self.public = folder / "content", folder / "cloud", folder / "public"
        self.kaggle = folder / "kaggle"
        self.content.mkdir()
        self.drive.mkdir()
        ignored = shutil.ignore_patterns("__pycache__")
        for name in ("utils", "notebooks"):
            shutil.copytree(ROOT / name, self.public / name, ignore=ignored)
        for name in ("pyproject.toml", "requirements-colab.txt", "requirements-green-score.txt"):
            shutil.copy(ROOT / name, self.public)
        for path in (self.public / "utils/run/machine.py", *self.public.glob("notebooks/*.ipynb")):
            text = path.read_text()
            for name, there in {"content": self.content, "kaggle": self.kaggle}.items():
                text = text.replace(f'"/{name}', f'"{there}').replace(f'\\"/{name}', f'\\"{there}')
            path.write_text(text)
        git("init", "--quiet", cwd=self.public)
        git("add", ".", cwd=self.public)
        git("commit", "--quiet", "-m", "as it is", cwd=self.public)
        monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
        monkeypatch.setenv("COLAB_DRIVE", str(self.drive))
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "colab"))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    @property
    def address(self) -> str:
        return self.public.as_uri()

    def run(self, name: str, whole: bool = False, **parameters) -> str:
        """Upload a notebook and run it, or only its form and set-up; what it shows."""
        notebook = nbformat.read(self.public / "notebooks" / f"{name}.ipynb", as_version=4)
        if not whole:
            last = next(i for i, cell in enumerate(notebook.cells) if ".begin(" in cell.source)
            del notebook.cells[last + 1 :]
        uploaded = self.content / f"{name}.ipynb"
        nbformat.write(notebook, uploaded)
        done = papermill.execute_notebook(
            uploaded, None, {"REPOSITORY": self.address, **parameters}, cwd=self.content, progress_bar=False
        )
        return text("\n".join(map(words, done.cells)))


def words(cell) -> str:
    """What a cell shows, as far as it is text."""
    shown = []
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        shown.append(output.get("text", "") or data.get("text/html", "") or data.get("text/plain", ""))
    return "\n".join(shown)


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    return Runtime(tmp_path, monkeypatch)


def check_first(runtime: Runtime, name: str, shown: str) -> None:
    """What the first notebook of a session says when it opens, and what it leaves."""
    assert (runtime.content / "chest-xray-regions/utils/run/workspace.py").exists()
    assert f"Mounted at {runtime.content}/drive" in shown
    assert "runtime Colab · python 3." in shown and "size demo results in" in shown
    assert f"results in {runtime.content}/drive/MyDrive/xray_reports/demo disk " in shown
    assert " GiB free" in shown and "GPU no GPU To get one" in shown and "✓" not in shown.split("step 01")[0]
    assert "Runtime > Change runtime type > T4 GPU" in shown and shown.count("you are here") >= 1
    assert "Installing" not in shown and "not on Drive" not in shown
    assert f"step {name[:2]} · you are here" in shown
    assert (runtime.drive / "xray_reports/demo").is_dir()


@pytest.mark.slow
class TestOpening:
    @pytest.mark.parametrize("step", ["training", "evaluation"])  # the first two run whole below
    def test_a_notebook_alone_clones_the_project_and_says_what_it_found(self, runtime, step):
        check_first(runtime, STEPS[step], runtime.run(STEPS[step]))

    def test_a_project_on_drive_is_used_and_nothing_is_cloned(self, runtime):
        runtime.public.rename(runtime.drive / "chest-xray-regions")
        runtime.public = runtime.drive / "chest-xray-regions"
        assert "you are here" in runtime.run("01_region_split", REPOSITORY="")
        assert not (runtime.content / "chest-xray-regions").exists()

    def test_without_drive_it_goes_on_and_says_what_is_lost(self, runtime, monkeypatch):
        monkeypatch.setenv("COLAB_DRIVE", "")
        shown = runtime.run("01_region_split")
        assert "Drive is not mounted: Error: credential propagation" in shown
        assert f"results in {runtime.content}/xray_reports/demo" in shown
        assert "not on Drive Results are lost when this session ends" in shown

    @pytest.mark.parametrize(
        ("address", "sentence"),
        [
            ("", "Set REPOSITORY above, or put chest-xray-regions into My Drive"),
            ("file:///nowhere", "git could not clone file:///nowhere"),
        ],
    )
    def test_without_a_project_it_says_where_to_put_one(self, runtime, address, sentence):
        with pytest.raises(papermill.PapermillExecutionError, match=sentence):
            runtime.run("01_region_split", REPOSITORY=address)

    def test_two_notebooks_run_whole_and_open_again_as_they_were_left(self, runtime):
        from utils.data import phantoms

        data = str(phantoms.write(runtime.content / "data", 12, 4, 5, seed=3, processes=1))
        shown = runtime.run(
            "01_region_split", whole=True, DATA=data, SETTINGS={"gold_studies": 4}, PROMPT="Split it."
        )
        check_first(runtime, "01", shown)
        assert "4 studies with gold" in shown
        shown = runtime.run("02_build_hf_dataset", whole=True, VIEWS="1")  # DATA as in 01
        assert "12 train, 4 val, 5 test" in shown
        assert "Drive already mounted at" in shown and "step 01 Findings to regions ✓ finished" in shown
        assert "step 02 · you are here Studies to a dataset ○ not done" in shown
        made = Workspace(runtime.drive / "xray_reports/demo")
        assert made.manifest("dataset")["settings"]["views"] == 1
        assert "not the preset's value from views 1 form" in shown
        shown = runtime.run("02_build_hf_dataset", whole=True)  # in another kernel, with an empty form
        assert "Every value is the preset's." in shown and "size demo results in" in shown
        assert made.manifest("dataset")["settings"]["views"] == 2


# The packages that a runtime lacks


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index with one package, `xr-lacking` 1.0, and a folder into which pip installs."""
    wheel, info = tmp_path / "xr_lacking-1.0-py3-none-any.whl", "xr_lacking-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("xr_lacking.py", "HERE = True\n")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: xr-lacking\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": tmp_path, "TARGET": tmp_path / "installed"}.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    monkeypatch.syspath_prepend(tmp_path / "installed")
    return tmp_path


def test_where_nothing_is_missing_nothing_is_installed(index, capsys):
    assert opening.install_missing() == []
    assert not (index / "installed").exists() and capsys.readouterr().out == ""


def test_what_is_missing_is_installed_and_nothing_else(index, capsys):
    asked = index / "requirements.txt"
    asked.write_text("# What is lacking.\n\nPydantic==0\nxr-lacking==1.0\n")
    assert opening.install_missing(asked) == ["xr-lacking==1.0"]
    assert "Installing xr-lacking==1.0" in capsys.readouterr().out
    assert sorted(path.name for path in (index / "installed").iterdir() if path.name != "__pycache__") == [
        "xr_lacking-1.0.dist-info",
        "xr_lacking.py",
    ]
    import xr_lacking  # without a restart

    assert xr_lacking.HERE and opening.install_missing(asked) == []


def test_what_pip_cannot_install_is_said_and_on_kaggle_what_to_switch_on(index, monkeypatch):
    asked = index / "requirements.txt"
    asked.write_text("xr-nowhere==1.0\n")
    with pytest.raises(StepError, match=r"pip could not install xr-nowhere==1\.0: ERROR"):
        opening.install_missing(asked)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    with pytest.raises(StepError, match=r"(?s)xr-nowhere.*On Kaggle, switch the internet on"):
        opening.install_missing(asked)


# What was found


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    properties = type("Properties", (), {"name": "Tesla T4", "total_memory": 15_828_320_256, "major": 7})
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: properties)


def test_a_t4_is_named_with_its_memory(tmp_path, card, monkeypatch, found):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    shown = found(Workspace(tmp_path), "t4")
    assert "Tesla T4, 14.7 GiB" in shown and "size t4" in shown and "Change runtime type" not in shown


def test_steps_that_are_done_are_named(tmp_path, found):
    run = Workspace(tmp_path)
    for step in ("regions", "dataset"):
        run.finish(step, settings={}, outputs=[])
    shown = found(run, step="training")
    assert "not Colab" in shown and shown.count("✓ finished") == 2
    assert "step 03 · you are here Fine-tuning ○ not done" in shown


def test_what_is_done_at_another_size_is_said_with_the_value_to_set(tmp_path, found):
    for step in ("regions", "dataset"):
        Workspace(tmp_path / "demo").finish(step, settings={}, outputs=[])
    shown = found(Workspace(tmp_path / "t4"), "t4")
    assert (
        'no step is done yet; 01, 02 are done at size demo. To go on with that, set PRESET to "demo"' in shown
    )
    assert "PRESET" not in found(Workspace(tmp_path / "demo"))


def test_a_size_that_needs_a_gpu_says_so(tmp_path, monkeypatch, found):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "Without a GPU, the size t4 does not run" in found(Workspace(tmp_path), "t4")
    shown = found(Workspace(tmp_path))
    assert (
        "Without a GPU, the demo runs instead. 01 and 02 need none" in shown and 'set PRESET to "t4"' in shown
    )
