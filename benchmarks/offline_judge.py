"""How near the offline judge, a stand-in, comes to GREEN, and how many pairs it judges in a second.

    python benchmarks/offline_judge.py recorded.jsonl.gz [--unread]

The file holds GREEN's judgements, a line each with id, region, reference,
prediction and green (the score), plain or gzipped; rows with an empty side are
left out. Intervals are 95 % percentile bootstrap intervals over studies.

--unread: of the project's own recorded judgements, only the pairs that nobody
read while the rules were last revised: a reference of the two fifths and a
predicted text of the half that were set aside. It is no clean test set: its
totals were looked at between revisions, and each of its texts stood in pairs
that were read, with another text beside it.
"""

import argparse
import hashlib
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils.findings import reader  # noqa: E402
from utils.judge import OFFLINE_LABEL, judge_pairs  # noqa: E402
from utils.judge.offline import OfflineEngine  # noqa: E402
from utils.regions import REGIONS  # noqa: E402

RESAMPLES, SEED = 1000, 0


def read(path: Path) -> list[dict]:
    """The rows of a file of judgements with text on both sides."""
    rows = pd.read_json(path, lines=True).to_dict("records")
    return [row for row in rows if row["reference"].strip() and row["prediction"].strip()]


def unread(rows: list[dict]) -> list[dict]:
    """The rows whose reference and predicted text were both set aside."""
    aside = set()
    for region in REGIONS:
        texts = Counter(row["prediction"].strip() for row in rows if row["region"] == region)
        aside.update([text for text, _ in texts.most_common()][1::2])
    return [
        row
        for row in rows
        if row["prediction"].strip() in aside
        and hashlib.sha256(row["reference"].strip().lower().encode()).digest()[-1] % 5 < 2
    ]


def correlations(ours: np.ndarray, green: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pearson's r and Kendall's tau-b (ties counted) of two scores, shape (n,), for each row of `weights`."""
    total = weights.sum(1)
    our_mean, green_mean = weights @ ours / total, weights @ green / total
    covariance = weights @ (ours * green) / total - our_mean * green_mean
    spread = (weights @ ours**2 / total - our_mean**2) * (weights @ green**2 / total - green_mean**2)
    signs = [np.sign(np.subtract.outer(values, values)).astype(np.float32) for values in (ours, green)]

    def over_pairs(matrix: np.ndarray) -> np.ndarray:
        return ((weights.astype(np.float32) @ matrix) * weights).sum(1)

    untied = over_pairs(abs(signs[0])) * over_pairs(abs(signs[1]))
    return covariance / np.sqrt(spread), over_pairs(signs[0] * signs[1]) / np.sqrt(untied)


def resampled(ids: list[str]) -> np.ndarray:
    """Weights of rows, shape (1 + RESAMPLES, n): all once, then studies drawn with replacement."""
    studies, of_study = np.unique(ids, return_inverse=True)
    rng = np.random.default_rng(SEED)
    drawn = rng.multinomial(len(studies), np.full(len(studies), 1 / len(studies)), RESAMPLES)
    return np.vstack([np.ones(len(ids)), drawn[:, of_study]])


def agreement(rows: list[dict]) -> list[str]:
    """One line per region, then both correlations over all rows."""
    judged = judge_pairs([(row["reference"], row["prediction"]) for row in rows])
    ours = np.array([judgement.score for judgement in judged])
    green = np.array([row["green"] for row in rows], float)
    weights = resampled([row["id"] for row in rows])

    def shown(values: np.ndarray) -> str:
        low, high = np.nanpercentile(values[1:], [2.5, 97.5])
        return f"{values[0]:.3f} [{low:.3f}, {high:.3f}]"

    lines = [f"{'region':12}{'n':>5}  {'GREEN':23}{'offline judge':23}bias"]
    for region in REGIONS:
        of_region = weights * [row["region"] == region for row in rows]
        if not of_region[0].any():
            continue
        count = np.maximum(of_region.sum(1), 1)
        cells = [f"{shown(of_region @ values / count):23}" for values in (green, ours, ours - green)]
        lines.append(f"{region:12}{int(of_region[0].sum()):>5}  {''.join(cells)}".rstrip())
    pearson, kendall = correlations(ours, green, weights)
    pairs = len({(row["reference"], row["prediction"]) for row in rows})
    both = f"Pearson {shown(pearson)}, Kendall {shown(kendall)}"
    return [*lines, f"{'all':12}{len(rows):>5}  {both}; {pairs} distinct pairs"]


def speed(rows: list[dict]) -> str:
    """Distinct pairs in a second of the processor: a text is read once, beside reading it anew each time."""
    pairs = list(dict.fromkeys((row["reference"], row["prediction"]) for row in rows))
    engine = OfflineEngine()

    def seconds(forget_between: bool) -> float:
        start = time.process_time()
        for pair in pairs:
            judge_pairs([pair], engine)
            if forget_between:
                forget()
        return time.process_time() - start

    forget()
    once, anew = seconds(False), seconds(True)
    return (
        f"{len(pairs) / once:,.0f} pairs in a second of one core's time ({len(pairs)} distinct ones), each "
        f"text read once: {anew / once:.1f}x as fast as reading it anew for each pair"
    )


def forget() -> None:
    """Empty what the reader keeps of texts."""
    for kept in (reader.read_findings, reader.comparison, reader._read_sentence):
        kept.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("recorded", type=Path, help="GREEN's judgements, .jsonl or .jsonl.gz")
    parser.add_argument("--unread", action="store_true", help="only pairs set aside from the rules' revision")
    options = parser.parse_args()
    rows = read(options.recorded)
    print(OFFLINE_LABEL)
    print("\n".join(agreement(unread(rows) if options.unread else rows)))
    print(speed(rows))


if __name__ == "__main__":
    main()
