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


def test_the_cost_is_shown_before_anything_is_sent_and_the_budget_holds(server, steps):
    said = []
    options = {"model": "gpt-4.1", "show": lambda text: said.append((text, len(server.files)))}
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


def test_no_key_is_said_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(split.SplitError, match="needs a key"):
        split.batch.submit(TEXTS, PROMPT, tmp_path / "state.json", cache=tmp_path / "a.jsonl")
    assert not (tmp_path / "state.json").exists()
