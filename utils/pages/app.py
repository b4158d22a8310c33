"""A page for others: `python -m utils.pages.app ADAPTER` serves a trained adapter to a browser, by Gradio.

Local unless asked: it listens on this machine alone, asks for nothing from outside, and keeps no image for
longer than two hours. Gradio is on Colab; elsewhere install it first.
"""

import argparse
import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from utils.data.studies import DataError
from utils.models.study import open_views, open_writer, read_study, side_of
from utils.models.writer import Writer
from utils.regions import NOT_FOR_CLINICAL_USE
from utils.run.workspace import StepError

from .own_study import study_view
from .page import html, tag

if TYPE_CHECKING:
    from gradio import Blocks

MISSING = "The page needs the package gradio: run pip install gradio, then this again."
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

    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT, KEPT)) as blocks:
        gradio.Markdown(f"# {TITLE}\n\n{ABOUT}")
        files = gradio.File(label="Views of one study", file_count="multiple", type="filepath")
        button = gradio.Button("Read", variant="primary")
        shown = gradio.HTML(label="Report")
        button.click(lambda paths: answer(writer, paths or []), files, shown, api_name="read")
    return blocks


def answer(writer: Writer, paths: list[str]) -> str:
    """What the page shows for the files at `paths`, as markup; a sentence where they cannot be read."""
    try:
        views = open_views([Path(path) for path in paths], side_of(writer.reading))
        return html(study_view(views, read_study(writer, views), writer))
    except (DataError, StepError) as error:
        return html(f"<p>{tag('not read', 'refused')} {escape(str(error))}</p>")


def main(arguments: list[str] | None = None) -> None:
    """Serve an adapter to a browser on this machine."""
    parser = argparse.ArgumentParser(prog="python -m utils.pages.app", description=main.__doc__)
    parser.add_argument(
        "adapter", type=Path, help="folder of the adapter: <workspace>/training/<run>/adapter"
    )
    parser.add_argument(
        "--share", action="store_true", help="also give a public link, which Gradio's servers pass on"
    )
    options = parser.parse_args(arguments)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ModuleNotFoundError:
        raise SystemExit(MISSING) from None
    try:
        writer = open_writer(options.adapter)
    except StepError as error:
        raise SystemExit(str(error)) from None
    theme = gradio.themes.Default(font=FONTS, font_mono=["monospace"])
    page(writer).launch(share=options.share, theme=theme, max_file_size=LARGEST)


if __name__ == "__main__":
    main()
