"""The openai engine against a real HTTP server that behaves badly."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import loopback
import pytest
from conftest import ROOT

from utils import split
from utils.regions import ALL
from utils.run.answers import key_of
from utils.split import remote
from utils.split.offline import split_offline

KEY = "sk-secret-0123456789"
NORMAL = (
    "Heart size is normal. No pleural effusion in the {} lung base. Mild scoliosis of the spine, {} degrees."
)
TEXTS = [NORMAL.format("left" if i % 2 else "right", i) for i in range(40)]


@pytest.fixture
def serve():
    servers = []

    def start(behave):
        servers.append(loopback.start(behave))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def good(text):
    return json.dumps(split_offline(text))


def behave_well(text, turn, body):
    return good(text)


def ask(server, texts=TEXTS, **options):
    options = {"model": "m", "api_key": KEY} | options
    return split.split_and_audit(texts, "openai", base_url=server.url, **options)


BAD = {
    0: lambda text, turn: 429 if turn == 0 else good(text),
    1: lambda text, turn: 500 if turn == 0 else good(text),
    2: lambda text, turn: ConnectionError if turn == 0 else good(text),
    3: lambda text, turn: f"Sure! Here {{it}} is:\n```json\n{good(text)}\n```\nAnything else?",
    4: lambda text, turn: good(text)[:-40],
    5: lambda text, turn: json.dumps({k: v for k, v in split_offline(text).items() if k != "bone"}),
    6: lambda text, turn: json.dumps(split_offline(text) | {"others": "Large left pneumothorax."}),
    7: lambda text, turn: None,
    8: lambda text, turn: json.dumps({**split_offline(text), "lung": "Pleural effusion in the lung base."}),
    9: lambda text, turn: "garbage",
    10: lambda text, turn: json.dumps({name: ["a", "list"] for name in ALL}),
    11: lambda text, turn: 400,
    12: lambda text, turn: (time.sleep(4) if turn == 0 else None) or good(text),
}


def misbehave(text, turn, body):
    number = TEXTS.index(text)
    return BAD[number](text, turn) if number in BAD else good(text)


def test_faults_in_three_of_ten_reports_lose_nothing_and_leak_no_key(
    serve, tmp_path, caplog, capsys, monkeypatch
):
    monkeypatch.setattr(remote, "TIMEOUT", 2)  # the slow answer is given up, and asked for again
    caplog.set_level(logging.DEBUG)
    server, cache, steps = serve(misbehave), tmp_path / "deep" / "answers.jsonl", []
    splits, audit = ask(server, cache=cache, progress=lambda *step: steps.append(step))
    assert [list(found) for found in splits] == [list(ALL)] * len(TEXTS)
    assert splits == [split_offline(text) for text in TEXTS]  # in order, and every fault repaired
    assert audit["ok"].all()
    assert set(audit.loc[audit["repaired"], "study"]) == {4, 5, 6, 7, 8, 9, 10, 11}
    assert steps[0] == (0, 40) and steps[-1] == (40, 40)
    assert sum(call["text"] == TEXTS[12] for call in server.calls) == 2
    assert any(call["authorization"] == f"Bearer {KEY}" for call in server.calls)
    output = capsys.readouterr()
    assert KEY not in cache.read_text() + caplog.text + output.out + output.err


def test_a_second_run_asks_nothing(serve, tmp_path):
    faults = [text for i, text in enumerate(TEXTS) if i != 11]  # 11 never gets an answer to keep
    server, cache = serve(misbehave), tmp_path / "answers.jsonl"
    first = ask(server, faults, cache=cache)[0]
    calls = len(server.calls)
    assert ask(server, faults, cache=cache)[0] == first
    assert len(server.calls) == calls
    ask(server, faults[:1], cache=cache, prompt="Another prompt.")
    assert len(server.calls) > calls


def test_what_fails_the_audit_is_asked_again_once_with_the_reason(serve):
    wrong = json.dumps(split_offline(TEXTS[0]) | {"others": "Large pneumothorax."})
    server = serve(lambda text, turn, body: wrong if turn == 0 else good(text))
    splits, audit = ask(server, TEXTS[:1])
    assert splits == [split_offline(TEXTS[0])] and not audit["repaired"].any()
    assert len(server.calls) == 2
    assert (
        '"Large pneumothorax." is not in the findings' in server.calls[1]["body"]["messages"][-1]["content"]
    )


def test_a_first_answer_is_not_paid_for_twice_where_the_second_never_came(serve, tmp_path):
    wrong = json.dumps(split_offline(TEXTS[0]) | {"others": "Large pneumothorax."})
    server, cache = serve(lambda text, turn, body: wrong if turn == 0 else 400), tmp_path / "answers.jsonl"
    with pytest.raises(split.SplitError, match="does not answer"):
        ask(server, TEXTS[:1], cache=cache)
    server.behave, asked = behave_well, len(server.calls)
    splits, audit = ask(server, TEXTS[:1], cache=cache)
    assert splits == [split_offline(TEXTS[0])] and not audit["repaired"].any()
    assert len(server.calls) == asked + 1
    assert "does not pass" in server.calls[-1]["body"]["messages"][-1]["content"]


def test_a_worse_second_answer_does_not_replace_the_first(serve):
    wrong = json.dumps(split_offline(TEXTS[0]) | {"others": "Large pneumothorax."})
    server = serve(lambda text, turn, body: wrong if turn == 0 else "garbage")
    splits, audit = ask(server, TEXTS[:1])
    assert splits == [split_offline(TEXTS[0])] and len(server.calls) == 2
    assert audit.loc[audit["repaired"], "sentence"].tolist() == ["Large pneumothorax."]


@pytest.mark.parametrize(("refused", "taken"), [(set(), "json_schema"), ({"json_schema"}, "json_object")])
def test_steps_down_to_the_format_that_the_server_takes(serve, refused, taken):
    def behave(text, turn, body):
        return 400 if body.get("response_format", {}).get("type") in refused else good(text)

    server = serve(behave)
    ask(server, TEXTS[:3], concurrency=1)
    formats = [call["body"]["response_format"]["type"] for call in server.calls]
    assert formats[-3:] == [taken] * 3 and len(formats) == 3 + len(refused)  # a refused format is tried once


def test_steps_down_to_plain_text(serve):
    server = serve(lambda text, turn, body: 400 if "response_format" in body else "Well: " + good(text))
    splits, audit = ask(server, TEXTS[:2], concurrency=1)
    assert splits == [split_offline(text) for text in TEXTS[:2]] and not audit["repaired"].any()


def test_no_more_than_concurrency_at_a_time(serve):
    server = serve(lambda text, turn, body: time.sleep(0.02) or good(text))
    ask(server, concurrency=4)
    assert 1 < server.most_busy <= 4


def test_a_refused_key_stops_with_one_sentence_and_keeps_the_cache(serve, tmp_path):
    cache, server = tmp_path / "answers.jsonl", serve(behave_well)
    ask(server, TEXTS[:3], cache=cache)
    before = cache.read_bytes()
    server.behave = lambda text, turn, body: 401
    with pytest.raises(split.SplitError, match=r"refused the request \(401\)") as caught:
        ask(server, cache=cache, concurrency=2)
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown and "[key]" in str(caught.value)
    assert caught.value.__context__ is None
    assert cache.read_bytes() == before and len(server.calls) <= 3 + 2


def test_a_server_that_is_not_there_stops_with_one_sentence(serve, monkeypatch):
    monkeypatch.setattr(remote, "MAX_RETRIES", 0)
    server = serve(behave_well)
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(split.SplitError, match="does not answer"):
        split.split_findings(TEXTS, "openai", base_url=url, api_key=KEY)


def test_one_report_that_the_server_refuses_is_split_offline(serve):
    server = serve(lambda text, turn, body: 400 if text == TEXTS[0] else good(text))
    splits, audit = ask(server, TEXTS[:3], concurrency=1)
    assert splits[0] == split_offline(TEXTS[0]) and set(audit.loc[audit["repaired"], "study"]) == {0}
    with pytest.raises(split.SplitError, match="does not answer"):
        ask(server, TEXTS[:1])  # but not where there is no answer at all


@pytest.mark.parametrize("body", loopback.NO_COMPLETIONS, ids=str)
def test_an_answer_that_is_no_chat_completion_is_said_and_not_kept(serve, tmp_path, body):
    server, cache = serve(lambda text, turn, asked: body), tmp_path / "answers.jsonl"
    with pytest.raises(split.SplitError, match="sends no chat completion; check the base URL"):
        ask(server, cache=cache)
    server.behave = behave_well
    assert not ask(server, cache=cache)[1]["repaired"].any()


def test_a_server_that_dies_midway_stops_the_run(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "MAX_RETRIES", 0)
    server = serve(lambda text, turn, body: good(text) if TEXTS.index(text) < 10 else ConnectionError)
    cache = tmp_path / "answers.jsonl"
    with pytest.raises(split.SplitError, match="does not answer"):
        ask(server, cache=cache, concurrency=1)
    assert len(cache.read_text().splitlines()) == 10
    assert len(server.calls) == 10 + remote.GIVE_UP


def test_a_half_written_last_line_is_dropped_and_said(serve, tmp_path):
    cache, server = tmp_path / "answers.jsonl", serve(behave_well)
    whole = ask(server, TEXTS[:3], cache=cache, concurrency=1)[0]
    cache.write_bytes(cache.read_bytes()[:-20])
    with pytest.warns(UserWarning, match="cut off"):
        assert ask(server, TEXTS[:3], cache=cache)[0] == whole
    assert len(server.calls) == 4
    with pytest.warns(UserWarning, match="cut off"):
        ask(server, TEXTS[:3], cache=cache)
    assert len(server.calls) == 4


def test_a_damaged_cache_is_not_touched(serve, tmp_path):
    cache = tmp_path / "answers.jsonl"
    cache.write_text("not JSON\n")
    with pytest.raises(split.SplitError, match="line 1"):
        ask(serve(behave_well), TEXTS[:1], cache=cache)
    assert cache.read_text() == "not JSON\n"


def test_works_where_a_loop_is_running(serve):
    server = serve(behave_well)

    async def cell():
        return ask(server, TEXTS[:2])[0]

    assert asyncio.run(cell()) == [split_offline(text) for text in TEXTS[:2]]


def test_the_same_text_and_no_text_are_not_asked_twice(serve):
    server = serve(behave_well)
    splits, _ = ask(server, [TEXTS[0], "", TEXTS[0]])
    assert splits == [split_offline(TEXTS[0]), dict.fromkeys(ALL, ""), split_offline(TEXTS[0])]
    assert len(server.calls) == 1


def test_key_comes_from_the_environment_or_is_asked_for(serve, monkeypatch):
    with pytest.raises(split.SplitError, match="needs a key"):
        split.split_findings(TEXTS, "openai")
    with pytest.raises(split.SplitError, match="concurrency"):
        split.split_findings(TEXTS, "openai", api_key=KEY, concurrency=0)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = serve(behave_well)
    split.split_findings(TEXTS[:1], "openai", base_url=server.url)
    assert server.calls[0]["authorization"] == f"Bearer {KEY}"


def test_a_local_server_needs_no_key(serve):
    assert split.split_findings(TEXTS[:1], "openai", base_url=serve(behave_well).url)[0]["heart"]


@pytest.fixture
def interruptible():
    """Ctrl-C raises KeyboardInterrupt, also in what a shell started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_stops_the_run_and_keeps_what_was_answered(serve, tmp_path, interruptible):
    stopped = threading.Event()

    def behave(text, turn, body):
        if TEXTS.index(text) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            stopped.wait(remote.TIMEOUT)  # no answer before the interrupt
        return good(text)

    server, cache = serve(behave), tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        ask(server, cache=cache, concurrency=1)
    stopped.set()
    assert len(server.calls) == 4 and len(cache.read_text().splitlines()) == 3


def test_a_progress_that_raises_is_not_swallowed(serve):
    def broken(done, total):
        raise RuntimeError("no screen")

    with pytest.raises(RuntimeError, match="no screen"):
        ask(serve(behave_well), progress=broken)


def test_a_budget_ends_the_questions_and_the_rest_is_split_offline(serve, tmp_path):
    server, cache = serve(behave_well), tmp_path / "answers.jsonl"
    server.usage = {"prompt_tokens": 600, "completion_tokens": 50, "total_tokens": 650}
    spending = split.new_spending("gpt-4.1", budget=0.03)  # each question: $0.0016
    with pytest.warns(UserWarning, match="budget is used up") as said:
        splits, audit = ask(server, model="gpt-4.1", cache=cache, concurrency=2, spending=spending)
    assert splits == [split_offline(text) for text in TEXTS] and audit["ok"].all()
    kept = len(cache.read_text().splitlines())
    assert len(server.calls) == kept == spending.questions and 5 <= kept < len(TEXTS)
    assert spending.dollars == pytest.approx(0.0016 * kept) and spending.dollars <= 0.03
    assert f"{len(TEXTS) - kept} of 40 reports are not complete" in str(said[0].message)
    assert KEY not in str(said[0].message)
    ask(server, model="gpt-4.1", cache=cache)  # without a limit it goes on where it was
    assert len(server.calls) == len(TEXTS)


def test_a_question_that_fails_costs_nothing_and_cached_input_costs_less(serve):
    server = serve(lambda text, turn, body: 400 if text == TEXTS[0] else good(text))
    details = {"cached_tokens": 500}
    server.usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    server.usage["prompt_tokens_details"] = details
    spending = split.new_spending("gpt-4.1")
    ask(server, TEXTS[:3], model="gpt-4.1", spending=spending, concurrency=1)
    assert spending.questions == 2
    assert spending.dollars == pytest.approx(2 * (500 * 2 + 500 * 0.5 + 100 * 8) / 1e6)
    assert "$0.004" in str(spending) and "2 questions" in str(spending)


def test_a_budget_needs_a_price_but_not_at_a_server_of_ones_own(serve):
    with pytest.raises(split.SplitError, match="price of m is not known"):
        split.split_findings(TEXTS, "openai", model="m", api_key=KEY, budget=1)
    assert ask(serve(behave_well), TEXTS[:1], budget=1)[0] == [split_offline(TEXTS[0])]


RUN = """
import sys
from pathlib import Path
from utils import split

texts = sys.stdin.read().splitlines()
splits, audit = split.split_and_audit(
    texts, "openai", model="m", base_url=sys.argv[1], concurrency=4, cache=Path(sys.argv[2])
)
assert audit["ok"].all()
"""


def run_in_a_process(server, cache, **options):
    environment = {**os.environ, "OPENAI_API_KEY": KEY}
    command = [sys.executable, "-c", RUN, server.url, str(cache)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes, **options)
    process.stdin.write("\n".join(TEXTS))
    process.stdin.close()
    return process


def test_killed_in_mid_run_it_goes_on_where_it_was(serve, tmp_path):
    server, cache = serve(lambda text, turn, body: time.sleep(0.1) or good(text)), tmp_path / "answers.jsonl"
    process = run_in_a_process(server, cache)
    while len(server.calls) < 14 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    whole = [line for line in cache.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    keys = {json.loads(line)["key"] for line in whole}
    finished = [text for text in TEXTS if key_of("m", split.load_prompt().text, text) in keys]
    assert 5 <= len(finished) < len(TEXTS)
    while server.busy:  # what was under way at the server ends
        time.sleep(0.01)
    asked = len(server.calls)
    again = run_in_a_process(server, cache)
    assert again.wait() == 0, again.stdout.read()
    assert not {call["text"] for call in server.calls[asked:]} & set(finished)
    assert len(server.calls) - asked == len(TEXTS) - len(finished)
    lines = [json.loads(line) for line in cache.read_text().splitlines()]
    assert len({line["key"] for line in lines}) == len(lines) == len(TEXTS)
    assert KEY not in again.stdout.read() + cache.read_text()


def test_the_key_is_in_no_traceback_of_a_process_that_fails(serve, tmp_path):
    server = serve(lambda text, turn, body: 401)
    process = run_in_a_process(server, tmp_path / "answers.jsonl")
    output = process.stdout.read()
    assert process.wait() != 0 and "SplitError" in output and "[key]" in output
    assert KEY not in output
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_budget_that_ends_before_the_second_question_keeps_the_first_answer(serve, tmp_path):
    wrong = json.dumps(split_offline(TEXTS[0]) | {"bone": ""})
    server, cache = serve(lambda text, turn, body: wrong), tmp_path / "answers.jsonl"
    server.usage = {"prompt_tokens": 600, "completion_tokens": 50, "total_tokens": 650}
    with pytest.warns(UserWarning, match="1 of 1 reports"):
        splits, audit = ask(server, TEXTS[:1], model="gpt-4.1", cache=cache, budget=0.003)
    assert len(server.calls) == 1 and splits == [split_offline(TEXTS[0])]
    assert 0 < audit["repaired"].sum() < len(audit)  # mended, not split anew
