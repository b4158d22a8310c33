"""Several processes on one step: how many, who does what, and what a notebook hears of them."""

import types
from itertools import chain

import pytest
import torch

from utils.judge import judge_pairs, write_completion
from utils.run import processes
from utils.run.answers import AnswerFile, files_of
from utils.run.workspace import StepError


def as_process(monkeypatch, number, count):
    """This process as one of those that accelerate has started."""
    monkeypatch.setenv("RANK", str(number))
    monkeypatch.setenv("WORLD_SIZE", str(count))


@pytest.mark.parametrize(
    ("gpus", "wanted", "count"), [(0, "", 1), (1, "", 1), (2, "", 2), (2, "1", 1), (0, "2", 2)]
)
def test_there_is_a_process_for_each_gpu_unless_it_is_said_otherwise(monkeypatch, gpus, wanted, count):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv(processes.COUNT, wanted)
    assert processes.how_many() == count


@pytest.mark.parametrize("wanted", ["two", "0", "-1", "1.5"])
def test_a_number_of_processes_that_is_none_is_named(monkeypatch, wanted):
    monkeypatch.setenv(processes.COUNT, wanted)
    with pytest.raises(StepError, match=r"XRAY_PROCESSES is .*set it to a number"):
        processes.how_many()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_item_is_one_processs_and_shares_are_alike(monkeypatch, count):
    shares = []
    for number in range(count):
        as_process(monkeypatch, number, count)
        shares.append(processes.shard(list(range(10))))
    assert sorted(chain.from_iterable(shares)) == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def opened(path, header=None):
    keys = []
    return AnswerFile(path, "an answer", lambda entry: keys.append(entry["key"]), ValueError, header), keys


@pytest.mark.parametrize("header", [{"file": "answers"}, None])
def test_each_process_has_a_file_of_its_own_and_reads_all(monkeypatch, tmp_path, header):
    path, files = tmp_path / "answers.jsonl", []
    for number in range(11):
        as_process(monkeypatch, number, 11)
        files.append(opened(path, header)[0])
        files[-1].add({"key": number})
    (tmp_path / "answers.old.jsonl").write_text("somebody's notes\n")
    assert [file.path.name for file in files[:2]] == ["answers.jsonl", "answers.1.jsonl"]
    assert files_of(path) == [file.path for file in files]
    as_process(monkeypatch, 0, 1)
    assert opened(path, header)[1] == list(range(11))


def test_what_others_add_is_read_later_a_line_at_a_time(monkeypatch, tmp_path):
    path = tmp_path / "answers.jsonl"
    file, keys = opened(path)
    as_process(monkeypatch, 1, 2)
    other, _ = opened(path)
    for key, whole in (("a", 1), ("b", 0)):
        other.add({"key": key})
        line = other.path.read_bytes()
        if not whole:
            other.path.write_bytes(line[:-4])  # as it is read while it is being written
        file.more()
    assert keys == ["a"]
    other.path.write_bytes(line)
    file.more()
    file.more()
    assert keys == ["a", "b"]


def test_another_processs_foreign_file_is_named(tmp_path):
    (tmp_path / "answers.1.jsonl").write_text("my notes\n")
    with pytest.raises(ValueError, match=r"answers\.1\.jsonl"):
        opened(tmp_path / "answers.jsonl", {"file": "answers"})


class Judge:
    label, fingerprint = "counting judge (not GREEN)", "1"

    def ask(self, pairs):
        self.asked = list(pairs)
        yield from ((index, write_completion("Fine.", {}, {}, ["clear"])) for index in range(len(pairs)))


def test_questions_are_shared_where_their_answers_are(monkeypatch, tmp_path):
    pairs, shares = [(f"Nodule of {n} mm.", "Clear.") for n in range(7)], []
    for number in range(2):
        as_process(monkeypatch, number, 2)
        engine = Judge()
        judged = judge_pairs(pairs, engine, cache=tmp_path / "answers.jsonl")
        shares.append(engine.asked)
        assert sum(one.score is not None for one in judged) == (4, 7)[number]
        judge_pairs(pairs, engine)  # nobody else would hear of these answers
        assert engine.asked == pairs
    assert sorted(shares[0] + shares[1]) == sorted(pairs)


def test_training_is_told_from_process_to_process(tmp_path):
    import pandas as pd

    from utils.training.callbacks import Progress, Sample, read_progress, write_progress

    log = pd.DataFrame({"step": [1, 2], "loss": [2.5, float("nan")], "eval_loss": [float("nan"), 1.25]})
    told = Progress(log, 2, 8, None, [Sample("a", "Clear.", "lung: Fine.")], {"host_peak": 1.5})
    write_progress(told, tmp_path / "now.json")
    heard = read_progress(tmp_path / "now.json")
    pd.testing.assert_frame_equal(heard.log, log)
    assert (heard.samples, heard.memory, heard.seconds_left) == (told.samples, told.memory, None)


def finished(tmp_path, code, errors):
    """Processes that have ended, with what they left."""
    team = object.__new__(processes.Processes)
    (tmp_path / "output").write_text("Continuing from checkpoint-4.\n")
    team._output, team._errors = (tmp_path / "output").open(), tmp_path / "errors"
    team._errors.write_text(errors)
    team._process = types.SimpleNamespace(poll=lambda: code)
    return team


AGENT = (
    "E1124 10:00:00 torch/distributed/elastic/multiprocessing/api.py:984] failed (exitcode: {}) local_rank: 0"
)


@pytest.mark.parametrize(
    ("errors", "code", "sentence"),
    [
        ("a bar 10%\rThe loss is nan at step 4.\n", 1, "The loss is nan at step 4."),
        ("Traceback (most recent call last):\n  File\nValueError: no\n", 1, "ValueError: no"),
        ("a bar 10%\r", -9, "One of the processes was killed, often for lack of memory."),
        ("", 1, "One of the processes failed."),
    ],
)
def test_why_a_process_failed_is_one_sentence(tmp_path, capsys, errors, code, sentence):
    team = finished(
        tmp_path, 1, f"{errors}{AGENT.format(code)}\nTraceback (most recent call last):\n  more\n"
    )
    with pytest.raises(StepError) as caught:
        team.running()
    assert str(caught.value).startswith(sentence)
    printed = capsys.readouterr().out
    assert printed.startswith("Continuing from checkpoint-4.") and "more" not in printed
    assert ("ValueError" in printed) == ("ValueError" in errors)
