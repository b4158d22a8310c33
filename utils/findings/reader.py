"""Findings read from a report by rule: what is said, with polarity, side, place and severity.

The words are those of `lexicon`. A sentence without any is one unnamed finding.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from . import lexicon
from .sentences import sentences, words

UNNAMED, EVERYTHING = "unnamed finding", "everything"
STRUCTURES = frozenset(lexicon.STRUCTURES) | {EVERYTHING}


class Finding(NamedTuple):
    """One statement of a report.

    names: what it is; several where the text hedges ("scar or atelectasis")
    present: False for "no effusion" and for "heart size normal" alike
    acute_only: a normal statement that rules out acute disease or injury only
    unchanged_only: a normal statement that says no more than "stable"
    partly: a normal statement on one side or on what is left ("otherwise clear")
    attributes: what a normal statement names of its structure, of `lexicon.ATTRIBUTES`
    side: "left", "right", "both" or ""; place: one of `lexicon.PLACES` or ""
    grade: 1 mild, 2 moderate, 3 severe, 0 not said
    words: the content words, of an unnamed finding only
    """

    names: frozenset[str]
    present: bool
    acute_only: bool = False
    unchanged_only: bool = False
    partly: bool = False
    attributes: frozenset[str] = frozenset()
    side: str = ""
    place: str = ""
    grade: int = 0
    words: frozenset[str] = frozenset()

    def __str__(self) -> str:
        if self.words:
            return " ".join(sorted(self.words))
        name = " or ".join(sorted(self.names))
        if not self.present:
            return f"{name} normal" if self.names & STRUCTURES else f"no {name}"
        side = "bilateral" if self.side == "both" else self.side
        return " ".join(part for part in (lexicon.GRADES[self.grade], side, self.place, name) if part)


class Token(NamedTuple):
    """A word that matters; its kind is finding, structure, described, or what it does to these."""

    kind: str
    name: str
    start: int
    end: int


# A part of a pattern between two "|" outside of parentheses, which the lexicon nests three deep at most.
_ALTERNATIVE = re.compile(r"(?:\\.|[^|()\\]|\((?:\\.|[^()\\]|\((?:\\.|[^()\\]|\((?:\\.|[^()\\])*\))*\))*\))+")
Kinds = dict[str, list[Token]]  # the words of one clause by kind
Denied = Callable[[Token], bool]


class Words:
    """The first of several patterns that matches, as one regular expression, with what it means."""

    def __init__(self, meanings: Iterable[tuple[Any, str]]) -> None:
        self._meanings: list[Any] = []
        alternatives = []
        for meaning, pattern in meanings:
            for alternative in _ALTERNATIVE.findall(pattern):
                # The empty group stands last: before it, the engine could not skip by first letters.
                alternatives.append(alternative + "()")
                self._meanings.append(meaning)
        self._pattern = re.compile(r"\b(?=[\w,])(?:" + "|".join(alternatives) + ")")

    def find(self, text: str) -> list[tuple[Any, int, int]]:
        """Every word that matches, in order: its meaning, start and end."""
        matches = self._pattern.finditer(text)
        return [(self._meanings[match.lastindex - 1], *match.span()) for match in matches]


# One pass over a sentence finds every word that matters.
_MEANINGS = [
    ("break", "", lexicon.BREAK),
    ("stable", "", lexicon.STABLE),
    ("hedge", "", lexicon.NOT_EXCLUDED),
    ("negation", "", lexicon.NEGATION),
    ("denied before", "", lexicon.DENIED_BEFORE),
    ("upper limit", "", lexicon.UPPER_LIMIT),
    *(("finding", name, pattern) for name, pattern in lexicon.FINDINGS.items()),
    ("hedge", "", lexicon.HEDGE),
    ("normal", "", lexicon.NORMAL),
    *(("structure", name, pattern) for name, pattern in lexicon.STRUCTURES.items()),
    *(("described", name, pattern) for name, pattern in lexicon.DESCRIBED.items()),
    ("abnormality", "", lexicon.ABNORMALITY),
]
_TOKEN = Words(((kind, name), pattern) for kind, name, pattern in _MEANINGS)
_SIDE, _PLACE, _GRADE, _ATTRIBUTE, _MEANT = (
    Words(words.items())
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
    parts = [_BOTH_SIDES.sub("bilateral", part.lower()) for part in sentences(text, semicolons=True)]
    findings: dict[object, Finding] = {}
    for finding in (finding for part in parts for finding in _read_sentence(part)):
        key = finding if finding.present else (finding.names, finding.partly and finding.side)
        findings[key] = _both(findings[key], finding) if key in findings else finding
    return tuple(findings.values()) or _unnamed(text)


@lru_cache(maxsize=65536)
def comparison(text: str) -> str:
    """The first word of `text` that compares with an earlier study, "" where there is none."""
    return next((match[0] for match in _COMPARISON.finditer(text.lower())), "")


def _both(finding: Finding, other: Finding) -> Finding:
    """What two normal statements on one structure say together."""
    if finding == other:
        return finding
    return finding._replace(
        acute_only=finding.acute_only and other.acute_only,
        unchanged_only=finding.unchanged_only and other.unchanged_only,
        partly=finding.partly and other.partly,
        # One that names no attribute speaks of them all.
        attributes=finding.attributes and other.attributes and finding.attributes | other.attributes,
    )


def _unnamed(text: str) -> tuple[Finding, ...]:
    content = frozenset(words(text) or text.split())
    content = content - lexicon.SAY_LITTLE or content
    return (Finding(frozenset({UNNAMED}), True, words=content),) if content else ()


@lru_cache(maxsize=65536)
def _read_sentence(sentence: str) -> tuple[Finding, ...]:
    tokens = [Token(*meaning, start, end) for meaning, start, end in _TOKEN.find(sentence)]
    findings, clause, start = [], [], 0
    for token in [*tokens, Token("break", "", len(sentence), len(sentence))]:
        if token.kind == "break":
            findings += _read_clause(sentence[: token.start], start, clause)
            clause, start = [], token.end
        else:
            clause.append(token)
    if findings:
        return _folded(findings)
    kinds = {token.kind for token in tokens}
    statement = {
        "acute_only": bool(_ACUTE.search(sentence)) or "intact" in sentence,
        "attributes": _attributes(sentence),
    }
    rest, side = bool(_REST.search(sentence)), _one_side(sentence)
    if "normal" in kinds and (meant := _MEANT.find(sentence)):
        names, partly = frozenset({meant[0][0]}), rest or bool(side)
        return (Finding(names, False, side=side, partly=partly, **statement),)
    if rest:
        return ()
    if ("normal" in kinds and _OVERALL.search(sentence)) or {"negation", "abnormality"} <= kinds:
        return (Finding(frozenset({EVERYTHING}), False, side=side, partly=bool(side), **statement),)
    return () if "stable" in kinds else _unnamed(sentence)


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


def _read_clause(sentence: str, start: int, tokens: list[Token]) -> list[Finding]:
    """The findings of one clause, which is `sentence` from `start` on."""
    kinds: Kinds = {}
    for token in tokens:
        kinds.setdefault(token.kind, []).append(token)
    denied = _denial(kinds)
    findings, placed = _named(sentence, start, kinds, denied)
    if "structure" in kinds:
        findings += _structures(sentence, start, kinds, denied, placed)
    return findings


def _structures(sentence: str, start: int, kinds: Kinds, denied: Denied, placed: set[Token]) -> list[Finding]:
    """What a clause says of the structures in it, but those that only say where a finding is (`placed`)."""
    findings = []
    structures = kinds["structure"]
    said_from, statement = _called_normal(sentence, start, kinds, denied)
    edges = [start, *(word.start for word in structures[1:]), len(sentence)]
    for number, structure in enumerate(structures):
        described = [
            (word, lexicon.BECOMES[structure.name, word.name])
            for word in kinds.get("described", ())
            if (structure.name, word.name) in lexicon.BECOMES and not _grades_a_finding(sentence, word, kinds)
        ]
        if "upper limit" in kinds and (structure.name, "large") in lexicon.BECOMES:
            findings.append(Finding(frozenset({lexicon.BECOMES[structure.name, "large"]}), True, grade=1))
        elif described:
            for word, name in described:
                findings.append(_absent(name) if denied(word) else _present(name, sentence[start:], ""))
        elif statement and structure not in placed and structure.start >= said_from:
            normal = Finding(frozenset({structure.name}), False, **statement)
            if structure.name == "lungs" and (side := _one_side(sentence[start:])):
                normal = normal._replace(side=side, partly=True)
            own = sentence[edges[number] : edges[number + 1]]
            findings.append(normal._replace(attributes=_attributes(own)))
    return findings


def _called_normal(sentence: str, start: int, kinds: Kinds, denied: Denied) -> tuple[int, dict[str, bool]]:
    """How a clause calls structures normal, empty where it does not, and where it begins to."""
    denials = [word.start for word in kinds.get("negation", ())]
    named = [word for word in kinds.get("finding", ()) if not denials or word.start > denials[0]]
    is_called = "normal" in kinds or (not named and any(map(denied, kinds.get("abnormality", ()))))
    if not is_called and ("stable" not in kinds or "finding" in kinds):
        return start, {}
    clause = sentence[start:]
    statement = {
        "acute_only": bool(_ACUTE.search(clause)) or "intact" in clause,
        "unchanged_only": not is_called,
        "partly": bool(_REST.search(clause)),
    }
    # "Degenerative spine without acute bony abnormality" calls the bones normal only.
    return denials[0] if "finding" in kinds and not named else start, statement


def _one_side(text: str) -> str:
    sides = {side for side, _, _ in _SIDE.find(text)}
    return sides.pop() if len(sides) == 1 and "both" not in sides else ""


def _attributes(text: str) -> frozenset[str]:
    named = [attributes for attributes, _, _ in _ATTRIBUTE.find(text)]
    if not named:
        return frozenset()
    # "Contours normal in size and contour" asks for no more than contours.
    together = named[0] & {lexicon.TOGETHER}
    return frozenset().union(*named) - {lexicon.TOGETHER} | together


def _denial(kinds: Kinds) -> Denied:
    """Whether a word is denied: after the clause's first negation, or before it where nothing follows."""
    if "denied before" in kinds:
        return lambda token: True
    if "negation" not in kinds:
        return lambda token: False
    start = kinds["negation"][0].start
    named = [token for kind in ("finding", "described", "abnormality") for token in kinds.get(kind, ())]
    if all(token.start < start for token in named):
        return lambda token: True  # "effusion is not seen"
    return lambda token: token.start > start


def _named(sentence: str, start: int, kinds: Kinds, denied: Denied) -> tuple[list[Finding], set[Token]]:
    """The findings that a clause names, and the structures that only say which finding it is."""
    findings, placed = [], set()
    words = kinds.get("finding", [])
    edges = [start, *(word.end for word in words), len(sentence)]
    for number, word in enumerate(words):
        name = word.name
        for structure in kinds.get("structure", ()):
            if (structure.name, name) in lexicon.BECOMES:
                name = lexicon.BECOMES[structure.name, name]
                placed.add(structure)
        following = words[number + 1].start if number + 1 < len(words) else len(sentence)
        before = _CONJUNCTION.split(sentence[edges[number] : word.start])[-1]
        phrase = before + sentence[word.start : word.end]
        if denied(word):
            findings.append(_absent(name, acute_only=name == "fracture" and bool(_ACUTE.search(phrase))))
            continue
        finding = _present(name, phrase, _CONJUNCTION.split(sentence[word.end : following])[0])
        hedged = any(edges[number] <= hedge.start < word.start for hedge in kinds.get("hedge", ()))
        if hedged and number and findings and findings[-1].present:
            finding = _either(findings.pop(), finding)
        findings.append(finding)
    return findings, placed


def _absent(name: str, acute_only: bool = False) -> Finding:
    return Finding(frozenset({lexicon.OPPOSITE.get(name, name)}), False, acute_only)


def _present(name: str, before: str, after: str) -> Finding:
    """A finding with the side, place and grade of its phrase: the last before it, else the first after."""

    def nearest(words: Words) -> str:
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


def _grades_a_finding(sentence: str, word: Token, kinds: Kinds) -> bool:
    """Whether the word describes the finding right after it: "a large effusion"."""
    return any(sentence[word.end : token.start].isspace() for token in kinds.get("finding", ()))
