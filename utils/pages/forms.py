"""Forms made from the settings models. Nothing waits for a click: a form holds valid settings throughout."""

import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from html import escape
from pathlib import Path

import ipywidgets as widgets
from IPython.display import HTML
from matplotlib.figure import Figure
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from utils.run.workspace import StepError
from utils.settings import StepSettings, with_values

from .page import Live, as_text, html, markup, quiet, table, tag

_LONG_TEXT = 80  # characters: a longer text gets a text area
_SLIDER_SPAN = 64  # whole numbers: a wider range is typed


# What was changed in this kernel, by knob: for each form's folder and kind of settings.
_CHANGED: dict[tuple[str, type], dict] = {}


class Form(Live):
    """A form for one step's settings, filled in from the start.

    `settings` is always a valid model of the type that came in: a value that
    the model refuses is named beside its field, and the one before it holds.
    *Reset* goes back to what the form opened with. A table above the fields
    names what differs from `preset`, and where each value came from. The fields
    `fixed` cannot be changed here: each name has "form" or "run" as its source.
    What is changed here goes into `changed`, by name, and is in it from the start.
    `beside(settings)` gives markup, HTML or a figure that is shown beside the
    fields and drawn anew at every change, such as the plan of a training run.
    The settings' `folded` knobs lie in groups of which one at a time is open, so
    that the form and what stands beside it fit a screen.
    """

    def __init__(
        self,
        start: StepSettings,
        beside: Callable[[StepSettings], "HTML | Figure | str"] | None = None,
        *,
        preset: StepSettings | None = None,
        fixed: Mapping[str, str] | None = None,
        changed: dict | None = None,
        note: str = "",
    ):
        self._start, self._preset, self._beside = start.model_copy(), (preset or start).model_copy(), beside
        self._fixed, self._changed = fixed or {}, {} if changed is None else changed
        free = {name: value for name, value in self._changed.items() if name not in self._fixed}
        self.settings = settings = with_values(start, free)
        self._note = html(quiet(escape(note))) if note else ""
        self.fields = {name: _field(name, info, settings) for name, info in _knobs(settings).items()}
        self.notes = {name: widgets.HTML() for name in self.fields}
        self.reset_button = widgets.Button(description="Reset to preset", icon="undo")
        self.reset_button.on_click(lambda _: self.reset())
        self._panel, self._sources = widgets.HTML(), widgets.HTML()
        self._groups = widgets.Accordion(
            [widgets.VBox(self._rows(names)) for names in settings.folded.values()], selected_index=None
        )
        top = [widgets.HTML(self._note), self._sources] if note else [self._sources]
        more = [widgets.HTML(html("<b>More settings</b>")), self._groups] if settings.folded else []
        knobs = widgets.VBox([*top, *self._rows(_first(settings)), *more, self.reset_button])
        if beside:
            knobs.layout.flex, self._panel.layout.flex = "2 1 560px", "1 1 320px"
            self._panel.layout.margin = "0 0 0 16px"
            self._panel.add_class("xr-beside")
            knobs = widgets.HBox([knobs, self._panel], layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__(knobs, self._values)
        for name, field in self.fields.items():
            self.notes[name].value = html(self._help(name))
            field.disabled = name in self._fixed
            field.observe(lambda change, name=name: self._take(name, change["new"]), names="value")
        self._draw()

    def reset(self) -> None:
        """Put every field back to what the form opened with."""
        for name, field in self.fields.items():
            field.value = _shown(_knobs(self._start)[name], getattr(self._start, name))

    def source(self, name: str) -> str:
        """Where a value came from: `form` (the notebook's first), `run`, `widget` or `preset`."""
        if name in self._fixed:
            return self._fixed[name]
        if getattr(self.settings, name) != getattr(self._start, name):
            return "widget"
        return "preset" if getattr(self._start, name) == getattr(self._preset, name) else "run"

    def _rows(self, names: Iterable[str]) -> list[widgets.Box]:
        return [_row(self.fields[name], self.notes[name]) for name in names]

    def _help(self, name: str) -> str:
        where = {"form": "set in the form above", "run": "set when the run started"}.get(
            self._fixed.get(name)
        )
        return (f"{tag(where)} " if where else "") + _help(_knobs(self.settings)[name])

    def _take(self, name: str, value: object) -> None:
        note = self._help(name)
        try:
            changed = with_values(self.settings, {name: value})
        except ValidationError as error:
            kept = escape(_of(self.settings, name))
            reason = escape(error.errors()[0]["msg"])
            note = f"{tag(f'{value!s} refused', 'refused')} {reason}. Still {kept}.<br>{note}"
        else:
            self.settings = changed
            self._changed[name] = getattr(changed, name)
            if self.source(name) != "widget":
                del self._changed[name]
        self.notes[name].value = html(note)
        self._draw()

    def _differing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if getattr(self.settings, name) != getattr(self._preset, name)]

    def _draw(self) -> None:
        self._panel.value = html(markup(self._beside(self.settings))) if self._beside else ""
        rows = [
            (escape(_label(name)), _short(getattr(self.settings, name)), self.source(name))
            for name in self._differing(self.fields)
        ]
        same = quiet("Every value is the preset's.")
        self._sources.value = html(table(("not the preset's", "value", "from"), rows) if rows else same)
        for place, title in enumerate(self._titles()):
            self._groups.set_title(place, title)
        self.refresh()

    def _titles(self) -> list[str]:
        """The folded groups, each with those of its knobs that differ from the preset."""
        titles = []
        for group, names in self.settings.folded.items():
            told = [f"{_label(name)} {_of(self.settings, name)}" for name in self._differing(names)]
            titles.append(f"{group} (changed: {', '.join(told)})" if told else group)
        return titles

    def _values(self) -> str:
        first = _settings_rows(self.settings, _first(self.settings))
        more = "".join(
            f"<details><summary>{escape(title)}</summary>{_settings_rows(self.settings, names)}</details>"
            for title, names in zip(self._titles(), self.settings.folded.values(), strict=True)
        )
        top = self._note + self._sources.value
        return top + first + self._panel.value + (more and f"<b>More settings</b>{more}")


def open_form(
    preset: StepSettings,
    values: dict,
    of: Path,
    beside: Callable[[StepSettings], "HTML | Figure | str"] | None = None,
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
        fixed |= {name: "run" for name in _knobs(preset) if name not in free}
        if other := [name for name in values if name not in free and _of(start, name) != _of(run, name)]:
            told = "; ".join(f"{name} {_of(run, name)}, not {_of(start, name)}" for name in other)
            raise StepError(
                f"The run in {of} started with {told}. Take that out of the form at the top to "
                "go on with it, or choose another RUN."
            )
    changed = _CHANGED.setdefault((str(of), type(preset)), {})
    return Form(start, beside, preset=preset, fixed=fixed, changed=changed, note=note)


def _of(settings: StepSettings, name: str) -> str:
    return as_text(getattr(settings, name))


def filled(values: dict, **fields: object) -> dict:
    """The parameter `SETTINGS` over those fields of the parameters' cell that are filled in, by knob.

    Raises ValueError where `SETTINGS` holds no names and values.
    """
    return {name: value for name, value in fields.items() if value != ""} | _names_and_values(values)


def parts(values: dict, *forms: str) -> dict[str, dict]:
    """The parameter `SETTINGS` of a notebook with several forms, by form.

    Raises ValueError where it names a form that is not there.
    """
    unknown = sorted(set(_names_and_values(values)) - set(forms))
    if unknown:
        raise ValueError(
            f"SETTINGS has {unknown[0]!r}, but must name one of this notebook's forms: {' or '.join(forms)}"
        )
    return {form: values.get(form, {}) for form in forms}


def _names_and_values(parameter: object) -> dict:
    if not isinstance(parameter, dict):
        raise ValueError(f'SETTINGS must hold names and values, such as {{"seed": 1}}, not {parameter!r}')
    return parameter


def _with_values(settings: StepSettings, values: dict, who: str = "SETTINGS") -> StepSettings:
    """`settings` with the values of a parameter or a run; what they refuse is told in a sentence."""
    try:
        return with_values(settings, _names_and_values(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0]
        known = ", ".join(_knobs(settings))
    if name not in _knobs(settings):
        raise ValueError(f"{who} has {name!r}, which is not a field of this form. The fields are {known}")
    raise ValueError(f"The value {values[name]!r} of {name!r} is not allowed: {first['msg']}")


def _row(field: widgets.Widget, note: widgets.HTML) -> widgets.Box:
    return (widgets.VBox if isinstance(field, widgets.Textarea) else widgets.HBox)([field, note])


def _settings_rows(settings: StepSettings, names: Iterable[str]) -> str:
    known = _knobs(settings)
    rows = ((escape(_label(name)), _value(getattr(settings, name)), _help(known[name])) for name in names)
    return table(("setting", "value", "meaning"), rows)


def _value(value: object) -> str:
    shown = escape(as_text(value))
    return f"<pre>{shown}</pre>" if _is_long(value) else f"<b>{shown}</b>"


def _short(value: object) -> str:
    """A value in a row of its own; of a prompt its length."""
    return f"{len(value):,} characters" if _is_long(value) else f"<b>{escape(as_text(value))}</b>"


def _is_long(value: object) -> bool:
    """Whether a text is a prompt rather than a name."""
    return isinstance(value, str) and (len(value) > _LONG_TEXT or "\n" in value)


def _knobs(settings: StepSettings) -> dict[str, FieldInfo]:
    return type(settings).model_fields


def _first(settings: StepSettings) -> list[str]:
    """The knobs that a form does not fold."""
    folded = {name for names in settings.folded.values() for name in names}
    return [name for name in _knobs(settings) if name not in folded]


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


def _shown(info: FieldInfo, value: object) -> object:
    """A value as its field holds it: a number that is typed may be written 1e-4."""
    is_typed = info.annotation is float and not _is_slider(info)
    return as_text(value) if is_typed else value


def _is_slider(info: FieldInfo) -> bool:
    bounds = _bounds(info)
    return {"ge", "le"} <= bounds.keys() and bounds["le"] - bounds["ge"] <= _SLIDER_SPAN


def _field(name: str, info: FieldInfo, settings: StepSettings) -> widgets.Widget:
    """The widget for one knob."""
    value = getattr(settings, name)
    look = {
        "value": _shown(info, value),
        "description": _label(name),
        "style": {"description_width": "110px"},
        "layout": widgets.Layout(width="330px", flex="0 0 auto"),
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
    if info.examples:
        return widgets.Combobox(options=info.examples, **look)
    if info.annotation is str:
        return widgets.Text(**look)
    raise TypeError(f"no field for {name!r}: settings in a form are numbers, texts, choices or yes and no")
