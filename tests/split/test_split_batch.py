"""The Batch API's three steps against a real HTTP server that keeps files and batches."""

import json

import batch_server
import loopback
import pytest

from utils import split
from utils.split import batch
from utils.split.offline import split_offline

KEY = "sk-secret-0123456789"
PROMPT = "Split this."
TEXTS = [f"Heart size is normal. A nodule of {i} mm in the left lung." for i in range(7)]


@pytest.fixture
def server():
    with loopback.serving(batch_server.Server()) as server:
        yield server


@pytest.fixture
def steps(server, tmp_path):
    """The three steps with what they share; `steps.cache` and `steps.state` are their files."""

    class Steps:
        cache, state = tmp_path / "answers.jsonl", tmp_path / "batches.json"
        address = f"http://127.0.0.1:{server.server_port}/v1"

        @property
        def at(self):
            return {"base_url": self.address, "api_key": KEY}

        def submit(self, texts=TEXTS, model="m", **options):
            options |= {"cache": self.cache, "model": model, **self.at}
            return split.batch.submit(texts, PROMPT, self.state, **options)

        def poll(self):
            return split.batch.poll(self.state, **self.at)

        def collect(self, texts=TEXTS):
            return split.batch.collect(texts, PROMPT, self.state, cache=self.cache, **self.at)

    return Steps()


def good(text):
    return json.dumps(split_offline(text))


def test_submit_poll_collect_and_the_split_asks_no_more(server, steps):
    assert list(steps.submit()["batches"]) == ["batch-0"]
    assert steps.poll() == {"batch-0": "in_progress"} and steps.collect() == (0, 7)
    server.finish(good)
    assert steps.poll() == {"batch-0": "completed"} and steps.collect() == (7, 0)
    server.refuse = 500  # nothing is asked of it any more
    options = {"model": "m", "prompt": PROMPT, "cache": steps.cache, **steps.at}
    assert split.split_findings(TEXTS, "openai", **options) == [split_offline(text) for text in TEXTS]
    (request, *_), held = server.files["file-0"].splitlines(), steps.state.read_text()
    body = json.loads(request)["body"]
    assert body["model"] == "m" and body["response_format"]["type"] == "json_schema"
    assert KEY not in held + steps.cache.read_text() and not any(text in held for text in TEXTS)


def test_what_is_under_way_is_not_handed_in_twice(server, steps):
    steps.submit(TEXTS[:4])
    steps.submit(TEXTS[:4])
    steps.submit()
    assert [len(file.splitlines()) for file in server.files.values()] == [4, 3]


def test_a_batch_whose_answer_never_arrived_is_found_at_the_server(server, steps):
    steps.submit()
    steps.state.unlink()  # as if the session had ended before it was written
    assert list(steps.submit()["batches"]) == ["batch-0"] and len(server.batches) == 1


def test_bad_answers_are_left_to_be_asked_for(server, steps):
    bad = {0: "garbage", 1: None, 2: json.dumps(split_offline(TEXTS[2]) | {"others": "Pneumothorax."})}
    steps.submit()
    server.finish(lambda text: bad.get(TEXTS.index(text), good(text)))
    assert steps.collect() == (4, 3)
    firsts = [json.loads(line) for line in steps.cache.read_text().splitlines()]
    assert [entry["first"] for entry in firsts if "first" in entry] == ["garbage", bad[2]]
    again = steps.submit()  # or handed in once more
    assert list(again["batches"]) == ["batch-0", "batch-1"]
    server.finish(good)
    assert steps.collect() == (3, 0)


def test_an_expired_batch_gives_what_it_has(server, steps):
    steps.submit()
    server.finish(lambda text: good(text) if text == TEXTS[0] else None, status="expired")
    assert steps.collect() == (1, 6)


def test_large_collections_are_handed_in_in_portions(server, steps, monkeypatch):
    monkeypatch.setattr(batch, "MOST_REQUESTS", 3)
    assert [len(batch["keys"]) for batch in steps.submit()["batches"].values()] == [3, 3, 1]
    line = len(server.files["file-0"].splitlines()[0]) + 1
    monkeypatch.setattr(batch, "MOST_BYTES", 2 * line + 20)
    steps.state.unlink()
    server.batches.clear()
    assert [len(batch["keys"]) for batch in steps.submit()["batches"].values()] == [2, 2, 2, 1]


def test_what_goes_wrong_is_one_sentence_without_the_key(server, steps, tmp_path):
    with pytest.raises(split.SplitError, match="Submit first"):
        steps.poll()
    server.refuse = 401
    with pytest.raises(split.SplitError, match=r"does not answer.*\[key\]") as caught:
        steps.submit()
    assert KEY not in str(caught.value)
    steps.state.write_text("[]")
    with pytest.raises(split.SplitError, match="is not a record of batches"):
        steps.poll()
    steps.state.write_text(json.dumps({"model": "another", "batches": {}}))
    with pytest.raises(split.SplitError, match="belongs to another, not to m"):
        steps.submit()


def test_the_cost_is_shown_before_anything_is_sent_and_the_budget_holds(server, steps, monkeypatch):
    said, options = [], {"model": "gpt-4.1"}
    monkeypatch.setattr(
        batch, "print", lambda cost: said.append((str(cost), len(server.files))), raising=False
    )
    with pytest.raises(split.SplitError, match=r"above the budget of \$1e-05, so nothing was sent"):
        steps.submit(budget=1e-5, **options)
    with pytest.raises(split.SplitError, match="The price of m is not known"):
        steps.submit(budget=1)
    assert not server.files and not steps.state.exists()
    steps.submit(budget=1, **options)
    expected = str(split.estimate(TEXTS, "gpt-4.1", PROMPT, batch=True))
    assert said == [(expected, 0)] * 2 and len(server.files) == 1
    steps.submit(budget=1, **options)  # what is under way costs nothing more
    assert said[-1][0].startswith("0 reports") and len(server.files) == 1


def test_answers_that_stop_coming_in_are_collected_later(server, steps):
    steps.submit()
    server.finish(good)
    server.cut = 900
    with pytest.raises(split.SplitError, match="The Batch API does not answer"):
        steps.collect()
    server.cut = None
    assert steps.collect() == (7, 0)


def test_the_reason_of_a_failed_batch_is_said_once_and_nothing_is_sent_before(server, steps, capsys):
    steps.submit()
    server.fail({"code": "invalid_model", "message": f"The model `m` is not\nfor {KEY}.", "line": 1})
    with pytest.raises(split.SplitError, match=r"batch-0 failed: The model `m` is not for \[key\]\. Nothing"):
        steps.submit()
    assert len(server.batches) == 1 and KEY not in steps.state.read_text()
    capsys.readouterr()
    assert list(steps.submit()["batches"]) == ["batch-0", "batch-1"]  # it was mended
    server.finish(good)
    assert steps.collect() == (7, 0) and "batch-0" not in capsys.readouterr().out


@pytest.mark.parametrize("step", ["poll", "collect"])
def test_each_step_says_why_a_batch_failed(server, steps, capsys, step):
    steps.submit()
    server.fail(
        {"code": "a", "message": "One."}, {"code": "b", "message": "Two."}, {"code": "c", "message": "One."}
    )
    getattr(steps, step)()
    assert "batch-0 failed: One. Two.\n" in capsys.readouterr().out
    held = json.loads(steps.state.read_text())["batches"]["batch-0"]
    assert held["reason"] == "One. Two." and not held["collected"]
    steps.poll()
    assert "failed" not in capsys.readouterr().out
    steps.submit()  # its reports can be handed in again
    assert len(server.batches) == 2


def test_a_batch_that_fails_without_a_reason_is_said(server, steps, capsys):
    steps.submit()
    server.fail()
    steps.poll()
    assert "batch-0 failed: The API gives no reason." in capsys.readouterr().out


def test_what_fits_into_the_queue_is_sent_and_the_rest_when_there_is_room(server, steps, capsys):
    tokens = split.estimate(TEXTS[:1], "m", PROMPT).input_tokens
    server.token_limit = limit = round(3.5 * tokens / batch.SHARE)
    assert [len(one["keys"]) for one in steps.submit(token_limit=limit)["batches"].values()] == [3]
    assert "3 of 7 reports were handed in" in capsys.readouterr().out
    assert len(steps.submit(token_limit=limit)["batches"]) == 1  # the queue is full
    assert "0 of 4 reports were handed in" in capsys.readouterr().out
    came = 0
    for _ in range(3):
        server.finish(good)
        came += steps.collect()[0]
        steps.submit(token_limit=limit)
    assert came == 7 and [one["status"] for one in server.batches.values()] == ["completed"] * 3


def test_the_limit_that_the_api_names_is_kept_from_then_on(server, steps, capsys):
    tokens = split.estimate(TEXTS[:1], "m", PROMPT).input_tokens
    server.token_limit = round(2.5 * tokens / batch.SHARE)
    steps.submit()
    assert server.batches["batch-0"]["status"] == "failed"
    steps.submit()
    said = capsys.readouterr().out
    assert f"Limit: {server.token_limit:,} enqueued tokens" in said and "what fits is handed in" in said
    assert [len(one["keys"]) for one in json.loads(steps.state.read_text())["batches"].values()] == [7, 2]
    assert server.batches["batch-1"]["status"] == "in_progress"


def test_a_limit_without_a_number_halves_what_is_sent(server, steps):
    steps.submit()
    server.fail({"code": "token_limit_exceeded", "message": "Too many."})
    assert [len(one["keys"]) for one in steps.submit()["batches"].values()] == [7, 3]


def test_a_found_batch_keeps_its_own_questions_and_its_tokens(server, steps):
    steps.submit(TEXTS[:5])
    steps.state.unlink()
    tokens = split.estimate(TEXTS[:1], "m", PROMPT).input_tokens
    found = steps.submit(token_limit=round(6.5 * tokens / batch.SHARE))["batches"]
    assert [len(one["keys"]) for one in found.values()] == [5, 1]
    assert found["batch-0"]["tokens"] == split.estimate(TEXTS[:5], "m", PROMPT).input_tokens


def test_why_requests_have_no_answer_is_counted(server, steps, capsys):
    reasons = [
        {"response": {"status_code": 400, "body": {"error": {"message": "Too long."}}}},
        {"response": {"status_code": 400, "body": {"error": {"message": "Too long."}}}},
        {"response": None, "error": {"code": "batch_expired", "message": "Not in time."}},
        {"response": {"status_code": 502, "body": "<html>"}},
    ]
    steps.submit()
    server.finish(lambda text: dict(enumerate(reasons)).get(TEXTS.index(text), good(text)), status="expired")
    assert steps.collect() == (3, 4)
    said = capsys.readouterr().out
    assert "batch-0 is expired; 3 of 7 have an answer. 2 times: Too long. 1 times: Not in time." in said
    assert "HTTP 502" in said
    steps.collect()
    assert capsys.readouterr().out == ""  # said once


def test_a_batch_in_which_all_requests_fail_says_why(server, steps, capsys):
    steps.submit()
    server.finish(lambda text: {"response": {"status_code": 404, "body": {"error": "no such model"}}})
    assert steps.collect() == (0, 7)
    assert "0 of 7 have an answer. 7 times: no such model." in capsys.readouterr().out


def test_no_key_is_said_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(split.SplitError, match="needs a key"):
        split.batch.submit(TEXTS, PROMPT, tmp_path / "state.json", cache=tmp_path / "a.jsonl")
    assert not (tmp_path / "state.json").exists()
