"""The vocabulary: the region names, a report's regions, and a report as text.

A report is a `dict` from region name to that region's findings. A region that is not in the dict was not
mentioned: it is unknown, neither normal nor empty.
"""

import re
from collections.abc import Iterable, Mapping

REGIONS = ("lung", "heart", "mediastinal", "bone")
OTHERS = "others"
ALL = (*REGIONS, OTHERS)
NOT_FOR_CLINICAL_USE = "Not for clinical use."  # stands wherever a report is shown

_HEADING = re.compile(
    rf"^[-*#> \t]*(?:\d+[.)][* \t]*)?({'|'.join(ALL)})\** *:\**", re.IGNORECASE | re.MULTILINE
)
# A heading that also says which findings its region has, as `heading` writes it.
_PLANNED = re.compile(rf"^([ \t]*(?:{'|'.join(REGIONS)})) \([^()\n]*\):", re.MULTILINE)


def heading(region: str, plan: Iterable[str] = ()) -> str:
    """The heading of a region's line: `lung:`, or `lung (effusion, opacity):` with the findings to name."""
    names = ", ".join(plan)
    return f"{region} ({names}):" if names else f"{region}:"


def without_plan(text: str) -> str:
    """A report text with plain headings, the findings in them taken out."""
    return _PLANNED.sub(r"\1:", text)


def plan_places(text: str) -> list[tuple[int, int]]:
    """Where the plans stand that `without_plan` takes out of a report text, in order."""
    return [(planned.end(1), planned.end() - 1) for planned in _PLANNED.finditer(text)]


def tidy(text: str) -> str:
    """`text` on one line: every run of white space becomes one space."""
    return " ".join(text.split())


def mentioned(findings: dict[str, str], names: tuple[str, ...] = REGIONS) -> dict[str, str]:
    """The regions of `names`, in that order, whose findings have any text."""
    texts = {name: tidy(findings.get(name) or "") for name in names}
    return {name: text for name, text in texts.items() if text}


def render(findings: dict[str, str], plan: Mapping[str, Iterable[str]] | None = None) -> str:
    """A report as text, one line `region: findings` per region, in the order of `ALL`.

    plan: by region, the findings that its heading names, see `heading`

    Raises ValueError for a name that is not a region. `parse` gives the same dict back, but tidied.
    """
    if unknown := set(findings) - set(ALL):
        names = ", ".join(sorted(map(str, unknown)))
        raise ValueError(f"no such region: {names}; regions are {', '.join(ALL)}")
    heads = {name: heading(name, (plan or {}).get(name, ())) for name in ALL if name in findings}
    return "\n".join(f"{head} {tidy(findings[name] or '')}".rstrip() for name, head in heads.items())


def places(text: str) -> dict[str, tuple[int, int]]:
    """Where in a report text the findings of each region stand, `{}` where it has none.

    Reads what `render` writes and what models make of it: headings in any case, with Markdown marks or
    numbers, in any order, after any text. Of a region that comes twice, the first with findings is kept.
    """
    heads = list(_HEADING.finditer(text))
    ends = [*(head.start() for head in heads), len(text)][1:]
    spans: dict[str, tuple[int, int]] = {}
    for head, end in zip(heads, ends, strict=True):
        name = head[1].lower()
        if name not in spans or not text[slice(*spans[name])].strip():
            spans[name] = head.end(), end
    return {name: spans[name] for name in ALL if name in spans}


def parse(text: str) -> dict[str, str]:
    """The regions of a report text, `{}` where it has none: what stands at their `places`, on one line."""
    return {name: tidy(text[start:end]) for name, (start, end) in places(text).items()}
