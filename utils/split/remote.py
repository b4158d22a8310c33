"""The split by a language model behind any OpenAI-compatible server: many at a time, cached, checked.

The key is handed to the client and kept nowhere else; what the server says is
scrubbed of it before it is raised.
"""

import asyncio
import json
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai

from utils.workspace import MAX_RETRIES, TIMEOUT

from .questions import (
    Cache,
    Messages,
    RegionSplit,
    Spending,
    Split,
    SplitError,
    asked_again,
    better,
    question,
)

DEFAULT_MODEL = "gpt-4.1-mini"
GIVE_UP = 5  # reports in a row that fail after all retries: the server is not there
REFUSED = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)

# From the strictest way to ask for JSON down to none: where a server refuses one (HTTP 400), the next.
FORMATS: tuple[dict, ...] = (
    {
        "type": "json_schema",
        "json_schema": {"name": "regions", "strict": True, "schema": RegionSplit.model_json_schema()},
    },
    {"type": "json_object"},
    {},
)


class OverBudgetError(Exception):
    """A question that the budget has no money for."""


def client_options(base_url: str | None, api_key: str | None) -> dict:
    """How the official client is made. Raises SplitError where OpenAI itself is meant and there is no key."""
    key = api_key or os.environ.get("OPENAI_API_KEY")
    if not key and not (base_url or os.environ.get("OPENAI_BASE_URL")):
        raise SplitError("The openai engine needs a key: pass api_key, or set OPENAI_API_KEY.")
    return {
        "api_key": key or "none",
        "base_url": base_url or None,
        "max_retries": MAX_RETRIES,
        "timeout": TIMEOUT,
    }


def ask_all(
    texts: Sequence[str],
    prompt: str,
    *,
    model: str = DEFAULT_MODEL,
    base_url: str | None = None,
    api_key: str | None = None,
    concurrency: int = 16,
    cache: Path | None = None,
    spending: Spending | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Split]:
    """The model's split of each text, unrepaired; all regions "" where it gave none that can be read.

    Where the budget of `spending` is used up no further question is asked,
    which is said in a warning. Raises SplitError where the server cannot be
    used: no key, a key that it refuses, an unknown model, no connection. What
    was answered until then stays in the cache.
    """
    if concurrency < 1:
        raise SplitError("concurrency must be 1 or more.")
    options = client_options(base_url, api_key)
    known, texts = Cache(cache), list(texts)
    run = _Run(known, prompt, model, spending or Spending(model), progress)
    _in_thread(run, run.all(texts, options, concurrency))
    if run.fatal:
        raise SplitError(hide(run.fatal, options["api_key"]))
    if run.spending.is_over:
        left = sum(map(len, known.open_questions(model, prompt, texts).values()))
        warnings.warn(
            f"The budget is used up, {run.spending}. {left:,} of {len(texts):,} reports are not complete; "
            "the offline engine splits the rest.",
            stacklevel=4,
        )
    return known.splits(model, prompt, texts)


def hide(message: str, key: str) -> str:
    """`message` without the key, which a server may have put into it."""
    return message.replace(key, "[key]") if key != "none" else message


def _in_thread(run: "_Run", work) -> None:
    """Runs `work` in a loop of its own, as a notebook has one running already; an interrupt stops it."""
    with ThreadPoolExecutor(1, thread_name_prefix="split") as pool:
        done = pool.submit(asyncio.run, work)
        try:
            done.result()
        except KeyboardInterrupt:
            run.cancel()
            raise


class _Run:
    """One pass over the texts: what is left to ask, and how it went."""

    def __init__(
        self,
        cache: Cache,
        prompt: str,
        model: str,
        spending: Spending,
        progress: Callable[[int, int], None] | None,
    ):
        self.cache, self.prompt, self.model = cache, prompt, model
        self.spending, self.progress = spending, progress
        self.format = 0  # the first of FORMATS that the server is known to take
        self.total = self.done = self.answered = self.failed_in_a_row = 0
        self.fatal: str | None = None
        self.last_error: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task | None = None
        self._started = threading.Event()

    def cancel(self) -> None:
        self._started.wait(1)
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def all(self, texts: list[str], options: dict, concurrency: int) -> None:
        """Asks for every text that is not in the cache, once each, `concurrency` at a time."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._started.set()
        waiting = self.cache.open_questions(self.model, self.prompt, texts)
        self.total, self.done = len(texts), len(texts) - sum(map(len, waiting.values()))
        self._say()
        todo = iter(waiting.items())
        async with openai.AsyncOpenAI(**options) as client:
            await asyncio.gather(*(self._worker(client, todo) for _ in range(concurrency)))
        if not self.answered:
            self.fatal = self.fatal or self.last_error

    def _say(self) -> None:
        if self.progress:
            self.progress(self.done, self.total)

    async def _worker(self, client: openai.AsyncOpenAI, todo) -> None:
        for key, (text, *same) in todo:
            if self.fatal:
                return
            try:
                self.cache.add(key, await self._split(client, key, text))
                self.answered, self.failed_in_a_row = self.answered + 1, 0
            except OverBudgetError:
                return
            except REFUSED as error:
                self.fatal = f"The server refused the request ({error.status_code}): {message_of(error)}."
            except openai.OpenAIError as error:
                self._failed(error)
            self.done += 1 + len(same)
            self._say()

    def _failed(self, error: openai.OpenAIError) -> None:
        """A report without an answer is left to the offline engine, unless no report gets one."""
        self.failed_in_a_row += 1
        self.last_error = f"The server does not answer: {message_of(error)}."
        never_there = isinstance(error, openai.APIConnectionError) and not self.answered
        if never_there or self.failed_in_a_row >= GIVE_UP:
            self.fatal = self.last_error

    async def _split(self, client: openai.AsyncOpenAI, key: str, text: str) -> Split | None:
        """The model's split of `text`; of two answers, the one with fewer failures in the audit."""
        first, second = self.cache.firsts.get(key), None
        if first is None:
            first = await self._ask(client, question(self.prompt, text), text)
        again = asked_again(self.prompt, text, first)
        if again:
            if key not in self.cache.firsts:
                self.cache.add_first(key, first)
            second = await self._ask(client, again, text)
        return better(text, first, second)

    async def _ask(self, client: openai.AsyncOpenAI, messages: Messages, text: str) -> str | None:
        """One answer, paid for out of the budget. Raises OverBudgetError, unasked, where that is used up."""
        reserved = self.spending.reserve(messages, text)
        if reserved is None:
            raise OverBudgetError
        try:
            completion = await self._complete(client, messages)
        except BaseException:
            self.spending.settle(reserved, answered=False)
            raise
        self.spending.settle(reserved, completion.usage)
        return completion.choices[0].message.content

    async def _complete(self, client: openai.AsyncOpenAI, messages: Messages):
        """One completion, by the strictest format that the server takes."""
        at = self.format
        while True:
            form = {"response_format": FORMATS[at]} if FORMATS[at] else {}
            try:
                completion = await client.chat.completions.create(model=self.model, messages=messages, **form)
            except openai.BadRequestError:
                at += 1
                if at == len(FORMATS):
                    raise  # it was not the format
                continue
            except (json.JSONDecodeError, UnicodeDecodeError):
                completion = None
            choices = getattr(completion, "choices", None)  # of a web page or an error with status 200: none
            if not choices or not choices[0].message:
                raise openai.OpenAIError("it sends no chat completion; check the base URL")
            self.format = max(self.format, at)
            return completion


def message_of(error: openai.OpenAIError) -> str:
    """What the server said, in one line."""
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(said or error).split()).rstrip(".")
