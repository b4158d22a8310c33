"""Task 1: the findings of a report split by region, by a language model or offline, and audited."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from utils.run.progress import counter
from utils.settings import SplitSettings

from . import batch, local, remote
from .auditing import audit, left_to_offline, repair, repair_one
from .gold import Pair, agreement, by_region, confusion, disagreements, gold_for, gold_pairs, with_examples
from .offline import split_offline
from .questions import Spending, SplitError, estimate, price_of
from .reading import Split, whole

__all__ = [
    "EXAMPLE", "Prompt", "SplitError", "agreement", "audit", "batch", "by_region", "compare", "confusion",
    "costs", "disagreements", "estimate", "gold_for", "gold_pairs", "left_to_offline", "load_prompt",
    "model_of", "new_spending", "options_of", "repair", "split_and_audit", "split_findings", "with_examples",
]  # fmt: skip

PROMPTS = Path(__file__).with_name("prompts")
DEFAULT_MODELS = {"offline": "", "openai": remote.DEFAULT_MODEL, "local": local.DEFAULT_MODEL}
EXAMPLE = (  # the quiz's own
    "The cardiomediastinal silhouette and pulmonary vasculature are within normal limits in size. "
    "The lungs are mildly hypoinflated but grossly clear of focal airspace disease, pneumothorax, or "
    "pleural effusion. There are mild degenerative endplate changes in the thoracic spine. "
    "There are no acute bony findings."
)


class Prompt(NamedTuple):
    """A system prompt, its name, and the hash of its text, for caches and manifests."""

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


def split_findings(texts: list[str], engine: str = "offline", **options) -> list[Split]:
    """Each text's findings by region: keys lung, heart, mediastinal, bone, others, in the order of `texts`.

    `engine` "offline" needs no model and ignores all `options`; "openai" asks a model at OpenAI or at any
    OpenAI-compatible server; "local" loads one here, from the Hugging Face Hub, a folder or a GGUF file. An
    answer that fails the audit is asked for once more, then repaired by the offline engine.

    model: its name, else the engine's own
    prompt: a `Prompt`, the text of one, or None for `load_prompt()`
    cache: a JSON-lines file in which answers are kept as they come, so that none is paid for twice
    progress: called with (reports done, reports in all)
    base_url, api_key, concurrency: openai: the server, the key, else OPENAI_API_KEY, and reports at a time
    budget: openai: dollars after which nothing more is asked (0: no limit); a warning says so, and the
        offline engine splits the rest
    spending: openai: an account from `new_spending`, with a budget of its own, to be read while it runs

    Raises SplitError where the texts are not strings, the engine is unknown, the model or the server cannot
    be used at all, or a budget is set for a model without a known price.
    """
    texts, splits = _unrepaired(texts, engine, **options)
    pairs = zip(texts, splits, strict=True)
    return splits if engine == "offline" else [repair_one(text, split)[0] for text, split in pairs]


def split_and_audit(texts: list[str], engine: str = "offline", **options) -> tuple[list[Split], pd.DataFrame]:
    """`split_findings`, with the same options, and the audit of what it gives, as `repair` has it."""
    return repair(*_unrepaired(texts, engine, **options))


def _unrepaired(
    texts, engine, *, model="", prompt=None, budget=0.0, spending=None, cache=None, progress=None, **server
) -> tuple[list[str], list[Split]]:
    """The texts without halves of characters, and their splits as the engine gives them."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise SplitError("texts must be a list of strings, one report each.")
    texts, model = [whole(text) for text in texts], model_of(engine, model)
    if engine == "offline":
        return texts, [split_offline(text) for text in texts]
    system = prompt.text if isinstance(prompt, Prompt) else prompt or load_prompt().text
    if engine == "local":
        if unknown := server.keys() - {"concurrency", "base_url", "api_key"}:
            raise TypeError(f"no such option: {', '.join(unknown)}")
        return texts, local.ask_all(texts, system, model, cache, progress)
    spending = spending or new_spending(model, budget, server.get("base_url"))
    return texts, remote.ask_all(texts, system, model, spending, cache=cache, progress=progress, **server)


def options_of(settings: SplitSettings, prompt: str, api_key: str | None, cache: Path) -> dict:
    """The options of `split_findings` as a form has them; the openai engine gets an account to spend from."""
    options = settings.model_dump(include={"engine", "model", "base_url", "concurrency", "budget"})
    if settings.engine == "openai":
        options["spending"] = new_spending(settings.model, settings.budget, settings.base_url)
    return options | {"prompt": prompt, "api_key": api_key, "cache": cache}


def costs(texts: list[str], measured: list[Pair], settings: SplitSettings, options: dict) -> str:
    """What asking about `texts` and, with each prompt, about those `measured` may cost, a line each."""
    if settings.engine != "openai":
        return f"The {settings.engine} engine costs nothing."
    model, originals = model_of(settings.engine, settings.model), [text for text, _ in measured]
    lines = [str(estimate(texts + originals, model, options["prompt"], cache=options["cache"]))]
    if settings.other_prompt:
        other = load_prompt(settings.other_prompt).text
        lines.append(f"{settings.other_prompt}: {estimate(originals, model, other, cache=options['cache'])}")
    return "\n".join(lines)


def compare(measured: list[Pair], settings: SplitSettings, options: dict) -> dict[str, pd.DataFrame]:
    """Splits of the reports `measured` beside their gold, as `agreement` has it, by engine and prompt.

    The form's engine comes first, with one prompt or two, the offline engine last; says what was left to it.
    """
    sides = {"offline": {"engine": "offline"}}
    if settings.engine != "offline":
        sides = {f"{settings.engine}, {settings.prompt}": options, **sides}
        if settings.other_prompt:
            other = load_prompt(settings.other_prompt)
            sides[f"{settings.engine}, {other.name}"] = options | {"prompt": other.text}
    originals, gold = [text for text, _ in measured], [findings for _, findings in measured]
    frames = {}
    for name, side in sides.items() if measured else ():
        progress = counter(name, options.get("spending"))
        splits, audited = split_and_audit(originals, **side | {"progress": progress})
        if side["engine"] != "offline":
            print(f"{name}: {left_to_offline(audited):,} of {len(splits):,} reports split offline instead")
        frames[name] = agreement(originals, splits, gold, options["prompt"])
    return frames
