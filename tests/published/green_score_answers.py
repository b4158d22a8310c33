"""What green-score's own code reads and answers: `python green_score_answers.py FOLDER PAIRS.json OUT.json`.

FOLDER holds a judge, PAIRS.json a list of [reference, prediction]. OUT.json gets each pair's token ids,
and its answers asked alone and in one batch. All of it is green-score's class GREEN, which knows the CPU;
from outside come only full precision and a sooner end of each answer.
"""

import json
import sys
from pathlib import Path

from datasets import Dataset
from green_score.green import GREEN

NEW_TOKENS = 48  # of each answer; green-score goes on to 2,048 with the question


def main(folder: str, pairs: Path, out: Path) -> None:
    """Ask the judge in `folder` all of `pairs`, and write `out`."""
    green = GREEN(folder, cpu=True, compute_summary_stats=False)
    green.model.float()  # green-score loads in fp16, in which a batch rounds otherwise than one pair
    generate, read = green.model.generate, []

    def short(input_ids, attention_mask, **options):
        read.extend(ids[mask == 1].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True))
        options["max_length"] = input_ids.shape[1] + NEW_TOKENS
        return generate(input_ids=input_ids, attention_mask=attention_mask, **options)

    green.model.generate = short
    references, predictions = zip(*json.loads(pairs.read_text()), strict=True)
    asked = green.process_data(Dataset.from_dict({"reference": references, "prediction": predictions}))
    alone = [green.get_response({"prompt": [prompt]})[0] for prompt in asked["prompt"]]
    ids = read[:]
    together = green.get_response({"prompt": asked["prompt"]})
    out.write_text(json.dumps({"ids": ids, "alone": alone, "together": together}))


main(sys.argv[1], *map(Path, sys.argv[2:]))
