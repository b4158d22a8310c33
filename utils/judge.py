"""From (reference, prediction) to a GREEN judgement.

Three engines answer the same question in the same format, and one parser reads
them: the 7B judge (`judge_green.GreenEngine`), the same model behind a server
(`judge_green.ServerEngine`), and an offline stand-in (`judge_offline`), which
is never called GREEN. GREEN: Ostmeier et al., "GREEN: Generative Radiology
Report Evaluation and Error Notation", 2024; model StanfordAIMI/GREEN-radllama2-7b.
"""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from filelock import FileLock

from utils.regions import tidy

OFFLINE_LABEL = "offline judge (stand-in, not GREEN)"

SIGNIFICANT, INSIGNIFICANT = "Clinically Significant Errors", "Clinically Insignificant Errors"
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
    """One verdict.

    score: matched / (matched + significant errors), 0 to 1; None where the judge gave no verdict
    significant, insignificant: counts of the error types a to f, in that order
    matched: the number of matched findings
    explanation: what the judge wrote before the first section
    sentences, insignificant_sentences: the errors in words by type, "a" to "f", only types that have any
    matched_findings: the matched findings in words
    completion: the judge's answer, whole
    judge: which judge this is, with its precision
    """

    score: float | None
    significant: tuple[int, ...]
    insignificant: tuple[int, ...]
    matched: int
    explanation: str
    completion: str
    judge: str
    sentences: dict[str, tuple[str, ...]] = field(default_factory=dict)
    insignificant_sentences: dict[str, tuple[str, ...]] = field(default_factory=dict)
    matched_findings: tuple[str, ...] = ()

    @property
    def score_as_published(self) -> float:
        """The score as green-score 0.0.12 and the published tables count it: no verdict is 0."""
        return self.score or 0.0


def parse_completion(text: str, judge: str = "") -> Judgement:
    """Read a judge's completion; pure, and never raises.

    Counts and score are green-score 0.0.12's on every text, with one
    difference that is said aloud: where it counts 0 because no number of
    matched findings can be read (the judge refused, or was cut off), `score`
    is None, and `score_as_published` is its 0. As there, a missing error
    section counts as no errors, and a section ends at its first blank line.
    """
    significant, sentences = _errors(_section(text, SIGNIFICANT))
    insignificant, minor = _errors(_section(text, INSIGNIFICANT))
    matched, findings = _matched(_section(text, MATCHED))
    return Judgement(
        score=None if matched is None else matched / max(matched + sum(significant), 1),
        significant=significant,
        insignificant=insignificant,
        matched=matched or 0,
        explanation=_explanation(text),
        completion=text,
        judge=judge,
        sentences=sentences,
        insignificant_sentences=minor,
        matched_findings=findings,
    )


def _section(text: str, name: str) -> str:
    start = re.search(rf"\[{name}\]:\s*", text)
    return re.split(r"\n\s*\n", text[start.end() :], maxsplit=1)[0] if start else ""


def _explanation(text: str) -> str:
    body = text.split("[Explanation]:", 1)[-1]
    return re.split(rf"\[(?:{SIGNIFICANT}|{INSIGNIFICANT}|{MATCHED})\]:", body, maxsplit=1)[0].strip()


def _errors(section: str) -> tuple[tuple[int, ...], dict[str, tuple[str, ...]]]:
    counts, sentences = dict.fromkeys(ERROR_TYPES, 0), {}
    if not section.startswith("No"):
        lettered = re.findall(r"\([a-f]\) .*", section)
        # green-score sorts the lines, so of two lines of one type the later in the alphabet counts.
        for line in sorted(lettered or re.findall(r"\([1-6]\) .*", section)):
            letter = line[1] if lettered else "abcdef"[int(line[1]) - 1]
            count = re.search(r"(?<=: )\b(\d+)\b\.", line)
            if count:
                counts[letter] = int(count[1])
                words = _items(line[count.end() :])
                sentences.pop(letter, None)
                if words and counts[letter]:
                    sentences[letter] = words
    return tuple(counts.values()), sentences


def _matched(section: str) -> tuple[int | None, tuple[str, ...]]:
    if section.startswith("No"):
        return 0, ()
    count = re.match(r"(\d+)\.", section)
    if not count:
        return None, ()
    return int(count[1]), _items(section[count.end() :])


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
        return " ".join(
            [f"{len(items)}.", "; ".join(tidy(item.replace(";", ",")) for item in items)]
        ).rstrip()

    def errors(found: dict[str, Sequence[str]]) -> str:
        return "\n".join(f"({key}) {name}: {listed(found.get(key, ()))}" for key, name in ERROR_TYPES.items())

    sections = {
        SIGNIFICANT: errors(significant),
        INSIGNIFICANT: errors(insignificant),
        MATCHED: listed(matched),
    }
    return "\n\n".join([explanation, *(f"[{name}]:\n{body}" for name, body in sections.items())])


class Engine(Protocol):
    """Whatever answers pairs. `fingerprint` changes when the same pair could get another answer."""

    label: str
    fingerprint: str

    def ask(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, str]]:
        """The index of a pair and its completion, in any order, each as soon as it is known."""
        ...


def judge_pairs(
    pairs: Iterable[Pair],
    engine: Literal["offline", "green", "server"] | Engine = "offline",
    *,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    identical_without_asking: bool = False,
    **options,
) -> list[Judgement]:
    """Judge (reference, prediction) pairs; one judgement a pair, in their order.

    Each distinct pair is asked once. An empty prediction is scored 0 without
    asking, as GREEN did in every recorded case; with `identical_without_asking`
    a prediction equal to its reference is scored 1.0 (so in every recorded case
    too), and the label of all judgements says so.

    engine: a name, or an engine already loaded (to keep the 7B model between calls)
    cache: a JSON-lines file that answers are appended to as they come; a later
        call with it, after a kill too, asks only what is missing
    progress: called with (answered, to ask) as answers come
    options: of an engine that is named, as `make_engine` takes them

    Raises JudgeError, a ValueError, for a pair whose reference is empty (a
    region that a study does not mention is never scored), for an unknown
    engine, for options that reach none, and for a cache file that is not ours.
    """
    asked = [(tidy(reference), tidy(prediction)) for reference, prediction in pairs]
    for number, (reference, _) in enumerate(asked):
        if not reference:
            raise JudgeError(f"pair {number} has an empty reference: a region not mentioned is never scored")
    store = Cache(cache) if cache is not None else None
    judge = engine
    if isinstance(engine, str):
        judge = make_engine(engine, **options)
    elif options:
        raise JudgeError(f"an engine that is loaded already takes no options: leave out {', '.join(options)}")
    label = f"{judge.label}, identical texts not asked" if identical_without_asking else judge.label

    known: dict[Pair, Judgement] = {}
    stored = []
    for pair in dict.fromkeys(asked):
        answer = _without_asking(pair, label, identical_without_asking)
        if answer is None and store and (completion := store.get(judge, pair)) is not None:
            answer = parse_completion(completion, label)
            stored.append(completion)
        if answer:
            known[pair] = answer
    if hasattr(judge, "learn"):  # an engine that drafts its answers
        judge.learn(stored)
    open_pairs = [pair for pair in dict.fromkeys(asked) if pair not in known]
    for done, (index, completion) in enumerate(judge.ask(open_pairs) if open_pairs else (), start=1):
        pair = open_pairs[index]
        known[pair] = parse_completion(completion, label)
        if store:
            store.add(judge, pair, completion)
        if progress:
            progress(done, len(open_pairs))
    return [known[pair] for pair in asked]


def make_engine(name: str, **options) -> Engine:
    """The engine called `name`; it loads nothing before it is asked.

    options: those of `judge_green.GreenEngine` and of `judge_green.ServerEngine`;
        the offline judge has none
    """
    # Imported here, not above: the engines import the format from this file.
    if name == "offline":
        from utils.judge_offline import OfflineEngine

        return OfflineEngine(**options)
    from utils.judge_green import GreenEngine, ServerEngine

    if name == "green":
        return GreenEngine(**options)
    if name == "server":
        return ServerEngine(**options)
    raise JudgeError(f"no such judge: {name!r}; the judges are offline, green and server")


def _without_asking(pair: Pair, label: str, identical_without_asking: bool) -> Judgement | None:
    reference, prediction = pair
    if not prediction:
        missing = [part for part in re.split(r"(?<=\.)\s+", reference) if part]
        text = write_completion(
            "The candidate report is empty: scored 0 without asking the judge.", {"b": missing}, {}, []
        )
        return parse_completion(text, label)
    if identical_without_asking and prediction == reference:
        text = write_completion(
            "The candidate report is the reference: scored 1 without asking the judge.", {}, {}, [reference]
        )
        return parse_completion(text, label)
    return None


class Cache:
    """Answers on disk, one JSON object a line after a header line, appended as they come.

    Two runs may use one file: a lock beside it makes each append whole, and
    tells a line that a kill cut off, which is dropped and said in a warning,
    from one that the other run is writing. Raises JudgeError, naming the file,
    for any other line that is not ours.
    """

    HEADER = json.dumps({"file": "answers of a judge", "version": 1}) + "\n"

    def __init__(self, path: Path):
        self.path = Path(path)
        self._answers: dict[str, str] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        with self._lock:
            self._read(self.path.read_bytes() if self.path.exists() else b"")

    def _read(self, content: bytes) -> None:
        header = self.HEADER.encode()
        if header.startswith(content):  # no file, an empty one, or killed while the header was written
            self.path.write_bytes(header)
            return
        if not content.startswith(header):
            raise JudgeError(f"{self.path} is not a cache of judge answers: choose another file")
        whole, _, rest = content.rpartition(b"\n")
        for number, line in enumerate(whole.split(b"\n")[1:], start=2):
            try:
                entry = json.loads(line)
                self._answers[entry["key"]] = entry["completion"]
            except (ValueError, KeyError, TypeError):
                raise JudgeError(f"{self.path}, line {number} is not an answer of a judge") from None
        if rest:
            warnings.warn(f"{self.path}: the last line was cut off and is dropped", stacklevel=4)
            with self.path.open("r+b") as file:
                _drop_half_a_line(file)

    @staticmethod
    def _key(judge: Engine, pair: Pair) -> str:
        return hashlib.sha256(json.dumps([judge.label, judge.fingerprint, *pair]).encode()).hexdigest()

    def get(self, judge: Engine, pair: Pair) -> str | None:
        return self._answers.get(self._key(judge, pair))

    def add(self, judge: Engine, pair: Pair, completion: str) -> None:
        key = self._key(judge, pair)
        entry = {
            "key": key,
            "judge": judge.label,
            "reference": pair[0],
            "prediction": pair[1],
            "completion": completion,
        }
        with self._lock, self.path.open("r+b") as file:
            _drop_half_a_line(file)  # of another run that was killed
            file.write(json.dumps(entry).encode() + b"\n")
        self._answers[key] = completion


def _drop_half_a_line(file: BinaryIO) -> None:
    """Cut what follows the last line break, and stand at the end."""
    end = file.seek(0, os.SEEK_END)
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)
