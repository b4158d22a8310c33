"""The findings of a report with headings, as in MIMIC-CXR: which section has them, or why there are none.

A heading is a few words before a colon, at a line's start. Only known ones end a section, not `PLEURA:`. The
words are those of the collection's own count (https://github.com/MIT-LCP/mimic-cxr, `txt/section_parser.py`).
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache

from utils import regions

FINDINGS, JOINT, VIEW, PART, IMPRESSION, OTHER = "findings", "joint", "view", "part", "impression", "other"
# Words of a heading that say what its section is, FINDINGS before IMPRESSION before OTHER.
KINDS = dict.fromkeys(("finding", "findings"), FINDINGS)
KINDS |= dict.fromkeys(("impression", "impressions", "conclusion", "conclusions"), IMPRESSION)
_OTHERS = """addendum clinical comment comparison comparisons date diagnosis exam examination history
    indication indications note notification pfi procedure reason recommendation recommendations summary
    technique wet wetread"""
KINDS |= dict.fromkeys(_OTHERS.split(), OTHER)
BESIDE = {"and", "or", "for", "of", "the", "this", "type", "information", "s"}  # words beside these
VIEWS = {  # a heading of nothing but these is the label of views
    *("ap", "pa", "lat", "lateral", "frontal", "portable", "bedside", "upright", "erect", "semi", "supine"),
    *("chest", "view", "views", "radiograph", "radiographs", "film", "films", "xray", "x", "ray"),
    *("single", "one", "two", "three", "1", "2", "3", "and", "of", "the"),
}
# How findings were found, the best first; then why there are none.
TAKEN = {
    FINDINGS: "Findings from a section FINDINGS",
    JOINT: "Findings from a section FINDINGS AND IMPRESSION, as there is no other",
    VIEW: "Findings from a section named after its views, as there is no other",
}
NO_REPORT = "Reports that are not there"
EMPTY = "Reports with nothing in their section of findings"
ONLY_IMPRESSION = "Reports with an impression and no findings"
NO_SECTION = "Reports without a section of findings or an impression"

_WORD = re.compile(r"[a-z]+|\d+")
_LONG = [word for word in KINDS if len(word) > 6]
_NEAR = 0.87  # takes FINIDNGS for FINDINGS, and not COMPRESSION for IMPRESSION
_MAIN = r"(?:FINDINGS?|IMPRESSIONS?)"
_CAPITALS = re.compile(
    r"^[ \t]*(?P<line>[A-Z][A-Z0-9 ()/,&'.+-]*?)[ \t]*:"  # at a line's start
    rf"|(?<=[.?!:_)])[ \t]+(?P<inline>{_MAIN}(?: ?(?:AND|/|&) ?{_MAIN})?):"  # after a sentence
    rf"|^[ \t]*(?P<alone>{_MAIN}(?: ?(?:AND|/|&) ?{_MAIN})?)[ \t\r]*$",  # without a colon
    re.MULTILINE,
)
_TITLES = re.compile(r"^[ \t]*(?P<title>[A-Z][A-Za-z ()/,&-]*?)[ \t]*:", re.MULTILINE)
_PARAGRAPH = re.compile(r"(?:\A|\n[ \t\r]*\n)\Z")  # what comes before one


def findings(report: str) -> tuple[str, str]:
    """The last section of the best kind that has text, and its rule; without one "", and why."""
    sections = list(_sections(report))
    for wanted, rule in TAKEN.items():
        if texts := [text for section, text in sections if section == wanted and text]:
            return texts[-1], rule
    if any(section in (FINDINGS, JOINT) for section, _ in sections):
        return "", EMPTY
    only_impression = any(section == IMPRESSION and text for section, text in sections)
    return "", ONLY_IMPRESSION if only_impression else NO_SECTION


def _sections(report: str) -> Iterator[tuple[str, str]]:
    """What each section is, and its text in one line."""
    section, parts, start = "", [], 0
    for begin, end, heading in [*_headings(report), (len(report), len(report), "")]:
        parts.append(report[start:begin])
        start, text = end, regions.tidy(" ".join(parts))
        if heading == PART and section in TAKEN:
            parts.append(report[begin:end])
        elif heading != VIEW or not (section in TAKEN or (section and not text)):
            # A view's label in the findings, or right after another heading, begins no section.
            yield section, text
            section, parts = FINDINGS if heading == PART else heading, []


def _headings(report: str) -> list[tuple[int, int, str]]:
    """Begin, end and section of known headings; in small letters only at a paragraph's start or if alone."""
    capitals = ((match, _section(match[match.lastgroup].lower())) for match in _CAPITALS.finditer(report))
    heads = [(*match.span(), section) for match, section in capitals if section]
    usual = any(section in (FINDINGS, JOINT) for _, _, section in heads)
    for match in _TITLES.finditer(report):
        name = match["title"].lower()
        known = all(word in KINDS or word in BESIDE for word in _WORD.findall(name))
        if match["title"].isupper() or not known or _section(name) in ("", PART):
            continue
        if not usual or _PARAGRAPH.search(report[: match.start()]):
            heads.append((*match.span(), _section(name)))
    return sorted(heads)


@cache
def _section(heading: str) -> str:
    """What a section with this heading, in small letters, is; empty for a heading that is not known."""
    words = _WORD.findall(heading)
    if VIEWS.issuperset(words):
        return VIEW
    kinds = [_known(word) for word in words]
    if FINDINGS in kinds and IMPRESSION in kinds:
        return JOINT
    if FINDINGS in kinds:
        alone = kinds[0] == FINDINGS and (BESIDE | VIEWS).issuperset(words[1:])
        return FINDINGS if alone else PART
    return next((section for section in (IMPRESSION, OTHER) if section in kinds), "")


def _known(word: str) -> str:
    """What a word of a heading says; a long one may be misspelt."""
    if word not in KINDS and len(word) > 6:
        word = next(iter(get_close_matches(word, _LONG, 1, _NEAR)), "")
    return KINDS.get(word, "")
