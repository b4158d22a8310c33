"""What fewer image tokens cost in findings read right, and save in seconds per step.

    python benchmarks/image_tokens.py runs/demo [--budgets pooled frontal base] [--views 2 1] [--seeds 17]
    python benchmarks/image_tokens.py runs/small

The run has a dataset, and at `small` its base model. That model is fine-tuned once for each budget of
`image_tokens`, number of views and seed, all else as the run's preset has it. Each adapter writes reports on
studies that it has not met: at `demo` on 300 phantoms that are in no set, at `small` on the validation
studies. Test studies are not looked at.

The first table counts the findings that the model names by itself, and beside them those of the plan, which
the findings probe makes of the vision tower's features: the budget plays no part in it, and a report gets
what the model leaves out of it. The second has the recall of each finding. For phantoms a third says how
often what was drawn was read, side and place included, where it was not normal. Seconds are a processor's,
on one thread, of the median step: other work on the machine hardly counts.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from utils import training  # noqa: E402
from utils.data import hf_dataset, phantoms  # noqa: E402
from utils.data.wording import OF_REGION, VALUES, concise, wordings  # noqa: E402
from utils.findings import counts  # noqa: E402
from utils.findings.groups import frequent  # noqa: E402
from utils.findings.plans import left_out  # noqa: E402
from utils.models.loading import load_processor  # noqa: E402
from utils.models.writer import Writer  # noqa: E402
from utils.regions import REGIONS, parse  # noqa: E402
from utils.run.workspace import open_workspace  # noqa: E402
from utils.settings import BUDGETS, SMALL_BASE, TrainingSettings, preset, with_values  # noqa: E402
from utils.training import collection, trainer  # noqa: E402
from utils.training.lengths import study_tokens  # noqa: E402
from utils.training.probing import findings  # noqa: E402

SEED, STUDIES = 31, 300  # of phantoms that are in no set
TOLD = [name for region in REGIONS for name in OF_REGION[region]]  # attributes that reports tell


class Timed(trainer.RunCallback):
    """Also takes the processor's time of each step; what loads the next batch is not counted."""

    seconds: ClassVar[list[float]] = []

    def on_step_begin(self, args, state, control, **_):
        self.began = time.process_time()

    def on_step_end(self, args, state, control, **rest):
        self.seconds.append(time.process_time() - self.began)
        super().on_step_end(args, state, control, **rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a run at demo or small with a dataset")
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS, default=["pooled", "frontal", "base"])
    parser.add_argument("--views", nargs="+", type=int, default=[2])
    parser.add_argument("--seeds", nargs="+", type=int, default=[preset("demo").training.seed])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    workspace = open_workspace(chosen.run.resolve())
    settings, dataset = preset(workspace.size).training, hf_dataset.load(workspace.folder("dataset"))
    drawn = [] if workspace.size == SMALL_BASE else list(phantoms.stream(SEED, STUDIES))
    if drawn:
        studies, references = [one.views for one in drawn], [one.findings for one in drawn]
    else:
        settings = with_values(settings, {"base": str(workspace.root / collection.FOLDER)})
        studies, references = dataset["val"]["images"], findings(dataset["val"])
    rows, cost, shown = [], [], []
    for seed in chosen.seeds:
        for views in chosen.views:
            for budget in chosen.budgets:
                changes = {"image_tokens": budget, "views": views, "seed": seed}
                name = f"{budget}, {views} views, seed {seed}"
                plans, reports, spent = run(with_values(settings, changes), dataset, studies)
                cost.append({"system": name} | spent)
                rows += [of_system(f"{name}: plan", plans, references), of_system(name, reports, references)]
                if drawn:
                    shown.append(attributes(name, reports, drawn))
                tell(pd.concat(rows), pd.DataFrame(cost), shown, dataset)


def run(settings: TrainingSettings, dataset, studies: list[list]) -> tuple[list[dict], list[dict], dict]:
    """Fine-tune, and of `studies` the findings of the plans, the reports, both by region, and the cost."""
    processor = load_processor(settings.base, settings.image_tokens)
    counted = study_tokens(processor, dataset["train"], settings.views)
    Timed.seconds.clear()
    with tempfile.TemporaryDirectory() as folder, patch.object(trainer, "RunCallback", Timed):
        training.train(settings, dataset, Path(folder))
        writer = Writer(Path(folder) / "adapter")
        reports = [parse(text) for text in writer.write(studies, 200)]
        plans = writer.plans(writer.tower.see(studies))
    spent = {
        "tokens": sum(total for total, *_ in counted) / len(counted),
        "seconds": pd.Series(Timed.seconds).median(),
    }
    return [left_out({}, plan) for plan in plans], reports, spent


def of_system(name: str, reports: list[dict], references: list[dict]) -> pd.DataFrame:
    """The rows that `counts.count` takes."""
    return pd.DataFrame(
        {
            "system": name,
            "split": "unseen",
            "id": str(number),
            "region": region,
            "reference": reference.get(region, ""),
            "prediction": report.get(region, ""),
        }
        for number, (report, reference) in enumerate(zip(reports, references, strict=True))
        for region in REGIONS
    )


def attributes(name: str, reports: list[dict], drawn: list[phantoms.Phantom]) -> pd.Series:
    """How often what was drawn is read, where it is not normal, by attribute and over all of them."""
    shown = pd.DataFrame([asdict(one.attributes) for one in drawn])[TOLD]
    abnormal = shown != [VALUES[name][0] for name in TOLD]
    right = (pd.DataFrame([told(report) for report in reports])[TOLD] == shown).where(abnormal)
    return pd.concat([right.mean(), pd.Series({"all": right.stack().mean()})]).rename(name)


def told(report: dict[str, str]) -> dict[str, str]:
    """The value of each attribute that a report in phantoms' words names; normal where it names none."""
    values = {name: of_name[0] for name, of_name in VALUES.items()}
    for region, names in OF_REGION.items():
        text = concise(report.get(region, "")).lower()
        for name in names:
            for value in VALUES[name][1:]:
                if any(concise(sentence).lower() in text for sentence in wordings(name, value)):
                    values[name] = value
    return values


def tell(rows: pd.DataFrame, cost: pd.DataFrame, shown: list[pd.Series], dataset) -> None:
    """Print the tables."""
    counted = counts.count(rows, frequent(findings(dataset["train"])), resamples=1000)
    whole = counted[counted["finding"] == counts.MICRO].set_index("system")
    table = whole[["present", "named", "right", "recall", "precision", "f1", "f1_low", "f1_high"]]
    print(table.join(cost.set_index("system")).round(3).to_string())
    print(counted.pivot(index="system", columns="finding", values="recall").round(2).to_string())
    if shown:
        print(pd.DataFrame(shown).round(2).to_string())


if __name__ == "__main__":
    main()
