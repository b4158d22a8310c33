"""The offline judge: the findings of two texts compared by rule, and the verdict written in GREEN's format.

A stand-in without a GPU, labelled so everywhere. What costs how much follows GREEN's recorded verdicts
(`benchmarks/offline_judge.py` compares them).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from utils.findings import lexicon, reader, sentences
from utils.findings.reader import EVERYTHING, Finding, comparison, read_findings

from .verdicts import OFFLINE_LABEL, Pair, write_completion

SAME_WORDS = 0.5  # unnamed findings match when they share half of their content words
# Added to any report of the lungs, GREEN seldom counts these as false.
FREELY_ADDED = frozenset({EVERYTHING, "lungs", *lexicon.SAID_AS["lungs"]})
Findings = Sequence[Finding]
Errors = dict[str, list[str]]  # what is wrong, by the letters a to f


def complete(reference: str, prediction: str) -> str:
    """The offline judge's completion for one pair, in GREEN's format."""
    wanted, given = read_findings(reference), read_findings(prediction)
    pairs = _assign(wanted, given)
    met, paired = {finding for finding, _ in pairs}, {other for _, other in pairs}
    unasked = [other for other in given if other not in paired]
    # A present finding is no false one where it says again, in other words, what another has matched.
    false = [
        other
        for other in unasked
        if other.present and not any(_closeness(each, other) and not _misread(each, other) for each in met)
    ]
    significant, insignificant, matched = _of_pairs(pairs)
    significant["a"] += map(str, false)
    missed, summed_up = _missed([finding for finding in wanted if finding not in met], wanted, given, false)
    significant["b"] += missed
    short = [error for finding, other in pairs for error in _falls_short(finding, other)]
    # GREEN is sparing: what is nearly said is an error only where nothing else is, and then one.
    small = short + [("b", finding) for finding in summed_up]
    if small and not any(significant.values()):
        significant[small[0][0]].append(", ".join(words for _, words in small))
    # Denials that the reference does not make are one error together: GREEN lists them as one.
    if added := [str(other) for other in unasked if _is_added(other, wanted, given)]:
        significant["a"].append(", ".join(added))
    before, after = comparison(reference), comparison(prediction)
    if bool(before) != bool(after):
        insignificant["f" if before else "e"].append(before or after)
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
        if finding.present and _where(finding) != _where(other):
            insignificant["c"].append(instead)
    return significant, insignificant, matched


def _assign(wanted: Findings, given: Findings) -> list[tuple[Finding, Finding]]:
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
    same = (finding.side == other.side) + (finding.place == other.place)
    near = 1 - _elsewhere(finding, other) + same / 10
    if finding.names & other.names:
        return 4 + near - 0.01 * abs(finding.grade - other.grade)
    pairs = [*product(finding.names, other.names), *product(other.names, finding.names)]
    return 1 + near if any(name in lexicon.KIN.get(of, ()) for of, name in pairs) else 0


def _same_statement(finding: Finding, other: Finding, alone: bool) -> float:
    """How near two normal statements are, 0 where they do not say the same.

    "Lungs are clear" meets "no consolidation" only where one of them is all that its text says: beside other
    denials GREEN misses it. "Unremarkable." meets no more than the same; "normal in size" what has a size.
    """
    (name,), (by,) = finding.names, other.names
    if name == by:  # "the right lung is clear" does not call both clear
        return 0 if other.partly and not finding.partly else 5
    if finding.partly or other.partly:
        return 0
    if name == EVERYTHING:
        return 0.5
    if by == EVERYTHING:
        return 0.6 if other.attributes and (name, "large") in lexicon.BECOMES else 0
    if (finding.unchanged_only or other.unchanged_only) and "size" in finding.attributes ^ other.attributes:
        return 0  # a stable silhouette says nothing about the size of the heart
    if by not in lexicon.SAID_AS.get(name, ()):
        return 1 if alone and name in lexicon.SAID_AS["lungs"] and by == "lungs" else 0
    if by == "bones" and other.acute_only and name in lexicon.SEEN_LONG_AFTER:
        # None of these is an acute abnormality; but intact bones have no fracture.
        return 1 if name == "fracture" and "intact" in other.attributes else 0
    return 1


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
    for letter, more, fewer in (("b", finding, other), ("a", other, finding)):
        lacking = more.attributes - fewer.attributes if fewer.attributes else frozenset()
        if lexicon.TOGETHER in lacking and len(lacking) > 1:
            yield letter, f"{finding} in {' and '.join(sorted(lacking - {lexicon.TOGETHER}))}"


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


def _where(finding: Finding) -> tuple[str, str]:
    """Side and place; a place that goes without saying is none."""
    return finding.side, "" if finding.place in lexicon.IMPLIED else finding.place


def _missed(
    unmet: Findings, wanted: Findings, given: Findings, false: Findings
) -> tuple[list[str], list[str]]:
    """What the candidate misses of `unmet`: for good, and what its "lungs are clear" sums up."""
    # Where a false finding affirms what is denied, that is one error, counted there.
    affirmed = {lexicon.OPPOSITE.get(name, name) for other in false for name in other.names}
    clear, missed, summed_up = _calls_clear(given), [], []
    for finding in unmet:
        if not _not_asked_for(finding, wanted) and (finding.present or not finding.names & affirmed):
            (summed_up if clear and _clear_sums_up(finding) else missed).append(str(finding))
    return missed, summed_up


def _not_asked_for(finding: Finding, wanted: Findings) -> bool:
    """Whether a candidate may leave the statement out."""
    if finding.partly:  # "the lungs are otherwise clear"
        return len(wanted) > 1
    # What "lungs are clear" sums up is asked for where the reference spells it out.
    return finding.names == {"lungs"} and not finding.present and any(map(_clear_sums_up, wanted))


def _is_added(other: Finding, wanted: Findings, given: Findings) -> bool:
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


def _calls_clear(findings: Findings) -> bool:
    """Whether "lungs are clear" is among them, of the whole lungs."""
    return any(each.names == {"lungs"} and not each.present and not each.partly for each in findings)


def _clear_sums_up(finding: Finding) -> bool:
    """Whether "lungs are clear" denies it too."""
    return not finding.present and finding.names <= lexicon.SAID_AS["lungs"]


class OfflineEngine:
    """The offline judge as an engine of `judge_pairs`."""

    label = OFFLINE_LABEL

    def __init__(self) -> None:
        rules = (__file__, *(module.__file__ for module in (reader, lexicon, sentences)))
        self.fingerprint = hashlib.sha256(b"".join(Path(file).read_bytes() for file in rules)).hexdigest()

    def ask(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, str]]:
        """Each pair's index and completion, in order."""
        for index, pair in enumerate(pairs):
            yield index, complete(*pair)
