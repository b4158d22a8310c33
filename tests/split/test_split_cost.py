"""What a split costs: tokens with and without tiktoken, prices that are known and not."""

import sys
from types import SimpleNamespace

import pytest

from utils import split
from utils.run.answers import key_of
from utils.split import questions
from utils.split.questions import Cache

TEXTS = ["Heart size is normal. The lungs are clear.", "No pneumothorax.", "No pneumothorax.", ""]
PROMPT = "Split this."


@pytest.fixture(autouse=True)
def forget():
    questions.token_counter.cache_clear()
    yield
    questions.token_counter.cache_clear()


def without_vocabulary(monkeypatch):
    def fails(name):
        raise OSError("no route to host")

    monkeypatch.setitem(
        sys.modules, "tiktoken", SimpleNamespace(encoding_for_model=fails, get_encoding=fails)
    )


def a_word_a_token(monkeypatch):
    encoding = SimpleNamespace(encode=lambda text, disallowed_special: text.split())

    def for_model(name):
        if not name.startswith("gpt-"):
            raise KeyError(name)
        return encoding

    module = SimpleNamespace(encoding_for_model=for_model, get_encoding=lambda name: encoding)
    monkeypatch.setitem(sys.modules, "tiktoken", module)


def test_counts_by_tiktoken_and_says_so(monkeypatch):
    a_word_a_token(monkeypatch)
    found = split.estimate(TEXTS, "gpt-4.1", PROMPT)
    assert found.reports == 2  # the same text and no text are not asked
    words = sum(len(PROMPT.split()) + 1 + len(text.split()) + questions.MESSAGE_TOKENS for text in TEXTS[:2])
    assert found.input_tokens == words and found.counted
    assert found.dollars == pytest.approx((found.input_tokens * 2 + found.output_tokens * 8) / 1e6)
    assert "(counted)" in str(found) and "openai.com/api/pricing), June 2026." in str(found)


@pytest.mark.parametrize("installed", [True, False])
def test_without_its_vocabulary_it_estimates_and_says_so(monkeypatch, installed):
    if installed:
        without_vocabulary(monkeypatch)
    else:
        monkeypatch.setitem(sys.modules, "tiktoken", None)
    found = split.estimate(TEXTS, "gpt-4.1-mini", PROMPT)
    assert not found.counted and "an estimate at 4 characters a token" in str(found)
    assert found.input_tokens > 0 and found.dollars > 0


def test_a_model_without_a_price_says_so(monkeypatch):
    a_word_a_token(monkeypatch)
    found = split.estimate(TEXTS, "my-llama", PROMPT)
    assert found.dollars is None and str(found).endswith("price not known.")
    assert str(split.new_spending("my-llama")).startswith("price not known")


def test_a_dated_name_has_its_models_price():
    assert questions.price_of("gpt-4.1-mini-2025-04-14") == questions.PRICES["gpt-4.1-mini"]
    assert questions.price_of("gpt-4.1-mini-huge") is None


def test_a_model_that_reasons_costs_more_than_can_be_told():
    assert "reasoning" in str(split.estimate(TEXTS, "gpt-5-mini", PROMPT))


def test_what_is_in_the_cache_costs_nothing_and_a_batch_half(tmp_path):
    whole = split.estimate(TEXTS, "gpt-4.1", PROMPT)
    assert split.estimate(TEXTS, "gpt-4.1", PROMPT, batch=True).dollars == pytest.approx(whole.dollars / 2)
    Cache(tmp_path / "answers.jsonl").add(
        key_of("gpt-4.1", PROMPT, TEXTS[1]), answer={"lung": "No pneumothorax."}
    )
    rest = split.estimate(TEXTS, "gpt-4.1", PROMPT, cache=tmp_path / "answers.jsonl")
    assert rest.reports == 1 and rest.dollars < whole.dollars
