"""The split by a language model behind any OpenAI-compatible server: many at a time, cached, checked.

The key is handed to the client and kept nowhere else; what the server says is
scrubbed of it before it is raised.
"""

import asyncio
import hashlib
import json
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
from pydantic import BaseModel, ConfigDict

from .regions import ALL
from .split_audit import failures

DEFAULT_MODEL = "gpt-4.1-mini"
MAX_RETRIES = 8  # a request, by the client itself: 429 (it honours Retry-After), 5xx, dropped connections
TIMEOUT = 120.0  # seconds a request
GIVE_UP = 5  # reports in a row that fail after all retries: the server is not there
REFUSED = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)

Split = dict[str, str]


class SplitError(ValueError):
    """The split cannot be made; the message says why in one sentence."""


class RegionSplit(BaseModel):
    """The answer's form, as the server's structured output is told it."""

    model_config = ConfigDict(extra="forbid")
    lung: str
    heart: str
    mediastinal: str
    bone: str
    others: str


# From the strictest way to ask for JSON down to none: where a server refuses one (HTTP 400), the next.
FORMATS: tuple[dict, ...] = (
    {
        "type": "json_schema",
        "json_schema": {"name": "regions", "strict": True, "schema": RegionSplit.model_json_schema()},
    },
    {"type": "json_object"},
    {},
)


class Cache:
    """Answers in a JSON-lines file, appended one by one; in memory only where `path` is None.

    An answer is a split, or None where the model gave none that can be read.
    """

    def __init__(self, path: Path | None):
        self.path = Path(path) if path else None
        self.answers: dict[str, Split | None] = {}
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self._load()

    def _load(self) -> None:
        """Reads the file and cuts off a last line that an interrupted run left half written."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            os.truncate(self.path, sum(map(len, lines[:-1])))
            warnings.warn(f"{self.path.name}: dropped a half-written last line.", stacklevel=4)
            lines.pop()
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                self.answers[entry["key"]] = entry["answer"]
            except (ValueError, KeyError, TypeError):
                raise SplitError(
                    f"Line {number} of {self.path} is not an answer; move the file away."
                ) from None

    def add(self, key: str, answer: Split | None) -> None:
        """Keeps an answer, in the file at once."""
        self.answers[key] = answer
        if self.path:
            line = json.dumps({"key": key, "answer": answer}, ensure_ascii=False) + "\n"
            with self.path.open("ab", buffering=0) as file:
                file.write(line.encode())


def cache_key(model: str, prompt: str, text: str) -> str:
    """The hash under which the answer of `model` to `prompt` and `text` is kept."""
    return hashlib.sha256(json.dumps([model, prompt, text]).encode()).hexdigest()


def read_answer(content: str | None) -> Split | None:
    """The split in an answer: the first JSON object with a region in it, whatever is around; else None."""
    decoder, content = json.JSONDecoder(), content or ""
    at = content.find("{")
    while at >= 0:
        try:
            found, _ = decoder.raw_decode(content, at)
        except ValueError:
            found = None
        if isinstance(found, dict) and found.keys() & set(ALL):
            texts = {name: found.get(name) or "" for name in ALL}
            return texts if all(isinstance(text, str) for text in texts.values()) else None
        at = content.find("{", at + 1)
    return None


def ask_all(
    texts: Sequence[str],
    prompt: str,
    *,
    model: str = DEFAULT_MODEL,
    base_url: str | None = None,
    api_key: str | None = None,
    concurrency: int = 16,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Split]:
    """The model's split of each text, unrepaired; all regions "" where it gave none that can be read.

    Raises SplitError where the server cannot be used: no key, a key that it
    refuses, an unknown model, no connection. What was answered until then
    stays in the cache.
    """
    if concurrency < 1:
        raise SplitError("concurrency must be 1 or more.")
    key = api_key or os.environ.get("OPENAI_API_KEY")
    if not key and not (base_url or os.environ.get("OPENAI_BASE_URL")):
        raise SplitError("The openai engine needs a key: give api_key, or set OPENAI_API_KEY.")
    known = Cache(cache)
    run = _Run(known, prompt, model, len(texts), progress)
    options = {"api_key": key or "none", "base_url": base_url, "max_retries": MAX_RETRIES, "timeout": TIMEOUT}
    _in_thread(run, run.all(texts, options, concurrency))
    if run.fatal:
        raise SplitError(run.fatal.replace(key, "[key]") if key else run.fatal)
    empty = dict.fromkeys(ALL, "")
    return [dict(known.answers.get(cache_key(model, prompt, text)) or empty) for text in texts]


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
        self, cache: Cache, prompt: str, model: str, total: int, progress: Callable[[int, int], None] | None
    ):
        self.cache, self.prompt, self.model = cache, prompt, model
        self.total, self.progress = total, progress
        self.format = 0  # the first of FORMATS that the server is known to take
        self.done = self.answered = self.failed_in_a_row = 0
        self.fatal: str | None = None
        self.last_error: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task | None = None
        self._started = threading.Event()

    def cancel(self) -> None:
        self._started.wait(1)
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def all(self, texts: Sequence[str], options: dict, concurrency: int) -> None:
        """Asks for every text that is not in the cache, once each, `concurrency` at a time."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._started.set()
        todo: dict[str, list[str]] = {}
        for text in texts:
            todo.setdefault(cache_key(self.model, self.prompt, text), []).append(text)
        waiting = [(key, same[0], len(same)) for key, same in todo.items()]
        self.done = sum(n for key, text, n in waiting if self._known(key, text))
        self._say()
        waiting = iter([item for item in waiting if not self._known(*item[:2])])
        async with openai.AsyncOpenAI(**options) as client:
            await asyncio.gather(*(self._worker(client, waiting) for _ in range(concurrency)))
        if not self.answered:
            self.fatal = self.fatal or self.last_error

    def _known(self, key: str, text: str) -> bool:
        return key in self.cache.answers or not text.strip()

    def _say(self) -> None:
        if self.progress:
            self.progress(self.done, self.total)

    async def _worker(self, client: openai.AsyncOpenAI, waiting) -> None:
        for key, text, count in waiting:
            if self.fatal:
                return
            try:
                self.cache.add(key, await self._split(client, text))
                self.answered, self.failed_in_a_row = self.answered + 1, 0
            except REFUSED as error:
                self.fatal = f"The server refused the request ({error.status_code}): {_message(error)}."
            except openai.OpenAIError as error:
                self._failed(error)
            self.done += count
            self._say()

    def _failed(self, error: openai.OpenAIError) -> None:
        """A report without an answer is left to the offline engine, unless no report gets one."""
        self.failed_in_a_row += 1
        self.last_error = f"The server gives no answer: {_message(error)}."
        never_there = isinstance(error, openai.APIConnectionError) and not self.answered
        if never_there or self.failed_in_a_row >= GIVE_UP:
            self.fatal = self.last_error

    async def _split(self, client: openai.AsyncOpenAI, text: str) -> Split | None:
        """The model's split of `text`; of two answers, the one with fewer failures in the audit."""
        messages = [
            {"role": "system", "content": self.prompt},
            {"role": "user", "content": f"Findings:\n{text}"},
        ]
        content = await self._ask(client, messages)
        first = read_answer(content)
        wrong = failures(text, first) if first else ["it is not one complete JSON object with the five keys"]
        if not wrong:
            return first
        reason = (
            "That answer does not pass: " + "; ".join(wrong) + ". Answer again, with the whole JSON object."
        )
        messages += [
            {"role": "assistant", "content": content or "(no answer)"},
            {"role": "user", "content": reason},
        ]
        second = read_answer(await self._ask(client, messages))
        if first and (not second or len(failures(text, second)) >= len(wrong)):
            return first
        return second

    async def _ask(self, client: openai.AsyncOpenAI, messages: list[dict]) -> str | None:
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
            self.format = max(self.format, at)
            return completion.choices[0].message.content if completion.choices else None


def _message(error: openai.OpenAIError) -> str:
    """What the server said, in one line."""
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(said or error).split()).rstrip(".")
