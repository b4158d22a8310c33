"""The openai engine at servers as people have them: slow or odd, with a key as it was copied."""

import json
import time
import warnings

import loopback
import pytest

from utils import split
from utils.split import remote
from utils.split.offline import split_offline

KEY = "sk-secret-0123456789"
TEXTS = [f"Heart size is normal. A nodule of {i} mm in the left lung." for i in range(24)]
HALF = "\ud83e"  # of a character: what is left where a server cuts an answer between its two UTF-16 units


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with loopback.serving(loopback.Server(lambda text, turn, body: good(text))) as server:
        yield server


def good(text):
    return json.dumps(split_offline(text))


def ask(server, texts=TEXTS, **options):
    options = {"model": "m", "api_key": KEY, "base_url": server.url} | options
    return split.split_and_audit(texts, "openai", **options)


@pytest.mark.parametrize("status", [400, 415, 422, 501])
def test_a_form_that_the_server_does_not_know_is_given_up_whatever_it_says(server, monkeypatch, status):
    monkeypatch.setattr(remote, "MAX_RETRIES", 0)
    server.behave = lambda text, turn, body: status if "response_format" in body else good(text)
    splits, audit = ask(server, TEXTS[:3], concurrency=1)
    assert splits == [split_offline(text) for text in TEXTS[:3]] and not audit["repaired"].any()
    assert len(server.calls) == 3 + 2  # each form is tried once


def test_a_server_that_can_do_few_at_a_time_is_asked_fewer_and_the_user_is_told(server, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT", 1)
    places, at_work, most = [], [], []
    made = remote._AtWork
    monkeypatch.setattr(remote, "_AtWork", lambda number: places.append(made(number)) or places[0])

    def behave(text, turn, body):
        if places[0].most > 4:
            time.sleep(2)
            return good(text)
        at_work.append(text)
        if not places[0]._to_remove:  # what was asked before is over
            most.append(len(at_work))
        time.sleep(0.02)
        at_work.remove(text)
        return good(text)

    server.behave = behave
    with pytest.warns(UserWarning, match="most got no answer within 1 s") as said:
        splits, audit = ask(server)
    assert splits == [split_offline(text) for text in TEXTS] and not audit["repaired"].any()
    told = [str(one.message) for one in said]
    assert len(told) == 2 and "Of 16 questions" in told[0] and "Of 8 questions" in told[1]
    assert "asked 4 at a time now. Set concurrency to 4" in told[1]
    assert 1 <= max(most) <= 4


def test_a_server_that_is_too_slow_for_one_question_is_given_up_in_one_sentence(server, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT", 0.15)
    server.behave = lambda text, turn, body: time.sleep(0.6) or good(text)
    with (
        pytest.warns(UserWarning, match="asked 1 at a time now"),
        pytest.raises(
            split.SplitError, match=r"no answer came within 0.15 s, asked one question at a time\."
        ),
    ):
        ask(server)
    assert len(server.calls) < 3 * 16  # and not 9 times 16


def test_a_server_that_is_slow_once_is_asked_again_without_a_word(server, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT", 2)
    late = TEXTS[::6]
    server.behave = lambda text, turn, body: time.sleep(4 * (text in late and turn == 0)) or good(text)
    with warnings.catch_warnings(action="error"):
        splits, audit = ask(server)
    assert splits == [split_offline(text) for text in TEXTS] and not audit["repaired"].any()
    assert len(server.calls) >= len(TEXTS) + len(late)


def test_a_model_that_is_still_being_loaded_is_waited_for(server, monkeypatch):
    monkeypatch.setattr(remote, "TIMEOUT", 1)
    server.behave = lambda text, turn, body: time.sleep(2 * (turn < 2)) or good(text)
    assert not ask(server, TEXTS[:1])[1]["repaired"].any() and len(server.calls) == 3


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"\t{KEY}\r\n", f"{KEY}\N{NO-BREAK SPACE}"])
def test_the_blanks_around_a_copied_key_and_address_go(server, monkeypatch, key):
    ask(server, TEXTS[:1], api_key=key, base_url=f" {server.url}\n")
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}\n")
    ask(server, TEXTS[1:2], api_key=None, base_url=None)
    assert [call["authorization"] for call in server.calls] == [f"Bearer {KEY}"] * 2


@pytest.mark.parametrize(
    "key", [f"{KEY}\n{KEY}", f"Bearer {KEY}", f"{KEY}\N{ZERO WIDTH SPACE}", KEY.replace("-", "\N{EN DASH}")]
)
def test_a_key_that_no_request_can_carry_is_said_at_once_and_not_shown(server, key):
    with pytest.raises(split.SplitError, match="Copy the key alone, again") as caught:
        ask(server, api_key=key)
    assert not server.calls and "0123456789" not in str(caught.value)


@pytest.mark.parametrize("address", ["localhost:8000/v1", "//localhost/v1", "www.example.org"])
def test_an_address_without_http_is_said_at_once(server, address):
    with pytest.raises(split.SplitError, match=r"must start with http:// or https://"):
        ask(server, base_url=address)


def test_a_key_of_blanks_is_no_key():
    with pytest.raises(split.SplitError, match="needs a key"):
        split.split_findings(TEXTS, "openai", api_key=" \n")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answer: answer.replace("normal.", "normal." + HALF),
        lambda answer: answer.replace("normal.", "normal. \\ud83e"),
        lambda answer: HALF + answer,
        lambda answer: answer[:-1] + f', "{HALF}": "{HALF}"' + "}",
    ],
)
def test_half_a_character_in_an_answer_ends_no_run(server, tmp_path, spoil):
    server.behave = lambda text, turn, body: HALF + "garbage" if turn == 0 else spoil(good(text))
    cache = tmp_path / "answers.jsonl"
    for _ in range(2):  # the second time from the cache
        splits, audit = ask(server, TEXTS[:2], cache=cache)
        assert splits == [split_offline(text) for text in TEXTS[:2]] and not audit["repaired"].any()
    assert len(server.calls) == 4
    assert all(json.loads(line) for line in cache.read_text(encoding="utf-8").splitlines())
    audit.to_csv(tmp_path / "audit.csv")


def test_half_a_character_in_a_report_is_not_sent(server, tmp_path):
    server.behave = lambda text, turn, body: good(text)
    splits, audit = ask(server, [TEXTS[0] + HALF], cache=tmp_path / "answers.jsonl")
    audit.to_csv(tmp_path / "audit.csv")
    assert splits == [split_offline(TEXTS[0])] and [call["text"] for call in server.calls] == TEXTS[:1]


def test_an_answer_in_parts_is_read_without_its_thoughts(server):
    draft = json.dumps({"heart": "Heart size is normal. A nodule."})
    server.behave = lambda text, turn, body: [
        {"type": "thinking", "thinking": [{"type": "text", "text": draft}]},
        *({"type": "text", "text": part} for part in (good(text)[:30], good(text)[30:])),
    ]
    splits, audit = ask(server, TEXTS[:2])
    assert splits == [split_offline(text) for text in TEXTS[:2]] and not audit["repaired"].any()


@pytest.mark.parametrize("usage", [{"total": 3}, {"prompt_tokens": "12"}, [1], "none"], ids=str)
def test_a_count_of_tokens_that_is_none_costs_what_was_set_aside(server, usage):
    server.usage, spending = usage, split.new_spending("gpt-4.1")
    ask(server, TEXTS[:1], model="gpt-4.1", spending=spending)
    assert spending.questions == 1 and spending.dollars > 0


def test_an_odd_answer_is_no_answer(server):
    server.behave = lambda text, turn, body: {"heart": "normal"} if text == TEXTS[0] else good(text)
    splits, audit = ask(server, TEXTS[:2])
    assert splits == [split_offline(text) for text in TEXTS[:2]] and split.left_to_offline(audit) == 1
