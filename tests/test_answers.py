"""The store of answers: nothing is lost, whoever is killed and whoever else writes."""

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
        (START + "[1]\n", HEADER),
        ("no\n", None),
        ('{"key": "a"}\n{\n  "key": "b"\n}\n', None),
    ],
)
def test_a_file_that_is_not_ours_is_named_and_left_as_it_is(tmp_path, content, header):
    path = tmp_path / "mine.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"mine\.jsonl"):
        opened(path, header)
    assert path.read_text() == content


def test_two_processes_that_write_one_file_lose_nothing(tmp_path):
    path = tmp_path / "answers.jsonl"
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from utils.answers import AnswerFile\n"
        "for number in range(200):\n"
        "    file = AnswerFile(Path(sys.argv[2]), 'an answer', lambda entry: entry['key'], ValueError,\n"
        "        {'file': 'answers', 'version': 1})\n"
        "    file.add({'key': f'{sys.argv[3]}{number}', 'text': 'x' * 5000})\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", script, ROOT, path, name]) for name in "ab"
    ]
    assert [child.wait() for child in children] == [0, 0]
    _, keys = opened(path)
    assert sorted(keys) == sorted(f"{name}{number}" for name in "ab" for number in range(200))
