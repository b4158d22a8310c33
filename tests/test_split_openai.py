"""The openai engine against a real HTTP server that behaves badly."""

import asyncio
import json
import logging
import os
import signal
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from utils import split, split_openai
from utils.regions import ALL
from utils.split_offline import split_offline

KEY = "sk-secret-0123456789"
NORMAL = (
    "Heart size is normal. No pleural effusion in the {} lung base. Mild scoliosis of the spine, {} degrees."
)
TEXTS = [NORMAL.format("left" if i % 2 else "right", i) for i in range(40)]


class Server(ThreadingHTTPServer):
    """Answers chat completions by `behave(text, turn, body)`: a status, or the content to answer with."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behave):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.calls, self.lock = behave, [], threading.Lock()
        self.busy = self.most_busy = 0

    def handle_error(self, request, client_address):
        """A client that hangs up is no fault of the server."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][1]["content"].removeprefix("Findings:\n")
        with server.lock:
            turn = sum(call["text"] == text for call in server.calls)
            server.calls.append({"text": text, "body": body, "authorization": self.headers["Authorization"]})
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        try:
            answer = server.behave(text, turn, body)
        finally:
            with server.lock:
                server.busy -= 1
        if answer is ConnectionError:
            self.close_connection = True
            return
        if isinstance(answer, int):
            self._send(answer, {"error": {"message": f"no: {self.headers['Authorization']}"}})
            return
        message = {"role": "assistant", "content": answer}
        if answer is None:
            message["refusal"] = "I cannot help with that."
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        self._send(
            200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        )

    def _send(self, status, payload):
        data = json.dumps(payload).encode()
        self.send_response(status)
        if status in (429, 500):
            self.send_header("Retry-After", "0.05")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(behave):
        server = Server(behave)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

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
    return split.split_and_audit(texts, "openai", base_url=server.url, api_key=KEY, model="m", **options)


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
}


def misbehave(text, turn, body):
    number = TEXTS.index(text)
    return BAD[number](text, turn) if number in BAD else good(text)


def test_faults_in_three_of_ten_reports_lose_nothing_and_leak_no_key(serve, tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    server, cache, steps = serve(misbehave), tmp_path / "deep" / "answers.jsonl", []
    splits, audit = ask(server, cache=cache, progress=lambda *step: steps.append(step))
    assert [list(found) for found in splits] == [list(ALL)] * len(TEXTS)
    assert splits == [split_offline(text) for text in TEXTS]  # in order, and every fault repaired
    assert audit["ok"].all()
    assert set(audit.loc[audit["repaired"], "study"]) == {4, 5, 6, 7, 8, 9, 10, 11}
    assert steps[0] == (0, 40) and steps[-1] == (40, 40)
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
    monkeypatch.setattr(split_openai, "MAX_RETRIES", 0)
    server = serve(behave_well)
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(split.SplitError, match="gives no answer"):
        split.split_findings(TEXTS, "openai", base_url=url, api_key=KEY)


def test_one_report_that_the_server_refuses_is_split_offline(serve):
    server = serve(lambda text, turn, body: 400 if text == TEXTS[0] else good(text))
    splits, audit = ask(server, TEXTS[:3], concurrency=1)
    assert splits[0] == split_offline(TEXTS[0]) and set(audit.loc[audit["repaired"], "study"]) == {0}
    with pytest.raises(split.SplitError, match="gives no answer"):
        ask(server, TEXTS[:1])  # but not where there is no answer at all


def test_a_server_that_dies_midway_stops_the_run(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(split_openai, "MAX_RETRIES", 0)
    server = serve(lambda text, turn, body: good(text) if TEXTS.index(text) < 10 else ConnectionError)
    cache = tmp_path / "answers.jsonl"
    with pytest.raises(split.SplitError, match="gives no answer"):
        ask(server, cache=cache, concurrency=1)
    assert len(cache.read_text().splitlines()) == 10
    assert len(server.calls) == 10 + split_openai.GIVE_UP


def test_a_half_written_last_line_is_dropped_and_said(serve, tmp_path):
    cache, server = tmp_path / "answers.jsonl", serve(behave_well)
    whole = ask(server, TEXTS[:3], cache=cache, concurrency=1)[0]
    cache.write_bytes(cache.read_bytes()[:-20])
    with pytest.warns(UserWarning, match="half-written"):
        assert ask(server, TEXTS[:3], cache=cache)[0] == whole
    assert len(server.calls) == 4
    assert len([json.loads(line) for line in cache.read_text().splitlines()]) == 3


def test_a_damaged_cache_is_not_touched(serve, tmp_path):
    cache = tmp_path / "answers.jsonl"
    cache.write_text("not JSON\n")
    with pytest.raises(split.SplitError, match="Line 1"):
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


def test_an_interrupt_stops_the_run_and_keeps_what_was_answered(serve, tmp_path):
    def behave(text, turn, body):
        if TEXTS.index(text) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
        return good(text)

    server, cache = serve(behave), tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        ask(server, cache=cache, concurrency=1)
    assert len(server.calls) == 4 and len(cache.read_text().splitlines()) == 3


def test_a_progress_that_raises_is_not_swallowed(serve):
    def broken(done, total):
        raise RuntimeError("no screen")

    with pytest.raises(RuntimeError, match="no screen"):
        ask(serve(behave_well), progress=broken)
