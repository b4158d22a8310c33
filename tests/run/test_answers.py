"""The store of answers: nothing is lost, whoever is killed and whoever else writes."""

import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from faulty_disk import Mounted, small

from utils.run import answers as module
from utils.run import disk
from utils.run.answers import AnswerFile

HEADER = {"file": "answers", "version": 1}
START = json.dumps(HEADER) + "\n"


def opened(path, header=HEADER):
    """An open file and the keys that it holds."""
    keys = []
    return AnswerFile(path, "an answer", lambda entry: keys.append(entry["key"]), ValueError, header), keys


@pytest.mark.parametrize("header", [HEADER, None])
def test_what_was_added_is_there_again(tmp_path, header):
    file, _ = opened(tmp_path / "new" / "answers.jsonl", header)
    for key in "ab":
        file.add({"key": key})
    assert opened(file.path, header)[1] == ["a", "b"]
    assert len(file.path.read_text().splitlines()) == 2 + bool(header)


def test_without_a_file_nothing_is_kept():
    file, keys = opened(None)
    file.add({"key": "a"})
    assert keys == []


@pytest.mark.parametrize("header", [HEADER, None])
def test_a_line_that_a_kill_cut_off_is_left_out_and_said(tmp_path, header):
    path = tmp_path / "answers.jsonl"
    file, _ = opened(path, header)
    for key in "ab":
        file.add({"key": key})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.warns(UserWarning, match="cut off"):
        file, keys = opened(path, header)
    assert keys == ["a"]
    file.add({"key": "c"})
    with pytest.warns(UserWarning, match="cut off"):
        assert opened(path, header)[1] == ["a", "c"]


@pytest.mark.filterwarnings("ignore:.*cut off")
@pytest.mark.parametrize("header", [HEADER, None])
def test_a_line_cut_off_anywhere_also_inside_a_letter_costs_no_other_answer(tmp_path, header):
    path = tmp_path / "answers.jsonl"
    file, _ = opened(path, header)
    file.add({"key": "a"})
    before = path.read_bytes()
    file.add({"key": "b", "text": "38° – café 🫁"})
    line = path.read_bytes()[len(before) :]
    assert not line.isascii()
    for length in range(len(line) - 1):
        path.write_bytes(before + line[:length])
        file, keys = opened(path, header)
        assert keys == ["a"]
        file.add({"key": "c"})
        assert opened(path, header)[1] == ["a", "c"]


def test_a_header_that_a_kill_cut_off_is_written_anew(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(START[:10])
    file, _ = opened(path)
    file.add({"key": "a"})
    assert opened(path)[1] == ["a"]


@pytest.mark.parametrize(
    ("content", "header"),
    [
        ("study,score\n1,2\n", HEADER),
        (START + '{"other": 1}\n', HEADER),
        (START + "no\n\n", HEADER),
        (b"caf\xe9\n", None),
        (START + "[1]\n", HEADER),
        ("no\n", None),
        ('{"key": "a"}\n{\n  "key": "b"\n}\n', None),
    ],
)
def test_a_file_that_is_not_ours_is_named_and_left_as_it_is(tmp_path, content, header):
    path = tmp_path / "mine.jsonl"
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.jsonl"):
        opened(path, header)
    assert path.read_bytes() == content


RUN = """
import sys
from pathlib import Path
from utils.run.answers import AnswerFile

name, path = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
header = {"file": "answers", "version": 1}
for number in range(300):
    if number < 9:
        file = AnswerFile(Path(path), "an answer", lambda entry: entry["key"], ValueError, header)
    file.add({"key": f"{name} {number}", "text": name * 1000})
"""


def test_runs_on_one_file_lose_nothing_even_where_one_is_killed(tmp_path):
    path = tmp_path / "answers.jsonl"
    command = [sys.executable, "-W", "ignore", "-c", RUN]
    runs = [
        subprocess.Popen(
            [*command, name, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two", "three")
    ]
    for run in runs:
        assert run.stdout.readline() == "ready\n"
    for run in runs:  # together from the first line on, the header
        run.stdin.write("\n")
        run.stdin.flush()
    while not path.exists() or path.read_bytes().count(b'"three ') < 100:
        assert runs[2].poll() is None
    runs[2].kill()
    with path.open("ab") as file:  # as if it had been killed in the middle of a line
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(b'{"key": "half')
    for run in runs:
        run.communicate()
    assert [run.returncode for run in runs[:2]] == [0, 0]
    with pytest.warns(UserWarning, match="cut off"):
        _, keys = opened(path)
    assert {f"{name} {number}" for name in ("one", "two") for number in range(300)} <= set(keys)
    assert len(keys) == len(set(keys)) and any(key.startswith("three") for key in keys)


# A disk that goes away


def answers(drive, header=HEADER):
    """A file of answers on a disk, with one in it."""
    file, _ = opened(drive.root / "run" / "answers.jsonl", header)
    file.add({"key": "a"})
    return file


@pytest.mark.parametrize("header", [HEADER, None])
def test_while_a_disk_is_away_answers_wait_here_and_are_added_when_it_is_back(
    drive, header, capsys, monkeypatch
):
    monkeypatch.setattr(module, "PAUSE", 0)
    file = answers(drive, header)
    drive.lose()
    for key in "bcd":
        file.add({"key": key})
    said = capsys.readouterr().out
    assert said.count("cannot be written (Transport endpoint is not connected)") == 1
    assert str(disk.waits_at(file.path)) in said
    drive.back()
    file.add({"key": "e"})
    assert f"4 lines that waited are in {file.path} now" in capsys.readouterr().out
    file.add({"key": "f"})
    assert opened(file.path, header)[1] == [*"abcdef"]
    assert disk.waits_at(file.path).stat().st_size == 0


def test_a_disk_that_is_away_once_costs_nothing_and_is_not_spoken_of(drive, monkeypatch, capsys):
    file = answers(drive)
    monkeypatch.setattr(disk, "PATIENCE", 30)
    monkeypatch.setattr("time.sleep", lambda _: drive.back())
    drive.lose()
    file.add({"key": "b"})
    assert opened(file.path)[1] == ["a", "b"] and capsys.readouterr().out == ""


def test_a_disk_that_stays_away_is_not_tried_again_at_every_answer(faulty):
    file = answers(faulty)
    faulty.lose(times=100)
    for key in "bcdef":
        file.add({"key": key})
    assert faulty.times == 99


@pytest.mark.parametrize("drive", [Mounted], indirect=True)  # the run is a process of its own
def test_what_a_killed_run_could_not_add_is_read_and_added_by_the_next(drive, capsys):
    path = answers(drive).path
    drive.lose()
    code = (
        "import os, pathlib, sys\n"
        "from utils.run import disk\nfrom utils.run.answers import AnswerFile\n"
        "disk.PATIENCE, disk.WAITING = 0, pathlib.Path(sys.argv[2])\n"
        "file = object.__new__(AnswerFile)\n"
        "file.path = file._first = pathlib.Path(sys.argv[1])\nfile._next_try = 0\n"
        "[file.add({'key': key}) for key in 'bc']\nos.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path), str(disk.WAITING)], cwd=ROOT)
    assert run.returncode == -9
    drive.back()
    assert opened(path)[1] == ["a", "b", "c"]
    assert "2 lines that waited" in capsys.readouterr().out and opened(path)[1] == ["a", "b", "c"]


def test_lines_that_wait_are_added_once_also_where_a_kill_came_between(impatient, tmp_path):
    path = opened(tmp_path / "answers.jsonl")[0].path
    for key in "ab":
        disk.keep_here(path, json.dumps({"key": key}).encode() + b"\n")
    disk.append(disk.waits_at(path), b'{"key": "half')
    with path.open("ab") as file:  # the first was added, the second cut off
        file.write(b'{"key": "a"}\n{"key": "')
    with pytest.warns(UserWarning, match="cut off"):
        assert opened(path)[1] == ["a", "b"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_disk_that_can_only_be_read_is_read_and_the_rest_waits(faulty, number, monkeypatch, capsys):
    monkeypatch.setattr(module, "PAUSE", 0)
    path = answers(faulty).path
    faulty.lose(number, writing=True)
    for key in "bc":
        file, keys = opened(path)
        file.add({"key": key})
        assert keys == [*"ab"][: len(keys)] and os.strerror(number) in capsys.readouterr().out
    file.more()
    faulty.back()
    assert opened(path)[1] == ["a", "b", "c"]


def test_a_full_disk_takes_no_half_line_for_a_whole_one(impatient, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0)
    for place in small(tmp_path / "small", "16k"):
        file, _ = opened(place / "answers.jsonl")
        ballast = place / "ballast"
        ballast.write_bytes(bytes(4096))
        keys = [*"abcde"]
        for key in keys:
            file.add({"key": key, "text": key * 3000})
        assert disk.waits_at(file.path).stat().st_size > 3000
        with pytest.warns(UserWarning, match="cut off"):
            assert sorted(opened(file.path)[1]) == keys
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=64k", str(place)], check=True)
        with pytest.warns(UserWarning, match="cut off"):
            assert opened(file.path)[1] == keys


def test_a_read_only_mount_is_read_and_the_rest_waits(impatient, tmp_path, monkeypatch, capsys):
    for place in small(tmp_path / "small", "64k"):
        path = opened(place / "answers.jsonl")[0].path
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        opened(path)[0].add({"key": "a"})
        assert "Read-only file system" in capsys.readouterr().out and opened(path)[1] == ["a"]
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        assert opened(path)[1] == ["a"] and b'"a"' in path.read_bytes()


def test_where_nothing_can_be_kept_the_run_ends_in_a_sentence(faulty, monkeypatch):
    file = answers(faulty)
    monkeypatch.setattr(disk, "WAITING", faulty.root / "too")
    faulty.lose(errno.ENOSPC, writing=True)
    with pytest.raises(
        ValueError, match=r"Neither .* can be written \(No space left on device\)\. Free some"
    ):
        file.add({"key": "b"})


def test_a_file_whose_disk_is_away_is_not_taken_for_a_new_one(drive):
    path = answers(drive).path
    drive.lose()
    for look in (lambda: opened(path), lambda: module.files_of(path)):
        with pytest.raises(disk.DiskError, match=r"answers.jsonl cannot be reached .*run this cell again"):
            look()


def test_answers_of_other_processes_are_read_while_the_disk_is_away(drive, monkeypatch):
    path = answers(drive).path
    first, keys = opened(path)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    second, _ = opened(path)
    drive.lose()
    second.add({"key": "b"})
    first.more()
    assert keys == ["a", "b"]
    drive.back()
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert opened(path)[1] == ["a", "b"] and b'"b"' in path.with_name("answers.1.jsonl").read_bytes()
