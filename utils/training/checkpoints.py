"""Checkpoints that can be trusted: sealed, copied to where the run is kept, verified, and few.

The trainer writes one to a local folder, where it is sealed (`complete.json` holds a hash of every file),
then copied to the run's folder under a temporary name, verified, and renamed. That folder may be on Google
Drive, slow and full; the local one is lost with the session.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
from datasets import Dataset

from utils.findings.counts import MICRO, count
from utils.models.writer import Writer
from utils.regions import REGIONS, parse
from utils.run.disk import discard, file_hash, listed, patiently, read_json, reason_of, write_json
from utils.run.progress import progress
from utils.run.workspace import StepError

SEAL = "complete.json"
MOST_TOKENS = 200  # of a report by which a checkpoint is chosen


class Store:
    """The checkpoints of one run: those kept in `kept`, and those in `local` that are not there yet."""

    def __init__(self, kept: Path, local: Path, keep: int):
        self.kept, self.local, self.keep = kept, local, keep
        self.trouble = ""  # why the last copy failed

    def add(self, step: int, log_history: list[dict]) -> None:
        """Seal the checkpoint that was written at `step`, keep it, and any that could not be kept before."""
        seal(self.local / f"checkpoint-{step}")
        self.catch_up(log_history)
        prune(self.local, self.keep, log_history)

    def catch_up(self, log_history: list[dict]) -> None:
        """Keep the checkpoints that wait in `local`; those that cannot be copied stay, which is said once."""
        try:
            if self.trouble:  # was waited for already
                self._copy(log_history)
                print(f"Checkpoints are copied to {self.kept} again.")
            else:
                patiently(lambda: self._copy(log_history), self.kept)
            self.trouble = ""
        except OSError as error:
            reason = reason_of(error)
            if reason != self.trouble:
                waiting = ", ".join(path.name for path in self.behind())
                start = f"{waiting} could not be copied to" if waiting else "An old checkpoint stays in"
                print(
                    f"{start} {self.kept} ({reason}). What is not there stays in {self.local}, and training "
                    "continues. Free some space, or mount the disk again: the next checkpoint takes it along."
                )
            self.trouble = reason

    def behind(self) -> list[Path]:
        """The whole checkpoints that are not in `kept` yet, oldest first."""
        return list(filter(is_sealed, _checkpoints(self.local)))

    def _copy(self, log_history: list[dict]) -> None:
        self.kept.parent.stat()  # where Drive is no longer mounted, a folder would be made in its place
        self.kept.mkdir(exist_ok=True)
        try:
            for path in self.behind():
                _move(path, self.kept / path.name)
        finally:  # also makes room
            prune(self.kept, self.keep, log_history)

    def newest(self) -> tuple[Path | None, list[Path]]:
        """The newest whole checkpoint, and the damaged ones newer than it."""
        damaged = []
        for path, is_whole in self._checked(reverse=True):
            if is_whole:
                return path, damaged
            damaged.append(path)
        return None, damaged

    def whole(self) -> list[Path]:
        """All whole checkpoints, oldest first."""
        return [path for path, is_whole in self._checked() if is_whole]

    def _checked(self, reverse: bool = False) -> Iterator[tuple[Path, bool]]:
        """The checkpoints in the order of their steps, and whether each is whole."""
        kept = patiently(lambda: _checkpoints(self.kept), self.kept)
        for path in sorted([*kept, *_checkpoints(self.local)], key=step_of, reverse=reverse):
            yield path, patiently(lambda path=path: is_sealed(path), path)

    def resume_from(self) -> Path | None:
        """The newest whole checkpoint; damaged ones are named and deleted, unfinished copies deleted."""
        newest, damaged = self.newest()
        for path in damaged:
            print(f"{path.name} is incomplete or damaged. It is skipped and deleted.")
            discard(path)
        for part in listed(self.kept):
            if part.match(".checkpoint-*.part"):
                discard(part)
        return newest


def seal(checkpoint: Path) -> None:
    """Write the seal of a checkpoint: a hash of each of its files."""
    paths = [path for path in sorted(checkpoint.iterdir()) if path.is_file() and path.name != SEAL]
    write_json(checkpoint / SEAL, {path.name: file_hash(path) for path in paths})


def is_sealed(checkpoint: Path) -> bool:
    """Whether `checkpoint` is whole: its seal is there and every file is as it was sealed. Raises OSError
    where that cannot be read now."""
    try:
        files = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
        return bool(files) and all(file_hash(checkpoint / name) == digest for name, digest in files.items())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return False


def prune(folder: Path, keep: int, log_history: list[dict]) -> None:
    """Delete all checkpoints but the newest `keep` and the one with the lowest evaluation loss."""
    paths = _checkpoints(folder)
    best = best_step(log_history, set(map(step_of, paths)))
    for path in paths[:-keep]:
        if step_of(path) != best:
            discard(path)


def losses(log_history: list[dict]) -> dict[int, float]:
    """By step, the evaluation loss in the trainer's log."""
    return {entry["step"]: entry["eval_loss"] for entry in log_history if "eval_loss" in entry}


def best_step(log_history: list[dict], steps: set[int]) -> int | None:
    """Of the checkpoints at `steps`, the one with the lowest evaluation loss; None where none has one."""
    known = {step: loss for step, loss in losses(log_history).items() if step in steps}
    return min(known, key=known.get, default=None)


def step_of(checkpoint: Path) -> int:
    """The optimiser step at which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def same_settings_or_stop(settings: dict, path: Path, free: set[str]) -> None:
    """Note a run's `settings` in `path`, or raise StepError with the difference to those noted there, but
    for those called `free`, which do not change what is learnt."""
    if path.exists():
        theirs = read_json(path)
        changed = [
            f"{name}: {theirs.get(name)} → {settings.get(name)}"
            for name in {**theirs, **settings}
            if name not in free and theirs.get(name) != settings.get(name)
        ]
        if changed:
            raise StepError(
                f"{path.parent} holds a run with other settings ({'; '.join(changed)}). "
                "Restore them to continue that run, or choose another name for this run."
            )
    write_json(path, settings)


def _move(path: Path, target: Path) -> None:
    """Copy a checkpoint under a temporary name, verify it, rename it, and only then delete the first."""
    part = target.with_name(f".{target.name}.part")
    try:
        discard(part)
        shutil.copytree(path, part)
        if not is_sealed(part):
            raise OSError(0, "the copy differs from the original")
        discard(target)  # of an earlier try that was found damaged
        part.replace(target)
    except OSError:
        with suppress(OSError):  # what is left of it is deleted before the next try
            discard(part)
        raise
    discard(path)


def _checkpoints(folder: Path) -> list[Path]:
    return sorted((path for path in listed(folder) if path.match("checkpoint-*")), key=step_of)


def choose(
    by: str, checkpoints: list[Path], log_history: list[dict], validation: Dataset | None
) -> tuple[Path, pd.DataFrame]:
    """The chosen one of `checkpoints` (oldest first), and a table of what it was chosen on.

    `by` is loss, findings or last. The table has a row for each of `checkpoints` and each step with an
    evaluation loss: step, eval_loss, kept, micro_f1 (see `by_findings`), chosen. The last is chosen
    without `validation`, where no evaluation loss was taken at a checkpoint, and among equals in findings.
    """
    known, kept = losses(log_history), {step_of(path): path for path in checkpoints}
    table, best = pd.DataFrame({"step": sorted({*kept, *known})}), max(kept)
    table["eval_loss"], table["kept"] = table["step"].map(known), table["step"].isin(kept)
    if by == "findings" and validation:
        table.loc[table["kept"], "micro_f1"] = by_findings(checkpoints, validation)
        best = table["step"][table["micro_f1"] == table["micro_f1"].max()].max()
    elif by == "loss" and (lowest := best_step(log_history, set(kept))) is not None:
        best = lowest
    table["chosen"] = table["step"] == best
    return kept[best], table


def by_findings(checkpoints: list[Path], validation: Dataset) -> list[float]:
    """Each checkpoint's micro-F1 on `validation` of the findings that its reports name by themselves; 0 where
    no study has any that is counted."""
    scores, writer = [], None
    references = [study[region] for study in validation.select_columns([*REGIONS]) for region in REGIONS]
    places = pd.MultiIndex.from_product([range(len(validation)), REGIONS], names=["id", "region"])
    for path in checkpoints:
        writer = Writer(path) if writer is None else writer.take(path)
        plans = writer.plans(writer.features(validation, "validation"))
        written = writer.stream(validation["images"], MOST_TOKENS, plans=plans)
        texts = dict(progress(written, f"{path.name}: reports to choose by", len(validation)))
        reports = [parse(texts[number]) for number in range(len(validation))]
        rows = places.to_frame(index=False).assign(system=path.name, split="val", reference=references)
        rows["prediction"] = [report.get(region, "") for report in reports for region in REGIONS]
        counted = count(rows, writer.probe.groups if writer.probe else (), resamples=1)
        scores.append(float(counted["f1"][counted["finding"] == MICRO].fillna(0).sum()))
    return scores
