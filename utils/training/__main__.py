"""`accelerate launch -m utils.training <workspace>/training/<run>`: a run trained on several processes."""

import argparse
from pathlib import Path

from accelerate import PartialState

from utils.data.hf_dataset import load
from utils.machine import default_preset
from utils.settings import TrainingSettings, preset
from utils.workspace import StepError, Workspace

from .trainer import finish, noted_settings, say, train


def main() -> None:
    """Train the run in the folder that is named, on as many processes as accelerate starts."""
    parser = argparse.ArgumentParser(prog="utils.training", description=main.__doc__)
    parser.add_argument("run", type=Path, help="the run's folder: <workspace>/training/<name>")
    run = parser.parse_args().run.resolve()
    workspace = Workspace(run.parent.parent, run.name)
    if workspace.folder("training") != run:
        raise SystemExit(f"{run} is not a run's folder. Name <workspace>/training/<name>.")
    try:
        workspace.require("dataset")
        noted = noted_settings(run)
        if noted:
            settings = TrainingSettings.model_validate(noted)
        else:
            settings = preset(default_preset()).training
            say(f"{run.name} is new and uses the settings of the preset {default_preset()}.")
        outcome = train(settings, load(workspace.folder("dataset")), run, scratch=workspace.scratch)
        if outcome.finished and PartialState().is_main_process:
            finish(workspace, settings)
    except StepError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
