"""OpenAI's Batch API, for collections of thousands: half the price, answered within a day.

`submit`, `poll` and `collect` may each run in another session: a state file holds the batches, never the key
and no report. The answers go into the same cache that the openai engine reads; those that fail the audit as
first answers, which that engine asks for once more, with the reason, when the collection is split.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import openai

from utils.run.disk import read_json, write_json

from .questions import Cache, Spending, SplitError, asked_again, estimate, question, question_tokens
from .reading import read_answer
from .remote import DEFAULT_MODEL, FORMATS, client_options, hide, message_of

MOST_REQUESTS = 50_000  # in one batch, by OpenAI's rule
MOST_BYTES = 190_000_000  # of one batch's file; OpenAI takes 200 MB
TOKEN_LIMIT = 2_000_000  # input tokens that may wait at once; what OpenAI gives many accounts, some have less
SHARE = 0.9  # of that limit that is used: OpenAI counts tokens that we do not, such as the answer's form
MARK = "chest_xray_split"  # in a batch's metadata: by it one is found again whose answer never arrived
ALIVE = ("validating", "in_progress", "finalizing", "completed")
OVER = ("completed", "expired", "cancelled", "failed")  # a batch in one of these changes no more
ENDPOINT = "/v1/chat/completions"
TOO_MANY = "token_limit_exceeded"  # why a batch failed: more tokens wait than the account may have waiting
_LIMIT = re.compile(r"limit: ([\d,]+) enqueued tokens", re.IGNORECASE)


def submit(
    texts: Sequence[str],
    prompt: str,
    state: Path,
    *,
    cache: Path,
    model: str = DEFAULT_MODEL,
    budget: float = 0,
    token_limit: int | None = None,
    **server,
) -> dict:
    """Hands in the texts that the cache has no answer for, as many as fit; the state, as `state` holds it.

    Before anything is sent, the estimate of the cost of all of them is printed. Raises SplitError where that
    is above `budget` dollars (0: no limit), for a budget with a model whose price is not known, and, once,
    with the reason, where a batch has failed. Run again, it hands in what is missing and nothing twice: a
    batch that was handed in before the state was written is found at the server.

    token_limit: tokens that the account may have waiting at once, from OpenAI's page of limits (None: what
        the API gave as the reason of a failed batch, else `TOKEN_LIMIT`); what does not fit is printed
    server: base_url and api_key
    """
    held = _read(state) if state.exists() else {"model": model, "batches": {}}
    if held["model"] != model:
        raise SplitError(f"{state} belongs to {held['model']}, not to {model}. Collect it first.")
    todo = {key: same[0] for key, same in Cache(cache).open_questions(model, prompt, texts).items()}
    batches = held["batches"]
    with _client(**server) as client:
        if failed := _look(client, held, state):
            raise SplitError(f"{' '.join(failed)} Nothing was sent. Mend that, then submit again.")
        if _find_again(client, held, todo, prompt):
            write_json(state, held)
        under_way = {key for batch in batches.values() if _holds(batch) for key in batch["keys"]}
        todo = {key: text for key, text in todo.items() if key not in under_way}
        cost, limit = estimate([*todo.values()], model, prompt, batch=True), Spending(model, budget).budget
        print(cost)
        if limit and cost.dollars > limit:
            raise SplitError(
                f"The estimate of ${cost.dollars:,.2f} is above the budget of ${limit:g}, so nothing was "
                "sent. Raise the budget, or submit fewer reports."
            )
        most, sent = token_limit or held.get("token_limit") or TOKEN_LIMIT, 0
        queued = sum(batch.get("tokens", 0) for batch in batches.values() if batch["status"] not in OVER)
        for keys, file, tokens in _portions(todo, model, prompt, int(most * SHARE) - queued):
            file.seek(0)
            uploaded = client.files.create(file=("split.jsonl", file), purpose="batch")
            mark = {"endpoint": ENDPOINT, "completion_window": "24h", "metadata": {MARK: keys[0]}}
            batch = client.batches.create(input_file_id=uploaded.id, **mark)
            batches[batch.id] = _entry(batch.status, keys, tokens)
            sent += len(keys)
            write_json(state, held)
    if sent < len(todo):
        print(
            f"{sent:,} of {len(todo):,} reports were handed in. The others do not fit into the {most:,} "
            "tokens that may wait at the API at once. Collect, then submit again."
        )
    return held


def poll(state: Path, **server) -> dict[str, str]:
    """Each batch's status, asked and kept; all in `OVER`: time to collect. Says once why one failed."""
    held = _read(state)
    with _client(**server) as client:
        for reason in _look(client, held, state):
            print(reason)
    return {name: batch["status"] for name, batch in held["batches"].items()}


def collect(texts: Sequence[str], prompt: str, state: Path, *, cache: Path, **server) -> tuple[int, int]:
    """Puts the answers of finished batches into the cache: how many came in, and how many are left to ask,
    by `split_findings` with the same cache or by `submit`. Reasons for lacking answers are shown."""
    held, known = _read(state), Cache(cache)
    waiting = known.open_questions(held["model"], prompt, texts)
    before = len(waiting)
    with _client(**server) as client:
        for reason in _look(client, held, state):
            print(reason)
        for name, batch in held["batches"].items():
            if not _holds(batch) or batch["status"] not in OVER:
                continue
            lacking, answered = Counter(), 0
            for key, content in _answers(client, name, lacking):
                answered += 1
                if key not in waiting:
                    continue
                if asked_again(prompt, waiting[key][0], content):
                    known.add(key, first=content or "")
                else:
                    known.add(key, answer=read_answer(content, waiting[key][0]))
                    del waiting[key]
            if answered < len(batch["keys"]):
                reasons = "".join(f" {count:,} times: {why}." for why, count in lacking.most_common(3))
                counts = f"{answered:,} of {len(batch['keys']):,} have an answer."
                print(hide(f"{name} is {batch['status']}; {counts}{reasons}", client.api_key))
            batch["collected"] = True
            write_json(state, held)
    return before - len(waiting), len(waiting)


def _entry(status: str, keys: list[str], tokens: int) -> dict:
    return {"status": status, "keys": keys, "tokens": tokens, "collected": False}


def _holds(batch: dict) -> bool:
    """Whether a batch has, or will have, answers that were not fetched; a failed one never has any."""
    return not batch["collected"] and batch["status"] != "failed"


def _look(client: openai.OpenAI, held: dict, state: Path) -> list[str]:
    """Brings the statuses up to date; returns why batches failed. That the queue is full is printed only."""
    failed = []
    for name, batch in held["batches"].items():
        if batch["status"] in OVER and (batch["status"] != "failed" or "reason" in batch):
            continue
        answer = client.batches.retrieve(name)
        batch["status"] = answer.status
        if answer.status == "failed":
            errors = getattr(answer.errors, "data", None) or []
            reasons = " ".join(dict.fromkeys(error.message or error.code or "" for error in errors[:3]))
            batch["reason"] = hide(" ".join(reasons.split()), client.api_key) or "The API gives no reason."
            fault = f"{name} failed: {batch['reason']}"
            if any(error.code == TOO_MANY for error in errors):
                limit = _LIMIT.search(reasons)
                held["token_limit"] = int(limit[1].replace(",", "")) if limit else batch.get("tokens", 0) // 2
                print(f"{fault} Submit again: what fits is handed in.")
            else:
                failed.append(fault)
        write_json(state, held)
    return failed


@contextmanager
def _client(**server) -> Iterator[openai.OpenAI]:
    """The official client for a few calls; what goes wrong becomes one sentence without the key."""
    options = client_options(**server)
    try:
        with openai.OpenAI(**options) as client:
            yield client
    except openai.OpenAIError as error:
        fault = f"The Batch API does not answer: {message_of(error)}."
        raise SplitError(hide(fault, options["api_key"])) from None


def _portions(todo: dict, model: str, prompt: str, room: int) -> Iterator[tuple[list, BinaryIO, int]]:
    """The first questions that fit into `room` tokens, as batches: keys, a file used again, tokens."""
    keys, tokens = [], 0
    with tempfile.TemporaryFile() as file:
        for key, text in todo.items():
            body = {"model": model, "messages": question(prompt, text), "response_format": FORMATS[0]}
            request = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
            line = json.dumps(request, ensure_ascii=False).encode() + b"\n"
            if (more := question_tokens(model, prompt, text)) > room:
                break
            if keys and (len(keys) == MOST_REQUESTS or file.tell() + len(line) > MOST_BYTES):
                yield keys, file, tokens
                file.seek(0)
                file.truncate()
                keys, tokens = [], 0
            file.write(line)
            keys.append(key)
            tokens, room = tokens + more, room - more
        if keys:
            yield keys, file, tokens


def _find_again(client: openai.OpenAI, held: dict, todo: dict[str, str], prompt: str) -> bool:
    """Adds the batches with questions of `todo` that the server has and the state has not; whether any."""
    before = len(held["batches"])
    for batch in client.batches.list():
        mark = (batch.metadata or {}).get(MARK)
        if mark not in todo or batch.id in held["batches"] or batch.status not in ALIVE:
            continue
        keys = [request["custom_id"] for request in _lines(client, batch.input_file_id)]
        tokens = sum(question_tokens(held["model"], prompt, todo[key]) for key in keys if key in todo)
        held["batches"][batch.id] = _entry(batch.status, keys, tokens)
    return len(held["batches"]) > before


def _answers(client: openai.OpenAI, name: str, lacking: Counter[str]) -> Iterator[tuple[str, str | None]]:
    """(key, content) of each answer of a batch; why requests have none is counted in `lacking`."""
    batch = client.batches.retrieve(name)
    for file in filter(None, (batch.output_file_id, batch.error_file_id)):
        for result in _lines(client, file):
            response = result.get("response") or {}
            body = response.get("body") if isinstance(response.get("body"), dict) else {}
            choices = body.get("choices") or []
            if response.get("status_code") == 200 and choices:
                yield result["custom_id"], choices[0]["message"].get("content")
                continue
            error = result.get("error") or body.get("error")
            if isinstance(error, dict):
                error = error.get("message") or error.get("code")
            reason = str(error or f"HTTP {response.get('status_code')}")
            lacking[" ".join(reason.split()).rstrip(".")] += 1


def _lines(client: openai.OpenAI, name: str) -> Iterator[dict]:
    """The lines of a file at the server; it is read at once: a server does not wait while they are used."""
    with tempfile.TemporaryFile() as file:
        with client.files.with_streaming_response.content(name) as answers:
            try:
                for piece in answers.iter_bytes():
                    file.write(piece)
            except Exception as error:  # of the HTTP library, which is another one under newer clients
                raise openai.OpenAIError(str(error)) from None
        file.seek(0)
        yield from map(json.loads, filter(bytes.strip, file))


def _read(state: Path) -> dict:
    try:
        held = read_json(state)
        if not {"model", "batches"} <= held.keys():
            raise ValueError
    except FileNotFoundError:
        raise SplitError(f"There is no {state}. Submit first.") from None
    except (ValueError, AttributeError):
        raise SplitError(f"{state} is not a record of batches. Move it to another folder.") from None
    return held
