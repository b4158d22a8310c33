"""Task 1: the findings of a report split by region, by a language model or offline, and audited."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from .split_audit import agreement, audit, repair
from .split_offline import split_offline
from .split_openai import DEFAULT_MODEL, SplitError, ask_all

__all__ = [
    "Prompt",
    "SplitError",
    "agreement",
    "audit",
    "load_prompt",
    "repair",
    "split_and_audit",
    "split_findings",
]

PROMPTS = Path(__file__).with_name("prompts")


class Prompt(NamedTuple):
    """A system prompt, its name, and the hash of its text that goes into caches and manifests."""

    name: str
    text: str

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def load_prompt(name: str = "split_v1") -> Prompt:
    """The prompt `utils/prompts/<name>.txt`. Raises SplitError, with the names there are, for any other."""
    names = sorted(path.stem for path in PROMPTS.glob("*.txt"))
    if name not in names:
        raise SplitError(f"There is no prompt {name!r}; there is {', '.join(names)}.")
    return Prompt(name, (PROMPTS / f"{name}.txt").read_text(encoding="utf-8").strip())


def split_findings(
    texts: list[str],
    engine: str = "offline",
    *,
    model: str = DEFAULT_MODEL,
    base_url: str | None = None,
    api_key: str | None = None,
    prompt: Prompt | str | None = None,
    concurrency: int = 16,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, str]]:
    """Each text's findings by region: keys lung, heart, mediastinal, bone, others, in the order of `texts`.

    `engine` "offline" needs no model and ignores all that follows; "openai"
    asks `model` at OpenAI or at any OpenAI-compatible `base_url`, `concurrency`
    reports at a time. The key is `api_key`, else OPENAI_API_KEY. `prompt` is a
    `Prompt`, the text of one, or None for `load_prompt()`. Answers are kept in
    the JSON-lines file `cache` as they come, so that none is paid for twice.
    `progress` is called with (reports done, reports in all). An answer that
    fails the audit is asked for once more, then repaired by the offline
    engine. Raises SplitError where the texts are not strings, the engine is
    unknown, or the server cannot be used at all.
    """
    options = {"model": model, "base_url": base_url, "api_key": api_key, "prompt": prompt}
    options |= {"concurrency": concurrency, "cache": cache, "progress": progress}
    splits = _unrepaired(texts, engine, **options)
    return splits if engine == "offline" else repair(texts, splits)[0]


def split_and_audit(
    texts: list[str], engine: str = "offline", **options
) -> tuple[list[dict[str, str]], pd.DataFrame]:
    """`split_findings`, with the same options, and the audit of what it gives, as `repair` has it."""
    return repair(texts, _unrepaired(texts, engine, **options))


def _unrepaired(
    texts: list[str], engine: str, *, prompt: Prompt | str | None = None, **options
) -> list[dict[str, str]]:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise SplitError("texts must be a list of strings, one report each.")
    if engine == "offline":
        return [split_offline(text) for text in texts]
    if engine != "openai":
        raise SplitError(f"There is no engine {engine!r}: choose offline or openai.")
    if not isinstance(prompt, Prompt):
        prompt = Prompt("edited", prompt) if prompt else load_prompt()
    return ask_all(texts, prompt.text, **options)
