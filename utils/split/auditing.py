"""Did a split keep what the report says? Sentence by sentence, with repair, and against the gold split."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice
from operator import itemgetter
from typing import NamedTuple

import pandas as pd

from utils.findings.sentences import STOPWORDS, sentences, words
from utils.regions import ALL

from .offline import STANDS_ALONE, clauses, region_of, split_offline, split_sentence

Split = dict[str, str]

LOST = 0.2  # share of an original's content words that may go in its rewording; a clinical term never may
MOST_SOURCES = 3  # original sentences that one output sentence may join

# Words that stand for one another in a rewording, and words that say nothing of their own.
# "Cardiomediastinal" is read as "cardiac mediastinal": both halves must come back.
SYNONYMS = {"heart": "cardiac", "mediastinum": "mediastinal", "silhouette": "contour"}
NEUTRAL = STOPWORDS | {"seen", "noted", "present", "identified"}

_JOINT = re.compile(r"\bcardio[\s-]?mediastinal\b")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SIDE = re.compile(r"\b(left|right|bilateral)")
_NEGATED = re.compile(
    r"(?s)\b(?:no|not|without|negative for|free of|clear of|absent|absence of|nor|neither|cannot)\b(.*)"
)
_QUALIFIER = re.compile(r"\d|left|right|bilateral|(?:no|not|without)$")
_PLACEHOLDER = "xxxx"
CHECKS = ("traced", "numbers", "sides", "negations", "placeholders")
PIECE = 10_000  # rows of the audit that are held as dicts
COLUMNS = ["study", "direction", "sentence", "regions", *CHECKS, "ok", "repaired"]


class _Facts(NamedTuple):
    """What must survive of one sentence, in lower case."""

    words: set[str]
    numbers: set[str]
    sides: set[str]
    denied: set[str]
    affirmed: set[str]
    placeholders: int


def audit(texts: Sequence[str], splits: Sequence[Split]) -> pd.DataFrame:
    """Each sentence of the originals and of their splits, checked against the other side.

    Columns: study (position), direction ("original" or "output"), sentence, regions (joined by "+"), traced
    (an original sentence is covered by the sentences drawn from it; an output sentence is grounded in the
    original), numbers, sides, negations, placeholders (all that it states is found on the other side), ok
    (all of these), repaired (here always False).
    """
    pairs = enumerate(zip(texts, splits, strict=True))
    return _table(_study(number, text, split) for number, (text, split) in pairs)


def failures(text: str, split: Split) -> list[str]:
    """What is wrong with one report's split, one phrase per sentence; empty where the audit is clean."""
    faults = []
    for row in _study(0, text, split):
        if failed := [name for name in CHECKS if not row[name]]:
            untraced = "is left out" if row["direction"] == "original" else "is not in the findings"
            fault = untraced if "traced" in failed else f"does not keep its {' and '.join(failed)}"
            faults.append(f'"{row["sentence"]}" {fault}')
    return faults


def repair(texts: Sequence[str], splits: Sequence[Split]) -> tuple[list[Split], pd.DataFrame]:
    """`splits` with what fails the audit put right by the offline engine, and the audit of the result.
    Output sentences that fail go; original sentences that did not come through are split offline instead.
    Such rows are marked `repaired`; what had to go is listed too, with direction "removed" and ok."""
    mended: list[Split] = []

    def rows() -> Iterator[list[dict]]:
        for study, (text, split) in enumerate(zip(texts, splits, strict=True)):
            fixed, audited = repair_one(text, split, study)
            mended.append(fixed)
            yield audited

    table = _table(rows())
    return mended, table


def left_to_offline(audit: pd.DataFrame) -> int:
    """Of an audit by `repair`, how many reports have no sentence of the model's split."""
    of_model = (audit["direction"] == "output") & ~audit["repaired"]
    return len(set(audit.loc[audit["repaired"], "study"]) - set(audit.loc[of_model, "study"]))


def repair_one(text: str, split: Split, study: int = 0) -> tuple[Split, list[dict]]:
    """One report's split as `repair` puts it right, and its rows of the audit."""
    split = {name: split.get(name) or "" for name in ALL}
    before = _study(study, text, split)
    if all(row["ok"] for row in before):
        return split, before
    fixed = _mend(text, split, before)
    after = _study(study, text, fixed)
    if not all(row["ok"] for row in after):
        after = _study(study, text, fixed := split_offline(text))
    same = itemgetter("direction", "sentence", "regions")
    kept, remaining = {same(row) for row in before if row["ok"]}, set(map(same, after))
    changed = [row | {"repaired": same(row) not in kept} for row in after]
    gone = [row for row in before if row["direction"] == "output" and same(row) not in remaining]
    return fixed, changed + [row | {"direction": "removed", "ok": True, "repaired": True} for row in gone]


def _table(studies: Iterable[list[dict]]) -> pd.DataFrame:
    """The rows of all studies, a piece at a time: as dicts, many thousand studies would fill the memory."""
    rows = chain.from_iterable(studies)
    in_pieces = iter(lambda: list(islice(rows, PIECE)), [])
    pieces = [pd.DataFrame(piece, columns=COLUMNS) for piece in in_pieces]
    return pd.concat(pieces or [pd.DataFrame(columns=COLUMNS)], ignore_index=True)


def _mend(text: str, split: Split, rows: list[dict]) -> Split:
    """`split` without what has no ground, and with the offline engine's parts of what is missing."""
    originals, facts, outputs = _read(text, split)
    failed = {i for i, row in enumerate(rows[: len(originals)]) if not row["ok"]}
    kept = []  # (sources, region, sentence)
    for (name, sentence, stated), row in zip(outputs, rows[len(originals) :], strict=True):
        sources = _sources(stated, facts)
        if row["ok"] and not failed & set(sources):
            kept.append((sources, name, sentence))
        else:
            failed |= set(sources)
    # (position of its first source, region, sentence)
    placed = [(min(sources), name, sentence) for sources, name, sentence in kept if not failed & set(sources)]
    for i in sorted(failed):
        placed += [(i, part.region, part.text) for part in split_sentence(originals[i])]
    placed.sort(key=lambda item: item[0])
    return {name: " ".join(sentence for _, region, sentence in placed if region == name) for name in ALL}


def _study(study: int, text: str, split: Split) -> list[dict]:
    """The audit rows of one report: its original sentences in order, then its output sentences by region."""
    originals, facts, outputs = _read(text, split)
    sources = [_sources(stated, facts) for _, _, stated in outputs]
    rows = []
    for number, (sentence, stated) in enumerate(zip(originals, facts, strict=True)):
        takers = [output for output, drawn in zip(outputs, sources, strict=True) if number in drawn]
        regions = "+".join(name for name in ALL if any(region == name for region, _, _ in takers))
        checks = _checks(stated, [fact for _, _, fact in takers], original=True)
        rows.append(("original", sentence, regions, checks))
    for (name, sentence, stated), drawn in zip(outputs, sources, strict=True):
        rows.append(("output", sentence, name, _checks(stated, [facts[i] for i in drawn], original=False)))
    facts = [(study, *row, *checks.values(), all(checks.values()), False) for *row, checks in rows]
    return [dict(zip(COLUMNS, row, strict=True)) for row in facts]


def _read(text: str, split: Split) -> tuple[list[str], list[_Facts], list[tuple[str, str, _Facts]]]:
    """The original sentences, their facts, and the output sentences as (region, sentence, facts)."""
    originals = sentences(text)
    outputs = [(name, sentence) for name in ALL for sentence in sentences(split.get(name) or "")]
    facts = [_facts(sentence) for sentence in originals]
    return originals, facts, [(name, sentence, _facts(sentence)) for name, sentence in outputs]


def _checks(stated: _Facts, others: list[_Facts], original: bool) -> dict[str, bool]:
    """The checks of a sentence against those of the other side that it was drawn from, or that draw on it."""

    def all_of(name: str) -> set[str]:
        return set().union(*(getattr(fact, name) for fact in others))

    known = all_of("words")
    lost = stated.words - known
    negations = stated.denied & known <= all_of("denied")
    if original:
        traced = len(lost) <= LOST * len(stated.words) and not any(map(_clinical, lost))
    else:
        traced, negations = not lost, negations and stated.affirmed & known <= all_of("affirmed")
    return {
        "traced": bool(others) and traced,
        "numbers": stated.numbers <= all_of("numbers"),
        "sides": stated.sides <= all_of("sides"),
        "negations": negations,
        "placeholders": stated.placeholders <= sum(fact.placeholders for fact in others),
    }


def _sources(stated: _Facts, facts: list[_Facts]) -> list[int]:
    """The original sentences that hold an output sentence's words: the best first, then what it lacks."""
    missing, sources = set(stated.words), []
    while missing and len(sources) < MOST_SOURCES:
        gains = [sum(word in fact.words for word in missing) for fact in facts]
        # Of two that hold the same words, the shorter is the source.
        best = max(range(len(facts)), key=lambda i: (gains[i], -len(facts[i].words)), default=None)
        if best is None or not gains[best]:
            break
        sources += [i for i, fact in enumerate(facts) if fact.words == facts[best].words]
        # A second source may bring findings, but no other side, number or negation for those of the first.
        missing = {word for word in missing - facts[best].words if not _QUALIFIER.match(word)}
    return sources


def _facts(sentence: str) -> _Facts:
    lower = _JOINT.sub("cardiac mediastinal", sentence.lower())
    denied, affirmed = set(), set()
    for _, clause in clauses(lower):
        before, *after = _NEGATED.split(clause, maxsplit=1)
        affirmed |= _stems(before)
        denied |= _stems(" ".join(after))
    content = _stems(lower) or set(words(lower, decimals=True))
    sides = set(_SIDE.findall(lower))
    return _Facts(content, set(_NUMBER.findall(lower)), sides, denied, affirmed, lower.count(_PLACEHOLDER))


def _stems(text: str) -> set[str]:
    """Content words, in the singular and without synonyms; a placeholder counts as one."""
    content = (word for word in words(text, decimals=True) if word not in NEUTRAL)
    singular = (w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in content)
    return {SYNONYMS.get(word, word) for word in singular}


@cache
def _clinical(word: str) -> bool:
    return region_of(word, STANDS_ALONE) is not None
