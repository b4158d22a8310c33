"""Several processes on one step: how many, what each of them does, and how a notebook starts them.

accelerate starts them: `accelerate launch --multi_gpu -m ...`. A notebook does so in the background.
accelerate's `notebook_launcher` forks the kernel, which has used CUDA by then, and what a fork displays does
not reach the page.
"""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tqdm import tqdm

from .workspace import StepError, Workspace

COUNT = "XRAY_PROCESSES"  # how many, where not one for each GPU
_LAUNCHED = "XRAY_LAUNCHED"  # set for those that a notebook started
_LAUNCH = "--multi_gpu --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"


def how_many() -> int:
    """Processes that share the work on this machine: one for each GPU, at least one; or `XRAY_PROCESSES`."""
    import torch

    wanted = os.environ.get(COUNT, "")
    if wanted and not (wanted.isdecimal() and int(wanted)):
        raise StepError(f"{COUNT} is {wanted!r}: set it to a number of processes, or leave it out.")
    return int(wanted or max(torch.cuda.device_count(), 1))


def rank() -> int:
    """The number of this process among those that accelerate started; 0: the first, or the only one."""
    return int(os.environ.get("RANK", 0))


def started() -> int:
    """How many processes accelerate started with this one; 1: it did not."""
    return int(os.environ.get("WORLD_SIZE", 1))


def shard(items: Sequence) -> Sequence:
    """This process's share of `items`: every one, or every second of two processes. Shares depend on
    nothing but the order of `items`. So give it all of them, also those that are done: then processes need
    not agree on what is done already."""
    return items[rank() :: started()]


def join() -> None:
    """Make this process one of those that accelerate started; a notebook's end with the notebook."""
    import torch
    from accelerate import PartialState

    if _LAUNCHED in os.environ:
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    PartialState(cpu=not torch.cuda.is_available())  # without a GPU accelerate takes gloo only where told so


def workspace_of(run: Path, step: str) -> Workspace:
    """The workspace of the folder `run` of `step`. Raises StepError for another folder."""
    run = run.resolve()
    workspace = Workspace(run.parent.parent, run.name)
    if workspace.folder(step) != run:
        raise StepError(f"{run} is not a run's folder. Name <workspace>/{step}/<name>.")
    return workspace


class Processes(AbstractContextManager):
    """`count` processes of a module with its arguments, in the background; leaving the context ends them."""

    def __init__(self, count: int, module: str, *arguments: object):
        self._folder = tempfile.TemporaryDirectory()
        output, errors = (Path(self._folder.name) / name for name in ("output", "errors"))
        launch = [sys.executable, "-m", "accelerate.commands.launch", *_LAUNCH.split(), "--num_processes"]
        with output.open("wb") as out, errors.open("wb") as err:
            self._process = subprocess.Popen(
                [str(part) for part in (*launch, count, "-m", module, *arguments)],
                cwd=Path(__file__).resolve().parents[2],
                env={**os.environ, _LAUNCHED: "1"},
                stdin=subprocess.PIPE,  # its end is how they know that this process ended
                stdout=out,
                stderr=err,
                start_new_session=True,  # a user's interrupt reaches this process alone, which ends them
            )
        self._output, self._errors = output.open(encoding="utf-8", errors="replace"), errors

    def running(self) -> bool:
        """Whether they still work; prints what they have printed. Raises StepError where one failed."""
        code = self._process.poll()
        if text := self._output.read():
            tqdm.write(text, end="")
        if code:
            raise StepError(self._reason())
        return code is None

    def rounds(self, seconds: float = 0.5) -> Iterator[None]:
        """A turn every so many seconds while they work, and one after that. Raises as `running` does."""
        while self.running():
            yield
            time.sleep(seconds)
        yield

    def _reason(self) -> str:
        lines = re.split(r"[\r\n]+", self._errors.read_text(encoding="utf-8", errors="replace"))
        own = next((i for i, line in enumerate(lines) if "torch/distributed/elastic" in line), len(lines))
        if any("exitcode: -9" in line for line in lines[own:]):
            return "One of the processes was killed, often for lack of memory. Run all cells again to go on."
        last = [line for line in lines[:own] if line.strip()][-20:]
        if any(line.startswith("Traceback") for line in last):
            tqdm.write("\n".join(last))
        return last[-1] if last else "One of the processes failed. Run all cells again to go on."

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End them, as leaving the context does."""
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._output.close()
        self._folder.cleanup()
