"""A page for others: `python -m utils.pages.app ADAPTER` serves a trained adapter to a browser, by Gradio.

It listens on this machine alone unless asked, takes nothing from outside, and keeps no image over two hours.
Gradio is on Colab; elsewhere install it first.
"""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from utils.data.studies import DataError
from utils.models.study import open_views, open_writer, read_study, side_of
from utils.models.writer import Writer
from utils.regions import NOT_FOR_CLINICAL_USE
from utils.run.workspace import StepError

from .own_study import study_view
from .page import html, refused

if TYPE_CHECKING:
    from gradio import Blocks

TITLE = "Chest X-ray findings by region"
ABOUT = (
    "Choose one study's views, the frontal one first, as DICOM, PNG or JPEG. Files are read as they are "
    f"listed, from top to bottom. **{NOT_FOR_CLINICAL_USE}**"
)
KEPT = 3600  # seconds: as often, Gradio deletes the chosen files that are older
LARGEST = "200mb"  # of a file
FONTS = ["system-ui", "sans-serif"]  # of the machine: Gradio's own are asked for from outside


def page(writer: Writer) -> "Blocks":
    """The page, not yet served."""
    import gradio

    def answer(paths: list[str] | None) -> str:
        try:
            views = open_views(list(map(Path, paths or [])), side_of(writer.reading))
            return html(study_view(views, read_study(writer, views), writer))
        except (DataError, StepError) as error:
            return html(f"<p>{refused('not read', error)}</p>")

    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT, KEPT)) as blocks:
        gradio.Markdown(f"# {TITLE}\n\n{ABOUT}")
        files = gradio.File(label="Views of one study", file_count="multiple", type="filepath")
        button = gradio.Button("Read", variant="primary")
        button.click(answer, files, gradio.HTML(label="Report"), api_name="read")
    return blocks


def main() -> None:
    """Serve an adapter to a browser on this machine."""
    parser = argparse.ArgumentParser(prog="python -m utils.pages.app", description=main.__doc__)
    where, public = "<workspace>/training/<run>/adapter", "which Gradio's servers pass on"
    parser.add_argument("adapter", type=Path, help=f"folder of the adapter: {where}")
    parser.add_argument("--share", action="store_true", help=f"also give a public link, {public}")
    options = parser.parse_args()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ModuleNotFoundError:
        advice = "run pip install gradio, then this again"
        raise SystemExit(f"The page needs the package gradio: {advice}.") from None
    try:
        writer = open_writer(options.adapter)
    except StepError as error:
        raise SystemExit(str(error)) from None
    theme = gradio.themes.Default(font=FONTS, font_mono=["monospace"])
    page(writer).launch(share=options.share, theme=theme, max_file_size=LARGEST)


if __name__ == "__main__":
    main()
