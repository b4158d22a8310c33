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


def seen_rows():
    """A model that names one of two big hearts and one effusion too many; a constant; half of it shuffled."""
    hearts, lungs = ["Cardiomegaly.", "Cardiomegaly.", "Heart is normal."], ["Effusion.", "Lungs are clear."]
    rows = [
        judgement(f"s{i}", "heart", reference=hearts[min(i, 2)], prediction=hearts[0 if i == 0 else 2])
        for i in range(6)
    ]
    rows += [judgement(f"s{i}", reference=lungs[1], prediction=lungs[i > 0]) for i in range(6)]
    constant = [row | {"system": "constant", "prediction": "Normal."} for row in rows]
    few = [row | {"system": "images shuffled", "prediction": lungs[0]} for row in rows if row["id"] < "s3"]
    return table(*rows, *constant, *few)
