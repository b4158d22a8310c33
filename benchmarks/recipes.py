"""Recipes for fine-tuning side by side on validation: what each names rightly, and its mean scores.

    python benchmarks/recipes.py runs/small

`runs/small` is a run of `make collection` whose step 3 has taught the base model. Each recipe is trained
from that base with the settings of the preset `small`, and writes the validation studies; test studies
are not looked at. Runs are kept in `runs/small/recipes` and go on where they were stopped.

- plain: headings say nothing, as reports are usually taught
- findings only: headings name the findings of the text; when a report is written, those that the probe reads
- plan: they also say `normal`, and what they name comes first in the text that is taught
- plan, sentences as reported: the texts keep the order of their sentences
- plan in three quarters: a quarter of the training studies, drawn by chance, keep plain headings
- plan, abnormal twice: training studies that name a counted finding are met twice in an epoch
- plan, tower too: the adapter also reaches the last stage of the vision tower
"""

import argparse
import random
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pandas as pd
from datasets import Dataset, DatasetDict, concatenate_datasets

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils import scores, training  # noqa: E402
from utils.data import hf_dataset  # noqa: E402
from utils.findings import counts  # noqa: E402
from utils.findings.plans import Words  # noqa: E402
from utils.findings.probe import Probe  # noqa: E402
from utils.models import loading  # noqa: E402
from utils.models.writer import Writer, write_reports  # noqa: E402
from utils.regions import REGIONS  # noqa: E402
from utils.settings import GenerationSettings, TrainingSettings, preset, with_values  # noqa: E402
from utils.training import (  # noqa: E402
    collection,
    probing,
    trainer,
)

UNPLANNED = 0.25  # of the training studies
TOWER_TARGETS = r".*vision_tower.*stages\.3\..*convolution"


def settings_of(workspace: Path) -> TrainingSettings:
    """The preset `small`, on the base model that was taught in `workspace`."""
    return with_values(preset("small").training, {"base": str(workspace / collection.FOLDER)})


def some_unplanned(rows: Dataset, words: Words) -> Dataset:
    """`probing.planned`, but for a share of the studies."""
    plain = probing.planned(rows, Words((), {}))
    chance = random.Random(0)
    chosen = [chance.random() < UNPLANNED for _ in range(len(rows))]
    both = zip(chosen, plain["completion"], probing.planned(rows, words)["completion"], strict=True)
    answers = [unplanned if drawn else planned for drawn, unplanned, planned in both]
    return plain.remove_columns("completion").add_column("completion", answers, feature=hf_dataset.MESSAGES)


def abnormal_twice(dataset: DatasetDict, probe: Probe) -> DatasetDict:
    """The dataset with each training study that names a finding of `probe` once more."""
    train = dataset["train"]
    words = Words(probe.groups, {})
    plans = [words.plan(study) for study in probing.findings(train)]
    again = [number for number, plan in enumerate(plans) if any(plan.values())]
    return DatasetDict({**dataset, "train": concatenate_datasets([train, train.select(again)])})


def recipe(name: str, probe: Probe, dataset: DatasetDict) -> tuple[Probe, DatasetDict, list]:
    """The probe, the dataset and the changes to the code with which a recipe is trained."""
    match name:
        case "plain":
            silent = replace(probe, names=(), normal=(), weight=probe.weight[:0], bias=probe.bias[:0])
            return silent, dataset, [patch.object(trainer, "words", lambda *_: Words((), {}))]
        case "findings only":
            return replace(probe, normal=()), dataset, []
        case "plan, sentences as reported":
            return probe, dataset, [patch.object(probing, "lead", lambda text, *_: text)]
        case "plan in three quarters":
            return probe, dataset, [patch.object(trainer, "planned", some_unplanned)]
        case "plan, abnormal twice":
            return probe, abnormal_twice(dataset, probe), []
        case "plan, tower too":
            targets = f"{loading.LORA_TARGETS}|{TOWER_TARGETS}"
            looks = patch.object(trainer, "kept_patches", lambda *_: None)  # a tower that learns sees anew
            return probe, dataset, [patch.object(loading, "LORA_TARGETS", targets), looks]
    return probe, dataset, []


RECIPES = [line[2:].split(":")[0] for line in __doc__.splitlines() if line.startswith("- ")]


def run(name: str, workspace: Path, dataset: DatasetDict, settings: TrainingSettings) -> pd.DataFrame:
    """Train one recipe and write the validation studies: their judged rows."""
    folder = workspace / "recipes" / name.replace(",", "").replace(" ", "_")
    probe = training.run_probe(settings, dataset, workspace / "recipes" / "probe")
    given, studies, changes = recipe(name, probe, dataset)
    with ExitStack() as stack:
        stack.enter_context(patch.object(trainer, "run_probe", lambda *_, **__: given))
        for change in changes:
            stack.enter_context(change)
        training.train(settings, studies, folder)
    writer = Writer(folder / "adapter", kept=workspace / "recipes" / "probe" / "features")
    written = write_reports(
        writer, dataset["val"], "val", folder / "generations.jsonl", GenerationSettings(), name
    )
    return scores.judged(scores.prediction_rows(dataset["val"], written), engine="offline")


def table(judged: pd.DataFrame, groups) -> pd.DataFrame:
    """One row per recipe: findings together, and the mean of each region."""
    counted = counts.count(judged, groups, resamples=200)
    whole = counted[counted["finding"] == counts.MICRO].set_index("system")
    means = scores.summary(judged).pivot(index="system", columns="region", values="mean")
    rows = whole[["present", "named", "right", "precision", "recall", "f1"]].join(
        means[list(REGIONS)].round(3)
    )
    macro = counted[counted["finding"] == counts.MACRO].set_index("system")["f1"]
    return rows.assign(macro_f1=macro).round(3)


def main(show: Callable[[str], None] = print) -> None:
    """Train the recipes that are asked for, and print the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("workspace", type=Path, help="of a run of make collection")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    options = parser.parse_args()
    workspace = options.workspace.resolve()
    dataset, settings = hf_dataset.load(workspace / "dataset"), settings_of(workspace)
    groups = training.run_probe(settings, dataset, workspace / "recipes" / "probe").groups
    judged = []
    for name in options.recipes:
        judged.append(run(name, workspace, dataset, settings))
        show(table(pd.concat(judged, ignore_index=True), groups).to_string())


if __name__ == "__main__":
    main()
