"""`accelerate launch --multi_gpu -m utils.scores write|judge WORKSPACE/evaluation/RUN`: see `parallel`."""

import argparse
from pathlib import Path

from utils.judge import JudgeError, green_score
from utils.models.systems import SYSTEMS
from utils.run import processes
from utils.run.workspace import StepError

from . import parallel


def main() -> None:
    """Step 4 on as many processes as accelerate starts."""
    parser = argparse.ArgumentParser(prog="utils.scores", description=main.__doc__)
    does = "write the reports; judge them; or, as a notebook has it done, answer questions"
    parser.add_argument("what", choices=["write", "judge", "answer"], help=does)
    where = "<workspace>/evaluation/<run>; of answer, the questions' folder"
    parser.add_argument("folder", type=Path, help=where)
    whose = {"choices": SYSTEMS, "default": SYSTEMS, "help": "whose reports to write (all)"}
    parser.add_argument("--systems", nargs="+", **whose)
    options = parser.parse_args()
    processes.join()
    taken = green_score.take() if options.what != "write" else ""
    if options.what == "judge" and processes.rank() == 0:
        print(taken)
    try:
        if options.what == "answer":
            parallel.answer(options.folder)
        elif options.what == "write":
            parallel.write(processes.workspace_of(options.folder, "evaluation"), options.systems)
        else:
            parallel.judge(processes.workspace_of(options.folder, "evaluation"))
    except (StepError, JudgeError) as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
