"""The offline judge: findings read from two texts by rule, compared, and written in GREEN's format.

A stand-in for a quick look without a GPU, for the demo and for choosing
checkpoints; it is not GREEN and is labelled so everywhere. It knows findings
(`findings_lexicon`) with polarity, side, place and severity; it knows no
sentences. A sentence in which it recognises nothing is one unnamed finding,
compared by its content words.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from utils.regions import tidy

from . import lexicon
from .verdicts import OFFLINE_LABEL, Pair, write_completion

UNNAMED, EVERYTHING = "unnamed finding", "everything"
SAME_WORDS = 0.5  # unnamed findings match when they share half of their content words
STRUCTURES = frozenset(lexicon.STRUCTURES) | {EVERYTHING}


@dataclass(frozen=True)
class Finding:
    """One statement of a report.

    names: what it is; several where the text hedges ("scar or atelectasis")
    present: False for "no effusion" and for "heart size normal" alike
    acute_only: a normal statement that rules out acute disease or injury only
    side: "left", "right", "both" or ""; place: one of `findings_lexicon.PLACES` or ""
    grade: 1 mild, 2 moderate, 3 severe, 0 not said
    words: the content words, of an unnamed finding only
    """

    names: frozenset[str]
    present: bool
    acute_only: bool = False
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
    kind: str  # finding, structure, described, or what a word does to them
    name: str
    start: int
    end: int


Kinds = dict[str, list[Token]]  # the words of one clause by kind
Denied = Callable[[Token], bool]


def _any_of(patterns: dict[str, str]) -> re.Pattern:
    return re.compile(
        r"\b(?:" + "|".join(f"(?P<{name}>{pattern})" for name, pattern in patterns.items()) + ")"
    )


# One pass over a sentence finds every word that matters; a group's number leads back to what it means.
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
_TOKEN = _any_of({f"t{number}": pattern for number, (_, _, pattern) in enumerate(_MEANINGS)})
_SIDE, _PLACE, _GRADE = map(_any_of, (lexicon.SIDES, lexicon.PLACES, lexicon.SEVERITIES))
_COMPARISON, _REST, _ACUTE = (
    re.compile(rf"\b(?:{pattern})") for pattern in (lexicon.COMPARISON, lexicon.REST, lexicon.ACUTE)
)
_BOTH_SIDES = re.compile(r"\b(?:left and (?:the )?right|right and (?:the )?left)\b")
_SENTENCE = re.compile(r"[.;!?](?:\s+|$)|\n")
_CONJUNCTION = re.compile(r",|/|\b(?:and|or)\b")


def read_findings(text: str) -> tuple[Finding, ...]:
    """The findings that a report states, each once, in reading order; at least one if there is any text."""
    sentences = [_BOTH_SIDES.sub("bilateral", tidy(part).lower()) for part in _SENTENCE.split(text)]
    found = dict.fromkeys(finding for sentence in sentences for finding in _read_sentence(sentence))
    return tuple(found) or _unnamed(text)


def _unnamed(text: str) -> tuple[Finding, ...]:
    words = frozenset(re.findall(r"\w+", text.lower()) or text.split())
    words = words - lexicon.STOPWORDS or words
    return (Finding(frozenset({UNNAMED}), True, words=words),) if words else ()


@lru_cache(maxsize=65536)
def _read_sentence(sentence: str) -> tuple[Finding, ...]:
    tokens = []
    for match in _TOKEN.finditer(sentence):
        kind, name, _ = _MEANINGS[int(match.lastgroup[1:])]
        tokens.append(Token(kind, name, *match.span()))
    found, clause, start = [], [], 0
    for token in [*tokens, Token("break", "", len(sentence), len(sentence))]:
        if token.kind == "break":
            found += _read_clause(sentence[: token.start], start, clause)
            clause, start = [], token.end
        else:
            clause.append(token)
    if found:
        return tuple(found)
    kinds = {token.kind for token in tokens}
    if _REST.search(sentence):
        return ()
    if "normal" in kinds or {"negation", "abnormality"} <= kinds:
        return (Finding(frozenset({EVERYTHING}), False, bool(_ACUTE.search(sentence))),)
    return () if "stable" in kinds else _unnamed(sentence)


def _read_clause(sentence: str, start: int, tokens: list[Token]) -> list[Finding]:
    """The findings of one clause, which is `sentence` from `start` on."""
    kinds: Kinds = {}
    for token in tokens:
        kinds.setdefault(token.kind, []).append(token)
    denied = _denial(kinds)
    structures = kinds.get("structure", [])
    found, placed = _named(sentence, start, kinds, denied)

    nothing = not kinds.get("finding") and any(map(denied, kinds.get("abnormality", ())))
    acute_only = bool(_ACUTE.search(sentence, start)) or "intact" in sentence[start:]
    called_normal = nothing or "normal" in kinds or ("stable" in kinds and not kinds.get("finding"))
    for structure in structures:
        described = [
            (word, lexicon.BECOMES[structure.name, word.name])
            for word in kinds.get("described", ())
            if (structure.name, word.name) in lexicon.BECOMES and not _grades_a_finding(sentence, word, kinds)
        ]
        if "upper limit" in kinds and (structure.name, "large") in lexicon.BECOMES:
            found.append(Finding(frozenset({lexicon.BECOMES[structure.name, "large"]}), True, grade=1))
        elif described:
            for word, name in described:
                found.append(_absent(name) if denied(word) else _present(name, sentence[start:], ""))
        elif called_normal and structure not in placed and not _REST.search(sentence, start):
            found.append(Finding(frozenset({structure.name}), False, acute_only))
    return found


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
    found, placed = [], set()
    words = kinds.get("finding", [])
    edges = [start, *(word.end for word in words), len(sentence)]
    for number, word in enumerate(words):
        name = word.name
        for structure in kinds.get("structure", ()):
            if (structure.name, name) in lexicon.BECOMES:
                name = lexicon.BECOMES[structure.name, name]
                placed.add(structure)
        if denied(word):
            found.append(_absent(name))
            continue
        following = words[number + 1].start if number + 1 < len(words) else len(sentence)
        phrase = (
            _CONJUNCTION.split(sentence[edges[number] : word.start])[-1] + sentence[word.start : word.end]
        )
        finding = _present(name, phrase, _CONJUNCTION.split(sentence[word.end : following])[0])
        hedged = any(edges[number] <= hedge.start < word.start for hedge in kinds.get("hedge", ()))
        if hedged and number and found and found[-1].present:
            finding = _either(found.pop(), finding)
        found.append(finding)
    return found, placed


def _absent(name: str) -> Finding:
    return Finding(frozenset({lexicon.OPPOSITE.get(name, name)}), False)


def _present(name: str, before: str, after: str) -> Finding:
    """A finding with the side, place and grade of its phrase: the last before it, else the first after."""

    def said(pattern: re.Pattern) -> str:
        marks = [mark.lastgroup for mark in pattern.finditer(before)]
        if marks:
            return marks[-1]
        mark = pattern.search(after)
        return mark.lastgroup if mark else ""

    grade = lexicon.GRADES.index(said(_GRADE))
    return Finding(frozenset({name}), True, side=said(_SIDE), place=said(_PLACE), grade=grade)


def _either(one: Finding, two: Finding) -> Finding:
    """One finding that the text gives two names."""
    side, place, grade = one.side or two.side, one.place or two.place, one.grade or two.grade
    return Finding(one.names | two.names, True, side=side, place=place, grade=grade)


def _grades_a_finding(sentence: str, word: Token, kinds: Kinds) -> bool:
    """Whether the word describes the finding right after it: "a large effusion"."""
    return any(sentence[word.end : token.start].isspace() for token in kinds.get("finding", ()))


def complete(reference: str, prediction: str) -> str:
    """The offline judge's completion for one pair, in GREEN's format."""
    wanted, given = read_findings(reference), read_findings(prediction)
    pairs = _assign(wanted, given)
    significant, insignificant, matched = defaultdict(list), defaultdict(list), []
    for finding, other in pairs:
        instead = f"{other} in place of {finding}"
        if letter := _misread(finding, other):
            significant[letter].append(instead)
            continue
        matched.append(str(finding))
        if other.acute_only and not finding.acute_only and finding.names <= STRUCTURES:
            significant["b"].append(f"{finding}, beyond acute disease")
        if finding.grade != other.grade:
            insignificant["d"].append(instead)
        if (finding.side, finding.place) != (other.side, other.place):
            insignificant["c"].append(instead)
    met, said = {finding for finding, _ in pairs}, {other for _, other in pairs}
    for finding in wanted:
        # What a false finding contradicts is one error, counted there.
        if finding not in met and not _spelled_out(finding, wanted) and not _contradicted(finding, given):
            significant["b"].append(str(finding))
    # A denial that the reference does not make is no false finding.
    significant["a"] += [str(finding) for finding in given if finding.present and finding not in said]
    before, after = (_COMPARISON.search(text.lower()) for text in (reference, prediction))
    if before and not after:
        insignificant["f"].append(before[0])
    if after and not before:
        insignificant["e"].append(after[0])
    explanation = (
        f"Compared by rule, not by GREEN: {len(wanted)} findings in the reference, {len(given)} in the "
        f"candidate, {len(matched)} matched, {sum(map(len, significant.values()))} significant errors."
    )
    return write_completion(explanation, significant, insignificant, matched)


def _assign(wanted: Sequence[Finding], given: Sequence[Finding]) -> list[tuple[Finding, Finding]]:
    """One-to-one pairs of findings that answer the same question alike, the closest first."""
    ranked = sorted(
        (-closeness, i, j)
        for i, finding in enumerate(wanted)
        for j, other in enumerate(given)
        if (closeness := _closeness(finding, other, alone=len(wanted) == 1))
    )
    partner: dict[int, int] = {}
    for _, i, j in ranked:
        if i not in partner and j not in partner.values():
            partner[i] = j
    return [(wanted[i], given[j]) for i, j in sorted(partner.items())]


def _closeness(finding: Finding, other: Finding, alone: bool) -> float:
    """0 where the two are different findings, else higher the more they agree."""
    if finding == other:
        return 9
    if finding.present != other.present:
        return 0
    if finding.words and other.words:
        shared = 2 * len(finding.words & other.words) / (len(finding.words) + len(other.words))
        return shared if shared >= SAME_WORDS else 0
    if not finding.present:
        return 5 if finding.names == other.names else _same_denial(*finding.names, *other.names, alone)
    here = (
        1 - _elsewhere(finding, other) + ((finding.side == other.side) + (finding.place == other.place)) / 10
    )
    if finding.names & other.names:
        return 4 + here - 0.01 * abs(finding.grade - other.grade)
    kin = any(pair & finding.names and pair & other.names for pair in lexicon.KIN)
    return 1 + here if kin else 0.0


def _same_denial(name: str, other: str, alone: bool) -> float:
    """Whether two different normal statements say the same.

    "Lungs are clear" meets "no consolidation" only where that is all the
    reference says (`alone`): beside other denials GREEN misses it.
    """
    if EVERYTHING in (name, other):
        return 0.5
    if other in lexicon.SAID_AS.get(name, ()):
        return 1
    return float(alone and name in lexicon.SAID_AS["lungs"] and other == "lungs")


def _misread(finding: Finding, other: Finding) -> str:
    """The letter of the significant error in calling one finding by the other, "" where there is none."""
    if _elsewhere(finding, other):
        return "c"
    return "d" if finding.grade and other.grade and abs(finding.grade - other.grade) > 1 else ""


def _elsewhere(finding: Finding, other: Finding) -> bool:
    """Whether both say where, and differ."""
    sides, places = {finding.side, other.side} - {""}, {finding.place, other.place}
    return len(sides) == 2 or (len(places) == 2 and places <= lexicon.HEIGHTS)


def _contradicted(finding: Finding, given: Sequence[Finding]) -> bool:
    """Whether the candidate affirms what `finding` denies."""
    affirmed = {lexicon.OPPOSITE.get(name, name) for other in given if other.present for name in other.names}
    return not finding.present and bool(finding.names & affirmed)


def _spelled_out(finding: Finding, wanted: Sequence[Finding]) -> bool:
    """Whether the reference says in detail, and is asked for there, what "lungs are clear" sums up."""
    denials = {name for other in wanted if not other.present for name in other.names}
    return finding.names == {"lungs"} and not finding.present and bool(denials & lexicon.SAID_AS["lungs"])


class OfflineEngine:
    """The offline judge as an engine of `judge_pairs`."""

    label = OFFLINE_LABEL

    def __init__(self) -> None:
        rules = (Path(__file__), Path(lexicon.__file__))
        self.fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in rules)).hexdigest()

    def ask(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, str]]:
        """Each pair's index and completion, in order."""
        for index, pair in enumerate(pairs):
            yield index, complete(*pair)
