"""The split by a model behind any OpenAI-compatible server, whose key is kept and shown nowhere."""

import asyncio
import json
import os
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import openai
from pydantic import ConfigDict, create_model

from utils.regions import ALL
from utils.run.answers import MAX_RETRIES, TIMEOUT

from .questions import Cache, Spending, Split, SplitError, asked_again, better, question

DEFAULT_MODEL = "gpt-4.1-mini"
GIVE_UP = 5  # reports in a row that fail after all retries: the server is not there
LATE = 3  # times that a question is asked in vain, alone at the server, before it is given up
CONNECT = 5.0  # seconds to reach a server at all, the client's own default
CANNOT = (400, 415, 422, 501)  # what servers answer to a form that they do not know
REFUSED = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)

_FORM = create_model(
    "RegionSplit",
    __config__=ConfigDict(extra="forbid"),
    __doc__="The answer's form, as a server's structured output is told it.",
    **dict.fromkeys(ALL, (str, ...)),
)
_SCHEMA = {"name": "regions", "strict": True, "schema": _FORM.model_json_schema()}
# From the strictest way to ask for JSON down to none: where a server refuses one (`CANNOT`), the next.
FORMATS: tuple[dict, ...] = ({"type": "json_schema", "json_schema": _SCHEMA}, {"type": "json_object"}, {})


class NotAskedError(Exception):
    """A question that the budget has no money for, or whose server is given up."""


class LateError(openai.OpenAIError):
    """A question that got no answer in time, however few were at work."""


def client_options(base_url: str | None = None, api_key: str | None = None) -> dict:
    """The official client's options, without a copied key's blanks; SplitError where none can be used."""
    key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
    url = (base_url or os.environ.get("OPENAI_BASE_URL") or "").strip()
    if not key and not url:
        raise SplitError("The openai engine needs a key: pass api_key, or set OPENAI_API_KEY.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise SplitError(
            "The key holds a blank, a line break or a character that is not ASCII. Copy the key alone, again."
        )
    if url and not url.lower().startswith(("http://", "https://")):
        raise SplitError(
            f"The address {url} must start with http:// or https://, as in http://localhost:8000/v1."
        )
    return {"api_key": key or "none", "base_url": url or None, "max_retries": MAX_RETRIES, "timeout": TIMEOUT}


def ask_all(
    texts: list[str],
    prompt: str,
    model: str,
    spending: Spending,
    concurrency: int = 16,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    **server: str | None,
) -> list[Split]:
    """The model's split of each text, unrepaired; all regions "" where it gave none that can be read.

    Where the budget of `spending` is used up no further question is asked, and where answers do not come in
    time fewer are asked at once; a warning says so. Raises SplitError where the server cannot be used.

    server: base_url and api_key
    """
    if concurrency < 1:
        raise SplitError("concurrency must be 1 or more.")
    options = client_options(**server)
    known = Cache(cache)
    run = _Run(known, prompt, model, spending, progress or (lambda done, total: None))
    # In a loop of its own, as a notebook has one running already.
    with ThreadPoolExecutor(1, thread_name_prefix="split") as pool:
        done = pool.submit(asyncio.run, run.all(texts, options, concurrency))
        try:
            done.result()
        except KeyboardInterrupt:
            run.cancel()
            raise
    if run.fatal:
        raise SplitError(hide(run.fatal, options["api_key"]))
    if spending.is_over:
        left = sum(map(len, known.open_questions(model, prompt, texts).values()))
        warnings.warn(
            f"The budget is used up, {spending}. {left:,} of {len(texts):,} reports are not complete; "
            "the offline engine splits the rest.",
            stacklevel=4,
        )
    return known.splits(model, prompt, texts)


def hide(message: str, key: str) -> str:
    """`message` without the key, which a server may have put into it."""
    return message.replace(key, "[key]") if key != "none" else message


class _Run:
    """One pass over the texts: what is left to ask, and how it went."""

    def __init__(self, cache: Cache, prompt: str, model: str, spending: Spending, progress: Callable):
        self.cache, self.prompt, self.model = cache, prompt, model
        self.spending, self.progress = spending, progress
        self.format = 0  # the first of FORMATS that the server is known to take
        self.total = self.done = self.answered = self.failed_in_a_row = 0
        self.fatal = self.last_error = None
        self._loop, self._started = None, threading.Event()

    def cancel(self) -> None:
        """Stop the pass, from another thread."""
        self._started.wait(1)
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def all(self, texts: list[str], options: dict, concurrency: int) -> None:
        """Asks for every text that is not in the cache, once each, `concurrency` at a time."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._started.set()
        waiting = self.cache.open_questions(self.model, self.prompt, texts)
        self.total, self.done = len(texts), len(texts) - sum(map(len, waiting.values()))
        self.progress(self.done, self.total)
        todo, concurrency = iter(waiting.items()), min(concurrency, max(len(waiting), 1))
        self.at_work = _AtWork(concurrency)
        # Here an answer's time is kept by `_in_time`; the client's own would ask again, at the same pace.
        options = options | {"timeout": openai.Timeout(None, connect=CONNECT)}
        async with openai.AsyncOpenAI(**options) as client:
            await asyncio.gather(*(self._worker(client, todo) for _ in range(concurrency)))
        if not self.answered:
            self.fatal = self.fatal or self.last_error

    async def _worker(self, client: openai.AsyncOpenAI, todo) -> None:
        for key, (text, *same) in todo:
            if self.fatal:
                return
            try:
                self.cache.add(key, answer=await self._split(client, key, text))
                self.answered, self.failed_in_a_row = self.answered + 1, 0
            except NotAskedError:
                return
            except REFUSED as error:
                self.fatal = f"The server refused the request ({error.status_code}): {message_of(error)}."
            except openai.OpenAIError as error:  # left to the offline engine, unless no report gets an answer
                self.failed_in_a_row += 1
                self.last_error = f"The server does not answer: {message_of(error)}."
                never_there = isinstance(error, openai.APIConnectionError | LateError) and not self.answered
                if never_there or self.failed_in_a_row >= GIVE_UP:
                    self.fatal = self.last_error
            self.done += 1 + len(same)
            self.progress(self.done, self.total)

    async def _split(self, client: openai.AsyncOpenAI, key: str, text: str) -> Split | None:
        """The model's split of `text`; of two answers, the one with fewer failures in the audit."""
        first, second = self.cache.firsts.get(key), None
        if first is None:
            first = await self._ask(client, question(self.prompt, text), text)
        if again := asked_again(self.prompt, text, first):
            if key not in self.cache.firsts:
                self.cache.add(key, first=first or "")
            second = await self._ask(client, again, text)
        return better(text, first, second)

    async def _ask(self, client: openai.AsyncOpenAI, messages: list[dict], text: str) -> str | None:
        """One answer, paid for out of the budget. Raises NotAskedError, unasked, where that is used up."""
        reserved = self.spending.reserve(messages, text)
        if reserved is None:
            raise NotAskedError
        try:
            completion = await self._complete(client, messages)
        except BaseException:
            self.spending.settle(reserved, answered=False)
            raise
        self.spending.settle(reserved, completion.usage)
        content = completion.choices[0].message.content
        if isinstance(content, list):  # some servers send it in parts, thoughts among them
            content = "".join(part.get("text") or "" for part in content if part.get("type") == "text")
        return content if isinstance(content, str) else None

    async def _complete(self, client: openai.AsyncOpenAI, messages: list[dict]):
        """One completion, by the strictest format that the server takes."""
        at = self.format
        while True:
            form = {"response_format": FORMATS[at]} if FORMATS[at] else {}
            try:
                completion = await self._in_time(client, {"messages": messages, **form})
            except openai.APIStatusError as error:
                at += 1
                if error.status_code not in CANNOT or at == len(FORMATS):
                    raise  # it was not the format
                continue
            except (json.JSONDecodeError, UnicodeDecodeError):
                completion = None
            choices = getattr(completion, "choices", None)  # of a web page or an error with status 200: none
            if not choices or not choices[0].message:
                raise openai.OpenAIError("it sends no chat completion; check the base URL")
            self.format = max(self.format, at)
            return completion

    async def _in_time(self, client: openai.AsyncOpenAI, asked: dict):
        """What the server sends within `TIMEOUT`; asked for again, with fewer at work, where it does not."""
        for times in range(1, MAX_RETRIES + 2):
            async with self.at_work.one() as most:
                if self.fatal:
                    raise NotAskedError
                try:
                    async with asyncio.timeout(TIMEOUT):
                        sent = await client.chat.completions.create(model=self.model, **asked)
                except TimeoutError:
                    self.at_work.late(most)
                else:
                    self.at_work.in_time()
                    return sent
            if most == 1 and times >= LATE:
                break
            await asyncio.sleep(TIMEOUT / 20)  # others of its time may be late too: first lower the number
        alone = ", asked one question at a time" if most == 1 else ""
        raise LateError(f"no answer came within {TIMEOUT:g} s{alone}")


class _AtWork:
    """How many questions may be at the server at once: half as many when most of them are late."""

    def __init__(self, most: int):
        self.most = most
        self._places, self._to_remove, self._late = asyncio.Semaphore(most), 0, 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[int]:
        """Holds a place, and gives how many there were when it was taken."""
        await self._places.acquire()
        try:
            yield self.most
        finally:
            if self._to_remove:
                self._to_remove -= 1
            else:
                self._places.release()

    def in_time(self) -> None:
        """Counts an answer that came in time."""
        self._late = max(0, self._late - 1)

    def late(self, most: int) -> None:
        """Counts a question that got no answer in time, if still as many are at work as when it was asked."""
        self._late += most == self.most
        if self.most == 1 or 2 * self._late <= self.most:
            return
        before, self.most, self._late = self.most, self.most // 2, 0
        self._to_remove += before - self.most
        warnings.warn(
            f"Of {before} questions at a time, most got no answer within {TIMEOUT:g} s. "
            f"It is asked {self.most} at a time now. Set concurrency to {self.most} to start with that.",
            stacklevel=2,
        )


def message_of(error: openai.OpenAIError) -> str:
    """What the server said, in one line."""
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(message or error).split()).rstrip(".")
