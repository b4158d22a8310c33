"""The findings that are counted: a few names each for what radiologists call one thing.

A finding is looked for in the text of its one region only.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from utils.regions import mentioned

from .reader import names_present

FREQUENT = 0.04  # of the training studies name it


class Group(NamedTuple):
    """A finding: what it is called, its region, the reader's names for it, and a sentence that names it."""

    name: str
    region: str
    names: frozenset[str]
    sentence: str


AORTA = "tortuous or calcified aorta"
# Scars have no group: where a report is in doubt, it names them beside atelectasis.
GROUPS = tuple(
    Group(name, region, frozenset(names or [name]), sentence)
    for name, region, names, sentence in (
        ("effusion", "lung", [], "There is a pleural effusion."),
        ("opacity", "lung", ["opacity", "consolidation", "atelectasis"], "There is an opacity."),
        ("hypoinflation", "lung", [], "Lung volumes are low."),
        ("hyperinflation", "lung", [], "The lungs are hyperinflated."),
        ("granuloma", "lung", [], "There is a calcified granuloma."),
        ("nodule", "lung", [], "There is a nodule."),
        ("pneumothorax", "lung", [], "There is a pneumothorax."),
        ("edema", "lung", [], "There is pulmonary edema."),
        ("cardiomegaly", "heart", [], "The heart is enlarged."),
        ("wide mediastinum", "mediastinal", [], "The mediastinum is widened."),
        (AORTA, "mediastinal", ["tortuous aorta", "aortic calcification"], "The aorta is tortuous."),
        ("degenerative change", "bone", [], "There are degenerative changes of the spine."),
        ("scoliosis", "bone", [], "There is scoliosis."),
        ("fracture", "bone", [], "There is a rib fracture."),
    )
)


@lru_cache(maxsize=65536)
def named(text: str, region: str) -> frozenset[str]:
    """The groups of `region` that `text` says are present."""
    names = names_present(text)
    return frozenset(group.name for group in GROUPS if group.region == region and group.names & names)


def frequent(studies: Sequence[dict[str, str]]) -> tuple[Group, ...]:
    """The groups that at least `FREQUENT` of `studies` name, in the order of `GROUPS`.

    studies: findings by region, of training studies alone
    """
    texts = [(text, region) for study in studies for region, text in mentioned(study).items()]
    counts = Counter((name, region) for text, region in texts for name in named(text, region))
    least = max(1, FREQUENT * len(studies))
    return tuple(group for group in GROUPS if counts[group.name, group.region] >= least)
