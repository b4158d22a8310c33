"""A run's folder: manifests, and whole writes."""

import io
import json
import sys
import types
from pathlib import Path

import pytest

from utils.run import disk, machine, progress, workspace
from utils.run.workspace import STEPS, StepError, Workspace


@pytest.fixture
def run(tmp_path) -> Workspace:
    """A run whose first step is finished, with two files left."""
    run = Workspace(tmp_path / "run")
    folder = run.folder("regions")
    disk.write_json(folder / "annotation.json", {"train": []})
    disk.write_text(folder / "tables" / "audit.csv", "id\n")
    run.finish("regions", settings={"engine": "offline"}, outputs=[folder], label="phantoms")
    return run


def test_a_finished_step_gives_its_manifest(run):
    manifest = run.require("regions")
    assert manifest["step"] == "regions" and manifest["settings"] == {"engine": "offline"}
    assert manifest["label"] == "phantoms" and manifest["versions"]["python"].startswith("3.")
    assert set(manifest["outputs"]) == {"regions/annotation.json", "regions/tables/audit.csv"}


def test_a_step_that_was_never_run_names_the_notebook(run):
    with pytest.raises(StepError, match=r"'dataset' is missing .* notebooks/02_build_hf_dataset.ipynb"):
        run.require("dataset")


def test_a_step_that_stopped_half_way_is_not_finished(run):
    run.folder("training").mkdir(parents=True)
    with pytest.raises(StepError, match=r"'training' was not finished .* notebooks/03_qlora"):
        run.require("training")


def test_a_file_that_changed_or_went_is_named(run):
    table = run.folder("regions") / "tables" / "audit.csv"
    table.write_text("id,other\n")
    with pytest.raises(StepError, match=r"left regions/tables/audit.csv, which has changed since.*01_region"):
        run.require("regions")
    table.unlink()
    with pytest.raises(StepError, match=r"left regions/tables/audit.csv, which is missing.*01_region"):
        run.require("regions")


@pytest.mark.parametrize("junk", [b"", b'{"step": "regi', b"\xff\xfe\x00", b"[]", b'{"step": "regions"}'])
def test_a_damaged_manifest_says_what_to_delete(run, junk):
    (run.folder("regions") / "manifest.json").write_bytes(junk)
    with pytest.raises(StepError, match=r"manifest.json is damaged: delete it and run notebooks/01_region"):
        run.require("regions")


def test_a_step_run_again_in_its_folder_is_finished_again(run):
    run.finish("regions", settings={}, outputs=[run.folder("regions")])
    assert run.require("regions")["settings"] == {}


def test_a_step_cannot_be_finished_without_its_files(run):
    gone = run.folder("dataset") / "data"
    with pytest.raises(FileNotFoundError, match=r"'dataset' cannot be finished: .*data does not exist"):
        run.finish("dataset", settings={}, outputs=[gone])
    assert run.manifest("dataset") is None


def test_a_run_that_moved_is_still_whole(run):
    moved = Workspace(run.root.rename(run.root.with_name("elsewhere")))
    assert moved.require("regions")


def test_a_manifest_names_files_outside_the_run_without_their_parents(run, tmp_path):
    for study in ("CXR1", "CXR2"):
        disk.write_text(tmp_path / "images" / study / "0.png", study)
    run.finish("dataset", settings={}, inputs=[run.folder("regions"), tmp_path / "images"], outputs=[])
    outside = {"images/CXR1/0.png", "images/CXR2/0.png"}  # the studies' files share their names
    hashes = run.require("dataset")["inputs"]
    assert outside < set(hashes) and len({hashes[name] for name in outside}) == 2


def test_a_step_is_current_until_what_it_read_or_left_changes(run):
    left = disk.write_text(run.folder("dataset") / "card.md", "card")
    run.finish("dataset", settings={}, inputs=[run.folder("regions")], outputs=[left])
    assert run.is_current("dataset") and not run.is_current("training")
    disk.write_text(run.folder("regions") / "annotation.json", "{}")
    assert not run.is_current("dataset")


def test_runs_of_training_have_folders_of_their_own(tmp_path):
    first, second = Workspace(tmp_path), Workspace(tmp_path, "rank64")
    assert first.folder("dataset") == second.folder("dataset")
    assert first.folder("training") != second.folder("training")
    assert second.folder("evaluation") == tmp_path / "evaluation" / "rank64"


def test_status_tells_each_step(run):
    state = workspace.status(run)
    assert list(state) == list(STEPS)
    assert state["regions"].startswith("finished 20") and state["evaluation"] == "not done"


def test_a_workspace_is_where_it_is_asked_for(tmp_path):
    asked = workspace.open_workspace(tmp_path / "asked", training_run="b")
    assert asked == Workspace(tmp_path / "asked", "b") and asked.root.is_dir()


@pytest.mark.parametrize("name", ["a::b", "$HOME", "x${HOME}"])
def test_a_workspace_that_datasets_cannot_read_is_refused_at_once(tmp_path, name):
    with pytest.raises(StepError, match=r"datasets cannot read .*: choose one without :: and \$"):
        workspace.open_workspace(tmp_path / name / "run")
    assert list(tmp_path.iterdir()) == []
    assert workspace.open_workspace(tmp_path / "50 $").root.is_dir()


def test_a_workspace_lies_beside_the_notebooks(monkeypatch, tmp_path):
    monkeypatch.setattr(workspace, "__file__", str(tmp_path / "utils" / "run" / "workspace.py"))
    assert workspace.open_workspace(preset="t4").root == tmp_path / "runs" / "t4"
    assert workspace.open_workspace().root == tmp_path / "runs" / "demo"
    assert workspace.open_workspace().data == tmp_path / "runs" / "demo" / "data"


def test_memory_is_in_gib(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    figures = machine.memory()
    assert set(figures) == {"host_peak"} and 0.01 < figures["host_peak"] < 500
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    card = types.SimpleNamespace(total_memory=16 * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: card)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 2**29)
    figures = machine.memory()
    assert figures["gpu_total"] == 16 and figures["gpu_peak"] == 0.5


@pytest.mark.parametrize(("system", "peak"), [("linux", 3 * 2**20), ("darwin", 3 * 2**30)])
def test_peak_memory_is_read_in_the_systems_own_unit(monkeypatch, system, peak):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("resource.getrusage", lambda _: types.SimpleNamespace(ru_maxrss=peak))
    monkeypatch.setattr(sys, "platform", system)
    assert machine.memory() == {"host_peak": 3}


def test_peak_memory_is_read_on_windows_too(monkeypatch):
    class Process:
        def memory_info(self):
            return types.SimpleNamespace(peak_wset=3 * 2**30)

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(machine.psutil, "Process", Process)
    assert machine.memory() == {"host_peak": 3}


def test_versions_leave_out_what_is_not_installed(monkeypatch):
    monkeypatch.setattr(workspace, "_PACKAGES", "pydantic no-such-package")
    assert set(workspace.versions()) == {"python", "pydantic"}


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = disk.write_text(tmp_path / "new folder" / "report.md", "öld\n")
    assert path.read_bytes() == "öld\n".encode()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        disk.write_text(path, "new\n")
    assert path.read_text(encoding="utf-8") == "öld\n"


def test_two_processes_may_write_the_same_file_at_once(tmp_path, monkeypatch):
    path = tmp_path / "features.npy"
    monkeypatch.setenv("RANK", "0")
    with disk.replacing_file(path) as first:
        first.write_text("whole")
        monkeypatch.setenv("RANK", "1")
        with disk.replacing_file(path) as second:
            second.write_text("whole")
    assert [left.name for left in tmp_path.iterdir()] == ["features.npy"] and path.read_text() == "whole"


def test_a_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path):
    path = disk.write_text(tmp_path / "report.md", "old\n")
    with pytest.raises(UnicodeEncodeError):
        disk.write_text(path, "\ud800")
    assert path.read_text() == "old\n"


def test_json_is_readable_as_written(tmp_path):
    path = disk.write_json(tmp_path / "a.json", {"size": "größer", "n": 1})
    assert "größer" in path.read_text(encoding="utf-8") and json.loads(path.read_text("utf-8"))["n"] == 1


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    for content in ("first", "second"):
        with disk.replacing(tmp_path / "dataset") as folder:
            (folder / f"{content}.txt").write_text(content)
    assert [path.name for path in tmp_path.rglob("*")] == ["dataset", "second.txt"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_folder(tmp_path, failure):
    disk.write_text(tmp_path / "dataset" / "old.txt", "old")
    with pytest.raises(failure), disk.replacing(tmp_path / "dataset") as folder:
        (folder / "new.txt").write_text("half")
        raise failure
    assert [path.name for path in tmp_path.rglob("*")] == ["dataset", "old.txt"]


def test_what_a_killed_run_left_is_swept_away(tmp_path):
    disk.write_text(tmp_path / ".dataset.part" / "half.txt", "half")
    with disk.replacing(tmp_path / "dataset") as folder:
        assert not list(folder.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_progress_says_what_and_how_far(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert list(progress.progress([1, 2], "studies")) == [1, 2]
    show = progress.counter("judged")
    show(3, 4)
    show(4, 4)
    printed = sys.stdout.getvalue()
    assert "studies: 100%" in printed and "2/2" in printed
    assert "judged: 100%" in printed and "4/4" in printed


# A disk that goes away


def test_a_step_is_finished_only_when_what_waits_for_it_is_there(drive):
    run = Workspace(drive.root / "run")
    path = disk.write_text(run.folder("regions") / "answers.jsonl", "{}\n")
    for number in (1, 2):
        disk.keep_here(path, b'{"key": %d}\n' % number)
    drive.lose()
    with pytest.raises(disk.DiskError, match=r"answers.jsonl cannot be (reached|written).*Mount its disk"):
        run.finish("regions", settings={}, outputs=[])
    for look in (lambda: run.manifest("regions"), lambda: disk.file_hash(path)):
        with pytest.raises(disk.DiskError, match=r"cannot be reached \(Transport endpoint"):
            look()
    drive.back()
    run.finish("regions", settings={}, outputs=[path])
    assert path.read_text() == '{}\n{"key": 1}\n{"key": 2}\n' and run.require("regions")


def test_a_write_waits_for_a_short_absence_and_ends_a_long_one_in_a_sentence(drive, monkeypatch):
    path = disk.write_text(drive.root / "a.json", "old\n")
    drive.lose()
    with pytest.raises(disk.DiskError, match=r"a.json cannot be reached .*run this cell again"):
        disk.write_text(path, "new\n")
    monkeypatch.setattr(disk, "PATIENCE", 30)
    monkeypatch.setattr("time.sleep", lambda _: drive.back())
    assert disk.write_text(path, "new\n").read_text() == "new\n"


def test_a_workspace_is_not_made_where_drive_is_not_mounted(tmp_path, monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.setattr(machine, "DRIVE", tmp_path / "drive" / "MyDrive")
    for make in (workspace.open_workspace, lambda root: disk.write_text(root / "a", "a")):
        with pytest.raises(disk.DiskError, match="is on Google Drive, which is not mounted"):
            make(machine.DRIVE / "mine")
    assert not list(tmp_path.iterdir())


def test_a_drive_that_is_away_is_not_taken_for_one_that_was_refused(drive, monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    monkeypatch.setattr(machine, "DRIVE", drive.root)
    assert workspace.open_workspace(preset="t4").root == drive.root / "xray_reports" / "t4"
    drive.lose()
    with pytest.raises(disk.DiskError, match=r"cannot be reached .*force_remount=True"):
        workspace.open_workspace(preset="t4")


# The size


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """Whether the machine has one, to be set; workspaces lie in a folder of their own."""
    for name in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(workspace, "__file__", str(tmp_path / "utils" / "run" / "workspace.py"))

    def there(is_there: bool) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: is_there)

    there(False)
    return there


def test_a_workspace_remembers_its_size_on_another_machine(gpu, tmp_path):
    for asked, is_there in (("t4", False), ("demo", True), ("", True), ("", False)):
        gpu(is_there)
        root = tmp_path / f"{asked}{is_there}"
        first = workspace.open_workspace(root, asked)
        first.finish("regions", settings={}, outputs=[])
        size = asked or ("t4" if is_there else "demo")
        for later in (True, False):
            gpu(later)
            assert workspace.open_workspace(root).size == first.size == size


@pytest.mark.parametrize(("done", "now"), [("demo", "t4"), ("t4", "demo"), ("small", "t4")])
def test_a_step_that_finds_the_series_at_another_size_names_the_value_to_set(gpu, done, now):
    workspace.open_workspace(preset=done).finish("dataset", settings={}, outputs=[])
    gpu(now == "t4")
    here = workspace.open_workspace()
    assert here.size == now
    with pytest.raises(StepError, match=rf'is missing in .*02_build.*at size {done} .* PRESET to "{done}"'):
        here.require("dataset")
    with pytest.raises(StepError) as caught:
        here.require("regions")  # done at no size
    assert "PRESET" not in str(caught.value)
    assert workspace.open_workspace(preset=done).require("dataset")


def test_a_workspace_of_another_size_is_not_mixed_and_says_what_to_set(gpu, tmp_path):
    run = workspace.open_workspace(tmp_path / "mine", "demo")
    assert workspace.open_workspace(run.root, "t4").size == "t4"  # nothing is done in it yet
    run.finish("regions", settings={}, outputs=[])
    with pytest.raises(StepError, match=r'at size t4: set PRESET to "t4" .* WORKSPACE to another'):
        workspace.open_workspace(run.root, "demo")
    assert workspace.open_workspace(run.root).size == "t4"


def test_the_size_of_a_folder_of_before_is_that_of_its_name_or_as_asked(gpu, tmp_path):
    for name, size in (("t4", "t4"), ("mine", "demo")):
        Workspace(tmp_path / name).finish("regions", settings={}, outputs=[])
        assert workspace.open_workspace(tmp_path / name).size == size
    gpu(True)
    assert workspace.open_workspace(tmp_path / "mine").size == "t4"  # the machine told nothing of it
    assert workspace.open_workspace(tmp_path / "mine", "small").size == "small"
    gpu(False)
    assert workspace.open_workspace(tmp_path / "mine").size == "small"


def test_an_unknown_size_is_refused_and_the_environment_sets_none(gpu, tmp_path, monkeypatch):
    with pytest.raises(StepError, match="no size called 'T4': set PRESET to one of t4, small, demo"):
        workspace.open_workspace(tmp_path / "mine", "T4")
    monkeypatch.setenv("XRAY_PRESET", "small")
    assert workspace.open_workspace(tmp_path / "other").size == "demo"
