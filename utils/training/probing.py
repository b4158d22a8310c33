"""The findings probe of a run, and its plans in the headings of the training reports.

A finding that few studies have is never the likeliest next word, so a model that is taught reports alone
leaves it out. So a heading names the findings that its text names, `lung (effusion): ...`: in training those
of the reference, when a report is written those that the probe reads in the pictures.
"""

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from datasets import Dataset, DatasetDict

from utils.data.hf_dataset import MESSAGES
from utils.findings import probe as probes
from utils.findings.groups import named
from utils.findings.plans import Words, words_of
from utils.findings.probe import Probe
from utils.findings.sentences import sentences
from utils.models.features import FOLDER, Kept, Tower, room, study_features
from utils.models.loading import PROBE, load_processor
from utils.regions import REGIONS, mentioned, render
from utils.run.disk import write_text
from utils.settings import TrainingSettings

# In a run's folder, of the probe on validation: how well it ranks, and what each recall weight names.
QUALITY, POINTS = "probe.csv", "operating_points.csv"


def run_probe(
    settings: TrainingSettings, dataset: DatasetDict, folder: Path, scratch: Path | None = None
) -> Probe:
    """The probe of the run in `folder`, on the vision tower of its base model; made once, and kept there.
    Training studies teach it; validation studies, where there are any, calibrate it and set its threshold.

    scratch: where what the tower sees is kept for training, see `kept_patches`; nothing is without it
    """
    tower, splits = tower_of(settings), _splits(dataset)
    known = {name: findings(studies) for name, studies in splits.items()}
    digest = hashlib.sha256(tower.fingerprint.encode())
    for name, studies in known.items():
        digest.update(repr([list(dataset[name]["id"]), studies]).encode())
    path, made_of = folder / PROBE, digest.hexdigest()
    if path.exists() and (kept := probes.load(path)).made_of == made_of:
        return kept
    patches = room(settings, splits, scratch) if scratch else None
    seen_in = partial(study_features, tower, kept=folder / FOLDER, patches=patches)
    seen = {name: seen_in(studies, name) for name, studies in splits.items()}
    tower.close()
    held_out = (seen["val"], known["val"]) if "val" in known else None
    probe = probes.fit(seen["train"], known["train"], held_out, made_of)
    probe.save(path)
    return probe


def kept_patches(settings: TrainingSettings, dataset: DatasetDict, scratch: Path) -> Kept | None:
    """What the tower sees in training and validation studies; None where `features.room` has none."""
    splits = _splits(dataset)
    if (folder := room(settings, splits, scratch)) is None:
        return None
    tower = tower_of(settings)
    kept = Kept(tower, splits, folder)
    tower.close()
    return kept


class Seen(NamedTuple):
    """How well a probe sees validation studies: `probe.quality` and `probe.operating_points` of them."""

    quality: pd.DataFrame
    points: pd.DataFrame


def on_validation(probe: Probe, settings: TrainingSettings, dataset: DatasetDict, folder: Path) -> Seen:
    """What the probe of the run in `folder` sees on validation; both tables are kept there, too, and empty
    without a validation split or without findings."""
    split = dataset["val"] if "val" in dataset else dataset["train"].select([])
    features, known = np.zeros((0, probe.weight.shape[1])), findings(split)
    if len(split):
        features = study_features(tower_of(settings), split, "val", folder / FOLDER)
    seen = Seen(probes.quality(probe, features, known), probes.operating_points(probe, features, known))
    for name, table in ((QUALITY, seen.quality), (POINTS, seen.points)):
        write_text(folder / name, table.to_csv(index=False))
    return seen


def tower_of(settings: TrainingSettings) -> Tower:
    """The vision tower that a run with these settings sees with."""
    processor = load_processor(settings.base, settings.image_tokens)
    return Tower(settings.base, settings.precision, settings.views, processor)


def _splits(dataset: DatasetDict) -> dict[str, Dataset]:
    return {name: dataset[name] for name in ("train", "val") if name in dataset}


def findings(split: Dataset) -> list[dict[str, str]]:
    """The findings by region that each study of `split` mentions."""
    return [mentioned(study) for study in split.select_columns(list(REGIONS))]


def words(probe: Probe, train: Dataset) -> Words:
    """What the headings of training reports say: what the probe can say of radiographs, and no more."""
    every = words_of(findings(train), probe.groups)
    return Words(every.groups, {region: every.denied[region] for region in probe.normal})


def lead(text: str, region: str, names: Iterable[str]) -> str:
    """`text` of `region`, the sentences first, near to the heading, that name any of the findings `names`."""
    wanted = set(names)
    return " ".join(sorted(sentences(text), key=lambda sentence: not wanted & named(sentence, region)))


def planned(rows: Dataset, words: Words) -> Dataset:
    """`rows` with completions whose headings say what the text says, in `words`; see `lead`."""
    answers = []
    for study in findings(rows):
        plan = words.plan(study)
        texts = {region: lead(text, region, plan[region]) for region, text in study.items()}
        answers.append([{"role": "assistant", "content": render(texts, plan)}])
    return rows.remove_columns("completion").add_column("completion", answers, feature=MESSAGES)
