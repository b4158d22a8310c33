"""Phantom chest radiographs: drawn, not patients, with findings that are true of the picture.

`draw` makes one study in memory, `stream` as many as wanted, `write` a whole set on disk in the layout that
IU X-Ray's quiz archive has. Everything follows from the seed: a set is the same in any number of processes.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from utils.run.disk import read_note, replacing, write_json

from .anatomy import Frontal, Lateral
from .studies import SPLITS
from .wording import Attributes, concise, original, report, sample

VERSION = 2  # of the drawing and the wording; a set on disk of another version is not the same set
WHAT = "phantom radiographs: drawn, not patients"
DEMO_SET = {"train": 640, "val": 80, "test": 160, "seed": 2024}
FRONTAL_ONLY = 0.1  # of the studies
LEAST_SIZE = 64  # pixels a side, below which nothing can be seen


class PhantomError(ValueError):
    """A set of phantoms that cannot be written, in one sentence."""


@dataclass(frozen=True)
class Phantom:
    """One study: what is drawn, its findings by region, and its views, frontal first (PIL, mode L)."""

    attributes: Attributes
    findings: dict[str, str]
    original: str
    views: list[Image.Image]


def draw(seed: int | Sequence[int], size: int = 256) -> Phantom:
    """The phantom of `seed`, its views `size` pixels a side."""
    # One generator each, so that a change of the wording leaves the pictures as they are.
    finds, words, lines = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(3))
    attributes = sample(finds)
    texts = report(attributes, words)
    findings = {region: concise(text) for region, text in texts.items()}
    text = original(attributes, texts, words)
    shown = (Frontal,) if finds.random() < FRONTAL_ONLY else (Frontal, Lateral)
    return Phantom(attributes, findings, text, [view(attributes, lines, size).view() for view in shown])


def stream(seed: int, n: int, size: int = 256) -> Iterator[Phantom]:
    """`n` phantoms for pretraining, none of which `write` puts on disk for any seed."""
    return (draw((seed, len(SPLITS), index), size) for index in range(n))


def write(
    folder: Path,
    train: int,
    val: int,
    test: int,
    seed: int,
    size: int = 256,
    processes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """A set of phantom studies in `folder`, which appears only when it is whole.

    Holds `annotation.json` and `images/<id>/0.png` (frontal), `1.png` (lateral), in the quiz archive's
    layout; `truth.json`, each study's attributes by id; and `phantoms.json`, what the set was made with. The
    same set is left as it is. `progress` is called with the studies done and their number. Raises
    PhantomError where `folder` holds anything else.
    """
    folder, counts = Path(folder), {"train": train, "val": val, "test": test}
    if min(counts.values()) < 0 or size < LEAST_SIZE:
        raise PhantomError(f"a split has at least 0 studies, and a view at least {LEAST_SIZE} pixels a side")
    made_with = {"label": WHAT, "version": VERSION, "seed": seed, "size": size, **counts}
    if _holds(folder, made_with):
        return folder
    studies = [(split, index) for split in SPLITS for index in range(counts[split])]
    jobs = [(f"PHANTOM{k:04}", split, index) for k, (split, index) in enumerate(studies, start=1)]
    annotation, truth = {split: [] for split in SPLITS}, {}
    # Spawned, not forked: the caller may hold threads, and forking those can hang.
    spawn = multiprocessing.get_context("spawn")
    with replacing(folder) as room:
        with ProcessPoolExecutor(processes or os.cpu_count(), mp_context=spawn) as pool:
            done = pool.map(partial(_write_study, room / "images", seed, size), jobs, chunksize=8)
            for number, (entry, attributes) in enumerate(done, start=1):
                annotation[entry["split"]].append(entry)
                truth[entry["id"]] = attributes
                progress(number, len(jobs))
        for name, content in {"annotation": annotation, "truth": truth, "phantoms": made_with}.items():
            write_json(room / f"{name}.json", content)
    return folder


def _holds(folder: Path, made_with: dict) -> bool:
    """Whether `folder` holds that set already; raises PhantomError if it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    advice = "name a new folder or delete this one"
    if not (held := read_note(folder / "phantoms.json")):
        raise PhantomError(f"{folder} is not a finished set of phantoms: {advice}")
    if held != made_with:
        raise PhantomError(f"{folder} contains another set of phantoms ({held}): {advice}")
    return True


def _write_study(images: Path, seed: int, size: int, job: tuple[str, str, int]) -> tuple[dict, dict]:
    """Draws and saves one study; its entry in the annotation and its attributes."""
    name, split, index = job
    phantom = draw((seed, SPLITS.index(split), index), size)
    (images / name).mkdir(parents=True)
    for k, view in enumerate(phantom.views):
        view.save(images / name / f"{k}.png")
    text = {"original_report": phantom.original} if split == "val" else {"report": phantom.findings}
    return {"id": name, **text, "split": split}, asdict(phantom.attributes)
