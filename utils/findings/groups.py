"""The findings that are counted: a few names each for what radiologists call one thing.

A finding belongs to one region: it is looked for in that region's text only, and a study whose
reference leaves the region out says nothing of it, neither yes nor no.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from utils.regions import mentioned

from .reader import read_findings

FREQUENT = 0.04  # of the training studies name it


class Group(NamedTuple):
    """A finding: what it is called, its region, and the reader's names for it."""

    name: str
    region: str
    names: frozenset[str]


# Scars have no group: where a report is in doubt, it names them beside atelectasis.
GROUPS = tuple(
    Group(name, region, frozenset(names))
    for name, region, names in (
        ("effusion", "lung", ["effusion"]),
        ("opacity", "lung", ["opacity", "consolidation", "atelectasis"]),
        ("hypoinflation", "lung", ["hypoinflation"]),
        ("hyperinflation", "lung", ["hyperinflation"]),
        ("granuloma", "lung", ["granuloma"]),
        ("nodule", "lung", ["nodule"]),
        ("pneumothorax", "lung", ["pneumothorax"]),
        ("edema", "lung", ["edema"]),
        ("cardiomegaly", "heart", ["cardiomegaly"]),
        ("wide mediastinum", "mediastinal", ["wide mediastinum"]),
        ("tortuous or calcified aorta", "mediastinal", ["tortuous aorta", "aortic calcification"]),
        ("degenerative change", "bone", ["degenerative change"]),
        ("scoliosis", "bone", ["scoliosis"]),
        ("fracture", "bone", ["fracture"]),
    )
)


@lru_cache(maxsize=65536)
def named(text: str, region: str) -> frozenset[str]:
    """The groups of `region` that `text` says are present."""
    found = frozenset().union(*(finding.names for finding in read_findings(text) if finding.present))
    return frozenset(group.name for group in GROUPS if group.region == region and group.names & found)


def frequent(studies: Sequence[dict[str, str]], share: float = FREQUENT) -> tuple[Group, ...]:
    """The groups that at least `share` of `studies` name, in the order of `GROUPS`.

    studies: findings by region, of training studies alone
    """
    texts = [mentioned(study) for study in studies]
    counts = {
        group: sum(group.name in named(study.get(group.region, ""), group.region) for study in texts)
        for group in GROUPS
    }
    return tuple(group for group, count in counts.items() if count and count >= share * len(texts))
