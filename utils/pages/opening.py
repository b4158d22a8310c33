"""What each notebook opens with: missing packages, a table on the runtime, the map of the four steps."""

import importlib
import platform
import shutil
import subprocess
import sys
import tomllib
from datetime import datetime
from html import escape
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from IPython.display import HTML, display

from utils.judge import green_score
from utils.run.machine import COLAB_DISK, DRIVE, INTERNET, gpus, in_colab, in_kaggle
from utils.run.progress import duration
from utils.run.workspace import STEPS, StepError, Workspace, open_workspace, status, versions
from utils.settings import TIMES, Preset, preset

from .page import html, table, tag

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements-colab.txt"
GREEN_SCORE = ROOT / "requirements-green-score.txt"
_A_GPU = {
    "Colab": "choose Runtime > Change runtime type > T4 GPU, then Runtime > Run all",
    "Kaggle": "choose Settings > Accelerator > GPU T4 x2, then Run all",
}


def begin(
    step: str, root: str = "", size: str = "", training_run: str = "default"
) -> tuple[Workspace, Preset]:
    """Install what is missing, open the workspace of a notebook, and show what it begins with.

    step: one of `STEPS`
    root, size, training_run: the fields WORKSPACE, PRESET and RUN, see `open_workspace`

    Returns the workspace and the settings of its size. Raises StepError where
    pip fails or steps are done at another size.
    """
    install_missing()
    workspace = open_workspace(root, size, training_run)
    chosen = preset(size or workspace.size)
    display(HTML(html(_found(workspace, chosen) + _steps(workspace, step))))
    return workspace, chosen


def install_missing(requirements: Path = REQUIREMENTS, *options: str) -> list[str]:
    """Install those of `requirements` that are not installed in any version, and return them.

    Installed packages do not change, so the runtime needs no restart. `options` are pip's.
    Raises StepError if pip fails.
    """
    lines = requirements.read_text(encoding="utf-8").splitlines()
    asked = [line for line in lines if line and not line.startswith("#")]
    missing = [line for line in asked if not _is_installed(line.split("==")[0])]
    if missing:
        print("Installing", " and ".join(missing))
        command = [sys.executable, "-m", "pip", "install", "--quiet", *options, *missing]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            advice = f"\n{INTERNET}" if in_kaggle() else ""
            raise StepError(f"pip could not install {' and '.join(missing)}: {done.stderr.strip()}{advice}")
        importlib.invalidate_caches()
    return missing


def take_green_score(requirements: Path = GREEN_SCORE) -> str:
    """Take the judge's prompt and parser from green-score, which is installed where it is missing.

    Without its dependencies, of which it pins versions that no Colab has. The sentence says whose prompt
    and parser are used, and why, where they are not the package's.
    """
    try:
        install_missing(requirements, "--no-deps", "--ignore-requires-python", "--retries", "1")
    except StepError as error:
        return f"{green_score.take()} {' '.join(str(error).split())}"
    return green_score.take()


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _found(workspace: Workspace, chosen: Preset) -> str:
    """A table of the runtime, the GPU, the size, and where results go.

    In Colab and on Kaggle also how to get a GPU where there is none, and how results outlast the session.
    """
    place = "Colab" if in_colab() else "Kaggle" if in_kaggle() else ""
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    size = [chosen.name]
    if all(state == "not done" for state in status(workspace).values()):
        size += [
            f"Here no step is done yet; {steps} done at size {other}. To go on with that, set PRESET to "
            f'"{other}" above and run all cells again.'
            for other, steps in _elsewhere(workspace).items()
        ]
    card, lost = [gpu() or "no GPU"], []
    if place and not gpu():
        so = "the demo runs instead" if chosen.name == "demo" else f"the size {chosen.name} does not run"
        card.append(f"To get one, {_A_GPU[place]}. Without a GPU, {so}.")
        if chosen.name == "demo":
            card.append('01 and 02 need none: for the full size, set PRESET to "t4" in every notebook.')
    if in_colab() and workspace.root.is_relative_to(COLAB_DISK) and not workspace.root.is_relative_to(DRIVE):
        lost = [("not on Drive", "Results are lost when this session ends.")]
    if in_kaggle():
        saved = "Only a saved version keeps results (Save Version > Save & Run All). In the next notebook, "
        lost = [("not saved yet", f"{saved}attach that version's output (Add Input).")]
    results = "".join(f"<br>{tag(what)} {escape(said)}" for what, said in lost)
    rows = (
        ("runtime", escape(f"{place or f'{platform.system()}, not Colab'} · {packages}")),
        ("GPU", escape(" ".join(card))),
        ("size", escape(". ".join(size))),
        ("results in", escape(str(workspace.root)) + results),
        ("disk", f"{_free_gib(workspace.data):,.0f} GiB free"),
    )
    return table(("", ""), rows)


def _elsewhere(workspace: Workspace) -> dict[str, str]:
    """By other size, which steps are done at it: `01, 02 are`."""
    found: dict[str, list[str]] = {}
    for step, name in STEPS.items():
        for size in workspace.other_sizes(step):
            found.setdefault(size, []).append(name[:2])
    return {size: f"{', '.join(steps)} {'is' if len(steps) == 1 else 'are'}" for size, steps in found.items()}


def gpu() -> str:
    """The GPUs' number, name and memory, "" where there is none."""
    import torch

    if not torch.cuda.is_available():
        return ""
    card = torch.cuda.get_device_properties(0)
    return f"{f'{gpus()} x ' if gpus() > 1 else ''}{card.name}, {card.total_memory / 2**30:.1f} GiB"


def _free_gib(folder: Path) -> float:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free / 2**30


class Step(NamedTuple):
    """What a reader should know of a step before running it."""

    title: str
    needs: str
    leaves: str
    t4: str  # by the plans, `training.plan` and `scores.plan`, for IU X-Ray and the preset's settings


ABOUT = {
    "regions": Step("Findings to regions", "nothing", "regions/", "seconds offline, without a GPU"),
    "dataset": Step("Studies to a dataset", "01", "dataset/", "not measured; needs no GPU"),
    "training": Step("Fine-tuning", "02", "training/<run>/", "2.2 h (1.4 to 3.6), computed"),
    "evaluation": Step("Reports and their scores", "03", "evaluation/<run>/", "2.3 h (1.7 to 3.8), computed"),
}


def overview(workspace: Workspace, here: str) -> HTML:
    """The four steps with the one that this notebook is, what is done, and links to the others.

    Raises ValueError where `here` is none of `STEPS`.
    """
    return HTML(html(f"{_steps(workspace, here)}<small>results in {escape(str(workspace.root))}</small>"))


def _steps(workspace: Workspace, here: str) -> str:
    if here not in STEPS:
        raise ValueError(f"no step called {here!r}: steps are {', '.join(STEPS)}")
    manifests = {each: workspace.manifest(each) for each in STEPS}
    items = "".join(
        f"<li{' class=here aria-current=step' if step == here else ''}>"
        f"<small>step {STEPS[step][:2]}{' · you are here' if step == here else ''}</small>"
        f"<b>{_title(step, here)}</b><small>{_done(manifests[step])}</small>"
        f"<small>needs {about.needs} · leaves {escape(about.leaves)}</small>"
        f"<small>{'' if manifests[step] else _on_two_cores(step)}full size, T4: {about.t4}</small></li>"
        for step, about in ABOUT.items()
    )
    return f'<ol class="steps">{items}</ol>'


def _title(step: str, here: str) -> str:
    link = _link(STEPS[step])
    return ABOUT[step].title if step == here or not link else f"<a {link}>{ABOUT[step].title}</a>"


def _link(notebook: str) -> str:
    """In Colab and on Kaggle no notebook lies beside this one: others open from the public address."""
    if not (in_colab() or in_kaggle()):
        return f'href="{notebook}.ipynb"'
    public, there = public_address(), kaggle_link if in_kaggle() else colab_link
    return f'href="{there(public, notebook)}" target="_blank"' if public else ""


def public_address() -> str:
    """The project's address, noted in `pyproject.toml`; "" while there is none."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"]


def colab_link(address: str, notebook: str) -> str:
    """Where Colab opens `notebook`, such as "01_region_split", of the project at `address`."""
    repository = address.removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{notebook}.ipynb"


def kaggle_link(address: str, notebook: str) -> str:
    """Where Kaggle makes a notebook of its own from `notebook`, of the project at `address`."""
    return f"https://kaggle.com/kernels/welcome?src={address}/blob/main/notebooks/{notebook}.ipynb"


def _on_two_cores(step: str) -> str:
    """What the small sizes are likely to take, as long as the step has not shown what it takes."""
    times = ", ".join(f"{name} about {of[step]}" for name, of in TIMES.items())
    return f"two CPU cores: {times} · "


def _done(manifest: dict | None) -> str:
    """When a step was finished, and how long it took in its last session."""
    if not manifest:
        return "○ not done"
    moment = datetime.fromisoformat(manifest["finished"])
    took = f" · took {duration(manifest['seconds'])}" if "seconds" in manifest else ""
    return f"✓ finished {moment:%d %b %Y, %H:%M} UTC{took}"
