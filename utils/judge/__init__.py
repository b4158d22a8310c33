"""From (reference, prediction) to a GREEN judgement.

Three engines answer in the same format: the 7B judge (`green.GreenEngine`), the same model behind a server
(`green.ServerEngine`), and an offline stand-in (`offline`), which is never called GREEN. GREEN: Ostmeier et
al., "GREEN: Generative Radiology Report Evaluation and Error Notation", 2024; model
StanfordAIMI/GREEN-radllama2-7b.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from utils.findings.sentences import sentences
from utils.regions import REGIONS, mentioned, parse, tidy
from utils.run.answers import AnswerFile, key_of
from utils.run.machine import secret
from utils.run.processes import shard
from utils.settings import JudgeSettings

from . import green_score, verdicts
from .green import GreenEngine, ServerEngine, our_prompt
from .offline import OfflineEngine
from .verdicts import JudgeError, Judgement, Pair, parse_completion, write_completion

ENGINES = {"offline": OfflineEngine, "green": GreenEngine, "server": ServerEngine}
OFFLINE_LABEL = OfflineEngine.label
SERVER_KEY = "JUDGE_API_KEY"  # the secret with the key of the judge's server, if it wants one


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
    """One judgement for each (reference, prediction) pair, in their order; each distinct pair is asked once.

    engine: a name, or an engine already loaded (to keep the 7B model between calls)
    cache: a JSON-lines file that answers are appended to as they come; a later call with it, after a kill
        too, asks only what is missing. Of several processes each asks its share, and gets no verdict for the
        others' questions unless the cache holds one
    progress: called with (answered, to ask) as answers come
    identical_without_asking: a prediction equal to its reference is scored 1.0, as GREEN did in every
        recorded case, and the label of all judgements says so; an empty one always gets 0 without asking
    options: of an engine that is named

    Raises JudgeError for an empty reference (a region that a study does not mention is never scored), for an
    unknown engine, for options that reach none, and for a cache file that is not ours.
    """
    asked = [(tidy(reference), tidy(prediction)) for reference, prediction in pairs]
    for number, (reference, _) in enumerate(asked):
        if not reference:
            raise JudgeError(f"pair {number} has an empty reference: a region not mentioned is never scored")
    store = Cache(cache) if cache is not None else None
    judge = engine
    if isinstance(engine, str):
        if engine not in ENGINES:
            raise JudgeError(f"no such judge: {engine!r}; the judges are {', '.join(ENGINES)}")
        judge = ENGINES[engine](**options)
    elif options:
        raise JudgeError(f"a loaded engine takes no options: leave out {', '.join(options)}")
    known, open_pairs = _known(asked, judge, store, identical_without_asking)
    label = f"{judge.label}, identical texts not asked" if identical_without_asking else judge.label
    if store and hasattr(judge, "learn"):  # an engine that drafts its answers
        judge.learn([kept for pair in known if (kept := store.get(judge, pair))])
    for done, (index, completion) in enumerate(judge.ask(open_pairs) if open_pairs else (), start=1):
        known[open_pairs[index]] = completion
        if store and not getattr(judge, "keeps", False):  # an engine whose processes keep their answers
            store.add(judge, open_pairs[index], completion)
        if progress:
            progress(done, len(open_pairs))
    judgements = {pair: parse_completion(completion, label) for pair, completion in known.items()}
    return [judgements.get(pair) or parse_completion("", label) for pair in asked]


def open_questions(
    pairs: Iterable[Pair], engine: Engine, cache: Path | None = None, identical_without_asking: bool = False
) -> list[Pair]:
    """The pairs that `judge_pairs` would ask `engine`: distinct, and without an answer in `cache`."""
    asked = [(tidy(reference), tidy(prediction)) for reference, prediction in pairs]
    store = Cache(cache) if cache is not None else None
    return _known(asked, engine, store, identical_without_asking)[1]


def _known(
    asked: list[Pair], judge: Engine, store: "Cache | None", identical_without_asking: bool
) -> tuple[dict[Pair, str], list[Pair]]:
    """The completions that there are without asking, by pair; and the pairs that are left to ask."""
    known, distinct, text = {}, list(dict.fromkeys(asked)), "The candidate report is"
    for pair in distinct:
        reference, prediction = pair
        if not prediction:
            explanation = f"{text} empty: scored 0 without asking the judge."
            known[pair] = write_completion(explanation, {"b": sentences(reference)}, {}, [])
        elif identical_without_asking and prediction == reference:
            explanation = f"{text} the reference: scored 1 without asking the judge."
            known[pair] = write_completion(explanation, {}, {}, [reference])
        elif store and (completion := store.get(judge, pair)) is not None:
            known[pair] = completion
    return known, [pair for pair in (shard(distinct) if store else distinct) if pair not in known]


def offline_judge_reward(completions: list, **columns: object) -> list[float | None]:
    """The offline judge, not GREEN, as a reward of TRL: the mean score, 0 to 1, over the regions that a study
    mentions, None for a study without any; a region that the report leaves out scores 0.

    completions: report texts, or conversations whose last message holds one
    columns: the dataset's, as TRL repeats them for each completion; the regions' hold the references

    Raises JudgeError without a column of a region.
    """
    given = {region: columns[region] for region in REGIONS if region in columns}
    if not given:
        raise JudgeError(f"a reward needs the references, in the columns {', '.join(REGIONS)}")
    engine, rewards = OfflineEngine(), []
    for text, *row in zip(completions, *given.values(), strict=True):
        references = mentioned(dict(zip(given, row, strict=True)))
        report = parse(text if isinstance(text, str) else text[-1]["content"])
        pairs = [(reference, report.get(region, "")) for region, reference in references.items()]
        scores = [judgement.score or 0.0 for judgement in judge_pairs(pairs, engine)]
        rewards.append(sum(scores) / len(scores) if scores else None)
    return rewards


def judge_of(settings: JudgeSettings) -> Engine:
    """The judge that the settings name; it loads nothing before it is asked."""
    match settings.engine:
        case "green":
            return GreenEngine(precision=settings.precision, batch_size=settings.batch_size)
        case "server":
            key = secret(SERVER_KEY)
            return ServerEngine(settings.base_url, api_key=key, batch_size=settings.batch_size)
    return OfflineEngine()


def compare_green_score(answers: Iterable[tuple[str, str, str]]) -> str:
    """How often green-score's code and our own agree, as a sentence; it warns where they differ.
    `answers`: (reference, prediction, completion) of pairs that GREEN has judged."""
    package, known = green_score.taken(), list(answers)
    if package is None:
        return "green-score is not compared with our own code: it is not in use here."
    same = {"prompt": 0, "counts": 0, "score": 0}
    for reference, prediction, completion in known:
        ours = verdicts.our_reading(completion)
        counted = (ours.significant, ours.insignificant, ours.matched)
        same["prompt"] += package.prompt(reference, prediction) == our_prompt(reference, prediction)
        same["counts"] += package.counts(completion) == counted
        same["score"] += package.score(completion) == ours.score_as_published
    equal = ", ".join(f"{name} {count:,}" for name, count in same.items())
    sentence = f"green-score and our own code on {len(known):,} known answers, how many are equal: {equal}."
    warning = " **They differ: do not compare these scores with published ones.**"
    return sentence + warning * (min(same.values()) < len(known))


class Cache:
    """Answers by judge and pair, kept in a file as they come. Raises JudgeError for a foreign file."""

    HEADER: ClassVar = {"file": "answers of a judge", "version": 1}

    def __init__(self, path: Path):
        self._answers: dict[str, str] = {}
        self._file = AnswerFile(path, "an answer of a judge", self._take, JudgeError, self.HEADER)

    def more(self) -> None:
        """Take the answers that other processes have added."""
        self._file.more()

    def _take(self, entry: dict) -> None:
        self._answers[entry["key"]] = entry["completion"]

    def get(self, judge: Engine, pair: Pair) -> str | None:
        """The answer of `judge` to `pair`, if it is kept."""
        return self._answers.get(key_of(judge.label, judge.fingerprint, *pair))

    def add(self, judge: Engine, pair: Pair, completion: str) -> None:
        """Keep an answer, in the file at once."""
        names = ("key", "judge", "reference", "prediction", "completion")
        values = (key_of(judge.label, judge.fingerprint, *pair), judge.label, *pair, completion)
        self._file.add(entry := dict(zip(names, values, strict=True)))
        self._take(entry)
