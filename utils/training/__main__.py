"""`accelerate launch --multi_gpu -m utils.training <workspace>/training/<run>`: on several processes."""

import argparse
from pathlib import Path

from accelerate import PartialState

from utils.data.hf_dataset import load
from utils.run import processes
from utils.run.workspace import StepError
from utils.settings import TrainingSettings, preset

from .callbacks import write_progress
from .trainer import finish, noted_settings, say, train


def main() -> None:
    """Train the run in the folder that is named, on as many processes as accelerate starts."""
    parser = argparse.ArgumentParser(prog="utils.training", description=main.__doc__)
    parser.add_argument("run", type=Path, help="the run's folder: <workspace>/training/<name>")
    parser.add_argument("--progress", type=Path, help="a file to keep telling how far training is")
    options = parser.parse_args()
    processes.join()
    try:
        workspace = processes.workspace_of(options.run, "training")
        workspace.require("dataset")
        run = workspace.folder("training")
        if noted := noted_settings(run):
            settings = TrainingSettings.model_validate(noted)
        else:
            settings = preset(workspace.size).training
            say(f"{run.name} is new and uses the settings of the preset {workspace.size}.")
        tell = (lambda progress: write_progress(progress, options.progress)) if options.progress else None
        outcome = train(settings, load(workspace.folder("dataset")), run, tell, workspace.scratch)
        if outcome.finished and PartialState().is_main_process:
            finish(workspace, settings, outcome)
    except StepError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
