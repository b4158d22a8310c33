"""How far the offline split agrees with the quiz's gold split, and how far any rule could.

    python benchmarks/split_agreement.py annotation_quiz_all.json r2gen_annotation.json

The first 1,000 training studies are those that it was developed on; the rest
of training and the test studies are held out. Gold is a language model's work
and treats the same sentence differently from report to report, so no rule that
reads the sentence alone reaches 1: the bound gives every sentence that comes
more than once the regions that gold most often gave it, and counts those that
come once as the split has them.
"""

import json
import re
import sys
import time
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils import split  # noqa: E402

DEVELOPED_ON = 1000


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit("give the quiz's annotation and R2Gen's: two paths")
    quiz, r2gen = (json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:])
    originals = {study["id"]: study["report"] for studies in r2gen.values() for study in studies}
    pairs = [(originals[study["id"]], study["report"]) for study in quiz["train"] + quiz["test"]]
    shown("developed on", pairs[:DEVELOPED_ON])
    shown("held out", pairs[DEVELOPED_ON:])


def shown(title: str, pairs: list[tuple[str, dict]]) -> None:
    texts, gold = map(list, zip(*pairs, strict=True))
    start = time.process_time()
    found = split.split_findings(texts)
    rate = len(texts) / (time.process_time() - start)
    frame = split.agreement(texts, found, gold)
    print(f"\n{title}: {len(texts):,} studies, {rate:,.0f} reports a second on one core")
    print(split.by_region(frame).round(3).to_string())
    share, same, best = bound(frame)
    print(
        f"sentences that come more than once: {share:.1%} of those scored; gold agrees with its own most "
        f"frequent answer on {same:.3f} of them; with that answer the split would reach {best:.3f}"
    )


def bound(frame: pd.DataFrame) -> tuple[float, float, float]:
    """The share of repeated sentences, gold's agreement with itself on them, and the agreement it allows."""
    scored = frame[frame["agree"].notna()]
    kind = scored["sentence"].map(lambda text: re.sub(r"[^a-z ]", "", text.lower()).strip())
    often = kind.map(kind.value_counts()) > 1
    groups = scored["gold"][often].groupby(kind[often])
    hits = groups.agg(lambda regions: regions.value_counts().iloc[0]).sum()
    return often.mean(), hits / often.sum(), (hits + scored["agree"][~often].sum()) / len(scored)


if __name__ == "__main__":
    main()
