"""Which of a study's views comes first: the frontal one, by what its file or table calls its position."""

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

FRONTAL = ("PA", "AP")
_BEAMS = re.compile(r"(PA|AP|POSTERO|ANTERO|FRONTAL)(\b|-?(ANTERIOR|POSTERIOR))")
_SIDES = re.compile(r"(L|LL|RL|[LR][AP]O|[LR]LO|SWIMMERS)$|.*LATERAL")

View = TypeVar("View")


def rank(position: object) -> int:
    """The place of a view by its position: 0 PA and AP, 1 other frontal ones, 2 unknown, 3 from the side."""
    name = str(position or "").strip().upper()
    if name in FRONTAL:
        return 0
    if "OBLIQUE" not in name and _BEAMS.match(name):
        return 1
    return 3 if "OBLIQUE" in name or _SIDES.match(name) else 2


def in_order(views: Iterable[View], rank_of: Callable[[View], int]) -> list[View]:
    """A study's views, frontal ones first; without one, those of unknown position before lateral ones."""
    views = list(views)
    frontal = any(rank_of(view) == 0 for view in views)
    return sorted(views, key=lambda view: rank_of(view) > 0 if frontal else rank_of(view))
