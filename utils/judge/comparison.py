"""green-score's own prompt and parser, and ours, on answers that are known."""

from collections.abc import Iterable

from . import green_score
from .green import our_prompt
from .verdicts import our_reading


def compare_green_score(answers: Iterable[tuple[str, str, str]]) -> str:
    """How often green-score and our own code agree, as a sentence; it warns where they differ.

    answers: (reference, prediction, completion) of pairs that GREEN has judged

    Compared are the prompt's text, the counts of both kinds of errors and of matched findings, and the
    score. Without the package (see `green_score.take`) there is nothing to compare, which is said.
    """
    package, known = green_score.taken(), list(answers)
    if package is None:
        return "green-score is not compared with our own code: it is not in use here."
    same = {"prompt": 0, "counts": 0, "score": 0}
    for reference, prediction, completion in known:
        ours = our_reading(completion)
        counted = (ours.significant, ours.insignificant, ours.matched)
        same["prompt"] += package.prompt(reference, prediction) == our_prompt(reference, prediction)
        same["counts"] += package.counts(completion) == counted
        same["score"] += package.score(completion) == ours.score_as_published
    equal = ", ".join(f"{name} {count:,}" for name, count in same.items())
    said = f"green-score and our own code on {len(known):,} known answers, how many are equal: {equal}."
    if min(same.values()) < len(known):
        said += " **They differ: do not compare these scores with published ones.**"
    return said
