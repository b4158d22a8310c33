"""Checkpoints: whole or passed over, few, and kept where there is room."""

import shutil
import subprocess

import pytest

from utils.training import checkpoints
from utils.training.checkpoints import Store
from utils.workspace import StepError


def written(folder, step, size=1000):
    """A checkpoint as the trainer leaves it."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "adapter_model.safetensors").write_bytes(bytes([step % 256]) * size)
    (path / "trainer_state.json").write_text("{}")
    return path


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "drive", tmp_path / "local", keep=2)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_sealed_copied_and_no_longer_where_it_was_written(store):
    written(store.local, 20)
    store.add(20, [])
    assert names(store.kept) == ["checkpoint-20"]
    assert checkpoints.is_sealed(store.kept / "checkpoint-20")
    assert names(store.local) == []


def test_the_newest_and_the_best_are_kept(store):
    history = [{"step": s, "eval_loss": loss} for s, loss in ((10, 0.9), (20, 0.5), (30, 0.6), (40, 0.7))]
    for step in (10, 20, 30, 40):
        written(store.local, step)
        store.add(step, history)
    assert names(store.kept) == ["checkpoint-20", "checkpoint-30", "checkpoint-40"]
    assert [path.name for path in store.whole()] == names(store.kept)


@pytest.mark.parametrize("fault", ["cut off", "a file gone", "no seal", "seal cut off"])
def test_a_damaged_checkpoint_is_named_and_passed_over(store, fault, capsys):
    for step in (20, 40):
        written(store.local, step)
        store.add(step, [])
    newest = store.kept / "checkpoint-40"
    weights, seal = newest / "adapter_model.safetensors", newest / checkpoints.SEAL
    if fault == "cut off":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif fault == "a file gone":
        weights.unlink()
    elif fault == "no seal":
        seal.unlink()
    else:
        seal.write_text(seal.read_text()[:20])
    assert store.resume_from() == store.kept / "checkpoint-20"
    assert "checkpoint-40 is incomplete or damaged" in capsys.readouterr().out
    assert names(store.kept) == ["checkpoint-20"]


def test_a_copy_that_was_cut_off_is_not_a_checkpoint(store):
    written(store.local, 20)
    store.add(20, [])
    part = store.kept / ".checkpoint-40.part"
    shutil.copytree(store.kept / "checkpoint-20", part)
    assert store.resume_from() == store.kept / "checkpoint-20"
    assert not part.exists()


def test_a_copy_that_differs_is_not_kept(store, monkeypatch, capsys):
    copytree = shutil.copytree

    def lossy(source, target):
        copytree(source, target)
        (target / "adapter_model.safetensors").write_bytes(b"")

    monkeypatch.setattr(checkpoints.shutil, "copytree", lossy)
    written(store.local, 20)
    store.add(20, [])
    assert "the copy differs from the original" in capsys.readouterr().out
    assert store.resume_from() == store.local / "checkpoint-20"


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for one checkpoint of 40 kB, as a Drive that is nearly full."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_drive_is_said_once_and_the_next_checkpoint_takes_the_others_along(
    small_disk, tmp_path, capsys
):
    store = Store(small_disk / "checkpoints", tmp_path / "local", keep=2)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(40_000))
    for step in (20, 40):
        written(store.local, step, 30_000)
        store.add(step, [])
    said = capsys.readouterr().out
    assert said.count("could not be copied") == 1
    assert "No space left on device" in said and str(store.local) in said
    assert store.resume_from() == store.local / "checkpoint-40"
    ballast.unlink()
    store.keep = 1
    written(store.local, 60, 10_000)
    shutil.rmtree(store.local / "checkpoint-20")
    store.add(60, [])
    assert "again" in capsys.readouterr().out
    assert names(store.local) == []
    assert store.resume_from() == store.kept / "checkpoint-60"


def test_other_settings_stop_with_the_difference_and_change_nothing(tmp_path):
    path = tmp_path / "settings.json"
    checkpoints.same_settings_or_stop({"lora_rank": 16, "hours": 3}, path, {"hours"})
    before = path.read_text()
    with pytest.raises(StepError, match="lora_rank: 16 → 4"):
        checkpoints.same_settings_or_stop({"lora_rank": 4, "hours": 3}, path, {"hours"})
    assert path.read_text() == before
    checkpoints.same_settings_or_stop({"lora_rank": 16, "hours": 1}, path, {"hours"})
