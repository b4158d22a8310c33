"""How far the offline split agrees with the quiz's gold split, and how far gold agrees with itself.

    python benchmarks/split_agreement.py annotation_quiz_all.json r2gen_annotation.json [--list]

The first 1,000 training studies are those that it was developed on; the rest
of training and the test studies are held out. What is counted is in
`utils.split.gold.agreement`: others is a region like the four, a sentence that
either split has nowhere is not scored. Beside it stand a yardstick, a line of
obvious words a region with whole sentences to each that it hits, and both
without others, which no model is trained on. `--list` lists the sentences
that gold drops or rewords beyond recognition.

Gold is a language model's work and treats the same sentence differently from
report to report, so no rule that reads the sentence alone reaches 1. Over the
sentences that come more than once it is told how often gold in one report
agrees with gold in another, and what the split would reach with gold's own
most frequent answer to each.
"""

import argparse
import json
import re
import sys
import time
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils import split  # noqa: E402
from utils.findings.sentences import sentences  # noqa: E402
from utils.regions import ALL, OTHERS  # noqa: E402

DEVELOPED_ON = 1000
OBVIOUS = {
    "lung": r"lung|pulmonary|pleural|effusion|pneumothora|opacit|consolidation|airspace|atelecta|infiltrate"
    r"|nodule|granuloma",
    "heart": r"heart|cardiac|cardiomegaly|cardiomediastinal",
    "mediastinal": r"mediastin|hilar|hila\b|aort|trachea",
    "bone": r"bone|bony|osseous|spine|rib|fracture|degenerative|skelet|vertebra|scoliosis",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("quiz", type=Path, help="the quiz's annotation, with the gold split")
    parser.add_argument("r2gen", type=Path, help="R2Gen's annotation, with the findings as written")
    parser.add_argument("--list", action="store_true", help="list the sentences that gold does not place")
    asked = parser.parse_args()
    quiz, r2gen = (json.loads(path.read_text(encoding="utf-8")) for path in (asked.quiz, asked.r2gen))
    originals = {study["id"]: study["report"] for studies in r2gen.values() for study in studies}
    pairs = [(originals[study["id"]], study["report"]) for study in quiz["train"] + quiz["test"]]
    shown("developed on", pairs[:DEVELOPED_ON], asked.list)
    if pairs[DEVELOPED_ON:]:
        shown("held out", pairs[DEVELOPED_ON:], asked.list)


def shown(title: str, pairs: list[tuple[str, dict]], listed: bool) -> None:
    texts, gold = map(list, zip(*pairs, strict=True))
    start = time.process_time()
    found = split.split_findings(texts)
    rate = len(texts) / (time.process_time() - start)
    frame = split.agreement(texts, found, gold)
    plain = split.agreement(texts, [by_obvious_words(text) for text in texts], gold)
    print(f"\n{title}: {len(texts):,} studies, {rate:,.0f} reports a second on one core")
    print(split.by_region(frame).round(3).to_string())
    print(f"a line of obvious words a region: {plain['agree'].mean():.3f}")
    print(f"the four regions alone: {of_four(frame):.3f}, by obvious words {of_four(plain):.3f}")
    share, itself, ours, best = repeated(frame)
    print(
        f"sentences that come more than once: {share:.1%} of those scored; gold agrees with gold in another "
        f"report on {itself:.3f} of them, the split with gold on {ours:.3f}; with gold's most frequent "
        f"answer to each the split would reach {best:.3f} of all"
    )
    lost = frame.loc[frame["gold"] == "", "sentence"]
    print(
        f"gold drops or rewords beyond recognition {len(lost):,} of {len(frame):,} sentences "
        f"({len(lost) / len(frame):.1%}): not scored"
    )
    if listed:
        for sentence, times in lost.value_counts(sort=False).sort_index().items():
            print(f"  {times} x {sentence}")


def by_obvious_words(text: str) -> dict[str, str]:
    """The yardstick: each sentence whole to every region that one of its obvious words names."""
    taken: dict[str, list[str]] = {name: [] for name in ALL}
    for sentence in sentences(text):
        named = [name for name, words in OBVIOUS.items() if re.search(words, sentence, re.IGNORECASE)]
        for name in named or [OTHERS]:
            taken[name].append(sentence)
    return {name: " ".join(parts) for name, parts in taken.items()}


def of_four(frame: pd.DataFrame) -> float:
    """The agreement where others counts as nowhere: over the sentences that both have in one of the four."""
    ours, gold = (
        frame[side].map(lambda names: set(names.split("+")) - {OTHERS, ""}) for side in ("ours", "gold")
    )
    return (ours == gold)[ours.astype(bool) & gold.astype(bool)].mean()


def repeated(frame: pd.DataFrame) -> tuple[float, float, float, float]:
    """Over the sentences that come more than once: their share of those scored, how often gold agrees with
    gold in another report, how often the split agrees with gold, and what it would reach of all with gold's
    most frequent answer to each.
    """
    scored = frame[frame["agree"].notna()]
    kind = scored["sentence"].map(lambda text: re.sub(r"[^a-z ]", "", text.lower()).strip())
    often = kind.map(kind.value_counts()) > 1
    kind, gold, agree = kind[often], scored["gold"][often], scored["agree"]
    same = gold.groupby([kind, gold]).transform("size")
    itself = (same - 1) / (gold.groupby(kind).transform("size") - 1)
    hits = same.groupby(kind).max().sum()
    return often.mean(), itself.mean(), agree[often].mean(), (hits + agree[~often].sum()) / len(scored)


if __name__ == "__main__":
    main()
