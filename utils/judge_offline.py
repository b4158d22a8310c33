"""The offline judge: findings read from two texts by rule, compared, and written in GREEN's format.

A stand-in for a quick look without a GPU, for the demo and for choosing
checkpoints; it is not GREEN and is labelled so everywhere. It knows findings
(`findings_lexicon`) with polarity, side, place and severity; it knows no
sentences. A sentence in which it recognises nothing is one unnamed finding,
compared by its content words. What costs how much follows GREEN's recorded
verdicts (`benchmarks/offline_judge.py` compares them).
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from utils import findings_lexicon as lexicon
from utils.judge import OFFLINE_LABEL, Pair, write_completion
from utils.regions import tidy

UNNAMED, EVERYTHING = "unnamed finding", "everything"
STRUCTURES = frozenset(lexicon.STRUCTURES) | {EVERYTHING}
SAME_WORDS = 0.5  # unnamed findings match when they share half of their content words
# Added to any report of the lungs, GREEN seldom counts these as false.
FREELY_ADDED = frozenset({EVERYTHING, "lungs", *lexicon.SAID_AS["lungs"]})
Errors = dict[str, list[str]]  # what is wrong, by the letters a to f


class Finding(NamedTuple):
    """One statement of a report.

    names: what it is; several where the text hedges ("scar or atelectasis")
    present: False for "no effusion" and for "heart size normal" alike
    acute_only: a normal statement that rules out acute disease or injury only
    unchanged_only: a normal statement that says no more than "stable"
    partly: a normal statement on one side or on what is left ("otherwise clear")
    attributes: what a normal statement names of its structure, of `findings_lexicon.ATTRIBUTES`
    side: "left", "right", "both" or ""; place: one of `findings_lexicon.PLACES` or ""
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
    kind: str  # finding, structure, described, or what a word does to them
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
        return [
            (self._meanings[match.lastindex - 1], *match.span()) for match in self._pattern.finditer(text)
        ]


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
_SENTENCE = re.compile(r"[.;!?](?:\s+|$)|\n")
_CONJUNCTION = re.compile(r",|/|\b(?:and|or)\b")


@lru_cache(maxsize=65536)
def read_findings(text: str) -> tuple[Finding, ...]:
    """The findings that a report states, each once, in reading order; at least one if there is any text."""
    sentences = [_BOTH_SIDES.sub("bilateral", tidy(part).lower()) for part in _SENTENCE.split(text)]
    found: dict[object, Finding] = {}
    for finding in (finding for sentence in sentences for finding in _read_sentence(sentence)):
        key = finding if finding.present else (finding.names, finding.partly and finding.side)
        found[key] = _both(found[key], finding) if key in found else finding
    return tuple(found.values()) or _unnamed(text)


@lru_cache(maxsize=65536)
def comparison(text: str) -> str:
    """The first word of `text` that compares with an earlier study, "" where there is none."""
    found = _COMPARISON.search(text.lower())
    return found[0] if found else ""


def _both(one: Finding, two: Finding) -> Finding:
    """What two normal statements on one structure say together."""
    if one == two:
        return one
    return one._replace(
        acute_only=one.acute_only and two.acute_only,
        unchanged_only=one.unchanged_only and two.unchanged_only,
        partly=one.partly and two.partly,
        # One that names no attribute speaks of them all.
        attributes=one.attributes and two.attributes and one.attributes | two.attributes,
    )


def _unnamed(text: str) -> tuple[Finding, ...]:
    words = frozenset(re.findall(r"\w+", text.lower()) or text.split())
    words = words - lexicon.STOPWORDS or words
    return (Finding(frozenset({UNNAMED}), True, words=words),) if words else ()


@lru_cache(maxsize=65536)
def _read_sentence(sentence: str) -> tuple[Finding, ...]:
    tokens = [Token(*meaning, start, end) for meaning, start, end in _TOKEN.find(sentence)]
    found, clause, start = [], [], 0
    for token in [*tokens, Token("break", "", len(sentence), len(sentence))]:
        if token.kind == "break":
            found += _read_clause(sentence[: token.start], start, clause)
            clause, start = [], token.end
        else:
            clause.append(token)
    if found:
        return _folded(found)
    kinds = {token.kind for token in tokens}
    statement = {
        "acute_only": bool(_ACUTE.search(sentence)) or "intact" in sentence,
        "attributes": _attributes(sentence),
    }
    rest, side = bool(_REST.search(sentence)), _one_side(sentence)
    if "normal" in kinds and (meant := _MEANT.find(sentence)):
        return (_normal(meant[0][0], side=side, partly=rest or bool(side), **statement),)
    if rest:
        return ()
    if ("normal" in kinds and _OVERALL.search(sentence)) or {"negation", "abnormality"} <= kinds:
        return (_normal(EVERYTHING, side=side, partly=bool(side), **statement),)
    return () if "stable" in kinds else _unnamed(sentence)


def _folded(found: list[Finding]) -> tuple[Finding, ...]:
    """The findings of one sentence, those that it only names again in one: "spondylosis with osteophytes"."""
    kept: list[Finding] = []
    for finding in found:
        for number, one in enumerate(kept):
            said = ((one.side, finding.side), (one.place, finding.place), (one.grade, finding.grade))
            again = one.present and finding.present and one.names == finding.names
            if again and all(a == b or not a or not b for a, b in said):
                kept[number] = _either(one, finding)
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
    found, placed = _named(sentence, start, kinds, denied)
    if "structure" in kinds:
        found += _structures(sentence, start, kinds, denied, placed)
    return found


def _structures(sentence: str, start: int, kinds: Kinds, denied: Denied, placed: set[Token]) -> list[Finding]:
    """What a clause says of the structures in it, but those that only say where a finding is (`placed`)."""
    found = []
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
            found.append(Finding(frozenset({lexicon.BECOMES[structure.name, "large"]}), True, grade=1))
        elif described:
            for word, name in described:
                found.append(_absent(name) if denied(word) else _present(name, sentence[start:], ""))
        elif statement and structure not in placed and structure.start >= said_from:
            normal = _normal(structure.name, **statement)
            if structure.name == "lungs" and (side := _one_side(sentence[start:])):
                normal = normal._replace(side=side, partly=True)
            found.append(normal._replace(attributes=_attributes(sentence[edges[number] : edges[number + 1]])))
    return found


def _called_normal(sentence: str, start: int, kinds: Kinds, denied: Denied) -> tuple[int, dict[str, bool]]:
    """How a clause calls structures normal, empty where it does not, and where it begins to."""
    denials = [word.start for word in kinds.get("negation", ())]
    named = [word for word in kinds.get("finding", ()) if not denials or word.start > denials[0]]
    said = "normal" in kinds or (not named and any(map(denied, kinds.get("abnormality", ()))))
    if not said and ("stable" not in kinds or "finding" in kinds):
        return start, {}
    clause = sentence[start:]
    statement = {
        "acute_only": bool(_ACUTE.search(clause)) or "intact" in clause,
        "unchanged_only": not said,
        "partly": bool(_REST.search(clause)),
    }
    # "Degenerative spine without acute bony abnormality" calls the bones normal only.
    return denials[0] if "finding" in kinds and not named else start, statement


def _normal(name: str, **statement) -> Finding:
    return Finding(frozenset({name}), False, **statement)


def _one_side(text: str) -> str:
    sides = {side for side, _, _ in _SIDE.find(text)}
    return sides.pop() if len(sides) == 1 and "both" not in sides else ""


def _attributes(text: str) -> frozenset[str]:
    named = [attributes for attributes, _, _ in _ATTRIBUTE.find(text)]
    if not named:
        return frozenset()
    together = named[0] & {
        lexicon.TOGETHER
    }  # "contours normal in size and contour" asks for no more than contours
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
    found, placed = [], set()
    words = kinds.get("finding", [])
    edges = [start, *(word.end for word in words), len(sentence)]
    for number, word in enumerate(words):
        name = word.name
        for structure in kinds.get("structure", ()):
            if (structure.name, name) in lexicon.BECOMES:
                name = lexicon.BECOMES[structure.name, name]
                placed.add(structure)
        following = words[number + 1].start if number + 1 < len(words) else len(sentence)
        phrase = (
            _CONJUNCTION.split(sentence[edges[number] : word.start])[-1] + sentence[word.start : word.end]
        )
        if denied(word):
            found.append(_absent(name, acute_only=name == "fracture" and bool(_ACUTE.search(phrase))))
            continue
        finding = _present(name, phrase, _CONJUNCTION.split(sentence[word.end : following])[0])
        hedged = any(edges[number] <= hedge.start < word.start for hedge in kinds.get("hedge", ()))
        if hedged and number and found and found[-1].present:
            finding = _either(found.pop(), finding)
        found.append(finding)
    return found, placed


def _absent(name: str, acute_only: bool = False) -> Finding:
    return Finding(frozenset({lexicon.OPPOSITE.get(name, name)}), False, acute_only)


def _present(name: str, before: str, after: str) -> Finding:
    """A finding with the side, place and grade of its phrase: the last before it, else the first after."""

    def said(words: Words) -> str:
        if marks := words.find(before):
            return marks[-1][0]
        marks = words.find(after)
        return marks[0][0] if marks else ""

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
    met, said = {finding for finding, _ in pairs}, {other for _, other in pairs}
    unmet = [finding for finding in wanted if finding not in met]
    unasked = [other for other in given if other not in said]
    false = [other for other in unasked if other.present and not _said_again(other, met)]
    significant, insignificant, matched = _of_pairs(pairs)
    significant["a"] += map(str, false)
    missed, summed_up = _missed(unmet, wanted, given, false)
    significant["b"] += missed
    short = [(letter, what) for finding, other in pairs for letter, what in _falls_short(finding, other)]
    # GREEN is sparing: what is nearly said is an error only where nothing else is, and then one.
    small = short + [("b", what) for what in summed_up]
    if small and not any(significant.values()):
        significant[small[0][0]].append(", ".join(what for _, what in small))
    # Denials that the reference does not make are one error together: GREEN lists them as one.
    if added := [str(other) for other in unasked if _is_added(other, wanted, given)]:
        significant["a"].append(", ".join(added))
    before, after = comparison(reference), comparison(prediction)
    if before and not after:
        insignificant["f"].append(before)
    if after and not before:
        insignificant["e"].append(after)
    explanation = (
        f"Compared by rule, not by GREEN: {len(wanted)} findings in the reference, {len(given)} in the "
        f"candidate, {len(matched)} matched, {sum(map(len, significant.values()))} significant errors."
    )
    return write_completion(explanation, significant, insignificant, matched)


def _of_pairs(pairs: Sequence[tuple[Finding, Finding]]) -> tuple[Errors, Errors, list[str]]:
    """Significant and insignificant errors, and the matched findings, of findings that were paired."""
    significant, insignificant, matched = defaultdict(list), defaultdict(list), []
    for finding, other in pairs:
        if finding == other:
            matched.append(str(finding))
            continue
        instead = f"{other} in place of {finding}"
        if letter := _misread(finding, other):
            significant[letter].append(instead)
            continue
        matched.append(str(finding))
        if finding.grade != other.grade:
            insignificant["d"].append(instead)
        if finding.present and (finding.side, finding.place) != (other.side, other.place):
            insignificant["c"].append(instead)
    return significant, insignificant, matched


def _assign(wanted: Sequence[Finding], given: Sequence[Finding]) -> list[tuple[Finding, Finding]]:
    """One-to-one pairs of findings that answer the same question alike, the closest first."""
    alone = 1 in (len(wanted), len(given))
    ranked = sorted(
        (-closeness, i, j)
        for i, finding in enumerate(wanted)
        for j, other in enumerate(given)
        if (closeness := _closeness(finding, other, alone))
    )
    partner: dict[int, int] = {}
    for _, i, j in ranked:
        if i not in partner and j not in partner.values():
            partner[i] = j
    return [(wanted[i], given[j]) for i, j in sorted(partner.items())]


def _closeness(finding: Finding, other: Finding, alone: bool = False) -> float:
    """0 where the two are different findings, else higher the more they agree.

    alone: whether one of the two is all that its text says
    """
    if finding.present != other.present:
        return 0
    if finding == other:
        return 9
    if finding.words and other.words:
        shared = 2 * len(finding.words & other.words) / (len(finding.words) + len(other.words))
        return shared if shared >= SAME_WORDS else 0
    if not finding.present:
        same = _same_statement(finding, other, alone)
        return same / 10 if same and any(_falls_short(finding, other)) else same
    here = (
        1 - _elsewhere(finding, other) + ((finding.side == other.side) + (finding.place == other.place)) / 10
    )
    if finding.names & other.names:
        return 4 + here - 0.01 * abs(finding.grade - other.grade)
    kin = any(pair & finding.names and pair & other.names for pair in lexicon.KIN)
    return 1 + here if kin else 0


def _same_statement(finding: Finding, other: Finding, alone: bool) -> float:
    """How near two normal statements are, 0 where they do not say the same.

    "Lungs are clear" meets "no consolidation" only where one of them is all
    that its text says: beside other denials GREEN misses it. "Unremarkable."
    meets no more than the same; "normal in size" what has a size.
    """
    (name,), (by,) = finding.names, other.names
    if name == by:
        # "The right lung is clear" does not call both clear.
        return 0 if other.partly and not finding.partly else 5
    if finding.partly or other.partly:
        return 0
    if name == EVERYTHING:
        return 0.5
    if by == EVERYTHING:
        return 0.6 if other.attributes and (name, "large") in lexicon.BECOMES else 0
    if (finding.unchanged_only or other.unchanged_only) and "size" in finding.attributes ^ other.attributes:
        return 0  # a stable silhouette says nothing about the size of the heart
    if by in lexicon.SAID_AS.get(name, ()):
        if by == "bones" and other.acute_only and name in lexicon.SEEN_LONG_AFTER:
            # None of these is an acute abnormality; but intact bones have no fracture.
            return 1 if name == "fracture" and "intact" in other.attributes else 0
        return 1
    return 1 if alone and name in lexicon.SAID_AS["lungs"] and by == "lungs" else 0


def _falls_short(finding: Finding, other: Finding) -> Iterator[tuple[str, str]]:
    """Where a normal statement that is matched says less or more: the error's letter and words."""
    if finding.present or finding == other or EVERYTHING in finding.names | other.names:
        return
    if other.acute_only and not finding.acute_only and finding.names == other.names:
        yield "b", f"{finding}, beyond acute disease"
    if finding.names == {"bones"} != other.names and "intact" not in finding.attributes:
        yield "b", f"{finding}, beyond {other}"
    if other.unchanged_only and not finding.unchanged_only:
        yield "b", f"{finding}, not only unchanged"
    if finding.attributes and other.attributes:
        missed = finding.attributes - other.attributes
        added = other.attributes - finding.attributes
        if lexicon.TOGETHER in missed and len(missed) > 1:
            yield "b", f"{finding} in {' and '.join(sorted(missed - {lexicon.TOGETHER}))}"
        if lexicon.TOGETHER in added and len(added) > 1:
            yield "a", f"{finding} in {' and '.join(sorted(added - {lexicon.TOGETHER}))}"


def _misread(finding: Finding, other: Finding) -> str:
    """The letter of the significant error in calling one finding by the other, "" where there is none."""
    if not finding.present:
        return ""
    if _elsewhere(finding, other):
        return "c"
    return "d" if finding.grade and other.grade and abs(finding.grade - other.grade) > 1 else ""


def _elsewhere(finding: Finding, other: Finding) -> bool:
    """Whether both say where, and differ."""
    sides, places = {finding.side, other.side} - {""}, {finding.place, other.place}
    return len(sides) == 2 or (len(places) == 2 and any(places <= scale for scale in lexicon.SCALES))


def _said_again(other: Finding, met: Iterable[Finding]) -> bool:
    """Whether the candidate has matched the reference's finding already, in other words."""
    return any(_closeness(finding, other) and not _misread(finding, other) for finding in met)


def _missed(
    unmet: Sequence[Finding], wanted: Sequence[Finding], given: Sequence[Finding], false: Sequence[Finding]
) -> tuple[list[str], list[str]]:
    """What the candidate misses of `unmet`: for good, and what its "lungs are clear" sums up."""
    asked = [one for one in unmet if not _not_asked_for(one, wanted) and not _contradicted(one, false)]
    clear = _calls_clear(given)
    missed, summed_up = [], []
    for finding in asked:
        (summed_up if clear and _clear_sums_up(finding) else missed).append(str(finding))
    return missed, summed_up


def _not_asked_for(finding: Finding, wanted: Sequence[Finding]) -> bool:
    """Whether a candidate may leave the statement out.

    "Lungs are clear" where the reference spells out what that sums up, and is
    asked for it there; what is said of a part only, "the lungs are otherwise clear".
    """
    if finding.partly:
        return len(wanted) > 1
    return finding.names == {"lungs"} and not finding.present and any(map(_clear_sums_up, wanted))


def _contradicted(finding: Finding, false: Sequence[Finding]) -> bool:
    """Whether a false finding affirms what `finding` denies: that is one error, counted there."""
    affirmed = {lexicon.OPPOSITE.get(name, name) for other in false for name in other.names}
    return not finding.present and bool(finding.names & affirmed)


def _is_added(other: Finding, wanted: Sequence[Finding], given: Sequence[Finding]) -> bool:
    """Whether the candidate's normal statement goes beyond what the reference speaks of."""
    if other.present or other.partly or other.acute_only or other.names & FREELY_ADDED:
        return False
    if any(finding.present or EVERYTHING in finding.names for finding in wanted):
        return False  # beside an abnormality GREEN seldom counts them
    summary_only = _calls_clear(wanted) and not any(map(_clear_sums_up, wanted))
    if summary_only and (not _calls_clear(given) or any(map(_clear_sums_up, given))):
        return False  # it spells out what "lungs are clear" sums up
    (name,) = other.names
    spoken_of = {lexicon.OPPOSITE.get(each, each) for finding in wanted for each in finding.names}
    related = {name, *lexicon.SAID_AS.get(name, ())}
    return not any(each in related or name in lexicon.SAID_AS.get(each, ()) for each in spoken_of)


def _calls_clear(findings: Iterable[Finding]) -> bool:
    """Whether "lungs are clear" is among them, of the whole lungs."""
    return any(one.names == {"lungs"} and not one.present and not one.partly for one in findings)


def _clear_sums_up(finding: Finding) -> bool:
    """Whether "lungs are clear" denies it too."""
    return not finding.present and finding.names <= lexicon.SAID_AS["lungs"]


class OfflineEngine:
    """The offline judge as an engine of `judge.judge_pairs`."""

    label = OFFLINE_LABEL

    def __init__(self) -> None:
        rules = (Path(__file__), Path(lexicon.__file__))
        self.fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in rules)).hexdigest()

    def ask(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, str]]:
        """Each pair's index and completion, in order."""
        for index, pair in enumerate(pairs):
            yield index, complete(*pair)
