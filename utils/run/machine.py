"""The machine that this runs on: Colab, Kaggle or elsewhere, its secrets, its GPUs, and its clock."""

import argparse
import os
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

COLAB_DISK = Path("/content")  # goes with the session
DRIVE = COLAB_DISK / "drive" / "MyDrive"  # there once the notebook has mounted it
KAGGLE_OUTPUT = Path("/kaggle/working")  # kept by a saved version, up to 20 GB
KAGGLE_INPUT = Path("/kaggle/input")  # read only: what is attached, such as an earlier version's output
KAGGLE_DISK = Path("/kaggle/temp")  # goes with the session
PRESETS = ("t4", "small", "demo")  # the sizes of a run; see `settings`
RUNS = "xray_reports"  # in Colab and on Kaggle: the folder of all runs
# Weights in 4 bits, as bitsandbytes takes them: NF4, the scales quantised again.
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
INTERNET = "On Kaggle, switch the internet on (Settings > Turn on internet), then run again."


def in_kaggle() -> bool:
    """Whether this runs in a Kaggle notebook."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def in_colab() -> bool:
    """Whether this runs in Google Colab."""
    return "COLAB_RELEASE_TAG" in os.environ and not in_kaggle()  # Kaggle's image is made from Colab's


def runs() -> Path | None:
    """The folder of all runs: in Colab on Drive where that is mounted, on Kaggle in the output; else None.

    Raises OSError where Drive is mounted and away: another folder would be taken for a new series.
    """
    if not in_colab():
        return KAGGLE_OUTPUT / RUNS if in_kaggle() else None
    try:
        DRIVE.stat()  # `exists` in newer versions of Python also says no where the disk is away
    except FileNotFoundError:
        return COLAB_DISK / RUNS
    return DRIVE / RUNS


def attached(run: str) -> list[Path]:
    """The folders of `run` in the outputs of saved versions that are attached on Kaggle."""
    # Kaggle mounts an output in notebooks/<user>/<notebook>, and once did in <notebook>.
    depths = ("*", "*/*/*") if in_kaggle() else ()
    return [folder for depth in depths for folder in KAGGLE_INPUT.glob(f"{depth}/{RUNS}/{run}")]


def session_disk() -> Path | None:
    """The disk that goes with the session, in Colab and on Kaggle; None elsewhere."""
    return COLAB_DISK if in_colab() else KAGGLE_DISK if in_kaggle() else None


def secret(name: str) -> str | None:
    """A secret from the environment, or from Colab's or Kaggle's secrets; None where none gives it. Raises
    ConnectionError, with what to do, where Kaggle's secrets cannot be reached."""
    if os.environ.get(name):
        return os.environ[name]
    if in_kaggle():
        from kaggle_secrets import BackendError, CredentialError, UserSecretsClient

        try:
            return UserSecretsClient().get_secret(name)
        except CredentialError:
            return None  # a session that was given no access to secrets
        except BackendError as error:
            if "No user secrets exist" in str(error):  # or it is not attached to this notebook
                return None
            raise
        except ConnectionError as error:
            raise ConnectionError(f"The secret {name} could not be read. {INTERNET}") from error
    if in_colab():
        from google.colab import userdata

        # The last of these: Colab without its own page, as from an editor or the command line.
        with suppress(userdata.SecretNotFoundError, userdata.NotebookAccessError, userdata.TimeoutException):
            return userdata.get(name)
    return None


def device() -> str:
    """`cuda` where there is an NVIDIA GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def default_preset() -> str:
    """The preset for this machine: `t4` with a GPU and `demo` without."""
    return "t4" if device() == "cuda" else "demo"


@dataclass(frozen=True)
class Card:
    """A GPU as the plans see it; what is None is not known."""

    name: str
    memory: float  # GiB, as torch gives it
    bf16: bool
    bandwidth: float | None = None  # bytes per second
    peak_16: float | None = None  # floating-point operations per second on dense matrices, in 16 bits
    peak_32: float | None = None  # and in 32
    like: str = ""  # what torch's name of it looks like


# Bandwidths and peaks are those of NVIDIA's data sheets; where those count sparse matrices, half of it.
# An A100 of 80 GB has the PCIe card's bandwidth, the lower of two, and an H100 is the SXM module. Memory
# is what torch reports for such a card, which is less than the data sheet's.
T4 = Card("T4", 14.56, False, 320e9, 65e12, 8.1e12, r"\bT4\b")
CARDS = (
    T4,
    Card("L4", 22.03, True, 300e9, 121e12, 30.3e12, r"\bL4\b"),
    Card("A100-40GB", 39.56, True, 1555e9, 312e12, 19.5e12, r"\bA100\b"),
    Card("A100-80GB", 79.15, True, 1935e9, 312e12, 19.5e12, r"\bA100\b"),
    Card("H100", 79.18, True, 3350e9, 989e12, 67e12, r"\bH100 80GB HBM3\b"),
)
SAME_MEMORY = 0.06  # share by which a card's memory may differ from the list's: a slice of one differs more


def card() -> Card | None:
    """The first GPU with its own memory, or None; of one not in `CARDS`, such as a slice, what torch says."""
    import torch

    if device() == "cpu":
        return None
    gpu = torch.cuda.get_device_properties(0)
    memory = gpu.total_memory / 2**30
    for known in CARDS:
        if re.search(known.like, gpu.name) and abs(memory / known.memory - 1) < SAME_MEMORY:
            return replace(known, memory=memory)
    return Card(gpu.name, memory, bf16=gpu.major >= 8)


def gpus() -> int:
    """How many GPUs there are."""
    import torch

    return torch.cuda.device_count() if device() == "cuda" else 0


def planned_on() -> tuple[Card, int]:
    """The cards that plans are for: those of this machine, or a T4 where it has none."""
    return card() or T4, max(gpus(), 1)


def memory() -> dict[str, float]:
    """Memory in GiB: this process's peak, and on a GPU the device's total and its peak so far."""
    import torch

    try:
        import resource

        unit = 1 if sys.platform == "darwin" else 2**10
        figures = {"host_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    except ImportError:  # Windows
        figures = {"host_peak": psutil.Process().memory_info().peak_wset}
    if torch.cuda.is_available():
        figures["gpu_total"] = torch.cuda.get_device_properties(0).total_memory
        figures["gpu_peak"] = torch.cuda.max_memory_allocated()
    return {name: round(value / 2**30, 2) for name, value in figures.items()}


def cards_in_words(card: Card, number: int) -> str:
    """So many cards in words: `a T4`, `2 x T4`."""
    article = "an" if card.name[0] in "AHLN" else "a"
    return f"{number} x {card.name}" if number > 1 else f"{article} {card.name}"


def asked_cards(description: str) -> tuple[Card, int]:
    """The card and the number of them that a plan's command line asks for: `--card L4 --gpus 2`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--card", choices=[card.name for card in CARDS], default=T4.name)
    parser.add_argument("--gpus", type=int, default=1)
    options = parser.parse_args()
    return next(card for card in CARDS if card.name == options.card), max(options.gpus, 1)


class Clock:
    """How long this session has worked: in a notebook, the time in which a cell ran; elsewhere, all time.

    shell: the notebook's IPython; the cell that makes the clock is running
    """

    def __init__(self, shell: object | None = None):
        self._before, self._since = 0.0, time.monotonic()
        if shell:
            shell.events.register("pre_run_cell", self._start)
            shell.events.register("post_run_cell", self._stop)

    def seconds(self) -> float:
        """The seconds so far."""
        return self._before + (0 if self._since is None else time.monotonic() - self._since)

    def _start(self, *_: object) -> None:
        self._before, self._since = self.seconds(), time.monotonic()

    def _stop(self, *_: object) -> None:
        self._before, self._since = self.seconds(), None


# Where IPython is not loaded there is no notebook; loading it to ask would slow down every process.
CLOCK = Clock(sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None)
