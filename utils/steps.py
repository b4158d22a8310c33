"""The map at the top of each notebook: the four steps, what each needs and leaves, and what is done."""

from datetime import datetime
from html import escape
from typing import NamedTuple

from IPython.display import HTML

from utils import address
from utils.page import html
from utils.workspace import STEPS, Workspace, in_colab, status


class Step(NamedTuple):
    """What a reader should know of a step before running it."""

    title: str
    needs: str
    leaves: str
    demo: str  # as `make demo` takes on two cores
    t4: str = "not measured"


ABOUT = {
    "regions": Step("Findings to regions", "nothing", "regions/", "34 s"),
    "dataset": Step("Studies to a dataset", "01", "dataset/", "26 s"),
    "training": Step("Fine-tuning", "02", "training/<run>/", "270 s"),
    "evaluation": Step("Reports and their scores", "03", "evaluation/<run>/", "86 s"),
}


def overview(workspace: Workspace, here: str) -> HTML:
    """The four steps with the one that this notebook is, what is done, and links to the others.

    Raises ValueError where `here` is none of `STEPS`.
    """
    if here not in STEPS:
        raise ValueError(f"no step called {here!r}: steps are {', '.join(STEPS)}")
    done = status(workspace)
    items = "".join(
        f"<li{' class=here aria-current=step' if step == here else ''}>"
        f"<small>step {STEPS[step][:2]}{' · you are here' if step == here else ''}</small>"
        f"<b>{_title(step, here)}</b><small>{_done(done[step])}</small>"
        f"<small>needs {about.needs} · leaves {escape(about.leaves)}</small>"
        f"<small>demo: {about.demo} · T4: {about.t4}</small></li>"
        for step, about in ABOUT.items()
    )
    return HTML(
        html(f'<ol class="steps">{items}</ol><small>results in {escape(str(workspace.root))}</small>')
    )


def _title(step: str, here: str) -> str:
    link = _link(STEPS[step])
    return ABOUT[step].title if step == here or not link else f"<a {link}>{ABOUT[step].title}</a>"


def _link(notebook: str) -> str:
    """Colab shows an output in a frame of its own, where a link to the file beside leads nowhere."""
    if not in_colab():
        return f'href="{notebook}.ipynb"'
    public = address.read()
    return f'href="{address.colab_link(public, notebook)}" target="_blank"' if public else ""


def _done(state: str) -> str:
    if not state.startswith("finished "):
        return f"○ {escape(state)}"
    moment = datetime.fromisoformat(state.removeprefix("finished "))
    return f"✓ finished {moment:%d %b %Y, %H:%M} UTC"
