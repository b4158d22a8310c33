"""The map at the top of each notebook: the four steps, what is done, and links to the others."""

from datetime import datetime
from html import escape

from IPython.display import HTML

from utils.page import html
from utils.workspace import STEPS, Workspace, in_colab, status

_TITLES = {
    "regions": "Findings to regions",
    "dataset": "Studies to a dataset",
    "training": "Fine-tuning",
    "evaluation": "Reports and their scores",
}


def overview(workspace: Workspace, here: str) -> HTML:
    """The four steps with the one that this notebook is, what is done, and links to the others."""
    if here not in STEPS:
        raise ValueError(f"no step called {here!r}: steps are {', '.join(STEPS)}")
    done = status(workspace)
    items = (
        f"<li{' class=here aria-current=step' if step == here else ''}>"
        f"<small>step {number}{' · you are here' if step == here else ''}</small>"
        f"<b>{_title(step, here)}</b><small>{_done(done[step])}</small></li>"
        for number, step in enumerate(STEPS, start=1)
    )
    return HTML(
        html(
            f'<ol class="steps">{"".join(items)}</ol><small>results in {escape(str(workspace.root))}</small>'
        )
    )


def _title(step: str, here: str) -> str:
    # Colab shows an output in a frame of its own, where a link to the file beside leads nowhere.
    if step == here or in_colab():
        return _TITLES[step]
    return f'<a href="{STEPS[step]}.ipynb">{_TITLES[step]}</a>'


def _done(state: str) -> str:
    if not state.startswith("finished "):
        return f"○ {escape(state)}"
    moment = datetime.fromisoformat(state.removeprefix("finished "))
    return f"✓ finished {moment:%d %b %Y, %H:%M} UTC"
