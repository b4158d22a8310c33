"""What a notebook shows: forms made from the settings models, and viewers of studies and reports.

Nothing waits for a click: a form holds valid settings from the start. Widgets
need a running notebook, so each has a static twin, an HTML table or picture
that an exported page shows in its place. The HTML is self-contained (no
scripts, no outside resources), escapes every text, and takes its colours from
the page, so that it reads in light and dark themes. Only what ipywidgets 7.7
(Colab) and 8 share is used.
"""

import base64
import io
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from itertools import groupby

import ipywidgets as widgets
from IPython.display import HTML, display
from matplotlib.figure import Figure
from PIL import Image
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from utils.judge import Judgement
from utils.regions import ALL, NOT_FOR_CLINICAL_USE, REGIONS, mentioned
from utils.scores import ERRORS
from utils.settings import Knobs, with_values
from utils.workspace import STEPS, Workspace, in_colab, status

VIEW_SIDE = 320  # pixels: the longest side of a radiograph in a viewer
_LONG_TEXT = 80  # characters: a longer text gets a text area
_SLIDER_SPAN = 64  # whole numbers: a wider range is typed
_TITLES = {
    "regions": "Findings to regions",
    "dataset": "Studies to a dataset",
    "training": "Fine-tuning",
    "evaluation": "Reports and their scores",
}
# The twin hides where its widget is drawn in the same output: JupyterLab's output area, or Colab's.
_STYLE = """<style>
.xr{--line:rgba(128,128,128,.32);--soft:rgba(128,128,128,.10);font:14px/1.5 system-ui,sans-serif;
max-width:1040px;margin:6px 0;overflow-wrap:anywhere}
.xr th,.xr td:first-child{overflow-wrap:normal}
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
.xr figure{margin:0;flex:0 1 auto!important}.xr figcaption{opacity:.72;font-size:12px}
.xr img{display:block;max-width:100%;height:auto;border-radius:6px}.xr .plot img{background:#fff}
.xr .bar{display:block;width:56px;height:4px;border-radius:2px;background:var(--line);margin-top:2px}
.xr .bar i{display:block;height:4px;border-radius:2px;background:currentColor}
.xr summary{cursor:pointer;opacity:.72;font-size:12px}
.xr ul.plain{list-style:none;margin:4px 0!important;padding:0!important}
.xr ul.plain li{margin:2px 0;padding-left:1.3em;text-indent:-1.3em}
.xr pre{white-space:pre-wrap;font-size:12px;margin:6px 0;padding:8px 10px;border-radius:6px;
background:var(--soft);color:inherit;word-break:normal!important}
.xr .steps{display:flex;flex-wrap:wrap;gap:8px;list-style:none;margin:0!important;padding:0!important}
.xr .steps li{flex:1 1 180px;margin:0;padding:8px 12px;border:1px solid var(--line);border-radius:8px}
.xr .steps li.here{border:2px solid currentColor;padding:7px 11px;background:var(--soft)}
.xr .steps b,.xr .steps small{display:block}
.xr a{color:inherit;text-decoration:underline;text-underline-offset:2px}
.jp-OutputArea:has(.xr-live button) .xr-twin,#output-area:has(.xr-live button) .xr-twin{display:none}
</style>"""


def _html(body: str, kind: str = "") -> str:
    return f'{_STYLE}<div class="xr {kind}">{body}</div>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are markup already."""
    heading = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table>"


def _tag(text: str, kind: str = "note") -> str:
    return f'<span class="tag {kind}">{escape(text)}</span>'


def _quiet(text: str) -> str:
    return f'<span class="quiet">{text}</span>'


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
        return HTML(_html(self._twin(), "xr-twin"))

    def _ipython_display_(self) -> None:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        # Without the empty text an exported page would print the widget's Python name.
        display({"application/vnd.jupyter.widget-view+json": view, "text/plain": ""}, raw=True)
        self._shown = display(self.static(), display_id=True)


class Form(Live):
    """A form for one step's settings, filled in from the start.

    `settings` is always a valid model of the type that came in: a value that
    the model refuses is named beside its field, and the one before it holds.
    *Reset* goes back to `preset`, by default what the form opened with.
    `beside(settings)` gives markup, HTML or a figure that is shown under the
    fields and drawn anew at every change, such as the plan of a training run.
    """

    def __init__(
        self,
        settings: Knobs,
        preset: Knobs | None = None,
        beside: Callable[[Knobs], "HTML | Figure | str"] | None = None,
    ):
        self.settings = settings.model_copy()
        self._preset, self._beside = (preset or settings).model_copy(), beside
        self.fields = {name: _field(name, info, settings) for name, info in _knobs(settings).items()}
        self.notes = {name: widgets.HTML() for name in self.fields}
        self.reset_button = widgets.Button(description="Reset to preset", icon="undo")
        self.reset_button.on_click(lambda _: self.reset())
        self._panel = widgets.HTML()
        rows = [_row(field, self.notes[name]) for name, field in self.fields.items()]
        super().__init__(widgets.VBox([*rows, self.reset_button, self._panel]), self._values)
        for name, field in self.fields.items():
            self.notes[name].value = _html(_help(_knobs(settings)[name]))
            field.observe(lambda change, name=name: self._take(name, change["new"]), names="value")
        self._draw()

    def reset(self) -> None:
        """Put every field back to the preset."""
        for name, field in self.fields.items():
            field.value = _shown(_knobs(self._preset)[name], getattr(self._preset, name))

    def _take(self, name: str, value: object) -> None:
        note = _help(_knobs(self.settings)[name])
        try:
            changed = with_values(self.settings, {name: value})
        except ValidationError as error:
            kept = escape(_text(getattr(self.settings, name)))
            reason = escape(error.errors()[0]["msg"])
            note = f"{_tag(f'{value!s} refused', 'refused')} {reason}. Still {kept}.<br>{note}"
        else:
            self.settings = changed
        self.notes[name].value = _html(note)
        self._draw()

    def _draw(self) -> None:
        self._panel.value = _html(_markup(self._beside(self.settings))) if self._beside else ""
        self.refresh()

    def _values(self) -> str:
        return _settings_rows(self.settings) + self._panel.value


def _row(field: widgets.Widget, note: widgets.HTML) -> widgets.Box:
    return (widgets.VBox if isinstance(field, widgets.Textarea) else widgets.HBox)([field, note])


def settings_table(settings: Knobs) -> HTML:
    """The values in force, with their meaning, as a static table."""
    return HTML(_html(_settings_rows(settings)))


def _settings_rows(settings: Knobs) -> str:
    rows = (
        (escape(_label(name)), _value(getattr(settings, name)), _help(info))
        for name, info in _knobs(settings).items()
    )
    return _table(("setting", "value", "meaning"), rows)


def _value(value: object) -> str:
    shown = escape(_text(value))
    return f"<pre>{shown}</pre>" if _is_long(value) else f"<b>{shown}</b>"


def _is_long(value: object) -> bool:
    """Whether a text is a prompt rather than a name."""
    return isinstance(value, str) and (len(value) > _LONG_TEXT or "\n" in value)


def _knobs(settings: Knobs) -> dict[str, FieldInfo]:
    return type(settings).model_fields


def _label(name: str) -> str:
    return name.replace("_", " ")


def _text(value: object) -> str:
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value) if value != "" else "(empty)"


def _bounds(info: FieldInfo) -> dict[str, float]:
    """The limits of a number, by pydantic's names: ge, gt, le, lt."""
    keys = ("ge", "gt", "le", "lt")
    return {key: getattr(rule, key) for rule in info.metadata for key in keys if hasattr(rule, key)}


def _help(info: FieldInfo) -> str:
    """A field's description and its allowed range, as markup."""
    words = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    limits = " ".join(f"{words[key]} {_text(limit)}" for key, limit in _bounds(info).items())
    return escape(info.description or "") + (f" {_quiet(f'({limits})')}" if limits else "")


def _shown(info: FieldInfo, value: object) -> object:
    """A value as its field holds it: a number that is typed may be written 1e-4."""
    is_typed = info.annotation is float and not _is_slider(info)
    return _text(value) if is_typed else value


def _is_slider(info: FieldInfo) -> bool:
    bounds = _bounds(info)
    return {"ge", "le"} <= bounds.keys() and bounds["le"] - bounds["ge"] <= _SLIDER_SPAN


def _field(name: str, info: FieldInfo, settings: Knobs) -> widgets.Widget:
    """The widget for one knob."""
    value = getattr(settings, name)
    look = {
        "value": _shown(info, value),
        "description": _label(name),
        "style": {"description_width": "120px"},
        "layout": widgets.Layout(width="380px", flex="0 0 auto"),
    }
    if typing.get_origin(info.annotation) is typing.Literal:
        return widgets.Dropdown(options=typing.get_args(info.annotation), **look)
    if info.annotation is bool:
        return widgets.Checkbox(**look)
    look["continuous_update"] = False
    if info.annotation in (int, float) and _is_slider(info):
        low, high = _bounds(info)["ge"], _bounds(info)["le"]
        if info.annotation is int:
            return widgets.IntSlider(min=low, max=high, **look)
        return widgets.FloatSlider(min=low, max=high, step=0.005, readout_format=".3f", **look)
    if info.annotation is int:
        return widgets.IntText(**look)
    if info.annotation is float:
        return widgets.Text(**look)
    if info.annotation is str and _is_long(value):
        look["layout"] = widgets.Layout(width="700px", height="260px", flex="0 0 auto")
        return widgets.Textarea(**look)
    if info.annotation is str:
        return widgets.Text(**look)
    raise TypeError(f"no field for {name!r}: settings in a form are numbers, texts, choices or yes and no")


class Browser(Live):
    """One item at a time, by a list and two buttons; see `browser`."""

    def __init__(self, items: Sequence[object], draw: Callable[[int], "HTML | Figure | str"], label: str):
        if not len(items):
            raise ValueError(f"no {label} to show")
        self._items, self._draw, self._label = list(map(str, items)), draw, label
        self.choice = widgets.Dropdown(
            options=[(name, number) for number, name in enumerate(self._items)],
            description=label,
            layout=widgets.Layout(width="420px"),
        )
        self.previous, self.next = (
            widgets.Button(description=text, icon=icon, layout=widgets.Layout(width="110px"))
            for text, icon in (("Previous", "arrow-left"), ("Next", "arrow-right"))
        )
        self.previous.on_click(lambda _: self._step(-1))
        self.next.on_click(lambda _: self._step(1))
        self._changing = False
        self.choice.observe(lambda _: self._changing or self._show(), names="value")
        self._place, self.shown = widgets.HTML(), widgets.HTML()
        bar = widgets.HBox([self.choice, self.previous, self.next, self._place])
        super().__init__(widgets.VBox([bar, self.shown]), lambda: self.shown.value)
        self._show()

    def show_items(self, items: Sequence[object]) -> None:
        """Put other items in place of those that are there, and show the first; there may be none."""
        self._items, self._changing = list(map(str, items)), True
        self.choice.options = [(name, number) for number, name in enumerate(self._items)]
        if self._items:
            self.choice.value = 0  # ipywidgets 8 leaves it at none where it was none
        self._changing = False
        self._show()

    def _step(self, by: int) -> None:
        self.choice.value = min(max(self.choice.value + by, 0), len(self._items) - 1)

    def _show(self) -> None:
        number, last = self.choice.value, len(self._items) - 1
        if number is None:
            self.previous.disabled = self.next.disabled = True
            self._place.value, self.shown.value = "", _html(_quiet(f"no such {self._label}"))
            self.refresh()
            return
        self.previous.disabled, self.next.disabled = number == 0, number == last
        self._place.value = f"{number + 1} of {last + 1}"
        name = f"{self._label} {self._items[number]}"
        self.shown.value = _html(_markup(self._draw(number), alt=name) + f"<small>{escape(name)}</small>")
        self.refresh()


def browser(
    items: Sequence[object], draw: Callable[[int], "HTML | Figure | str"], label: str = "study"
) -> Browser:
    """Items to leaf through; `draw(i)` gives item i's figure, HTML or markup.

    `label` says in a word what the items are. Raises ValueError where there are none.
    """
    return Browser(items, draw, label)


def _markup(drawn: "HTML | Figure | str", alt: str = "figure") -> str:
    if isinstance(drawn, Figure):
        buffer = io.BytesIO()
        drawn.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
        return f'<div class="plot">{_png(buffer.getvalue(), alt)}</div>'
    return drawn.data if isinstance(drawn, HTML) else drawn


def _png(data: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _view(image: Image.Image, alt: str) -> str:
    """A radiograph as a captioned picture of at most VIEW_SIDE pixels."""
    small = image.convert("RGB")
    small.thumbnail((VIEW_SIDE, VIEW_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return f"<figure>{_png(buffer.getvalue(), alt)}<figcaption>{escape(alt)}</figcaption></figure>"


def split_view(
    original: str, findings: Mapping[str, str], audit_rows: Iterable[Mapping[str, object]] | None = None
) -> HTML:
    """A report beside its split; each word of it is marked with the region that took it.

    `audit_rows` are shown under it as they come, a mapping from column to value each.
    """
    regions = mentioned(dict(findings), ALL)
    rows = ((_tag(name, name), escape(regions.get(name, "")) or _quiet("not mentioned")) for name in ALL)
    body = (
        f'<div class="side"><div><small>findings as written</small><p>{_marked(original, regions)}</p></div>'
        f"<div>{_table(('region', 'findings'), rows)}</div></div>"
    )
    audit = list(audit_rows or ())
    if audit:
        head = list(audit[0])
        cells = ([escape(_text(row.get(column, ""))) for column in head] for row in audit)
        body += "<small>audit</small>" + _table(list(map(escape, head)), cells)
    return HTML(_html(body))


def _marked(original: str, regions: Mapping[str, str], labels: Mapping[str, str] | None = None) -> str:
    """`original` as markup, its words marked and labelled with the region (or other text) that took them."""
    places = list(re.finditer(r"\w+", original))
    words = [place.group().casefold() for place in places]
    takers = _takers(words, {name: re.findall(r"\w+", text.casefold()) for name, text in regions.items()})
    parts, end = [], 0
    for name, run in groupby(zip(places, takers, strict=True), key=lambda pair: pair[1]):
        run = [place for place, _ in run]
        parts.append(escape(original[end : run[0].start()]))
        end = run[-1].end()
        text = escape(original[run[0].start() : end])
        parts.append(
            f'<mark class="{name}">{text}<small>{(labels or {}).get(name, name)}</small></mark>'
            if name
            else text
        )
    return "".join([*parts, escape(original[end:])])


def _takers(words: list[str], regions: Mapping[str, list[str]]) -> list[str]:
    """For each word the region that shares the longest run of words around it, "" where none does."""
    runs = {name: _runs(words, text) for name, text in regions.items()}
    takers: list[str] = []
    for place, word in enumerate(words):
        lengths = {name: lengths[place] for name, lengths in runs.items() if lengths[place]}
        longest = max(lengths.values(), default=0)
        best = [name for name, length in lengths.items() if length == longest]
        before = takers[-1] if takers else ""
        if longest == 1 and (len(word) < 4 or len(best) > 1):  # a lone "is" or "normal" says nothing
            best = []
        takers.append(before if before in best else best[0] if best else "")
    return takers


def _runs(words: list[str], others: list[str]) -> list[int]:
    """For each word the length of the longest run around it that `others` has too."""
    longest, before = [0] * len(words), [0] * (len(others) + 1)
    for end, word in enumerate(words):
        now = [0, *(before[place] + 1 if word == other else 0 for place, other in enumerate(others))]
        length = max(now)
        for place in range(end - length + 1, end + 1):
            longest[place] = max(longest[place], length)
        before = now
    return longest


def report_view(
    images: Sequence[Image.Image],
    reference: Mapping[str, str],
    prediction: Mapping[str, str],
    judgements: Mapping[str, Judgement],
    judge_label: str,
    note: str = "",
) -> HTML:
    """One study: its views, reference and prediction by region, and what the judge found.

    `judgements` by region; of a region that the reference does not mention none
    is shown. The words that the judge's findings name are marked and labelled
    in the texts, as far as they can be found there. Without prediction and
    judgements it shows the study alone. `judge_label` and `note` (such as "phantom") are shown as they come.
    """
    wrote, found = mentioned(dict(reference)), mentioned(dict(prediction))
    judged = {name: judgements[name] for name in wrote if name in judgements}
    rows = [
        [
            _tag(name, name),
            _evidence(wrote.get(name, ""), judged.get(name), "b") or _quiet("not mentioned"),
            _evidence(found.get(name, ""), judged.get(name), "acde") or _quiet("nothing written"),
            _score(judged.get(name), name in wrote),
        ]
        for name in REGIONS
    ]
    columns = 4 if found or judgements else 2
    table = _table(("region", "reference", "prediction", "score")[:columns], (row[:columns] for row in rows))
    labels = " ".join(_tag(text) for text in (note, judge_label, NOT_FOR_CLINICAL_USE) if text)
    views = "".join(_view(image, f"view {n} of {len(images)}") for n, image in enumerate(images, start=1))
    verdicts = "".join(_verdict(name, judgement) for name, judgement in judged.items())
    return HTML(
        _html(
            f'<p>{labels}</p><div class="side">{views}</div>{table}'
            f'<div class="side verdicts">{verdicts}</div>'
        )
    )


def _evidence(text: str, judgement: Judgement | None, letters: str) -> str:
    """`text` as markup; the words of matched findings and of the errors of the types `letters` are marked."""
    if judgement is None:
        return escape(text)
    wrong = [sentence for letter in letters for sentence in judgement.sentences.get(letter, ())]
    named = {"matched": " ".join(judgement.matched_findings), "wrong": " ".join(wrong)}
    missing = "✗ missing" if letters == "b" else "✗ wrong"
    return _marked(text, named, {"matched": "✓ matched", "wrong": missing})


def _score(judgement: Judgement | None, is_mentioned: bool) -> str:
    if judgement is None:
        return _quiet("not judged" if is_mentioned else "not scored")
    if judgement.score is None:
        return _quiet("no verdict")
    bar = f'<span class="bar"><i style="width:{judgement.score:.0%}"></i></span>'
    return f"<b>{judgement.score:.2f}</b>{bar}"


def _verdict(region: str, judgement: Judgement) -> str:
    """What the judge said of one region: matches, errors, and its answer whole."""
    lines = [f"✓ {finding}" for finding in judgement.matched_findings]
    for kind, errors in (("", judgement.sentences), ("minor: ", judgement.insignificant_sentences)):
        for letter, sentences in errors.items():
            lines += [f"✗ {kind}{ERRORS['abcdef'.index(letter)]}: {sentence}" for sentence in sentences]
    listed = "".join(f"<li>{escape(line)}</li>" for line in lines or ["no match and no error listed"])
    return (
        f'<div>{_tag(region, region)}<ul class="plain">{listed}</ul>'
        f"<details><summary>the judge's whole answer</summary>"
        f"<pre>{escape(judgement.completion)}</pre></details></div>"
    )


def steps_view(workspace: Workspace, here: str) -> HTML:
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
        _html(
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
