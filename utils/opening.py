"""What a notebook opens with: the packages that the runtime lacks, and one line on what was found."""

import importlib
import platform
import shutil
import subprocess
import sys
from html import escape
from importlib import metadata
from pathlib import Path

from IPython.display import HTML

from utils.page import html, tag
from utils.settings import Preset
from utils.workspace import COLAB_DISK, DRIVE, STEPS, StepError, Workspace, in_colab, status, versions

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements-colab.txt"
_A_GPU = "choose Runtime > Change runtime type > T4 GPU, then Runtime > Run all"


def install_missing(requirements: Path = REQUIREMENTS) -> list[str]:
    """Install those of `requirements` that are not installed in any version, and return them.

    What is there already stays as it is, so the runtime need not be restarted.
    Raises StepError where pip fails.
    """
    lines = requirements.read_text(encoding="utf-8").splitlines()
    asked = [line for line in lines if line and not line.startswith("#")]
    missing = [line for line in asked if not _is_installed(line.split("==")[0])]
    if missing:
        print("Installing", " and ".join(missing))
        command = [sys.executable, "-m", "pip", "install", "--quiet", *missing]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise StepError(f"pip could not install {' and '.join(missing)}: {done.stderr.strip()}")
        importlib.invalidate_caches()
    return missing


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def found(workspace: Workspace, preset: Preset) -> HTML:
    """In one line: runtime, GPU, free disk, size, where results go, which steps are done, and versions.

    Below it, in Colab, how to get a GPU where there is none, and that results
    go with the session where Drive is not mounted.
    """
    done = [STEPS[step][:2] for step, state in status(workspace).items() if state != "not done"]
    facts = (
        "Colab" if in_colab() else f"{platform.system()}, not Colab",
        gpu() or "no GPU",
        f"{_free_gib(workspace.data):,.0f} GiB of disk free",
        f"size {preset.name}",
        f"results in {workspace.root}",
        f"done: {', '.join(done) or 'no step yet'}",
        ", ".join(f"{name} {version}" for name, version in versions().items()),
    )
    lines = [escape(" · ".join(facts))]
    if in_colab() and not gpu():
        so = "this goes on as the demo" if preset.name == "demo" else f"{preset.name} needs one"
        lines.append(f"{tag('no GPU')} {escape(f'To get one, {_A_GPU}; without, {so}.')}")
    if in_colab() and workspace.root.is_relative_to(COLAB_DISK) and not workspace.root.is_relative_to(DRIVE):
        lines.append(f"{tag('not on Drive')} Results go when this session ends.")
    return HTML(html("<br>".join(lines)))


def gpu() -> str:
    """The GPU's name and memory, "" where there is none."""
    import torch

    if not torch.cuda.is_available():
        return ""
    card = torch.cuda.get_device_properties(0)
    return f"{card.name}, {card.total_memory / 2**30:.1f} GiB"


def _free_gib(folder: Path) -> float:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free / 2**30
