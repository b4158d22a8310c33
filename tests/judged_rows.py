"""Rows of judgements, made up."""

import pandas as pd

GREEN = "GREEN-radllama2-7b (nf4)"
OFFLINE = "offline judge (stand-in, not GREEN)"


def judgement(id="s1", region="lung", score=1.0, **more):
    row = {
        "system": "model",
        "split": "test",
        "id": id,
        "region": region,
        "reference": "Lungs are clear.",
        "prediction": "Clear lungs.",
        "score": score,
        "significant": [0] * 6,
        "insignificant": [0] * 6,
        "matched": 1,
        "judge": OFFLINE,
    }
    return row | more


def table(*rows):
    return pd.DataFrame(list(rows))
