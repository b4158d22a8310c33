"""Task 1: the findings of a report split by region, by a language model or offline, and audited."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from . import batch, local, remote
from .auditing import audit, left_to_offline, repair, repair_one
from .gold import agreement, by_region, confusion, gold_pairs, with_examples
from .offline import split_offline
from .questions import Estimate, Spending, SplitError, estimate, price_of
from .reading import whole

__all__ = [
    "Estimate",
    "Prompt",
    "Spending",
    "SplitError",
    "agreement",
    "audit",
    "batch",
    "by_region",
    "confusion",
    "estimate",
    "gold_pairs",
    "left_to_offline",
    "load_prompt",
    "model_of",
    "new_spending",
    "repair",
    "split_and_audit",
    "split_findings",
    "with_examples",
]

PROMPTS = Path(__file__).with_name("prompts")
DEFAULT_MODELS = {
    "offline": "",
    "openai": remote.DEFAULT_MODEL,
    "local": local.DEFAULT_MODEL,
}


class Prompt(NamedTuple):
    """A system prompt, its name, and the hash of its text that goes into caches and manifests."""

    name: str
    text: str

    @property
    def hash(self) -> str:
        """The first 16 hex digits of the SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def load_prompt(name: str = "split_v1") -> Prompt:
    """The prompt in `prompts/<name>.txt`. Raises SplitError, with the names there are, for any other."""
    names = sorted(path.stem for path in PROMPTS.glob("*.txt"))
    if name not in names:
        raise SplitError(f"There is no prompt {name!r}. Choose {', '.join(names)}.")
    return Prompt(name, (PROMPTS / f"{name}.txt").read_text(encoding="utf-8").strip())


def model_of(engine: str, model: str = "") -> str:
    """The model that `engine` asks: `model`, or the engine's own where that is empty."""
    if engine not in DEFAULT_MODELS:
        raise SplitError(f"There is no engine {engine!r}: choose {', '.join(DEFAULT_MODELS)}.")
    return (engine != "offline" and model) or DEFAULT_MODELS[engine]


def new_spending(model: str = "", budget: float = 0, base_url: str | None = None) -> Spending:
    """An account of an openai run; at a server of one's own, without a known price, no budget holds."""
    model = model_of("openai", model)
    own = bool(base_url or os.environ.get("OPENAI_BASE_URL")) and not price_of(model)
    return Spending(model, 0 if own else budget)


def split_findings(texts: list[str], engine: str = "offline", **options) -> list[dict[str, str]]:
    """Each text's findings by region: keys lung, heart, mediastinal, bone, others, in the order of `texts`.

    `engine` "offline" needs no model and ignores all `options`; "openai" asks
    a model at OpenAI or at any OpenAI-compatible server; "local" loads one
    here, from the Hugging Face Hub, a folder or a GGUF file. An answer that
    fails the audit is asked for once more, then repaired by the offline engine.

    model: its name, else the engine's own
    prompt: a `Prompt`, the text of one, or None for `load_prompt()`
    cache: a JSON-lines file in which answers are kept as they come, so that none is paid for twice
    progress: called with (reports done, reports in all)
    base_url, api_key, concurrency: openai: the server, the key, else OPENAI_API_KEY, and reports at a time
    budget: openai: dollars after which nothing more is asked (0: no limit); a warning says so, and the
        offline engine splits the rest
    spending: openai: an account from `new_spending`, with a budget of its own, to be read while it runs

    Raises SplitError where the texts are not strings, the engine is unknown, the model or the server
    cannot be used at all, or a budget is set for a model without a known price.
    """
    texts = _whole(texts)
    splits = _unrepaired(texts, engine, **options)
    if engine == "offline":
        return splits
    return [repair_one(text, split)[0] for text, split in zip(texts, splits, strict=True)]


def split_and_audit(
    texts: list[str], engine: str = "offline", **options
) -> tuple[list[dict[str, str]], pd.DataFrame]:
    """`split_findings`, with the same options, and the audit of what it gives, as `repair` has it."""
    texts = _whole(texts)
    return repair(texts, _unrepaired(texts, engine, **options))


def _whole(texts: list[str]) -> list[str]:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise SplitError("texts must be a list of strings, one report each.")
    return [whole(text) for text in texts]


def _unrepaired(
    texts: list[str],
    engine: str,
    *,
    model: str = "",
    prompt: Prompt | str | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    concurrency: int = 16,
    budget: float = 0,
    spending: Spending | None = None,
) -> list[dict[str, str]]:
    model = model_of(engine, model)
    if engine == "offline":
        return [split_offline(text) for text in texts]
    told = prompt.text if isinstance(prompt, Prompt) else prompt or load_prompt().text
    kept = {"model": model, "cache": cache, "progress": progress}
    if engine == "local":
        return local.ask_all(texts, told, **kept)
    spending = spending or new_spending(model, budget, base_url)
    server = {"base_url": base_url, "api_key": api_key, "concurrency": concurrency}
    return remote.ask_all(texts, told, spending=spending, **server, **kept)
