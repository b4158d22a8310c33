"""Forms made from the settings models. Nothing waits for a click: a form holds valid settings throughout."""

from collections.abc import Callable, Collection, Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Literal, get_args, get_origin

import ipywidgets as widgets
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from utils.run.workspace import StepError
from utils.settings import StepSettings, with_values

from .page import Live, as_text, html, quiet, refused, table, tag

_LONG_TEXT = 80  # characters: a longer text gets a text area
_SLIDER_SPAN = 64  # whole numbers: a wider range is typed
_FIXED = {"form": "set in the form above", "run": "set when the run started"}
# What was changed in this kernel, by knob: for each form's folder and kind of settings.
_CHANGED: dict[tuple[str, type], dict] = {}


class Form(Live):
    """A form for one step's settings, filled in from the start.

    `settings` is always a valid model of the type that came in: a value that the model refuses is named
    beside its field, and the one before it holds. *Reset* goes back to what the form opened with. A table
    above the fields names what differs from `preset`, and where each value came from. The settings' `folded`
    knobs lie in groups of which one at a time is open, so that the form and what is beside it fit a screen.

    beside: gives markup that is shown beside the fields and drawn anew at every change
    fixed: the fields that cannot be changed, each with its source, "form" or "run"
    changed: takes what is changed in the form, by name, which is in it from the start
    """

    def __init__(
        self,
        start: StepSettings,
        beside: Callable[[StepSettings], str] | None = None,
        *,
        preset: StepSettings | None = None,
        fixed: Mapping[str, str] | None = None,
        changed: dict | None = None,
        note: str = "",
    ):
        self._start, self._preset, self._beside = start.model_copy(), (preset or start).model_copy(), beside
        self._fixed, self._changed = fixed or {}, {} if changed is None else changed
        free = {name: value for name, value in self._changed.items() if name not in self._fixed}
        self.settings = with_values(start, free)
        self._knobs = type(start).model_fields
        folded = {name for names in start.folded.values() for name in names}
        self._first = [name for name in self._knobs if name not in folded]
        self._note = html(quiet(escape(note))) if note else ""
        self.fields = {name: _field(name, self.settings) for name in self._knobs}
        self._help = {name: _help(info) for name, info in self._knobs.items()}
        marks = {name: tag(_FIXED[source]) for name, source in self._fixed.items()}
        self._notes = {name: f"{marks.get(name, '')} {text}".strip() for name, text in self._help.items()}
        self.notes = {name: widgets.HTML(html(self._notes[name])) for name in self._knobs}
        self.reset_button = widgets.Button(description="Reset to preset", icon="undo")
        self.reset_button.on_click(lambda _: self.reset())
        self._panel, self._sources = widgets.HTML(), widgets.HTML()
        super().__init__(self._layout(), self._values)
        for name, field in self.fields.items():
            field.disabled = name in self._fixed
            field.observe(lambda change, name=name: self._take(name, change["new"]), names="value")
        self._draw()

    def _layout(self) -> widgets.Box:
        """The fields, few first and the others folded, and beside them what is drawn."""
        groups = [widgets.VBox(self._rows(names)) for names in self._start.folded.values()]
        self._groups = widgets.Accordion(groups, selected_index=None)
        top = [widgets.HTML(self._note), self._sources] if self._note else [self._sources]
        more = [widgets.HTML(html("<b>More settings</b>")), self._groups] if groups else []
        knobs = widgets.VBox([*top, *self._rows(self._first), *more, self.reset_button])
        if not self._beside:
            return knobs
        knobs.layout.flex, self._panel.layout.flex = "2 1 560px", "1 1 320px"
        self._panel.layout.margin = "0 0 0 16px"
        self._panel.add_class("xr-beside")
        return widgets.HBox([knobs, self._panel], layout=widgets.Layout(flex_flow="row wrap"))

    def reset(self) -> None:
        """Put every field back to what the form opened with."""
        for name, field in self.fields.items():
            value = getattr(self._start, name)
            is_typed = isinstance(value, float) and isinstance(field, widgets.Text)
            field.value = as_text(value) if is_typed else value

    def _rows(self, names: Iterable[str]) -> list[widgets.Box]:
        """Each field beside its note, a text area above it."""
        fields = ((self.fields[name], self.notes[name]) for name in names)
        return [
            (widgets.VBox if isinstance(pair[0], widgets.Textarea) else widgets.HBox)(pair) for pair in fields
        ]

    def _take(self, name: str, value: object) -> None:
        note = self._notes[name]
        try:
            self.settings = with_values(self.settings, {name: value})
        except ValidationError as error:
            kept = escape(_text_of(self.settings, name))
            note = f"{refused(f'{value!s} refused', error.errors()[0]['msg'])}. Still {kept}.<br>{note}"
        else:
            self._changed[name] = getattr(self.settings, name)
            if self._changed[name] == getattr(self._start, name):
                del self._changed[name]
        self.notes[name].value = html(note)
        self._draw()

    def _differing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if getattr(self.settings, name) != getattr(self._preset, name)]

    def _draw(self) -> None:
        self._panel.value = html(self._beside(self.settings)) if self._beside else ""
        rows = []
        for name in self._differing(self.fields):
            value = getattr(self.settings, name)
            shown = f"{len(value):,} characters" if _is_long(value) else f"<b>{escape(as_text(value))}</b>"
            free = "run" if value == getattr(self._start, name) else "widget"
            rows.append((escape(_label(name)), shown, self._fixed.get(name, free)))
        same = quiet("Every value is the preset's.")
        self._sources.value = html(table(("not the preset's", "value", "from"), rows) if rows else same)
        for number, title in enumerate(self._titles()):
            self._groups.set_title(number, title)
        self.refresh()

    def _titles(self) -> list[str]:
        """The folded groups, each with those of its knobs that differ from the preset."""
        titles = []
        for group, names in self.settings.folded.items():
            changed = [f"{_label(name)} {_text_of(self.settings, name)}" for name in self._differing(names)]
            titles.append(f"{group} (changed: {', '.join(changed)})" if changed else group)
        return titles

    def _values(self) -> str:
        groups = zip(self._titles(), self.settings.folded.values(), strict=True)
        tables = ((escape(title), self._table(names)) for title, names in groups)
        more = "".join(f"<details><summary>{title}</summary>{rows}</details>" for title, rows in tables)
        shown = self._note + self._sources.value + self._table(self._first) + self._panel.value
        return shown + (more and f"<b>More settings</b>{more}")

    def _table(self, names: Iterable[str]) -> str:
        rows = []
        for name in names:
            mark = "pre" if _is_long(getattr(self.settings, name)) else "b"
            value = f"<{mark}>{escape(_text_of(self.settings, name))}</{mark}>"
            rows.append((escape(_label(name)), value, self._help[name]))
        return table(("setting", "value", "meaning"), rows)


def open_form(
    preset: StepSettings,
    values: dict,
    of: Path,
    beside: Callable[[StepSettings], str] | None = None,
    begun: dict | None = None,
    free: Collection[str] = (),
) -> Form:
    """The form of a step: the first form's values hold over what is changed here, and that over the preset.

    values: what the notebook's parameters say, see `filled`; the form shows them, fixed
    of: the folder that the settings are for; in one kernel its form opens again as it was left
    begun: the settings of a run that has begun, fixed too but for those called `free`; None: a step without

    Raises ValueError, naming the field, where `values` has a name or a value
    that the settings refuse, and StepError where a run that has begun has other values.
    """
    note = "The form at the top holds over this one. What you change here is lost when the kernel restarts"
    note += "." if begun is None else ", unless the run has begun: then its own settings hold."
    start, fixed = _with_values(preset, values), dict.fromkeys(values, "form")
    if begun:
        run = _with_values(preset, begun, f"The run in {of}")
        start, note = _with_values(run, values), f"Run {of.name} started with these settings."
        fixed |= {name: "run" for name in type(preset).model_fields if name not in free}
        texts = [(name, _text_of(run, name), _text_of(start, name)) for name in values if name not in free]
        if other := [f"{name} {ran}, not {asked}" for name, ran, asked in texts if ran != asked]:
            raise StepError(
                f"The run in {of} started with {'; '.join(other)}. Take that out of the form at the top to "
                "go on with it, or choose another RUN."
            )
    changed = _CHANGED.setdefault((str(of), type(preset)), {})
    return Form(start, beside, preset=preset, fixed=fixed, changed=changed, note=note)


def filled(values: dict, **fields: object) -> dict:
    """`SETTINGS`, names and values, over those fields of the parameters' cell that are filled in."""
    return {name: value for name, value in fields.items() if value != ""} | _names_and_values(values)


def parts(values: dict, *forms: str) -> dict[str, dict]:
    """The parameter `SETTINGS` of a notebook with several forms, by form. ValueError for an unknown form."""
    if unknown := sorted(set(_names_and_values(values)) - set(forms)):
        must = f"must name one of this notebook's forms: {' or '.join(forms)}"
        raise ValueError(f"SETTINGS has {unknown[0]!r}, but {must}")
    return {form: values.get(form, {}) for form in forms}


def _names_and_values(parameter: object) -> dict:
    if not isinstance(parameter, dict):
        raise ValueError(f'SETTINGS must hold names and values, such as {{"seed": 1}}, not {parameter!r}')
    return parameter


def _with_values(settings: StepSettings, values: dict, who: str = "SETTINGS") -> StepSettings:
    """`settings` with the values of a parameter or a run; what they refuse is told in a sentence."""
    known = type(settings).model_fields
    try:
        return with_values(settings, _names_and_values(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0]
    if name not in known:
        fault = f"{who} has {name!r}, which is not a field of this form"
        raise ValueError(f"{fault}. The fields are {', '.join(known)}")
    raise ValueError(f"The value {values[name]!r} of {name!r} is not allowed: {first['msg']}")


def _text_of(settings: StepSettings, name: str) -> str:
    return as_text(getattr(settings, name))


def _is_long(value: object) -> bool:
    """Whether a text is a prompt rather than a name."""
    return isinstance(value, str) and (len(value) > _LONG_TEXT or "\n" in value)


def _label(name: str) -> str:
    return name.replace("_", " ")


def _bounds(info: FieldInfo) -> dict[str, float]:
    """The limits of a number, by pydantic's names: ge, gt, le, lt."""
    keys = ("ge", "gt", "le", "lt")
    return {key: getattr(rule, key) for rule in info.metadata for key in keys if hasattr(rule, key)}


def _help(info: FieldInfo) -> str:
    """A field's description and its allowed range, as markup."""
    words = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    limits = " ".join(f"{words[key]} {as_text(limit)}" for key, limit in _bounds(info).items())
    return escape(info.description or "") + (f" {quiet(f'({limits})')}" if limits else "")


def _field(name: str, settings: StepSettings) -> widgets.Widget:
    """The widget for one knob; a number that is typed may be written 1e-4."""
    info, value = type(settings).model_fields[name], getattr(settings, name)
    annotation, bounds, size = info.annotation, _bounds(info), {"width": "330px", "flex": "0 0 auto"}
    is_slider = {"ge", "le"} <= bounds.keys() and bounds["le"] - bounds["ge"] <= _SLIDER_SPAN
    look = {"value": value, "description": _label(name), "style": {"description_width": "110px"}}
    look["layout"] = widgets.Layout(**size)
    if get_origin(annotation) is Literal:
        return widgets.Dropdown(options=get_args(annotation), **look)
    if annotation is bool:
        return widgets.Checkbox(**look)
    look["continuous_update"] = False
    if is_slider:
        look |= {"min": bounds["ge"], "max": bounds["le"]}
        if annotation is int:
            return widgets.IntSlider(**look)
        return widgets.FloatSlider(step=0.005, readout_format=".3f", **look)
    if annotation is int:
        return widgets.IntText(**look)
    if annotation is float:
        return widgets.Text(**look | {"value": as_text(value)})
    if _is_long(value):
        look["layout"] = widgets.Layout(**size | {"width": "700px", "height": "260px"})
        return widgets.Textarea(**look)
    if info.examples:
        return widgets.Combobox(options=info.examples, **look)
    if annotation is str:
        return widgets.Text(**look)
    raise TypeError(f"no field for {name!r}: settings in a form are numbers, texts, choices or yes and no")
