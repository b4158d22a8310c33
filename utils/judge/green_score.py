"""GREEN's own package, green-score: its prompt and its parser, from `take` on, where the package can be had.

The package pins versions that Colab does not ship, so it is installed without its dependencies, and imported
only when somebody asks for it. Nothing here loads a model.
"""

import warnings
from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any, NamedTuple

VERSION = "0.0.12"  # that ours is tested against; pinned in requirements-green-score.txt too
OURS = "The judge's prompt and parser are our own, as"

Counts = tuple[int, ...]


class Package(NamedTuple):
    """What is used of green-score."""

    prompt: Callable[[str, str], str]  # the question about a reference and a prediction
    green: Any  # its class GREEN without a model, which reads completions

    def counts(self, completion: str) -> tuple[Counts, Counts, int]:
        """Significant and insignificant errors of the types a to f, and the number of matched findings."""
        significant, insignificant, matched = (
            self.green.parse_error_counts(completion, section) for section in self.green.categories
        )
        return tuple(significant[1]), tuple(insignificant[1]), matched[0]

    def score(self, completion: str) -> float:
        """Matched / (matched + significant errors), 0 to 1; 0 where no matched finding can be read."""
        return self.green.compute_green(completion)


_taken: list[Package] = []  # empty, or the one that was taken


def taken() -> Package | None:
    """The package, if `take` has been called and found it."""
    return _taken[0] if _taken else None


def take() -> str:
    """Take prompt and parser from green-score from now on; a sentence says whose they are, and why, where
    it is not here in the right version or does not import."""
    _taken.clear()
    try:
        version = metadata.version("green-score")
    except metadata.PackageNotFoundError:
        return f"{OURS} green-score {VERSION} is not installed here."
    if version != VERSION:
        return f"{OURS} green-score {version} is installed here, and not {VERSION}."
    try:
        _taken.append(_load())
    except Exception as error:  # whatever a package may raise that meets other versions than its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return f"{OURS} green-score {VERSION} does not import here ({reason})."
    return f"The judge's prompt and parser are those of green-score {VERSION}."


def _load() -> Package:
    """The package without its side effects: it silences transformers and a warning of its own."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    try:
        with warnings.catch_warnings():
            judge = import_module("green_score.green").GREEN(cpu=True, compute_summary_stats=False)
            return Package(import_module("green_score.utils").make_prompt, judge)
    finally:
        logging.set_verbosity(verbosity)
