"""What a vision tower in 4 bits costs: the demo's base model reads the same phantoms with its tower in
full precision and in NF4, the language model in NF4 both times.

    python benchmarks/vision_in_4_bits.py [--studies 300]

Prints, for each attribute, the share of phantoms whose value is listed rightly, and the mean difference
over all attributes with its 95 % interval, paired by phantom. Copies published in 4 bits have their
tower in 4 bits too. A small tower of 192 channels is no CLIP ViT-L: this is a sign, not the 7B's figure.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
from bitsandbytes.nn import Linear4bit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.base_model import SEED, attributes_read_right
from utils.models import loading
from utils.scores.statistics import interval
from utils.settings import DEMO_BASE


def read(unquantised: list[str], studies: int) -> pd.DataFrame:
    """Which attributes of each phantom are read right with all linear maps but `unquantised` in NF4."""
    ours = loading.UNQUANTISED
    loading.UNQUANTISED = unquantised
    try:
        loaded = loading.load_model(DEMO_BASE, "base", "fp32")
    finally:
        loading.UNQUANTISED = ours
    tower = loaded.model.vision_tower.modules()
    print(f"linear maps of the vision tower in 4 bits: {sum(isinstance(m, Linear4bit) for m in tower)}")
    return attributes_read_right(loaded, loading.load_processor(DEMO_BASE, "base"), SEED + 2000, studies)


def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of a vision tower in 4 bits.")
    parser.add_argument("--studies", type=int, default=300, help="unseen phantoms (%(default)s)")
    studies = parser.parse_args().studies
    whole = read(loading.UNQUANTISED, studies)
    quantised = read([name for name in loading.UNQUANTISED if "vision" not in name], studies)
    table = pd.DataFrame({"full precision": whole.mean(), "4 bits": quantised.mean()})
    print(table.round(3).to_string())
    differences = (quantised.astype(float) - whole).mean(axis=1)  # of a phantom
    low, high = interval(differences)
    shares = " and ".join(f"{share:.3f} ({how})" for how, share in table.mean().items())
    print(f"all attributes: {shares}")
    print(f"difference {differences.mean():+.4f} [{low:+.4f}, {high:+.4f}], n={studies} phantoms")


if __name__ == "__main__":
    main()
