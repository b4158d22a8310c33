"""Where a run lives: its folder, what each step leaves there, and the machine it runs on.

A run is one folder with one folder per step. A step's last act is to write its `manifest.json`: settings,
versions, and a hash of every file that the next step reads. A step without a manifest is not finished.
"""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .disk import catch_up_below, file_hash, make_folder, patiently, read_json, replacing, write_json
from .machine import CLOCK, DRIVE, PRESETS, attached, default_preset, runs, session_disk

STEPS = {
    "regions": "01_region_split",
    "dataset": "02_build_hf_dataset",
    "training": "03_qlora_finetune_T4",
    "evaluation": "04_generate_and_green",
}
_PACKAGES = "torch transformers peft bitsandbytes trl datasets accelerate openai scikit-learn ipywidgets"
SIZE = "size.json"  # in a workspace: the size that it is used at
COMMANDS = {"demo": "make demo", "small": "make collection"}  # that run all steps at a preset


class StepError(RuntimeError):
    """A step cannot start; the message says why and which notebook to run."""


@dataclass(frozen=True)
class Workspace:
    """One run's folder. `training_run` names the fine-tuning whose adapter is used."""

    root: Path
    training_run: str = "default"

    def folder(self, step: str) -> Path:
        """The folder of `step`, one of `STEPS`."""
        if step in ("training", "evaluation"):
            return self.root / step / self.training_run
        return self.root / step

    @property
    def noted_size(self) -> str:
        """The size that this workspace remembers, or is named after; "" where neither tells."""
        try:
            return read_json(self.root / SIZE)["size"]
        except FileNotFoundError:
            return self.root.name if self.root.name in PRESETS else ""

    @property
    def size(self) -> str:
        """The workspace's size, `t4`, `small` or `demo`: the one it remembers, else that of this machine."""
        return self.noted_size or default_preset()

    @property
    def data(self) -> Path:
        """Where studies are downloaded or drawn; the session's disk where there is one: many files are slow
        on Drive, and too many for a saved version."""
        disk = session_disk()
        return disk / "xray_data" / self.root.name if disk else self.root / "data"

    @property
    def scratch(self) -> Path:
        """Where checkpoints are written before they are kept; the session's disk where there is one."""
        if disk := session_disk():
            return disk / "xray_scratch" / self.root.name / self.training_run
        return self.folder("training") / "scratch"

    def finish(
        self, step: str, *, settings: dict, inputs: Iterable[Path] = (), outputs: Iterable[Path], **facts
    ) -> Path:
        """Write the manifest of `step`: its settings, versions, and the hashes of what it read and left.

        `inputs` and `outputs` are files or folders, which stand for every file in them; `facts` are for the
        next reader. Raises FileNotFoundError where one is not there, and DiskError where the disk is away or
        full.
        """
        folder, inputs, outputs = self.folder(step), list(inputs), list(outputs)
        catch_up_below(folder)
        for path in (*inputs, *outputs):
            if not path.exists():
                raise FileNotFoundError(f"Step '{step}' cannot be finished: {path} does not exist.")
        manifest = {
            "step": step,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(CLOCK.seconds()),  # of this session, without the pauses between its cells
            "settings": settings,
            **facts,
            "versions": versions(),
            "inputs": self._hashes(inputs),
            "outputs": self._hashes(outputs),
        }
        return write_json(self._manifest(step), manifest)

    def require(self, step: str) -> dict:
        """The manifest of a finished `step`. Raises StepError, naming the notebook to run, where it is not
        finished or a file that it left has changed."""
        manifest, notebook = self.manifest(step), f"run notebooks/{STEPS[step]}.ipynb first"
        if manifest is None:
            state = "was not finished" if self.folder(step).exists() else "is missing"
            for size in self.other_sizes(step):
                notebook += f'; at size {size} it is done: to go on with that, set PRESET to "{size}"'
            raise StepError(f"Step '{step}' {state} in {self.root}: {notebook}.")
        for name, state in self._unlike(manifest["outputs"]):
            raise StepError(f"Step '{step}' left {name}, which {state}: {notebook}.")
        return manifest

    def other_sizes(self, step: str) -> list[str]:
        """The other sizes at which `step` is done, beside this workspace or in what is attached on Kaggle."""

        def is_done(size: str) -> bool:
            roots = self.root.with_name(size), *attached(size)
            return any(Workspace(root, self.training_run)._manifest(step).exists() for root in roots)

        own = self.root.name
        return [size for size in PRESETS if own in PRESETS and size != own and is_done(size)]

    def _manifest(self, step: str) -> Path:
        return self.folder(step) / "manifest.json"

    def manifest(self, step: str) -> dict | None:
        """The manifest of `step`, or None where the step is not finished."""
        try:
            manifest = read_json(self._manifest(step))
        except FileNotFoundError:
            return None
        except ValueError:  # neither JSON nor, at times, text
            manifest = None
        if not isinstance(manifest, dict) or not {"settings", "inputs", "outputs"} <= manifest.keys():
            path = self._manifest(step)
            raise StepError(f"{path} is damaged: delete it and run notebooks/{STEPS[step]}.ipynb.")
        return manifest

    def is_current(self, step: str) -> bool:
        """Whether `step` is finished and every file of the run that it read or left is as it was."""
        manifest = self.manifest(step)
        return bool(manifest) and not any(self._unlike(manifest["inputs"] | manifest["outputs"]))

    def _unlike(self, hashes: dict[str, str]) -> Iterator[tuple[str, str]]:
        """Those of the files in `hashes` that are not as they were, each with what happened to it."""
        for name, digest in hashes.items():
            if not (self.root / name).is_file():
                yield name, f"is missing from {self.root}"
            elif file_hash(self.root / name) != digest:
                yield name, "has changed since"

    def _hashes(self, paths: Iterable[Path]) -> dict[str, str]:
        hashes = {}
        for path in map(Path.resolve, paths):
            # Runs move between machines: a path outside the run is named without its parents.
            base = self.root.resolve() if path.is_relative_to(self.root.resolve()) else path.parent
            for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                # A manifest is written after what it lists: a folder's hashes leave it out.
                if file.is_file() and (file == path or file.name != "manifest.json"):
                    hashes[file.relative_to(base).as_posix()] = file_hash(file)
        return hashes


def open_workspace(root: str | Path = "", preset: str = "", training_run: str = "default") -> Workspace:
    """The workspace at `root`, made if it is not there, which remembers its size.

    Without a root it is `xray_reports/<preset>` in Colab, on Google Drive where that is mounted and else on
    the session's disk, and among the output on Kaggle; elsewhere `runs/<preset>` beside the notebooks. On
    Kaggle a new one starts with what an attached version holds of it. Without a preset it is the workspace's
    own, and that of this machine for a new one.

    Raises StepError where steps are done at another size, or the dataset could not be read from the folder.
    """
    if not root:
        folder = patiently(runs, DRIVE) or Path(__file__).resolve().parents[2] / "runs"
        root = folder / (preset or default_preset())
        if not any(path.is_file() and path.name != SIZE for path in root.rglob("*")):
            _from_attached(Workspace(root, training_run))
    root = Path(root).expanduser()
    if "::" in (path := str(root.absolute())) or os.path.expandvars(path) != path:
        raise StepError(f"The library datasets cannot read the folder {root}: choose one without :: and $.")
    make_folder(root)
    workspace = Workspace(root, training_run)
    noted, begun = workspace.noted_size, any((root / step).exists() for step in STEPS)
    size = preset or workspace.size
    if size not in PRESETS:
        raise StepError(f"There is no size called {size!r}: set PRESET to one of {', '.join(PRESETS)}.")
    if noted not in ("", size) and any(workspace.manifest(step) for step in STEPS):
        raise StepError(
            f'{root} holds the series at size {noted}: set PRESET to "{noted}" to go on with it, or set '
            f"WORKSPACE to another folder for {size}."
        )
    is_known = preset or noted or not begun  # of a folder of an earlier version the machine tells nothing
    if is_known and not (noted == size and (root / SIZE).exists()) and os.access(root, os.W_OK):
        write_json(root / SIZE, {"size": size})
    return workspace


def _from_attached(workspace: Workspace) -> None:
    """Copy the run out of the output of a saved version that is attached: of several, the latest one."""

    def how_far(root: Path) -> tuple[str, int]:
        """When its latest step was finished, and how many files it has: an unfinished one has some, too."""
        states = status(Workspace(root, workspace.training_run)).values()
        return max(state.removeprefix("not done") for state in states), sum(1 for _ in root.rglob("*"))

    if roots := attached(workspace.root.name):
        latest = max(roots, key=how_far)
        print(f"Copying the results of the attached version, {latest}, to {workspace.root}.")
        with replacing(workspace.root) as copy:
            shutil.copytree(latest, copy, dirs_exist_ok=True)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a result."""
    installed = {"python": platform.python_version()}
    for name in _PACKAGES.split():
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def status(workspace: Workspace) -> dict[str, str]:
    """For each step: when it was finished, or that it was not."""
    manifests = {step: workspace.manifest(step) for step in STEPS}
    return {step: f"finished {each['finished']}" if each else "not done" for step, each in manifests.items()}
