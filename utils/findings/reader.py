"""Findings read from a report by rule: what is said, with polarity, side, place and severity.

The words are those of `lexicon`. A sentence without any is one unnamed finding.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from math import inf
from typing import Any, NamedTuple

from . import lexicon
from .sentences import sentences, words

UNNAMED, EVERYTHING = "unnamed finding", "everything"
STRUCTURES = frozenset(lexicon.STRUCTURES) | {EVERYTHING}


class Finding(NamedTuple):
    """One statement of a report."""

    names: frozenset[str]  # several where the text hedges ("scar or atelectasis")
    present: bool  # False for "no effusion" and for "heart size normal" alike
    acute_only: bool = False  # a normal statement that rules out acute disease or injury only
    unchanged_only: bool = False  # a normal statement that says no more than "stable"
    partly: bool = False  # a normal statement on one side or on what is left ("otherwise clear")
    attributes: frozenset[str] = frozenset()  # that a normal statement names: see `lexicon.ATTRIBUTES`
    side: str = ""  # "left", "right", "both" or ""
    place: str = ""  # one of `lexicon.PLACES` or ""
    grade: int = 0  # 1 mild, 2 moderate, 3 severe, 0 not said
    words: frozenset[str] = frozenset()  # of content, where the finding is unnamed

    def __str__(self) -> str:
        if self.words:
            return " ".join(sorted(self.words))
        name = " or ".join(sorted(self.names))
        if not self.present:
            return f"{name} normal" if self.names & STRUCTURES else f"no {name}"
        side = "bilateral" if self.side == "both" else self.side
        return " ".join(part for part in (lexicon.GRADES[self.grade], side, self.place, name) if part)


class Token(NamedTuple):
    """A word that matters, and where it stands in its clause."""

    name: str
    start: int
    end: int


Roles = dict[str, list[Token]]  # of a clause, by role: finding, structure, described, or one of the signs
Denied = Callable[[Token], bool]


class Patterns:
    """The first of several patterns that matches, as one regular expression, with what it means."""

    def __init__(self, meanings: Iterable[tuple[Any, str]]) -> None:
        self._meanings, patterns = zip(*meanings, strict=True)
        # The empty group after each says which it was. It stands last, as the engine skips by first letters.
        self._pattern = re.compile(r"\b(?=[\w,])(?:" + "|".join(f"(?:{each})()" for each in patterns) + ")")

    def find(self, text: str) -> list[tuple[Any, int, int]]:
        """Every word that matches, in order: its meaning, start and end."""
        matches = self._pattern.finditer(text)
        return [(self._meanings[match.lastindex - 1], *match.span()) for match in matches]


# One pass over a sentence finds every word that matters; a sign has a role of its own.
_TOKEN = Patterns(
    ((role or name, name), pattern)
    for role, patterns in (
        ("", lexicon.FIRST),
        ("finding", lexicon.FINDINGS),
        ("", lexicon.NEXT),
        ("structure", lexicon.STRUCTURES),
        ("described", lexicon.DESCRIBED),
        ("", {"abnormality": lexicon.ABNORMALITY}),
    )
    for name, pattern in patterns.items()
)
_SIDE, _PLACE, _GRADE, _ATTRIBUTE, _MEANT = (
    Patterns(words.items())
    for words in (lexicon.SIDES, lexicon.PLACES, lexicon.SEVERITIES, lexicon.ATTRIBUTES, lexicon.MEANT)
)
_COMPARISON, _REST, _ACUTE, _OVERALL = (
    re.compile(rf"\b(?:{pattern})")
    for pattern in (lexicon.COMPARISON, lexicon.REST, lexicon.ACUTE, lexicon.OVERALL)
)
_BOTH_SIDES = re.compile(r"\b(?:left and (?:the )?right|right and (?:the )?left)\b")
_CONJUNCTION = re.compile(r",|/|\b(?:and|or)\b")


@lru_cache(maxsize=65536)
def read_findings(text: str) -> tuple[Finding, ...]:
    """The findings that a report states, each once, in reading order; at least one if there is any text."""
    findings: dict[object, Finding] = {}
    for sentence in sentences(text, semicolons=True):
        for finding in _read_sentence(_BOTH_SIDES.sub("bilateral", sentence.lower())):
            key = finding if finding.present else (finding.names, finding.partly and finding.side)
            findings[key] = _both(findings[key], finding) if key in findings else finding
    return tuple(findings.values()) or _unnamed(text)


def names_present(text: str) -> frozenset[str]:
    """The names of the findings that a report says are present."""
    return frozenset().union(*(finding.names for finding in read_findings(text) if finding.present))


@lru_cache(maxsize=65536)
def comparison(text: str) -> str:
    """The first word of `text` that compares with an earlier study, "" where there is none."""
    match = _COMPARISON.search(text.lower())
    return match[0] if match else ""


def _both(finding: Finding, other: Finding) -> Finding:
    """What two normal statements on one structure say together."""
    reserves = ("acute_only", "unchanged_only", "partly")
    both = {name: getattr(finding, name) and getattr(other, name) for name in reserves}
    # One that names no attribute speaks of them all.
    attributes = finding.attributes and other.attributes and finding.attributes | other.attributes
    return finding._replace(attributes=attributes, **both)


def _unnamed(text: str) -> tuple[Finding, ...]:
    content = frozenset(words(text) or text.split())
    content = content - lexicon.SAY_LITTLE or content
    return (Finding(frozenset({UNNAMED}), True, words=content),) if content else ()


@lru_cache(maxsize=65536)
def _read_sentence(sentence: str) -> tuple[Finding, ...]:
    """The findings of one sentence: those of its clauses, else what it says as a whole."""
    tokens = _TOKEN.find(sentence)
    findings, clause, begin = [], {}, 0
    for (role, name), start, end in [*tokens, (("break", ""), len(sentence), len(sentence))]:
        if role == "break":
            findings += _read_clause(sentence[begin:start], clause)
            clause, begin = {}, end
        else:
            clause.setdefault(role, []).append(Token(name, start - begin, end - begin))
    if findings:
        return _folded(findings)
    roles = {role for (role, _), _, _ in tokens}
    rest, side = bool(_REST.search(sentence)), _one_side(sentence)
    acute_only = bool(_ACUTE.search(sentence)) or "intact" in sentence
    normal = Finding(frozenset(), False, acute_only, attributes=_attributes(sentence), side=side)
    if "normal" in roles and (meant := _MEANT.find(sentence)):
        return (normal._replace(names=frozenset({meant[0][0]}), partly=rest or bool(side)),)
    if rest:
        return ()
    if ("normal" in roles and _OVERALL.search(sentence)) or {"negation", "abnormality"} <= roles:
        return (normal._replace(names=frozenset({EVERYTHING}), partly=bool(side)),)
    return () if "stable" in roles else _unnamed(sentence)


def _folded(findings: list[Finding]) -> tuple[Finding, ...]:
    """The findings of one sentence, those that it only names again in one: "spondylosis with osteophytes"."""
    kept: list[Finding] = []
    for finding in findings:
        for number, before in enumerate(kept):
            aspects = zip(_aspects(before), _aspects(finding), strict=True)
            again = before.present and finding.present and before.names == finding.names
            if again and all(a == b or not a or not b for a, b in aspects):
                kept[number] = _either(before, finding)
                break
        else:
            kept.append(finding)
    return tuple(kept)


def _read_clause(clause: str, roles: Roles) -> list[Finding]:
    """The findings of one clause: those that it names, then what it says of the structures in it."""
    denied, structures = _denial(roles), roles.get("structure", [])
    findings, placed = _named(clause, roles, denied)
    said_from, statement = _called_normal(clause, roles, denied)
    # In "a large effusion" the word describes the finding right after it.
    named = roles.get("finding", ())
    describing = [
        word
        for word in roles.get("described", ())
        if not any(clause[word.end : finding.start].isspace() for finding in named)
    ]
    edges = [0, *(word.start for word in structures[1:]), len(clause)]
    for structure, *own in zip(structures, edges, edges[1:], strict=False):
        large = lexicon.BECOMES.get((structure.name, "large"))
        if large and "upper limit" in roles:
            findings.append(Finding(frozenset({large}), True, grade=1))
            continue
        names = [(word, lexicon.BECOMES.get((structure.name, word.name))) for word in describing]
        meant = [(word, name) for word, name in names if name]
        findings += [_absent(name) if denied(word) else _present(name, clause, "") for word, name in meant]
        if meant or not statement or structure in placed or structure.start < said_from:
            continue
        side, attributes = _one_side(clause) * (structure.name == "lungs"), _attributes(clause[slice(*own)])
        normal = statement._replace(names=frozenset({structure.name}), attributes=attributes)
        findings.append(normal._replace(side=side, partly=True) if side else normal)
    return findings


def _called_normal(clause: str, roles: Roles, denied: Denied) -> tuple[int, Finding | None]:
    """From where a clause calls structures normal, and how, without their names; None where it does not."""
    denials = [word.start for word in roles.get("negation", ())]
    named = [word for word in roles.get("finding", ()) if not denials or word.start > denials[0]]
    is_called = "normal" in roles or (not named and any(map(denied, roles.get("abnormality", ()))))
    if not is_called and ("stable" not in roles or "finding" in roles):
        return 0, None
    acute_only, partly = bool(_ACUTE.search(clause)) or "intact" in clause, bool(_REST.search(clause))
    # "Degenerative spine without acute bony abnormality" calls the bones normal only.
    said_from = denials[0] if "finding" in roles and not named else 0
    return said_from, Finding(frozenset(), False, acute_only, unchanged_only=not is_called, partly=partly)


def _one_side(text: str) -> str:
    sides = {side for side, _, _ in _SIDE.find(text)}
    return sides.pop() if len(sides) == 1 and "both" not in sides else ""


def _attributes(text: str) -> frozenset[str]:
    named = [attributes for attributes, _, _ in _ATTRIBUTE.find(text)]
    # "Contours normal in size and contour" asks for no more than contours.
    together = frozenset().union(*named[:1]) & {lexicon.TOGETHER}
    return frozenset().union(*named) - {lexicon.TOGETHER} | together


def _denial(roles: Roles) -> Denied:
    """Whether a word is denied: after the clause's first negation, or before it where nothing follows."""
    start = min((word.start for word in roles.get("negation", ())), default=inf)
    named = [token for role in ("finding", "described", "abnormality") for token in roles.get(role, ())]
    # "Effusion is not seen", "effusion has resolved".
    every = start < inf and all(token.start < start for token in named)
    return lambda token: every or "denied before" in roles or token.start > start


def _named(clause: str, roles: Roles, denied: Denied) -> tuple[list[Finding], set[Token]]:
    """The findings that a clause names, and the structures that only say which finding it is."""
    findings, placed = [], set()
    words, hedges = roles.get("finding", []), [*roles.get("hedge", ()), *roles.get("not excluded", ())]
    begins = [0, *(word.end for word in words)]
    ends = [*(word.start for word in words[1:]), len(clause)]
    for word, begin, end in zip(words, begins, ends, strict=False):
        name = word.name
        for structure in roles.get("structure", ()):
            if (structure.name, name) in lexicon.BECOMES:
                name = lexicon.BECOMES[structure.name, name]
                placed.add(structure)
        phrase = _CONJUNCTION.split(clause[begin : word.start])[-1] + clause[word.start : word.end]
        if denied(word):
            findings.append(_absent(name, acute_only=name == "fracture" and bool(_ACUTE.search(phrase))))
            continue
        finding = _present(name, phrase, _CONJUNCTION.split(clause[word.end : end])[0])
        hedged = any(begin <= hedge.start < word.start for hedge in hedges)
        if hedged and findings and findings[-1].present:
            finding = _either(findings.pop(), finding)
        findings.append(finding)
    return findings, placed


def _absent(name: str, acute_only: bool = False) -> Finding:
    return Finding(frozenset({lexicon.OPPOSITE.get(name, name)}), False, acute_only)


def _present(name: str, before: str, after: str) -> Finding:
    """A finding with the side, place and grade of its phrase: the last before it, else the first after."""

    def nearest(words: Patterns) -> str:
        marks = words.find(before)[-1:] or words.find(after)
        return marks[0][0] if marks else ""

    grade = lexicon.GRADES.index(nearest(_GRADE))
    return Finding(frozenset({name}), True, side=nearest(_SIDE), place=nearest(_PLACE), grade=grade)


def _either(finding: Finding, other: Finding) -> Finding:
    """One finding that the text gives two names."""
    side, place, grade = (a or b for a, b in zip(_aspects(finding), _aspects(other), strict=True))
    return Finding(finding.names | other.names, True, side=side, place=place, grade=grade)


def _aspects(finding: Finding) -> tuple[str, str, int]:
    return finding.side, finding.place, finding.grade
