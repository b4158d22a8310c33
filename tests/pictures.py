"""The pictures in docs, of the full demo in runs/demo, for the folder docs: `make pictures`.

A copy of the run is opened and used in JupyterLab and Chromium. There the training goes on from its
checkpoint before the last, so that the loss is seen live. The reports are the worst one by the judge's
mean, and of the best ones that with the longest reference.
"""

import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lab

from utils.models.writer import MODEL
from utils.run.workspace import STEPS, Workspace
from utils.scores.statistics import scored

DEMO, DOCS = Workspace(lab.ROOT / "runs" / "demo"), lab.ROOT / "docs"
FRAME, HEAD = (960, 720), 48  # pixels of the animation, and of the line above each picture
SHORT, LONG = 900, 2600  # milliseconds that a frame is shown
TITLES = {
    "regions": "1 · Findings are split by region",
    "dataset": "2 · Radiographs and findings become a dataset",
    "training": "3 · A model is fine-tuned in 4 bits; the loss is live",
    "evaluation": "4 · It writes reports, which are judged by region",
}


def step_back(run: Workspace) -> None:
    """Delete the newest checkpoint of a run, so that its training goes on from the one before."""
    checkpoints = (run.folder("training") / "checkpoints").glob("checkpoint-*")
    shutil.rmtree(max(checkpoints, key=lambda path: int(path.name.rpartition("-")[2])))
    shutil.rmtree(run.folder("evaluation"))  # on newer versions those steps end in another adapter


def best(run: Workspace) -> str:
    """The id of a test study whose report has the highest mean, the one with the longest reference."""
    rows = scored(pd.read_parquet(run.folder("evaluation") / "judgements.parquet"))
    rows = rows[(rows["system"] == MODEL) & (rows["split"] == "test")]
    studies = rows.groupby("id").agg(
        mean=("value", "mean"), words=("reference", lambda texts: len(" ".join(texts).split()))
    )
    return studies.sort_values(["mean", "words"]).index[-1]


def open_notebook(step: str, project: Path, browser: tuple) -> lab.Notebook:
    path = project / "notebooks" / f"{STEPS[step]}.ipynb"
    return lab.Notebook(*browser, path, project, PRESET="demo", WORKSPACE=str(project / "run"))


def wait(notebook: lab.Notebook) -> None:
    """Until a notebook has run; a broken one is no picture."""
    notebook.wait()
    if found := notebook.complaints():
        sys.exit("\n".join(found))


def stacked(*pictures: Image.Image) -> Image.Image:
    """Pictures below one another."""
    whole = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    return whole


def frame(step: str, picture: Image.Image) -> Image.Image:
    """A picture below its step's title, as large as the others; what is too long is cut."""
    picture = picture.copy()
    picture.thumbnail((FRAME[0] - 16, 10 * FRAME[1]))
    canvas = Image.new("RGB", FRAME, "white")
    ImageDraw.Draw(canvas).text((8, 8), TITLES[step], "black", ImageFont.load_default(24))
    canvas.paste(picture, (8, HEAD))
    return canvas


def save(picture: Image.Image, name: str) -> None:
    """A PNG of 128 colours in docs; the few that stand out are kept."""
    picture.quantize(128, Image.Quantize.MAXCOVERAGE).save(DOCS / name, optimize=True)


def main() -> int:
    frames: list[tuple[str, Image.Image, int]] = []
    with TemporaryDirectory() as folder:
        project = lab.house(Path(folder) / "chest-xray-regions")
        shutil.copytree(DEMO.root, project / "run")
        run = Workspace(project / "run")
        step_back(run)
        (Path(folder) / "lab").mkdir()
        with lab.opened(project, Path(folder) / "lab") as browser:
            notebook = open_notebook("regions", project, browser)
            notebook.start_all()
            wait(notebook)
            reports = notebook.outputs("original findings").all()[:3]
            frames.append(("regions", stacked(*map(notebook.picture, reports)), LONG))

            notebook = open_notebook("dataset", project, browser)
            notebook.start_all()
            wait(notebook)
            frames.append(("dataset", notebook.picture(notebook.output("window center")), LONG))

            notebook = open_notebook("training", project, browser)
            notebook.start_all()
            live, seen = notebook.output(re.compile(r"step \d+ of \d+")), ""
            live.wait_for(timeout=lab.RUN_PATIENCE)
            desk = notebook.picture(notebook.output("Reset to preset"))
            frames.append(("training", desk, LONG))
            while not notebook.has_run():
                if seen != (seen := live.inner_text().split("·")[0]):
                    frames.append(("training", notebook.picture(live), SHORT))
                browser[0].wait_for_timeout(200)
            wait(notebook)
            frames.append(("training", notebook.picture(live), LONG))
            save(stacked(desk, frames[-1][1]), "training_desk.png")

            notebook = open_notebook("evaluation", project, browser)
            notebook.start_all()
            wait(notebook)
            room = notebook.output("with or without errors")
            save(notebook.picture(room), "report_worst.png")
            studies = room.get_by_label("study", exact=True)
            (name,) = [
                option
                for option in studies.locator("option").all_inner_texts()
                if option.startswith(best(run))
            ]
            studies.select_option(name)
            room.get_by_text(f"study {name}").wait_for()
            frames.append(("evaluation", notebook.picture(room), LONG))
            save(frames[-1][1], "report_best.png")
    scores = Image.open(DEMO.folder("evaluation") / "scores.png").convert("RGB")
    save(scores, "demo_scores.png")
    frames.append(("evaluation", scores, LONG))
    first, *others = [frame(step, picture) for step, picture, _ in frames]
    durations = [duration for *_, duration in frames]
    first.save(
        DOCS / "series.webp", save_all=True, append_images=others, duration=durations, loop=0, quality=75
    )
    for path in sorted(DOCS.glob("*.png")) + [DOCS / "series.webp"]:
        print(f"{path.stat().st_size / 1e3:6.0f} kB  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
