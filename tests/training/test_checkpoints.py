"""Checkpoints: whole or passed over, few, and kept where there is room and while the disk is there."""

import errno
import os
import shutil

import pytest
from faulty_disk import small

from utils.run import disk
from utils.run.workspace import StepError
from utils.training import checkpoints
from utils.training.checkpoints import Store


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
    yield from small(tmp_path / "small_disk", "64k")


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


# Deleted checkpoints


def opened(folder):
    """A handle on every file of a folder, which shows it also when it is deleted."""
    return [path.open("rb") for path in folder.rglob("*") if path.is_file()]


def sizes(handles):
    return {os.fstat(handle.fileno()).st_size for handle in handles}


def test_what_is_deleted_is_emptied_first_for_a_trash_keeps_it(store):
    store.keep = 1
    for step in (20, 40):
        written(store.local, step)
        store.add(step, [])
        if step == 20:
            pruned = opened(store.kept)
    damaged = written(store.kept, 60)
    part = shutil.copytree(damaged, store.kept / ".checkpoint-80.part")
    swept = [*opened(damaged), *opened(part)]
    assert len(pruned) == 3 and len(swept) == 4 and 0 not in sizes(swept)
    assert store.resume_from() == store.kept / "checkpoint-40"
    assert names(store.kept) == ["checkpoint-40"] and sizes([*pruned, *swept]) == {0}


def test_what_others_need_is_not_emptied(store, tmp_path):
    path = written(store.kept, 20)
    (tmp_path / "mine").hardlink_to(path / "adapter_model.safetensors")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    (path / "a_file").symlink_to(tmp_path / "mine")
    (path / "a_folder").symlink_to(tmp_path / "folder")
    disk.discard(path)
    assert not path.exists()
    assert (tmp_path / "mine").stat().st_size == 1000 and (tmp_path / "folder" / "mine").read_text() == "mine"


def test_what_is_replaced_can_still_be_read_where_it_is_open_and_half_a_file_is_emptied(tmp_path):
    """Weights and rows are mapped into memory: emptied below a reader, they would kill it."""
    folder = written(tmp_path, 20)
    handles = opened(folder)
    with disk.replacing(folder) as room:
        (room / "new").write_text("new")
    assert 0 not in sizes(handles) and names(folder) == ["new"]
    with pytest.raises(ValueError), disk.replacing_file(tmp_path / "table.csv") as part:
        part.write_text("half")
        half = part.open("rb")
        raise ValueError
    assert sizes([half]) == {0}


# A disk that goes away


@pytest.fixture
def on_drive(drive, tmp_path):
    """The checkpoints of a run on Drive, the first of them there."""
    store = Store(drive.root / "checkpoints", tmp_path / "local", keep=2)
    written(store.local, 20)
    store.add(20, [])
    return store


def test_a_drive_that_goes_away_is_said_once_and_gets_all_when_it_is_back(on_drive, drive, capsys):
    drive.lose()
    for step in (40, 60):
        written(on_drive.local, step)
        on_drive.add(step, [])
    said = capsys.readouterr().out
    assert said.count("Transport endpoint is not connected") == 1 and "training continues" in said
    assert names(on_drive.local) == ["checkpoint-40", "checkpoint-60"]
    assert [path.name for path in on_drive.behind()] == names(on_drive.local)
    drive.back()
    written(on_drive.local, 80)
    on_drive.add(80, [])
    assert "again" in capsys.readouterr().out and on_drive.behind() == []
    assert names(on_drive.kept) == ["checkpoint-60", "checkpoint-80"] and names(on_drive.local) == []


def test_a_checkpoint_on_a_disk_that_is_away_is_not_called_damaged(on_drive, drive):
    drive.lose()
    for look in (on_drive.resume_from, on_drive.newest, on_drive.whole):
        with pytest.raises(disk.DiskError, match=r"cannot be reached \(Transport.*run this cell again"):
            look()
    drive.back()
    assert on_drive.resume_from() == on_drive.kept / "checkpoint-20"


def test_a_session_that_ends_while_drive_is_away_goes_on_from_what_it_left(on_drive, drive, tmp_path):
    drive.lose()
    written(on_drive.local, 40)
    on_drive.add(40, [])
    drive.back()
    again = Store(on_drive.kept, on_drive.local, keep=2)
    assert again.resume_from() == again.local / "checkpoint-40"
    again.catch_up([])
    assert names(again.kept) == ["checkpoint-20", "checkpoint-40"] and names(again.local) == []


def test_a_short_absence_is_waited_for(on_drive, drive, monkeypatch, capsys):
    monkeypatch.setattr(disk, "PATIENCE", 30)
    monkeypatch.setattr("time.sleep", lambda _: drive.back())
    drive.lose()
    written(on_drive.local, 40)
    on_drive.add(40, [])
    assert names(on_drive.kept) == ["checkpoint-20", "checkpoint-40"]
    assert capsys.readouterr().out == ""


def test_a_drive_that_is_no_longer_mounted_is_not_made_anew_on_the_sessions_disk(
    on_drive, drive, tmp_path, capsys
):
    drive.root.rename(tmp_path / "unmounted")
    written(on_drive.local, 40)
    on_drive.add(40, [])
    assert not drive.root.exists() and "No such file or directory" in capsys.readouterr().out
    assert names(on_drive.local) == ["checkpoint-40"]
    (tmp_path / "unmounted").rename(drive.root)
    on_drive.catch_up([])
    assert names(on_drive.kept) == ["checkpoint-20", "checkpoint-40"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("times", [1, 2, 3, 5, 8, float("inf")])
def test_a_write_that_fails_at_any_place_loses_no_checkpoint(faulty, tmp_path, number, times, capsys):
    store = Store(faulty.root / "checkpoints", tmp_path / "local", keep=3)
    for step in (20, 40, 60):
        if step == 40:
            faulty.lose(number, times, writing=True)
        written(store.local, step)
        store.add(step, [])
        assert {f"checkpoint-{n}" for n in range(20, step + 1, 20)} == {path.name for path in store.whole()}
    assert times == 1 or os.strerror(number) in capsys.readouterr().out  # 1: the folder was there already
    faulty.back()
    store.catch_up([])
    assert names(store.kept) == ["checkpoint-20", "checkpoint-40", "checkpoint-60"]


def test_a_checkpoint_that_cannot_be_deleted_does_not_end_training(faulty, tmp_path, capsys):
    store = Store(faulty.root / "checkpoints", tmp_path / "local", keep=1)
    for step in (20, 40):
        written(store.local, step)
        store.add(step, [])
        if step == 20:
            written(store.local, 30)
            store.keep = 5
            store.add(30, [])
            store.keep = 1
    capsys.readouterr()
    faulty.lose(errno.EIO, writing=True)
    store.catch_up([])
    faulty.back()
    store.catch_up([])
    assert names(store.kept) == ["checkpoint-40"]
