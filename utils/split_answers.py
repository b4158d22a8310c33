"""What every language model is asked, how its answer is read, and where answers are kept.

The engines differ in how they reach the model; the question, the reader, the
second question that tells what was wrong, and the cache are one for all.
"""

import hashlib
import json
import os
import warnings
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from .regions import ALL
from .split_audit import failures

Split = dict[str, str]
Messages = list[dict[str, str]]
NOTHING: Split = dict.fromkeys(ALL, "")


class SplitError(ValueError):
    """The split cannot be made; the message says why in one sentence."""


class RegionSplit(BaseModel):
    """The answer's form, as a server's structured output is told it."""

    model_config = ConfigDict(extra="forbid")
    lung: str
    heart: str
    mediastinal: str
    bone: str
    others: str


def question(prompt: str, text: str) -> Messages:
    """What a model is asked about one report: the prompt, then the findings."""
    return [{"role": "system", "content": prompt}, {"role": "user", "content": f"Findings:\n{text}"}]


def asked_again(prompt: str, text: str, content: str | None) -> Messages | None:
    """The question with the answer `content` and what is wrong with it; None where it passes the audit."""
    answer = read_answer(content)
    wrong = failures(text, answer) if answer else ["it is not one complete JSON object with the five keys"]
    if not wrong:
        return None
    reason = "That answer does not pass: " + "; ".join(wrong) + ". Answer again, with the whole JSON object."
    return [
        *question(prompt, text),
        {"role": "assistant", "content": content or "(no answer)"},
        {"role": "user", "content": reason},
    ]


def better(text: str, first: str | None, second: str | None) -> Split | None:
    """Of two answers the split with fewer failures in the audit, the first where they are equal."""
    answers = [answer for answer in (read_answer(first), read_answer(second)) if answer]
    return min(answers, key=lambda answer: len(failures(text, answer)), default=None)


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


class Cache:
    """Answers in a JSON-lines file, appended one by one; in memory only where `path` is None.

    An answer is a split, or None where the model gave none that can be read. A
    first answer that fails the audit is kept as it was written, so that a run
    that ends before the second goes on with the second.
    """

    def __init__(self, path: Path | None):
        self.path = Path(path) if path else None
        self.answers: dict[str, Split | None] = {}
        self.firsts: dict[str, str] = {}
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
                if "first" in entry:
                    self.firsts[entry["key"]] = entry["first"]
                else:
                    self.answers[entry["key"]] = entry["answer"]
            except (ValueError, KeyError, TypeError):
                raise SplitError(
                    f"Line {number} of {self.path} is not an answer; move the file away."
                ) from None

    def add(self, key: str, answer: Split | None) -> None:
        """Keeps an answer, in the file at once."""
        self.answers[key] = answer
        self._append({"key": key, "answer": answer})

    def add_first(self, key: str, content: str | None) -> None:
        """Keeps what the model wrote, where it is to be asked again."""
        self.firsts[key] = content or ""
        self._append({"key": key, "first": content or ""})

    def _append(self, entry: dict) -> None:
        if self.path:
            line = json.dumps(entry, ensure_ascii=False) + "\n"
            with self.path.open("ab", buffering=0) as file:
                file.write(line.encode())

    def open_questions(self, model: str, prompt: str, texts: list[str]) -> dict[str, list[str]]:
        """The texts that have no answer yet, by key; the same text comes under one key."""
        waiting: dict[str, list[str]] = {}
        for text in texts:
            key = cache_key(model, prompt, text)
            if text.strip() and key not in self.answers:
                waiting.setdefault(key, []).append(text)
        return waiting

    def splits(self, model: str, prompt: str, texts: list[str]) -> list[Split]:
        """The best answer there is for each text; all regions "" where none can be read."""
        keys = [cache_key(model, prompt, text) for text in texts]
        return [dict(self.answers.get(key) or read_answer(self.firsts.get(key)) or NOTHING) for key in keys]


def cache_key(model: str, prompt: str, text: str) -> str:
    """The hash under which the answer of `model` to `prompt` and `text` is kept."""
    return hashlib.sha256(json.dumps([model, prompt, text]).encode()).hexdigest()
