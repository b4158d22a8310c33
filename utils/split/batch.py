"""OpenAI's Batch API, for collections of thousands: half the price, answered within a day.

`submit`, `poll` and `collect` may each run in another session: a state file
holds the batches, never the key and no report. The answers go into the same
cache that the openai engine reads; those that fail the audit as first answers,
which that engine asks for once more, with the reason, when the collection is split.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import openai

from utils.workspace import write_json

from .questions import Cache, Spending, SplitError, asked_again, estimate, question
from .reading import read_answer
from .remote import DEFAULT_MODEL, FORMATS, client_options, hide, message_of

MOST_REQUESTS = 50_000  # in one batch, by OpenAI's rule
MOST_BYTES = 190_000_000  # of one batch's file; OpenAI takes 200 MB
MARK = "chest_xray_split"  # in a batch's metadata: by it one is found again whose answer never arrived
ALIVE = ("validating", "in_progress", "finalizing", "completed")
OVER = ("completed", "expired", "cancelled", "failed")  # a batch in one of these changes no more


def submit(
    texts: Sequence[str],
    prompt: str,
    state: Path,
    *,
    cache: Path,
    model: str = DEFAULT_MODEL,
    base_url: str | None = None,
    api_key: str | None = None,
    budget: float = 0,
    show: Callable[[str], None] = print,
) -> dict:
    """Hands in every text that the cache has no answer for; the state, as `state` holds it.

    Before anything is sent, `show` is given the estimate of the cost. Raises SplitError where that is above
    `budget` dollars (0: no limit), and for a budget with a model whose price is not known. As many
    batches are made as OpenAI's limits ask for; on this side one of them is on the disk at a time.
    Run again, it hands in what is missing and nothing twice: a batch that was
    handed in before the state was written is found at the server.
    """
    state = Path(state)
    held = _read(state) if state.exists() else {"model": model, "batches": {}}
    if held["model"] != model:
        raise SplitError(f"{state} belongs to {held['model']}, not to {model}. Collect it first.")
    waiting = Cache(cache).open_questions(model, prompt, list(texts))
    under_way = {key for batch in held["batches"].values() for key in batch["keys"] if not batch["collected"]}
    todo = {key: same[0] for key, same in waiting.items() if key not in under_way}
    cost, limit = estimate(list(todo.values()), model, prompt, batch=True), Spending(model, budget).budget
    show(str(cost))
    if limit and cost.dollars > limit:
        raise SplitError(
            f"The estimate of ${cost.dollars:,.2f} is above the budget of ${limit:g}, so nothing was sent. "
            "Raise the budget, or submit fewer reports."
        )
    with _Client(base_url, api_key) as client:
        for keys, file in _files(todo, model, prompt):
            found = _found(client, keys[0], held["batches"])
            batch = found or _create(client, file, keys[0])
            held["batches"][batch.id] = {"status": batch.status, "keys": keys, "collected": False}
            write_json(state, held)
    return held


def poll(state: Path, *, base_url: str | None = None, api_key: str | None = None) -> dict[str, str]:
    """The status of each batch, asked of the server and kept in the state; all in `OVER`: time to collect."""
    held = _read(state)
    with _Client(base_url, api_key) as client:
        for name, batch in held["batches"].items():
            if batch["status"] not in OVER:
                batch["status"] = client.batches.retrieve(name).status
                write_json(state, held)
    return {name: batch["status"] for name, batch in held["batches"].items()}


def collect(
    texts: Sequence[str],
    prompt: str,
    state: Path,
    *,
    cache: Path,
    base_url: str | None = None,
    api_key: str | None = None,
) -> tuple[int, int]:
    """Puts the answers of finished batches into the cache: how many came in, and how many are left to ask.

    Left are those that got no answer or failed the audit, and those of batches
    that are not over. `split_findings` with the same cache asks them, and asks
    what failed only once more, with the reason.
    """
    held, known = _read(state), Cache(cache)
    waiting = known.open_questions(held["model"], prompt, list(texts))
    before = len(waiting)
    poll(state, base_url=base_url, api_key=api_key)
    held = _read(state)
    with _Client(base_url, api_key) as client:
        for name, batch in held["batches"].items():
            if batch["collected"] or batch["status"] not in OVER:
                continue
            for key, content in _answers(client, name):
                if key not in waiting:
                    continue
                if asked_again(prompt, waiting[key][0], content):
                    known.add_first(key, content)
                else:
                    known.add(key, read_answer(content, waiting[key][0]))
                    del waiting[key]
            batch["collected"] = True
            write_json(state, held)
    return before - len(waiting), len(waiting)


class _Client:
    """The official client for a few calls; what goes wrong becomes one sentence without the key."""

    def __init__(self, base_url: str | None, api_key: str | None):
        self._options = client_options(base_url, api_key)

    def __enter__(self) -> openai.OpenAI:
        self._client = openai.OpenAI(**self._options)
        return self._client

    def __exit__(self, kind, error, trace) -> None:
        self._client.close()
        if isinstance(error, openai.OpenAIError):
            raise SplitError(
                hide(f"The Batch API does not answer: {message_of(error)}.", self._options["api_key"])
            ) from None


def _line(key: str, model: str, prompt: str, text: str) -> bytes:
    body = {"model": model, "messages": question(prompt, text), "response_format": FORMATS[0]}
    request = {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(request, ensure_ascii=False).encode() + b"\n"


def _files(todo: dict[str, str], model: str, prompt: str) -> Iterator[tuple[list[str], BinaryIO]]:
    """The questions in portions that one batch may hold: their keys, and a file that the next one takes."""
    keys: list[str] = []
    with tempfile.TemporaryFile() as file:
        for key, text in todo.items():
            line = _line(key, model, prompt, text)
            if keys and (len(keys) == MOST_REQUESTS or file.tell() + len(line) > MOST_BYTES):
                yield keys, file
                file.seek(0)
                file.truncate()
                keys = []
            file.write(line)
            keys.append(key)
        if keys:
            yield keys, file


def _found(client: openai.OpenAI, mark: str, held: dict):
    """The batch of this mark that the server has and the state has not, None if there is none."""
    for batch in client.batches.list():
        if (batch.metadata or {}).get(MARK) == mark and batch.id not in held and batch.status in ALIVE:
            return batch
    return None


def _create(client: openai.OpenAI, file: BinaryIO, mark: str):
    file.flush()
    file.seek(0)
    uploaded = client.files.create(file=("split.jsonl", file), purpose="batch")
    return client.batches.create(
        input_file_id=uploaded.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={MARK: mark},
    )


def _answers(client: openai.OpenAI, name: str):
    """(key, content) of each answer of a batch; requests that failed have none."""
    batch = client.batches.retrieve(name)
    if not batch.output_file_id:
        return
    with tempfile.TemporaryFile() as file:  # read at once: a server does not wait while answers are audited
        with client.files.with_streaming_response.content(batch.output_file_id) as answers:
            try:
                for piece in answers.iter_bytes():
                    file.write(piece)
            except Exception as error:  # of the HTTP library, which is another one under newer clients
                raise openai.OpenAIError(str(error)) from None
        file.seek(0)
        for result in map(json.loads, filter(bytes.strip, file)):
            response = result.get("response") or {}
            choices = (response.get("body") or {}).get("choices") or []
            if response.get("status_code") == 200 and choices:
                yield result["custom_id"], choices[0]["message"].get("content")


def _read(state: Path) -> dict:
    try:
        held = json.loads(Path(state).read_text(encoding="utf-8"))
        if not {"model", "batches"} <= held.keys():
            raise ValueError
    except FileNotFoundError:
        raise SplitError(f"There is no {state}. Submit first.") from None
    except (ValueError, AttributeError):
        raise SplitError(f"{state} is not a record of batches. Move it to another folder.") from None
    return held
