"""The store of answers: nothing is lost, whoever is killed and whoever else writes."""

import fcntl
import json
import subprocess
import sys

import pytest
from conftest import ROOT

from utils.answers import AnswerFile

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
from utils.answers import AnswerFile

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
