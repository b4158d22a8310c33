"""Phantom chests, frontal and lateral, with the findings of their attributes.

A radiograph shows how much of each ray was stopped, so a view is built that way: the trunk, less the air in
the lungs, with the heart and the vessels in it and the bones on top.
"""

import numpy as np
from PIL import Image

from .drawing import Film, Sheet, curve
from .wording import Attributes

# Of x from the midline, frontal: the patient's left is on the picture's right, as radiologists look at it.
SIGN = {"right": -1, "left": 1}
# Breadth of the heart over the breadth of the chest inside the ribs, frontal; its scale, lateral.
HEART_RATIO = {"normal": (0.40, 0.48), "mildly enlarged": (0.53, 0.58), "markedly enlarged": (0.67, 0.72)}
HEART_SCALE = {"normal": (0.90, 1.00), "mildly enlarged": (1.10, 1.18), "markedly enlarged": (1.34, 1.42)}
# What a shape stops, in the layer of the heart and the vessels.
HEART, VESSEL, AORTA, WINDPIPE = 0.80, 0.86, 0.97, 0.62
BONE = 0.45  # what a bone stops, on top of what lies before and behind it


def lesions(film: Film, seen: Attributes, spot) -> np.ndarray | float:
    """What an opacity and a nodule stop; `spot` gives a point in an area such as "left upper"."""
    stopped, rng = 0.0, film.rng
    if seen.found("opacity"):
        cloud, centre = Sheet(film), spot(seen.opacity)
        for shift in rng.uniform(-0.045, 0.045, (9, 2)):
            cloud.disc(centre + shift, 0.04)
        stopped = stopped + 0.5 * cloud.soft(32) * (1 + 0.12 * film.grain(24))
    if seen.found("nodule"):
        ball = Sheet(film)
        ball.disc(spot(seen.nodule), rng.uniform(0.042, 0.050))
        stopped = stopped + 0.6 * ball.soft(80)
    return stopped


def vertebra(sheet: Sheet, centre, half: float, lean: float, shade: float) -> None:
    """A vertebral body, `half` of its breadth given, `lean` its tangent: dense rims, a lighter middle."""
    box = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (half, 0.026) @ [[1, -lean], [lean, 1]]
    sheet.area(box + centre, shade)
    sheet.area(0.8 * box + centre, 0.75 * shade)


def spur(sheet: Sheet, centre, half: float, lean: float, side: int) -> None:
    """An osteophyte on one side of the disc below a vertebra, bridging it to the next."""
    beak = [(half - 0.01, 0.0), (half + 0.045, 0.020), (half + 0.045, 0.043), (half - 0.01, 0.063)]
    sheet.area(np.array(beak) * (side, 1) @ [[1, -lean], [lean, 1]] + centre)


def tube(sheet: Sheet, line: np.ndarray, width: float, shade: float) -> None:
    """A long bone along `line`: dense rims and a lighter middle."""
    sheet.line(line, width, shade)
    sheet.line(line, width - 0.012, 0.7 * shade)


def break_rib(sheet: Sheet, rib: np.ndarray) -> None:
    """A rib in two pieces, the outer one sunk, dense at the break."""
    for piece, end in ((rib[:17], slice(-6, None)), (rib[16:] + (0, 0.045), slice(0, 6))):
        tube(sheet, piece, 0.028, 0.95)
        sheet.line(piece[end], 0.034)


def beside(side: int, points) -> np.ndarray:
    """Points (distance from the midline, y) on one side of the frontal view, as (x, y)."""
    return np.asarray(points, dtype=float) * (side, 1) + (0.5, 0)


def both(line: np.ndarray) -> np.ndarray:
    """The outline that `line` (distance from the midline, y) makes with its mirror image."""
    return np.vstack([beside(1, line), beside(-1, line)[::-1]])


def wall(y):
    """The rib cage's inner side at height `y` of the frontal view: its distance from the midline."""
    heights = (0.10, 0.14, 0.20, 0.28, 0.40, 0.55, 0.75)
    return np.interp(y, heights, (0.13, 0.195, 0.25, 0.295, 0.33, 0.35, 0.355))


class Frontal:
    """The frontal view of one patient."""

    def __init__(self, attributes: Attributes, rng: np.random.Generator, size: int):
        self.seen, self.rng, self.film = attributes, rng, Film(size, rng)
        self.turned = rng.uniform(-0.014, 0.014)  # clavicles and heart against the spine
        dome = rng.uniform(0.64, 0.67)
        self.domes = {"right": dome, "left": dome + 0.02}
        self.bend = SIGN.get(attributes.scoliosis, 0) * rng.uniform(0.085, 0.105)

    def view(self) -> Image.Image:
        """The radiograph, mode L."""
        air = self._air()
        stopped = self._body() * (1 - 0.93 * air) + 0.30 * self._branches() * air
        stopped = np.maximum(stopped, self._heart_and_vessels()) + BONE * self._bones()
        stopped += lesions(self.film, self.seen, self._spot) + self._metal()
        return self.film.develop(stopped, marker="L")

    def _body(self) -> np.ndarray:
        w = 0.41 * self.rng.uniform(0.96, 1.08)
        trunk = [(0.09, -0.1), (0.09, 0.03), (0.16, 0.09), (0.36, 0.12)]
        trunk += [(w, 0.3), (w - 0.01, 0.5), (w + 0.01, 1.1)]
        arm = [(0.28, 0.11), (0.43, 0.13), (0.54, 0.26), (0.58, 0.7), (0.5, 0.62), (0.43, 0.34)]
        sheet = Sheet(self.film)
        for side in SIGN.values():
            sheet.area(beside(side, curve(arm, closed=True)), 0.68)
        sheet.area(both(curve(trunk)))
        # Thick in the middle, thin at the edge: a soft copy gives the fall-off.
        return sheet.soft(128) * (0.35 + 0.62 * sheet.soft(16))

    def _air(self) -> np.ndarray:
        sheet = Sheet(self.film)
        for name, side in SIGN.items():
            low = self.domes[name]
            rim = [(0.05, 0.14), (0.115, 0.10)]
            rim += [(wall(y) - 0.006, y) for y in (0.14, 0.20, 0.28, 0.40, 0.55, low + 0.07)]
            dome = [rim[-1], (0.28, low + 0.02), (0.19, low - 0.01), (0.11, low), (0.0, low + 0.06)]
            lung = np.vstack([curve(rim), curve(dome), [(0.0, 0.14)]])
            sheet.area(beside(side, lung), 0.86)
            if self.seen.pneumothorax == name:
                # Air without lung along the wall, and the lung in it, small and dense, with its pleural line.
                sheet.area(beside(side, lung))
                shrunk = (lung - (0.04, 0.48)) * self.rng.uniform((0.62, 0.70), (0.68, 0.74)) + (0.04, 0.46)
                sheet.area(beside(side, shrunk), 0.68)
                sheet.line(beside(side, shrunk), 0.007, 0.4)
            if self.seen.effusion in (name, "bilateral"):
                top = low - self.rng.uniform(0.13, 0.2)
                meniscus = [(0.42, top - 0.05), (0.32, top + 0.02), (0.2, top + 0.09), (0.0, top + 0.12)]
                sheet.area(beside(side, np.vstack([curve(meniscus), [(0.0, 0.9), (0.42, 0.9)]])), 0.04)
        return sheet.soft(160)

    def _branches(self) -> np.ndarray:
        """The lungs' vessels, thinner on their way out from the hilum."""
        sheet, rng = Sheet(self.film), self.rng
        for name, side in SIGN.items():
            reach = 0.55 if self.seen.pneumothorax == name else 1.0
            sheet.line(beside(side, [(0.07, 0.40), (0.10, 0.47), (0.09, 0.54)]), 0.03, 0.8)
            angles = np.linspace(-1.25, 1.35, 10) + rng.uniform(-0.1, 0.1, 10)
            out = np.stack([np.cos(angles), np.sin(angles)], axis=1)
            out *= reach * rng.uniform(0.18, 0.27, (10, 1))
            sag = np.stack([np.zeros(10), rng.uniform(-0.02, 0.02, 10)], axis=1)
            hilum = np.array((0.08, 0.45))
            for vessel in curve(np.stack([0 * out, 0.5 * out + sag, out], axis=1) + hilum):
                sheet.line(beside(side, vessel), 0.006, 0.4)
                sheet.line(beside(side, vessel[:9]), 0.011, 0.55)
        return sheet.soft(160)

    def _heart_and_vessels(self) -> np.ndarray:
        sheet, rng, x = Sheet(self.film), self.rng, 0.5 + self.turned
        wide = rng.uniform(0.12, 0.14) if self.seen.found("mediastinum") else rng.uniform(0.052, 0.06)
        upper = [(0.05, 0.05), (0.7 * wide, 0.12), (0.9 * wide, 0.19), (wide, 0.28)]
        upper += [(0.9 * wide, 0.37), (0.06, 0.48), (0.05, 0.8)]
        sheet.area(both(curve(upper)) + (self.turned / 2, 0), VESSEL)
        breadth = rng.uniform(*HEART_RATIO[self.seen.heart]) * 2 * wall(0.55)
        right, left, low = -0.35 * breadth, 0.65 * breadth, self.domes["left"] + 0.03
        heart = [(-0.04, 0.34), (0.8 * right, 0.46), (right, 0.56), (0.85 * right, low), (0.0, low + 0.05)]
        heart += [(0.8 * left, low + 0.02), (left, 0.61), (0.78 * left, 0.51), (0.42 * left, 0.41)]
        heart += [(0.05, 0.34)]
        sheet.area(curve(np.array(heart) + (x, 0), closed=True), HEART)
        if self.seen.found("aorta"):
            out = x + rng.uniform(0.085, 0.10)
            down = [(out, 0.32), (out + 0.045, 0.42), (out + 0.04, 0.54), (x + 0.05, 0.68)]
            sheet.line(curve(down), 0.05, AORTA)
            sheet.disc((out, 0.30), 0.062, AORTA)
        else:
            sheet.disc((x + 0.045, 0.31), rng.uniform(0.032, 0.036), VESSEL + 0.03)
        sheet.line(curve([(x, 0.05), (x - 0.004, 0.2), (x - 0.006, 0.37)]), 0.034, WINDPIPE)
        for side in SIGN.values():
            sheet.line([(x, 0.365), (x + side * 0.05, 0.42)], 0.02, WINDPIPE + 0.08)
        return sheet.soft(128)

    def _bones(self) -> np.ndarray:
        sheet = Sheet(self.film)
        self._ribs(sheet)
        for side in SIGN.values():
            x = side * self.turned
            blade = curve([(0.36, 0.14), (0.42, 0.2), (0.40, 0.3), (0.36, 0.42), (0.33, 0.3)], closed=True)
            sheet.line(beside(side, blade), 0.008, 0.28)
            sheet.line(beside(side, [(0.455, 0.2), (0.5, 0.5)]), 0.045, 0.32)
            sheet.disc((0.5 + side * 0.44, 0.175), 0.042, 0.36)
            clavicle = curve([(0.035 + x, 0.20), (0.13, 0.165), (0.26, 0.125), (0.37, 0.12)])
            tube(sheet, beside(side, clavicle), 0.028, 0.48)
        self._spine(sheet)
        return sheet.soft()

    def _spine_x(self, y):
        """The spine's x at height `y`: with scoliosis, bent to one side about the middle of the chest."""
        return 0.5 + self.bend * (1.4 * np.exp(-(((np.asarray(y) - 0.5) / 0.2) ** 2)) - 0.4)

    def _ribs(self, sheet: Sheet) -> None:
        """Ten ribs a side, each from the spine out to the wall and, fainter, back to the front."""
        broken = self.rng.integers(4, 7)
        y = 0.125 + 0.056 * np.arange(10)
        for name, side in SIGN.items():
            head, end = side * (self._spine_x(y) - 0.5) + 0.03, wall(y + 0.075) + 0.004
            back = [(head, y), (0.35 * end + 0.03, y - 0.02), (0.78 * end, y + 0.012), (end, y + 0.085)]
            front = [back[-1], (0.9 * end, y + 0.135), (0.62 * end, y + 0.17), (0.42 * end, y + 0.175)]
            # (points, 2, ribs) to one line per rib
            back, front = (beside(side, curve(np.transpose(line, (2, 0, 1)))) for line in (back, front))
            whole = np.arange(len(y)) != (broken if self.seen.fracture == name else -1)
            for rib in front:
                tube(sheet, rib, 0.020, 0.24)
            for rib in back[whole]:
                tube(sheet, rib, 0.022, 0.44)
            for rib in back[~whole]:
                break_rib(sheet, rib)

    def _spine(self, sheet: Sheet) -> None:
        for y in np.arange(0.0, 1.05, 0.062) + self.rng.uniform(0, 0.06):
            x, half = self._spine_x(y), 0.030 + 0.012 * y
            lean = (self._spine_x(y + 0.02) - self._spine_x(y - 0.02)) / 0.04
            vertebra(sheet, (x, y), half, lean, 0.64)
            sheet.line([(x, y - 0.01), (x, y + 0.02)], 0.008, 0.64)
            if self.seen.found("spine") and y > 0.35:
                for side in SIGN.values():
                    spur(sheet, (x, y), half, lean, side)

    def _metal(self) -> np.ndarray | float:
        """Clips in the right upper abdomen."""
        if not self.seen.found("clips"):
            return 0.0
        sheet = Sheet(self.film)
        for point in self.rng.uniform((0.12, 0.77), (0.22, 0.86), (5, 2)):
            sheet.line(beside(SIGN["right"], [point, point + 0.032]), 0.016)
        return 3.0 * sheet.soft()

    def _spot(self, area: str) -> np.ndarray:
        side, zone = area.split()
        y = self.rng.uniform(*{"upper": (0.24, 0.33), "lower": (0.47, 0.54)}[zone])
        return np.array((0.5 + SIGN[side] * (wall(y) - self.rng.uniform(0.075, 0.10)), y))


class Lateral:
    """The lateral view of one patient, who looks to the left."""

    def __init__(self, attributes: Attributes, rng: np.random.Generator, size: int):
        self.seen, self.rng, self.film = attributes, rng, Film(size, rng)
        self.dome = rng.uniform(0.625, 0.65)

    def view(self) -> Image.Image:
        """The radiograph, mode L."""
        air = self._air()
        stopped = self._body() * (1 - 0.88 * air)
        stopped = np.maximum(stopped, self._heart_and_vessels()) + BONE * self._bones()
        return self.film.develop(stopped + lesions(self.film, self.seen, self._spot))

    def _body(self) -> np.ndarray:
        front = [(0.36, -0.1), (0.30, 0.05), (0.36, 0.2), (0.33, 0.32), (0.26, 0.5), (0.24, 0.64), (0.2, 1.1)]
        back = [(0.74, -0.1), (0.78, 0.08), (0.88, 0.25), (0.92, 0.45), (0.90, 0.65), (0.84, 0.85)]
        back += [(0.82, 1.1)]
        sheet = Sheet(self.film)
        sheet.area([(0.5, -0.1), (0.0, -0.1), (0.0, 0.02), (0.36, 0.2), (0.6, 0.15)], 0.7)  # the raised arms
        sheet.area(np.vstack([curve(front), curve(back)[::-1]]))
        return sheet.soft(128) * (0.3 + 0.65 * sheet.soft(16))

    def _air(self) -> np.ndarray:
        low = self.dome
        front = [(0.55, 0.16), (0.44, 0.24), (0.365, 0.38), (0.32, 0.52), (0.30, low + 0.03)]
        dome = [front[-1], (0.40, low), (0.54, low + 0.01), (0.67, low + 0.07), (0.80, low + 0.19)]
        back = [dome[-1], (0.85, 0.7), (0.865, 0.5), (0.81, 0.3), (0.70, 0.16), (0.62, 0.13), front[0]]
        sheet = Sheet(self.film)
        sheet.area(np.vstack([curve(front), curve(dome), curve(back)]), 0.86)
        if self.seen.found("effusion"):
            top = self.rng.uniform(0.57, 0.62)
            meniscus = curve([(0.5, top + 0.12), (0.7, top + 0.06), (0.92, top - 0.04)])
            sheet.area(np.vstack([meniscus, [(0.92, 0.95), (0.5, 0.95)]]), 0.04)
        return sheet.soft(160)

    def _heart_and_vessels(self) -> np.ndarray:
        sheet = Sheet(self.film)
        great = [(0.43, 0.45), (0.47, 0.30), (0.50, 0.14), (0.60, 0.14), (0.60, 0.34), (0.58, 0.48)]
        sheet.area(curve(great, closed=True), 0.42)
        if self.seen.found("aorta"):
            arch = [(0.48, 0.42), (0.5, 0.3), (0.58, 0.25), (0.68, 0.3), (0.76, 0.45), (0.74, 0.6)]
            arch += [(0.66, 0.74)]
            sheet.line(curve(arch), 0.06, VESSEL)
        else:
            arch = [(0.49, 0.42), (0.51, 0.36), (0.57, 0.33), (0.63, 0.38), (0.66, 0.5), (0.67, 0.74)]
            sheet.line(curve(arch), 0.042, 0.46)
        sheet.line([(0.565, 0.02), (0.575, 0.2), (0.585, 0.40)], 0.03, 0.3)
        if self.seen.found("mediastinum"):
            bulk = [(0.37, 0.42), (0.43, 0.26), (0.55, 0.16), (0.66, 0.22), (0.62, 0.42)]
            sheet.area(curve(bulk, closed=True), VESSEL)
        sheet.disc((0.565, 0.45), 0.042, 0.62)
        heart = [(0.33, 0.66), (0.33, 0.53), (0.42, 0.43), (0.52, 0.43), (0.59, 0.52), (0.58, 0.64)]
        heart += [(0.46, 0.7)]
        grown = (curve(heart, closed=True) - (0.34, 0.68)) * self.rng.uniform(*HEART_SCALE[self.seen.heart])
        sheet.area(grown + (0.34, 0.68), HEART)
        return sheet.soft(128)

    def _spine_x(self, y):
        return np.interp(y, (0.0, 0.2, 0.45, 0.7, 1.1), (0.66, 0.70, 0.765, 0.745, 0.66))

    def _bones(self) -> np.ndarray:
        sheet = Sheet(self.film)
        rib = curve([(0.84, 0.20), (0.7, 0.18), (0.52, 0.26), (0.38, 0.38)])
        for k in range(8):
            sheet.line(rib + (0, 0.065 * k), 0.014, 0.18)
        sheet.line(curve([(0.44, 0.2), (0.36, 0.34), (0.30, 0.5), (0.285, 0.62)]), 0.02, 0.56)  # the sternum
        for y in np.arange(0.0, 1.05, 0.066) + self.rng.uniform(0, 0.06):
            x, half = self._spine_x(y), 0.034 + 0.01 * y
            lean = (self._spine_x(y + 0.03) - self._spine_x(y - 0.03)) / 0.06
            sheet.line([(x + half, y), (x + half + 0.05, y + 0.025)], 0.016, 0.32)
            vertebra(sheet, (x, y), half, lean, 0.56)
            if self.seen.found("spine") and y > 0.3:
                spur(sheet, (x, y), half, lean, -1)
        return sheet.soft()

    def _spot(self, area: str) -> np.ndarray:
        centre = {"upper": (0.46, 0.31), "lower": (0.72, 0.60)}[area.split()[1]]
        return centre + self.rng.uniform(-0.02, 0.02, 2)
