"""Whether the hottest patch lies on the finding, on phantoms with one finding, whose place is known.

    python benchmarks/where_it_looked.py runs/demo/training/default/adapter

Drawn are phantoms with exactly one finding, STUDIES of each kind, which are in no data set. Where the report
names the finding, each part of the views is replaced in turn, see `utils/models/looked.py`. Counted is how
often the hottest patch of all views lies on the finding as drawn. Chance is the share of patches that do.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.data import anatomy, drawing, phantoms
from utils.data.wording import VALUES, Attributes
from utils.findings.groups import named
from utils.models.looked import GRID, box, mean_views, where_it_looked
from utils.models.study import StudyReport, open_writer, read_study

SIZE, STUDIES, SEED = 256, 10, 77
OF_MEAN = 100  # phantoms whose mean views stand for the training studies'
LEAST = 0.05  # of a patch must be the finding, for the patch to lie on it


@dataclass(frozen=True)
class Kind:
    """A finding: its attribute's region, its name in `findings.groups`, and which shapes draw it.

    drawn: whether a shape is the finding, by the function that draws it, its kind, its shade and its width;
    None: it is cut out again
    """

    region: str
    group: str
    drawn: Callable[[str, str, float, float], bool | None]


def _air(by: str, kind: str, shade: float, width: float) -> bool | None:
    """Of a pneumothorax, the lung's side without the shrunk lung."""
    if by != "_air" or kind != "area" or shade not in (1.0, 0.68):
        return False
    return True if shade == 1.0 else None


FINDINGS = {
    "effusion": Kind("lung", "effusion", lambda by, kind, shade, width: by == "_air" and shade == 0.04),
    "opacity": Kind("lung", "opacity", lambda by, kind, shade, width: by == "lesions"),
    "nodule": Kind("lung", "nodule", lambda by, kind, shade, width: by == "lesions"),
    "pneumothorax": Kind("lung", "pneumothorax", _air),
    "heart": Kind("heart", "cardiomegaly", lambda by, kind, shade, width: shade == anatomy.HEART),
    "mediastinum": Kind(
        "mediastinal",
        "wide mediastinum",
        lambda by, kind, shade, width: (
            by == "_heart_and_vessels" and kind == "area" and shade == anatomy.VESSEL
        ),
    ),
    "aorta": Kind(
        "mediastinal",
        "tortuous or calcified aorta",
        lambda by, kind, shade, width: shade == anatomy.AORTA or (shade == anatomy.VESSEL and width == 0.06),
    ),
    "fracture": Kind(
        "bone",
        "fracture",
        lambda by, kind, shade, width: by == "break_rib" or (by == "tube" and shade == 0.95),
    ),
    "scoliosis": Kind("bone", "scoliosis", lambda by, kind, shade, width: by == "vertebra"),
    "spine": Kind("bone", "degenerative change", lambda by, kind, shade, width: by == "spur"),
}
FRONTAL_ALONE = ("fracture", "scoliosis")  # are not drawn on the lateral view


@dataclass(frozen=True)
class Drawn:
    """A phantom with one finding: its views, and for each the pixels that the finding is drawn on."""

    views: list[Image.Image]
    masks: list[np.ndarray]


def one_finding(name: str, number: int) -> Drawn:
    """The phantom of this number whose one finding is the attribute `name`."""
    rng = np.random.default_rng((SEED, list(FINDINGS).index(name), number))
    attributes = Attributes(**{name: str(rng.choice(VALUES[name][1:]))})
    views, masks = [], []
    for kind in (anatomy.Frontal, anatomy.Lateral):
        with recorded(FINDINGS[name]) as mask:
            views.append(kind(attributes, rng, SIZE).view())
        lateral = kind is anatomy.Lateral
        hidden = lateral and name in FRONTAL_ALONE
        masks.append(np.zeros((SIZE, SIZE)) if hidden else np.asarray(mask) > 0)
    return Drawn(views, masks)


@contextmanager
def recorded(finding: Kind):
    """While a view is drawn, also draws the finding's shapes on the mask that this gives."""
    mask = Image.new("1", (SIZE, SIZE))
    pen, real = (
        ImageDraw.Draw(mask),
        {name: getattr(drawing.Sheet, name) for name in ("area", "line", "disc")},
    )

    def also(kind: str):
        def draw(sheet, points, *values):
            by = sys._getframe(1).f_code.co_name
            width, shade = (0.0, *values, 1.0)[:2] if kind == "area" else (*values, 1.0)[:2]
            drawn = finding.drawn(by, kind, shade, width)
            if drawn is not False:
                placed = sheet.film.place(points) * SIZE
                ink = 1 if drawn else 0
                if kind == "area":
                    pen.polygon(placed.ravel().tolist(), fill=ink)
                elif kind == "line":
                    pen.line(placed.ravel().tolist(), fill=ink, width=max(1, round(width * SIZE)))
                else:
                    (x, y), r = placed, width * SIZE
                    pen.ellipse([x - r, y - r, x + r, y + r], fill=ink)
            return real[kind](sheet, points, *values)

        return draw

    try:
        for name in real:
            setattr(drawing.Sheet, name, also(name))
        yield mask
    finally:
        for name, function in real.items():
            setattr(drawing.Sheet, name, function)


def shares(masks: list[np.ndarray]) -> np.ndarray:
    """(views, GRID, GRID): what share of each patch is the finding."""
    covered = np.zeros((len(masks), GRID, GRID))
    for number, row, column in np.ndindex(covered.shape):
        left, top, right, bottom = box((SIZE, SIZE), row, column)
        covered[number, row, column] = masks[number][top:bottom, left:right].mean()
    return covered


def is_named(study: StudyReport, name: str) -> bool:
    """Whether the report says that the finding is there."""
    return FINDINGS[name].group in named(study.report.get(FINDINGS[name].region, ""), FINDINGS[name].region)


def looked(writer, name: str, means: list[Image.Image]) -> list[tuple[bool, float]]:
    """For each phantom whose report names the finding: whether the hottest patch lies on it, and chance."""
    found = []
    for number in range(STUDIES):
        phantom = one_finding(name, number)
        study = read_study(writer, phantom.views)
        if is_named(study, name):
            heat = where_it_looked(writer, phantom.views, study, means, lambda batches, _: batches)
            heat = heat[FINDINGS[name].region]
            lies = shares(phantom.masks)[: len(heat)] >= LEAST
            found.append((bool(lies[np.unravel_index(heat.argmax(), heat.shape)]), float(lies.mean())))
    return found


def main() -> None:
    """Print a row for each finding, and one for all."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("adapter", type=Path, help="of phantoms, such as make demo leaves it")
    writer = open_writer(parser.parse_args().adapter)
    drawn = phantoms.stream(SEED, OF_MEAN, SIZE)
    means = mean_views((phantom.views for phantom in drawn), writer.reading["views"])
    every = []
    say("finding", "named", "hottest patch on it", "chance")
    say(*["---"] * 4)
    for name, kind in FINDINGS.items():
        found = looked(writer, name, means)
        every += found
        row(kind.group, f"{len(found)} of {STUDIES}", found)
    row("all", f"{len(every)} of {STUDIES * len(FINDINGS)}", every)


def row(what: str, named_in: str, found: list[tuple[bool, float]]) -> None:
    """Print a row of the table, of what `looked` gives."""
    hits, chance = sum(lies for lies, _ in found), np.mean([chance for _, chance in found] or [0])
    share = f"{hits} of {len(found)} ({hits / len(found):.0%})" if found else "–"
    say(what, named_in, share, f"{chance:.0%}" if found else "–")


def say(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
