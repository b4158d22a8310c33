"""A judge's answer in GREEN's form: what it says, read and written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from utils.regions import tidy

from . import green_score

OFFLINE_LABEL = "offline judge (stand-in, not GREEN)"
SIGNIFICANT = "Clinically Significant Errors"
INSIGNIFICANT = "Clinically Insignificant Errors"
MATCHED = "Matched Findings"
ERROR_TYPES = {
    "a": "False report of a finding in the candidate",
    "b": "Missing a finding present in the reference",
    "c": "Misidentification of a finding's anatomic location/position",
    "d": "Misassessment of the severity of a finding",
    "e": "Mentioning a comparison that isn't in the reference",
    "f": "Omitting a comparison detailing a change from a prior study",
}
Pair = tuple[str, str]


class JudgeError(ValueError):
    """A pair that cannot be judged, a cache that is not ours, an engine that does not exist."""


@dataclass(frozen=True)
class Judgement:
    """One verdict. Errors are of the types a to f; in words they stand by type, only types that have any."""

    score: float | None  # matched / (matched + significant errors), 0 to 1; None: the judge gave no verdict
    significant: tuple[int, ...]  # counts of errors by type
    insignificant: tuple[int, ...]
    matched: int  # findings
    explanation: str  # what the judge wrote before the first section
    completion: str  # the judge's answer, whole
    judge: str  # which judge this is, with its precision
    sentences: dict[str, tuple[str, ...]] = field(default_factory=dict)  # significant errors in words
    insignificant_sentences: dict[str, tuple[str, ...]] = field(default_factory=dict)
    matched_findings: tuple[str, ...] = ()  # in words

    @property
    def score_as_published(self) -> float:
        """The score as green-score 0.0.12 and the published tables count it: no verdict is 0."""
        return self.score or 0.0


def parse_completion(text: str, judge: str = "") -> Judgement:
    """A judge's completion read; never raises.

    Counts and score are green-score 0.0.12's on every text: its own parser's once `green_score.take` has it.
    Where no number of matched findings can be read, `score` is None.
    """
    ours, package = our_reading(text, judge), green_score.taken()
    if package is None:
        return ours
    significant, insignificant, matched = package.counts(text)
    score = None if ours.score is None and not matched else float(package.score(text))
    return replace(ours, score=score, significant=significant, insignificant=insignificant, matched=matched)


def our_reading(text: str, judge: str = "") -> Judgement:
    """What our own parser reads. A missing section has no errors; a section ends at its first blank line."""
    significant, sentences = _errors(_section(text, SIGNIFICANT))
    insignificant, minor = _errors(_section(text, INSIGNIFICANT))
    section = _section(text, MATCHED)
    none, count = section.startswith("No"), re.match(r"(\d+)\.", section)
    matched = int(count[1]) if count else 0
    return Judgement(
        score=matched / max(matched + sum(significant), 1) if none or count else None,
        significant=significant,
        insignificant=insignificant,
        matched=matched,
        explanation=_ANY_HEADING.split(text.split("[Explanation]:", 1)[-1], maxsplit=1)[0].strip(),
        completion=text,
        judge=judge,
        sentences=sentences,
        insignificant_sentences=minor,
        matched_findings=_items(section[count.end() :]) if count else (),
    )


_ANY_HEADING = re.compile(rf"\[(?:{SIGNIFICANT}|{INSIGNIFICANT}|{MATCHED})\]:")
_BLANK_LINE = re.compile(r"\n\s*\n")
_COUNT = re.compile(r"(?<=: )\b(\d+)\b\.")
_LETTERED, _NUMBERED = re.compile(r"\([a-f]\) .*"), re.compile(r"\([1-6]\) .*")


def _section(text: str, name: str) -> str:
    heading = re.search(rf"\[{name}\]:\s*", text)
    return _BLANK_LINE.split(text[heading.end() :], maxsplit=1)[0] if heading else ""


def _errors(section: str) -> tuple[tuple[int, ...], dict[str, tuple[str, ...]]]:
    counts, sentences = dict.fromkeys(ERROR_TYPES, 0), {}
    if not section.startswith("No"):
        lettered = _LETTERED.findall(section)
        # green-score sorts the lines, so of two lines of one type the later in the alphabet counts.
        for line in sorted(lettered or _NUMBERED.findall(section)):
            letter = line[1] if lettered else "abcdef"[int(line[1]) - 1]
            if count := _COUNT.search(line):
                counts[letter] = int(count[1])
                sentences[letter] = _items(line[count.end() :]) if counts[letter] else ()
    return tuple(counts.values()), {letter: words for letter, words in sentences.items() if words}


def _items(text: str) -> tuple[str, ...]:
    return tuple(item for part in text.split(";") if (item := tidy(part).strip(" .")))


def write_completion(
    explanation: str,
    significant: dict[str, Sequence[str]],
    insignificant: dict[str, Sequence[str]],
    matched: Sequence[str],
) -> str:
    """A completion in GREEN's own format, so that `parse_completion` reads it back."""

    def listed(items: Sequence[str]) -> str:
        # Semicolons and blank lines are the format's own separators.
        words = "; ".join(tidy(item.replace(";", ",")) for item in items) if items else ""
        return f"{len(items)}. {words}".rstrip()

    def errors(words: dict[str, Sequence[str]]) -> str:
        return "\n".join(f"({key}) {name}: {listed(words.get(key, ()))}" for key, name in ERROR_TYPES.items())

    bodies = errors(significant), errors(insignificant), listed(matched)
    sections = zip((SIGNIFICANT, INSIGNIFICANT, MATCHED), bodies, strict=True)
    return "\n\n".join([explanation, *(f"[{name}]:\n{body}" for name, body in sections)])
