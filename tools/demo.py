"""Runs the four notebooks in order, as `make demo` and `make collection` do: `python -m tools.demo --help`.

Each executed notebook is left as HTML in the run's folder. A step that is
done, from the same files and settings, is not done again unless forced.
"""

import argparse
import logging
import os
import sys
import time
import warnings
from pathlib import Path

import nbformat
import papermill
from nbconvert import HTMLExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from utils.run.disk import write_text
from utils.run.workspace import STEPS, StepError, Workspace, open_workspace
from utils.settings import SMALL_BASE, TIMES

ROOT = Path(__file__).resolve().parents[1]
# A page is read for what was done and what came out; the code is there to unfold.
_FOLDED = """{%- extends "lab/index.html.j2" -%}
{%- block input -%}<details><summary>code</summary>{{ super() }}</details>{%- endblock -%}"""


def run_notebook(name: str, workspace: Path, html: Path, parameters: dict) -> None:
    """Execute `notebooks/<name>.ipynb` on `workspace` and leave it, executed, as `html`.

    Raises papermill's PapermillExecutionError where a cell fails; the page is
    then written all the same, up to that cell.
    """
    executed = html.with_name(f".{name}.ipynb")
    try:
        papermill.execute_notebook(
            _literally(ROOT / "notebooks" / f"{name}.ipynb"),
            _literally(executed),
            parameters={"WORKSPACE": str(workspace), **parameters},
            kernel_name="python3",
            cwd=ROOT / "notebooks",
            progress_bar=False,
        )
    finally:
        if executed.exists():
            write_text(html, as_page(nbformat.read(executed, as_version=4)))
            executed.unlink()


def _teach(workspace: Workspace) -> None:
    # Imported here: it takes seconds, which phantoms need not wait for.
    from utils.data.hf_dataset import load
    from utils.training import collection

    collection.taught(workspace.root / collection.FOLDER, load(workspace.folder("dataset"))["train"])


def _literally(path: Path) -> str:
    """A path for papermill, which fills in what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def as_page(notebook: nbformat.NotebookNode) -> str:
    """An executed notebook as one HTML page, its code folded, its progress bars as they ended."""
    notebook, _ = CoalesceStreamsPreprocessor().preprocess(notebook, {})
    page, _ = HTMLExporter(embed_images=True, raw_template=_FOLDED).from_notebook_node(notebook)
    for name in STEPS.values():  # links to the other notebooks become links to their pages
        page = page.replace(f"{name}.ipynb", f"{name}.html")
    return page


def main(arguments: list[str] | None = None) -> int:
    """Run what is not done, with one line per notebook; say what to open."""
    about = {"prog": "python -m tools.demo", "description": "Run the four notebooks on two CPU cores."}
    parser = argparse.ArgumentParser(**about)
    parser.add_argument(
        "--preset", choices=list(TIMES), default="demo", help="demo: phantoms; small: real radiographs"
    )
    parser.add_argument("--data", default="", help="studies as DATA in notebook 01 takes them")
    parser.add_argument("--workspace", type=Path, help="folder of the run (runs/<preset>)")
    parser.add_argument("--force", action="store_true", help="run all steps again, even those that are done")
    options = parser.parse_args(arguments)
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    root = options.workspace or ROOT / "runs" / options.preset
    try:
        workspace, times = open_workspace(root.resolve(), options.preset), TIMES[options.preset]
    except StepError as error:
        print(error)
        return 1
    for number, (step, name) in enumerate(STEPS.items(), 1):
        html = workspace.root / f"{name}.html"
        print(f"[{number}/{len(STEPS)}] {name} ", end="", flush=True)
        if html.exists() and workspace.is_current(step) and not options.force:
            print("was done already")
            continue
        print(f"(estimate: {times[step]}) ", end="", flush=True)
        start = time.monotonic()
        parameters = {"PRESET": options.preset}
        if step == "regions" and options.data:
            parameters["DATA"] = (
                str(Path(options.data).resolve()) if Path(options.data).exists() else options.data
            )
        if step == "training" and options.preset == SMALL_BASE:
            print("\nteaching the small base model:")
            _teach(workspace)
        try:
            run_notebook(name, workspace.root, html, parameters)
        except papermill.PapermillExecutionError as error:
            print(f"failed: {error.ename}: {error.evalue}\nSee the page up to the failing cell: {html}")
            return 1
        print(f"took {time.monotonic() - start:.0f} s")
    report = workspace.folder("evaluation") / "report.html"
    print(f"\nOpen in this order, from {workspace.root}:")
    print("\n".join(f"  {name}.html" for name in STEPS.values()))
    print(f"  {report.relative_to(workspace.root)}")
    return 0


if __name__ == "__main__":
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore", category=UserWarning)
    sys.exit(main())
