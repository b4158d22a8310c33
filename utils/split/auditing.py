"""Did a split keep what the report says? Sentence by sentence, with repair, and against the gold split."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
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
    r"\b(?:no|not|without|negative for|free of|clear of|absent|absence of|nor|neither|cannot)\b(.*)",
    re.DOTALL,
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

    Columns: study (position), direction ("original" or "output"), sentence,
    regions (joined by "+"), traced (an original sentence is covered by the
    sentences drawn from it; an output sentence is grounded in the original),
    numbers, sides, negations, placeholders (all that it states is found on the
    other side), ok (all of these), repaired (here always False).
    """
    pairs = enumerate(zip(texts, splits, strict=True))
    return _table(_study(number, text, split) for number, (text, split) in pairs)


def failures(text: str, split: Split) -> list[str]:
    """What is wrong with one report's split, one phrase per sentence; empty where the audit is clean."""
    faults = []
    for row in _study(0, text, split):
        kinds = [name for name in CHECKS if not row[name]]
        if not kinds:
            continue
        if kinds[0] == "traced":
            fault = "is left out" if row["direction"] == "original" else "is not in the findings"
        else:
            fault = f"does not keep its {' and '.join(kinds)}"
        faults.append(f'"{row["sentence"]}" {fault}')
    return faults


def repair(texts: Sequence[str], splits: Sequence[Split]) -> tuple[list[Split], pd.DataFrame]:
    """`splits` with what fails the audit put right by the offline engine, and the audit of the result.

    Output sentences that fail go; original sentences that did not come through are split offline, in their
    place. Rows that the offline engine changed are marked `repaired`. What had to go is listed too, with
    direction "removed", the checks that it failed, and ok, as it stands in no split any more.
    """
    mended: list[Split] = []

    def rows() -> Iterator[list[dict]]:
        for study, (text, split) in enumerate(zip(texts, splits, strict=True)):
            fixed, audited = repair_one(text, split, study)
            mended.append(fixed)
            yield audited

    table = _table(rows())
    return mended, table


def left_to_offline(audit: pd.DataFrame) -> int:
    """How many reports the offline engine split, because no sentence of the model's split could be kept.

    `audit` is that of `repair` or of `split_and_audit`.
    """
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
        fixed = split_offline(text)
        after = _study(study, text, fixed)
    return fixed, _compared(before, after)


def _table(studies: Iterable[list[dict]]) -> pd.DataFrame:
    """The rows of all studies, a piece at a time: as dicts, many thousand studies would fill the memory."""
    pieces, rows = [], []
    for of_study in studies:
        rows += of_study
        if len(rows) >= PIECE:
            pieces.append(pd.DataFrame(rows, columns=COLUMNS))
            rows = []
    if rows or not pieces:
        pieces.append(pd.DataFrame(rows, columns=COLUMNS))
    return pd.concat(pieces, ignore_index=True)


def _compared(before: list[dict], after: list[dict]) -> list[dict]:
    """The rows `after`, those marked that are new or were not ok `before`, and the output removed."""

    def same(row: dict) -> tuple:
        return row["direction"], row["sentence"], row["regions"]

    kept, there = {same(row) for row in before if row["ok"]}, {same(row) for row in after}
    changed = [row | {"repaired": same(row) not in kept} for row in after]
    gone = [row for row in before if row["direction"] == "output" and same(row) not in there]
    return changed + [row | {"direction": "removed", "ok": True, "repaired": True} for row in gone]


def _mend(text: str, split: Split, rows: list[dict]) -> Split:
    """`split` without what has no ground, and with the offline engine's parts of what is missing."""
    originals = sentences(text)
    facts = [_facts(sentence) for sentence in originals]
    failed = {i for i, row in enumerate(rows[: len(originals)]) if not row["ok"]}
    placed = []  # (position of its first source, region, sentence)
    outputs = [(name, sentence) for name in ALL for sentence in sentences(split[name])]
    for (name, sentence), row in zip(outputs, rows[len(originals) :], strict=True):
        sources = _sources(_facts(sentence), facts)
        if row["ok"] and not failed & set(sources):
            placed.append((min(sources), name, sentence))
        else:
            failed |= set(sources)
    placed = [item for item in placed if not failed & set(_sources(_facts(item[2]), facts))]
    for i in sorted(failed):
        placed += [(i, part.region, part.text) for part in split_sentence(originals[i])]
    placed.sort(key=lambda item: item[0])
    return {name: " ".join(sentence for _, region, sentence in placed if region == name) for name in ALL}


def _study(study: int, text: str, split: Split) -> list[dict]:
    """The audit rows of one report: its original sentences in order, then its output sentences by region."""
    originals = sentences(text)
    facts = [_facts(sentence) for sentence in originals]
    outputs = [
        (name, sentence, _facts(sentence)) for name in ALL for sentence in sentences(split.get(name) or "")
    ]
    drawn: list[list[int]] = [[] for _ in originals]
    checks = []
    for at, (_, _, stated) in enumerate(outputs):
        sources = _sources(stated, facts)
        checks.append(_grounded(stated, [facts[i] for i in sources]))
        for i in sources:
            drawn[i].append(at)
    rows = []
    for sentence, stated, takers in zip(originals, facts, drawn, strict=True):
        regions = "+".join(name for name in ALL if any(outputs[at][0] == name for at in takers))
        covered = _covered(stated, [outputs[at][2] for at in takers])
        rows.append(_row(study, "original", sentence, regions, covered))
    rows += [
        _row(study, "output", sentence, name, grounded)
        for (name, sentence, _), grounded in zip(outputs, checks, strict=True)
    ]
    return rows


def _row(study: int, direction: str, sentence: str, regions: str, checks: dict[str, bool]) -> dict:
    what = {"study": study, "direction": direction, "sentence": sentence, "regions": regions}
    return what | checks | {"ok": all(checks.values()), "repaired": False}


def _covered(stated: _Facts, takers: list[_Facts]) -> dict[str, bool]:
    """The checks of an original sentence against the output sentences drawn from it."""
    known = set().union(*(fact.words for fact in takers))
    lost = stated.words - known
    denied = set().union(*(fact.denied for fact in takers))
    return {
        "traced": bool(takers) and len(lost) <= LOST * len(stated.words) and not any(map(_clinical, lost)),
        "numbers": stated.numbers <= set().union(*(fact.numbers for fact in takers)),
        "sides": stated.sides <= set().union(*(fact.sides for fact in takers)),
        "negations": stated.denied & known <= denied,
        "placeholders": stated.placeholders <= sum(fact.placeholders for fact in takers),
    }


def _grounded(stated: _Facts, sources: list[_Facts]) -> dict[str, bool]:
    """The checks of an output sentence against the original sentences that it draws on."""
    known = set().union(*(fact.words for fact in sources))
    denied = set().union(*(fact.denied for fact in sources))
    affirmed = set().union(*(fact.affirmed for fact in sources))
    return {
        "traced": bool(sources) and stated.words <= known,
        "numbers": stated.numbers <= set().union(*(fact.numbers for fact in sources)),
        "sides": stated.sides <= set().union(*(fact.sides for fact in sources)),
        "negations": stated.denied & known <= denied and stated.affirmed & known <= affirmed,
        "placeholders": stated.placeholders <= sum(fact.placeholders for fact in sources),
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
    denied: set[str] = set()
    affirmed: set[str] = set()
    for _, clause in clauses(lower):
        negated = _NEGATED.search(clause)
        after = negated.group(1) if negated else ""
        denied |= _stems(after)
        affirmed |= _stems(clause[: negated.start()] if negated else clause)
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
