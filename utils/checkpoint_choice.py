"""Which checkpoint becomes the adapter: the lowest evaluation loss, the offline judge's best, or the last.

Validation studies decide, never test.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
from datasets import Dataset

from .checkpoints import best_step, step_of
from .generation import Writer
from .judge import judge_pairs
from .regions import REGIONS, parse
from .workspace import progress

BATCH, MOST_TOKENS = 8, 200  # studies at once, tokens a report


def choose(
    by: str, checkpoints: list[Path], log_history: list[dict], validation: Dataset | None
) -> tuple[Path, pd.DataFrame]:
    """The chosen one of `checkpoints` (oldest first), and a table of what each was chosen on.

    `by` is loss, judge or last. The table's columns: step, eval_loss,
    offline_judge (mean over the regions that the references mention), n,
    chosen. Without `validation`, or where no evaluation loss was taken at a
    checkpoint, the last is chosen.
    """
    losses = {entry["step"]: entry["eval_loss"] for entry in log_history if "eval_loss" in entry}
    table = pd.DataFrame({"step": [step_of(path) for path in checkpoints]})
    table["eval_loss"] = table["step"].map(losses)
    best = table["step"].iloc[-1]
    if by == "judge" and validation:
        table[["offline_judge", "n"]] = judged(checkpoints, validation)
        best = table["step"][table["offline_judge"].idxmax()]
    elif by == "loss":
        found = best_step(log_history, set(table["step"]))
        best = best if found is None else found
    table["chosen"] = table["step"] == best
    return checkpoints[table["chosen"].argmax()], table


def judged(
    checkpoints: list[Path], validation: Dataset, show: Callable[..., Iterable] = progress
) -> list[tuple[float, int]]:
    """For each checkpoint the offline judge's mean score of its reports on `validation`, and n."""
    scores, writer = [], None
    for path in checkpoints:
        writer = Writer(path) if writer is None else writer.take(path)
        texts = []
        for start in show(range(0, len(validation), BATCH), f"{path.name}: reports to choose by"):
            texts += writer.write(validation[start : start + BATCH]["images"], MOST_TOKENS)
        pairs = [
            (study[region], parse(text).get(region, ""))
            for study, text in zip(validation.select_columns(list(REGIONS)), texts, strict=True)
            for region in REGIONS
            if study[region]
        ]
        verdicts = [judgement.score for judgement in judge_pairs(pairs, engine="offline")]
        scores.append((sum(verdicts) / len(verdicts), len(verdicts)))
    return scores
