"""What fewer image tokens cost in findings read right, and save in time.

    python benchmarks/image_tokens.py runs/demo [--studies 300]

Fine-tunes the demo's base model twice on the training phantoms of a finished
demo, with `image_tokens` `base` and `pooled`, all else as the demo has it.
Both write reports on the same phantoms, which neither has met. A finding is
read right if the report names what was drawn, side and place included, or
names none where none was drawn. Phantoms, a model of 3.4 million weights: what
it says of radiographs and a 7B model is no more than that.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils import training  # noqa: E402
from utils.data import hf_dataset, phantoms  # noqa: E402
from utils.data.wording import VALUES, told  # noqa: E402
from utils.models.writer import Writer  # noqa: E402
from utils.regions import parse  # noqa: E402
from utils.settings import preset, with_values  # noqa: E402

SEED = 31  # of phantoms that are in no set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a demo with a dataset")
    parser.add_argument("--studies", type=int, default=300)
    chosen = parser.parse_args()
    dataset = hf_dataset.load(chosen.run / "dataset")
    drawn = list(phantoms.stream(SEED, chosen.studies))
    shown = pd.DataFrame([asdict(one.attributes) for one in drawn])
    abnormal = shown != [values[0] for values in VALUES.values()]
    table = pd.DataFrame({"abnormal": abnormal.sum()})
    for image_tokens in ("base", "pooled"):
        settings = with_values(preset("demo").training, {"image_tokens": image_tokens})
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            training.train(settings, dataset, Path(folder))
            print(f"{image_tokens}: trained in {time.monotonic() - began:.0f} s")
            reports = Writer(Path(folder) / "adapter").write([one.views for one in drawn], 200)
        read = pd.DataFrame([told(parse(report)) for report in reports])
        table[image_tokens] = (read == shown).mean()
        table[f"{image_tokens}, of the abnormal"] = (read == shown).where(abnormal).mean()
    print(f"Findings read right after fine-tuning, of {chosen.studies} unseen phantoms:")
    print(table.astype({"abnormal": int}).to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
