"""What every page of the series is made of: its style, its markup, and a widget with its static twin.

An exported page shows the twin, as widgets need a running notebook. The HTML needs no other file, escapes
every text, and takes its colours from the page, light or dark. Only what ipywidgets 7.7 (Colab) and 8 share
is used.
"""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape

import ipywidgets as widgets
from IPython.display import HTML, display
from PIL import Image

# The twin hides where its widget is drawn in the same output: JupyterLab's output area, or Colab's.
_STYLE = """<style>
.xr{--line:rgba(128,128,128,.32);--soft:rgba(128,128,128,.10);font:14px/1.5 system-ui,sans-serif;
max-width:1040px;margin:6px 0;overflow-wrap:anywhere}
.xr th,.xr td:first-child{overflow-wrap:normal}
.xr td b{overflow-wrap:break-word}
.xr table{border-collapse:collapse;width:100%;margin:4px 0;font-size:inherit;table-layout:auto}
.xr th,.xr td{text-align:left!important;vertical-align:top;padding:6px 12px 6px 0;max-width:none!important;
white-space:normal!important;border:0;border-bottom:1px solid var(--line)}
.xr tr,.xr tr:nth-child(even),.xr tr:hover{background:none!important}
.xr thead th{font-weight:600;opacity:.72;font-size:12px}
.xr small,.xr .quiet{opacity:.72;font-size:12px}
.xr .tag{display:inline-block;font-size:12px;font-weight:600;padding:0 8px;border-radius:9px;
background:rgba(var(--hue),.24);border:1px solid rgba(var(--hue),.75)}
.xr th .tag,.xr td .tag{white-space:nowrap}
.xr mark{color:inherit;padding:1px 3px;border-radius:3px;background:rgba(var(--hue),.22);
border-bottom:2px solid rgba(var(--hue),.9);-webkit-box-decoration-break:clone;box-decoration-break:clone}
.xr mark small{opacity:.85;font-size:10px;margin-left:4px;white-space:nowrap}
.xr .lung{--hue:64,150,225}.xr .heart{--hue:222,92,60}.xr .mediastinal{--hue:178,110,200}
.xr .bone,.xr .matched{--hue:30,160,115}.xr .others,.xr .note{--hue:128,128,128}
.xr .refused,.xr .wrong{--hue:222,92,60}
.xr .side{display:flex;flex-wrap:wrap;gap:12px 32px;align-items:flex-start;margin:8px 0}
.xr .side>*{flex:1 1 320px;min-width:0}
.xr .verdicts>*{flex-basis:210px}
.xr .side>.probe{flex-basis:460px}
.xr figure{margin:0;flex:0 1 auto!important}.xr figcaption{opacity:.72;font-size:12px}
.xr img{display:block;max-width:100%;height:auto;border-radius:6px}
.xr .bar{display:block;width:56px;height:4px;border-radius:2px;background:var(--line);margin-top:2px}
.xr .bar i{display:block;height:4px;border-radius:2px;background:currentColor}
.xr .meter{display:block;position:relative;min-width:80px;height:8px;margin-top:7px;border-radius:2px;
background:var(--line)}
.xr .meter i{display:block;height:8px;border-radius:2px;background:rgba(var(--hue),.4)}
.xr .meter.named i{background:rgb(var(--hue))}
.xr .meter u{position:absolute;top:-4px;width:2px;height:16px;background:currentColor}
.xr summary{cursor:pointer;opacity:.72;font-size:12px}
.xr ul.plain{list-style:none;margin:4px 0!important;padding:0!important}
.xr ul.plain li{margin:2px 0;padding-left:1.3em;text-indent:-1.3em}
.xr pre{white-space:pre-wrap;font-size:12px;margin:6px 0;padding:8px 10px;border-radius:6px;
background:var(--soft);color:inherit;word-break:normal!important}
.xr-beside{position:sticky;top:8px;align-self:flex-start;min-width:0}
.xr .steps{display:flex;flex-wrap:wrap;gap:8px;list-style:none;margin:0!important;padding:0!important}
.xr .steps li{flex:1 1 180px;margin:0;padding:8px 12px;border:1px solid var(--line);border-radius:8px}
.xr .steps li.here{border:2px solid currentColor;padding:7px 11px;background:var(--soft)}
.xr .steps b,.xr .steps small{display:block}
.xr a{color:inherit;text-decoration:underline;text-underline-offset:2px}
.jp-OutputArea:has(.xr-live button) .xr-twin,#output-area:has(.xr-live button) .xr-twin{display:none}
</style>"""


def html(body: str, css_class: str = "") -> str:
    """Markup with the style that it needs, as one block of a page."""
    return f'{_STYLE}<div class="xr {css_class}">{body}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are markup already."""
    heading = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table>"


def tag(text: str, colour: str = "note") -> str:
    """A label; the class `colour` gives it its colour, the text its meaning."""
    return f'<span class="tag {colour}">{escape(text)}</span>'


def refused(label: str, reason: object) -> str:
    """What is not done, as a label, and why."""
    return f"{tag(label, 'refused')} {escape(str(reason))}"


def quiet(text: str) -> str:
    """Markup in a fainter colour."""
    return f'<span class="quiet">{text}</span>'


def as_text(value: object) -> str:
    """A value as a reader writes it: 2e-05, (empty)."""
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value) if value != "" else "(empty)"


def picture(image: Image.Image, alt: str) -> str:
    """An image inside the page itself, over its caption."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    img = f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'
    return f"<figure>{img}<figcaption>{escape(alt)}</figcaption></figure>"


class Live:
    """A widget and its static twin; a notebook cell that ends in one shows both."""

    def __init__(self, widget: widgets.Widget, twin: Callable[[], str]):
        self.widget = widget.add_class("xr-live")
        self._twin, self._shown = twin, None

    def refresh(self) -> None:
        """Bring a twin that is on show up to date."""
        if self._shown:
            self._shown.update(self.static())

    def static(self) -> HTML:
        """The twin, as it stands now."""
        return HTML(html(self._twin(), "xr-twin"))

    def _ipython_display_(self) -> None:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        # Without the empty text an exported page would print the widget's Python name.
        display({"application/vnd.jupyter.widget-view+json": view, "text/plain": ""}, raw=True)
        self._shown = display(self.static(), display_id=True)
