"""The adapter of step 3 on the Hub, with a card that says what it is and is not, and the scores of step 4."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from huggingface_hub import ModelCard, ModelCardData

from utils.findings.probe import load
from utils.models import anywhere
from utils.models.bases import REGISTRY, find
from utils.models.loading import ADAPTER_FILES, PROBE, how_to_read
from utils.regions import REGIONS
from utils.run.disk import read_json, write_json
from utils.run.workspace import STEPS, StepError, Workspace
from utils.scores.report import METHOD, limits
from utils.scores.statistics import one_judge, summary
from utils.scores.tables import grid
from utils.settings import DEMO_BASE
from utils.training.probing import POINTS, QUALITY

from . import HOW, push

__all__ = ["HOW", "share_adapter"]

CARD = """
# Chest X-ray findings by region: an adapter

**Data: {data_label}. Judge: {judge}. Not for clinical use.**

A LoRA adapter of {base_name}. From the views of a chest X-ray study, the model writes the findings of
{regions}, one line for each region.

## Use

With `pip install "transformers>=5" peft accelerate bitsandbytes torchvision pillow`:

```python
{use}```

If the base model is a folder of yours, put its path in place of its name. The files beside the adapter show a
study to the model as in training. `reading.py`, a hundred lines of Python, sets the headings of a report.

## Method

4-bit NF4 QLoRA on every linear layer of the language model, with the settings below. The loss counts
the answer only. A region that a study does not mention is left out of prompt and answer: it is unknown, not
normal.

{training}
{what_it_names}
## Scores

{method}

{table}
{evaluation}

## A page for others

`python -m utils.pages.app <folder with these files>` serves a page on your machine that reads a study. For a
Space, make one with the SDK Gradio, private as this repository is. Put the project's folder `utils` into it,
these files as the folder `adapter`, and a `requirements.txt` with torch, transformers, peft, accelerate,
datasets, scikit-learn, matplotlib, ipywidgets, pydicom, and `requirements-colab.txt`'s lines. Its `app.py`:

```python
from pathlib import Path
from utils.pages.app import page
from utils.models.study import open_writer

page(open_writer(Path("adapter"))).launch()
```

A base model of 7 billion weights needs a Space with a GPU. Whoever opens a Space sends their images to it.

## Limits

{limits}
- The model was trained to write findings. It may be wrong about a patient: **not for clinical use**.

## Licence

The licence of the base model applies to its use. The licence of the studies applies to what was learnt from
them: IU X-Ray is CC BY-NC-ND 4.0, so an adapter trained on it must stay private.
"""


def share_adapter(workspace: Workspace, repository: str) -> str:
    """Push the adapter of step 3 and its probe, with the scores of step 4 in its card; returns its address.

    With them goes what transformers needs to read studies as in training, see `models.anywhere`. Raises
    StepError where a step is not finished, the scores belong to another adapter, or `push` does.
    """
    training, evaluation = workspace.require("training"), workspace.require("evaluation")
    results, run = workspace.folder("evaluation"), workspace.folder("training")
    adapter = run / "adapter"
    if not workspace.is_current("evaluation"):
        notebook = f"notebooks/{STEPS['evaluation']}.ipynb"
        raise StepError(f"The scores belong to another adapter. Run {notebook} first.")
    reading, generation = how_to_read(adapter), evaluation["settings"]["generation"]
    base = anywhere.without_path(find(reading["base"]).weights)
    parts = {
        "data_label": training["data_label"],
        "table": (results / "table.md").read_text(encoding="utf-8"),
    }
    parts["use"] = anywhere.snippet(reading, f'snapshot_download("{repository}")', base)
    parts["what_it_names"] = _what_it_names(run, generation) if (adapter / PROBE).exists() else ""
    judgements = pd.read_parquet(results / "judgements.parquet")
    card = model_card(training["settings"], evaluation["settings"], judgements, **parts)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        anywhere.write_files(adapter, folder, generation["recall_weight"], generation["max_new_tokens"])
        for name in ADAPTER_FILES:
            shutil.copyfile(adapter / name, folder / name)
        config = read_json(adapter / ADAPTER_FILES[1])
        named = {"base_model_name_or_path": anywhere.without_path(config["base_model_name_or_path"])}
        write_json(folder / ADAPTER_FILES[1], config | named)
        card.save(folder / "README.md")
        return push(repository, "model", folder, ["*"], training["data_label"])


def model_card(training: Mapping, evaluation: Mapping, judgements: pd.DataFrame, **parts: str) -> ModelCard:
    """The adapter's card: data, method, settings, base model, scores and their judge, limits, licence.

    training, evaluation: the settings of the two steps
    judgements: rows of `judgements.parquet`
    parts: `table`, what `table.md` holds of them; `data_label`; `use`, Python code that writes a report; and
        `what_it_names`, a section on the findings probe or ""
    """
    scores, base = summary(judgements), anywhere.without_path(training["base"])
    on_hub = REGISTRY[base].processor if base in REGISTRY else base if "/" in base else None
    head = {"language": "en", "license": "other", "library_name": "peft", "base_model": on_hub}
    head |= {"pipeline_tag": "image-text-to-text", "tags": ["lora", "radiology", "chest-x-ray"]}
    base_name = "the small demonstration model of the project" if base == DEMO_BASE else f"`{on_hub or base}`"
    regions, judge = ", ".join(REGIONS), one_judge(scores)
    settings = {f"{part} {name}": value for part in evaluation for name, value in evaluation[part].items()}
    parts |= {"training": _settings({**training, "base": base}), "evaluation": _settings(settings)}
    parts["method"] = METHOD.format(regions=regions, judge=judge)
    parts["limits"] = "\n".join(f"- {limit}" for limit in limits(scores, parts["data_label"]))
    text = CARD.format(**parts, judge=judge, base_name=base_name, regions=regions)
    return ModelCard(f"---\n{ModelCardData(**head).to_yaml()}\n---\n{text}")


def _what_it_names(run: Path, generation: Mapping) -> str:
    """The card's section on the probe of `run`, at the settings that the scored reports were written with."""
    names, weight = load(run / "adapter" / PROBE).names, generation["recall_weight"]
    files = (run / QUALITY, run / POINTS)
    seen, points = (pd.read_csv(path) if path.exists() else pd.DataFrame() for path in files)
    parts = [
        f"""
## What the reports name

A findings probe decides which findings a report names; the language model decides how to say it. The probe is
a logistic regression for each finding on what the base model's frozen vision tower sees, taught on the
training studies. It lies beside the adapter as `{PROBE}`, and it is **not a diagnosis**. It reads:
{", ".join(names) or "nothing, as too few training studies have any finding"}.
The scored reports were written at `recall_weight` {weight:g}: more names more findings, less names fewer."""
    ]
    if len(points):
        row = points.iloc[(points["recall_weight"] - weight).abs().argmin()]
        parts.append(
            f"At {row['recall_weight']:g} the probe names {row['right']:.0f} of the {row['present']:.0f} "
            f"findings that the reports of validation studies name, and {row['named']:.0f} in all."
        )
    if len(seen):
        aucs = ["not known" if pd.isna(auc) else f"{auc:.2f}" for auc in seen["auc"]]
        rows = zip(seen["finding"], seen["region"], seen["n"], seen["present"], aucs, strict=True)
        parts.append("\n" + grid(["finding", "region", "validation studies", "that have it", "AUC"], rows))
    elif names:
        parts.append("How well it ranks validation studies was not computed.")
    return "\n".join(parts)


def _settings(values: Mapping) -> str:
    # The address of a judge's server says nothing to others, and may hold what they should not know.
    rows = ((name.replace("_", " "), value) for name, value in values.items() if "url" not in name)
    return grid(["setting", "value"], rows)
