"""What a language model is asked, where its answers are kept, and what they cost, alike for all engines."""

import json
import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from utils.regions import ALL
from utils.run.answers import AnswerFile, key_of

from .auditing import failures
from .offline import split_offline
from .reading import Split, read_answer, whole

Messages = list[dict[str, str]]
NOTHING: Split = dict.fromkeys(ALL, "")


class SplitError(ValueError):
    """The split cannot be made; the message says why in one sentence."""


def question(prompt: str, text: str) -> Messages:
    """What a model is asked about one report: the prompt, then the findings."""
    return [{"role": "system", "content": prompt}, {"role": "user", "content": f"Findings:\n{whole(text)}"}]


def asked_again(prompt: str, text: str, content: str | None) -> Messages | None:
    """The question with the answer `content` and what is wrong with it; None where it passes the audit."""
    answer = read_answer(content, text)
    wrong = failures(text, answer) if answer else ["it is not one complete JSON object with the five keys"]
    reason = "That answer does not pass: " + "; ".join(wrong) + ". Answer again, with the whole JSON object."
    answered = {"role": "assistant", "content": whole(content or "(no answer)")}
    return [*question(prompt, text), answered, {"role": "user", "content": reason}] if wrong else None


def better(text: str, first: str | None, second: str | None) -> Split | None:
    """Of two answers the split with fewer failures in the audit, the first where they are equal."""
    answers = [answer for answer in (read_answer(first, text), read_answer(second, text)) if answer]
    return min(answers, key=lambda answer: len(failures(text, answer)), default=None)


class Cache:
    """A language model's answers in a file, kept as they come; in memory only where `path` is None.

    An answer is a split, or None. A first answer that fails the audit is kept as it was written, so that a
    run that ends before the second goes on with the second.
    """

    def __init__(self, path: Path | None):
        self.answers: dict[str, Split | None] = {}
        self.firsts: dict[str, str] = {}
        self._file = AnswerFile(path, "an answer of a language model", self._take, SplitError)

    def _take(self, entry: dict) -> None:
        if "first" in entry:
            self.firsts[entry["key"]] = entry["first"]
        else:
            self.answers[entry["key"]] = entry["answer"]

    def add(self, key: str, **kept: Split | str | None) -> None:
        """Keeps an `answer`, or a `first` one as it was written, in the file at once."""
        self._file.add({"key": key, **kept})
        self._take({"key": key, **kept})

    def open_questions(self, model: str, prompt: str, texts: Sequence[str]) -> dict[str, list[str]]:
        """The texts that have no answer yet, by key; the same text comes under one key."""
        waiting: dict[str, list[str]] = {}
        for text in texts:
            key = key_of(model, prompt, text)
            if text.strip() and key not in self.answers:
                waiting.setdefault(key, []).append(text)
        return waiting

    def splits(self, model: str, prompt: str, texts: list[str]) -> list[Split]:
        """The best answer there is for each text; all regions "" where none can be read."""
        keys = [key_of(model, prompt, text) for text in texts]
        return [
            dict(self.answers.get(key) or read_answer(self.firsts.get(key), text) or NOTHING)
            for key, text in zip(keys, texts, strict=True)
        ]


CHARACTERS_A_TOKEN = 4  # OpenAI's rule of thumb for English, where tiktoken cannot count
MESSAGE_TOKENS = 8  # what the chat format adds to a question
BATCH_SHARE = 0.5  # of the price, by the Batch API
SOURCE = "OpenAI's price list (openai.com/api/pricing)"


class Price(NamedTuple):
    """Dollars a million tokens: input, input that the server had cached, output; and the price's month."""

    input: float
    cached: float
    output: float
    as_of: str

    def of(self, sent: int, answered: int, cached: int = 0) -> float:
        """Dollars for so many tokens of questions, of answers, and of what the server had cached."""
        return ((sent - cached) * self.input + cached * self.cached + answered * self.output) / 1e6


# The one table of prices, from copies of OpenAI's list: tokenmath.io (checked on 21 June 2026), deploybase.ai
# and the outl1ne/openai-pricing repository (March 2026). Check it before a large run. A dated name, such as
# gpt-4.1-mini-2025-04-14, has its model's price.
PRICES = {
    "gpt-4.1": Price(2.00, 0.50, 8.00, "June 2026"),
    "gpt-4.1-mini": Price(0.40, 0.10, 1.60, "June 2026"),
    "gpt-4.1-nano": Price(0.10, 0.025, 0.40, "March 2026"),
    "gpt-4o": Price(2.50, 1.25, 10.00, "March 2026"),
    "gpt-4o-mini": Price(0.15, 0.075, 0.60, "March 2026"),
    "gpt-5": Price(1.25, 0.125, 10.00, "March 2026"),
    "gpt-5-mini": Price(0.25, 0.025, 2.00, "March 2026"),
    "gpt-5-nano": Price(0.05, 0.005, 0.40, "March 2026"),
}
REASONERS = ("gpt-5",)  # they think before they answer, and that is billed as output


def price_of(model: str) -> Price | None:
    """The price of `model`, None where it is not known."""
    stem, _, date = model.partition("-20")
    return PRICES.get(stem if date[:1].isdigit() else model)


class Estimate(NamedTuple):
    """What asking `reports` once each will take; `dollars` is None where the price is not known."""

    model: str
    reports: int
    input_tokens: int
    output_tokens: int
    dollars: float | None
    counted: bool  # by tiktoken, and not from the number of characters

    def __str__(self) -> str:
        how = "counted" if self.counted else f"an estimate at {CHARACTERS_A_TOKEN} characters a token"
        text = (
            f"{self.reports:,} reports to send to {self.model}: {self.input_tokens:,} input tokens, about "
            f"{self.output_tokens:,} output tokens ({how})"
        )
        if self.dollars is None:
            return f"{text}; price not known."
        reasons = self.model.startswith(REASONERS)
        more = "; its reasoning is billed as output and comes on top" if reasons else ""
        return (
            f"{text}; about ${self.dollars:,.2f}, or at most a little over twice that if every answer is "
            f"asked for again{more}. Prices: {SOURCE}, {price_of(self.model).as_of}."
        )


def estimate(texts: list[str], model: str, prompt: str, cache: Path | None = None, batch=False) -> Estimate:
    """Tokens and price of asking about texts that `cache` lacks; answers are taken as the offline split's."""
    waiting = [same[0] for same in Cache(cache).open_questions(model, prompt, texts).values()]
    sent = sum(question_tokens(model, prompt, text) for text in waiting)
    answered = sum(_answer_tokens(model, text) for text in waiting)
    _, counted = token_counter(model)
    price, share = price_of(model), BATCH_SHARE if batch else 1
    dollars = price.of(sent, answered) * share if price else None
    return Estimate(model, len(waiting), sent, answered, dollars, counted)


def question_tokens(model: str, prompt: str, text: str) -> int:
    """The tokens of the question about `text`."""
    count, _ = token_counter(model)
    return count(prompt) + count(question(prompt, text)[1]["content"]) + MESSAGE_TOKENS


def _answer_tokens(model: str, text: str) -> int:
    return token_counter(model)[0](json.dumps(split_offline(text)))


@cache
def token_counter(model: str) -> tuple[Callable[[str], int], bool]:
    """A function that counts tokens, and whether it counts: tiktoken, or an estimate without it."""
    try:
        import tiktoken

        try:
            encoding = tiktoken.encoding_for_model(model)
        except KeyError:  # a model that is not OpenAI's, or too new
            encoding = tiktoken.get_encoding("o200k_base")
    except (ImportError, OSError):  # not installed, or its vocabulary cannot be downloaded
        return lambda text: math.ceil(len(text) / CHARACTERS_A_TOKEN), False
    # Of many thousand reports none is counted again; the prompt is.
    return lru_cache(256)(lambda text: len(encoding.encode(text, disallowed_special=()))), True


class Spending:
    """What a run has spent so far, in tokens and dollars, and the limit after which nothing more is asked.

    `budget` is in dollars, 0 for no limit. A question is asked only if what was spent and what it and the
    open ones may cost stay within it. Raises SplitError for a budget with a model whose price is not known.
    """

    def __init__(self, model: str, budget: float = 0):
        self.model, self.budget, self.price = model, budget, price_of(model)
        if budget and not self.price:
            raise SplitError(
                f"The price of {model} is not known, so a budget of ${budget:g} cannot be applied. "
                "Set the budget to 0 to continue without one."
            )
        self.questions = self.input_tokens = self.cached_tokens = self.output_tokens = 0
        self.is_over = False  # a question was not asked for want of budget
        self._open = self._uncounted = self._dearest = 0.0

    @property
    def dollars(self) -> float | None:
        """Spent so far; None where the price is not known."""
        if not self.price:
            return None
        return self.price.of(self.input_tokens, self.output_tokens, self.cached_tokens) + self._uncounted

    def __str__(self) -> str:
        cost = "price not known" if self.dollars is None else f"${self.dollars:,.3f}"
        of = f" of ${self.budget:g}" if self.budget else ""
        return f"{cost}{of} for {self.questions:,} questions"

    def reserve(self, messages: Sequence[dict[str, str]], text: str) -> float | None:
        """Sets aside what a question may cost; None, setting nothing aside, where the budget lacks it."""
        if not self.price:
            return 0.0
        count, _ = token_counter(self.model)
        sent = sum(count(message["content"]) for message in messages) + MESSAGE_TOKENS
        cost = self.price.of(sent, _answer_tokens(self.model, text))
        cost = max(cost, self._dearest)  # a model that reasons costs more than its answer shows
        if self.budget and self.dollars + self._open + cost > self.budget:
            self.is_over = True
            return None
        self._open += cost
        return cost

    def settle(self, reserved: float, usage: object = None, answered: bool = True) -> None:
        """Puts what a question did cost, by the server's `usage`, in place of what was set aside for it."""
        self._open -= reserved
        if not answered:
            return
        self.questions += 1
        if not isinstance(getattr(usage, "prompt_tokens", None), int):  # a server that does not count
            self._uncounted += reserved
            return
        before = self.dollars or 0
        self.input_tokens += usage.prompt_tokens
        self.output_tokens += usage.completion_tokens or 0
        details = getattr(usage, "prompt_tokens_details", None)
        self.cached_tokens += getattr(details, "cached_tokens", None) or 0
        self._dearest = max(self._dearest, (self.dollars or 0) - before)
