"""How a phantom radiograph is put together: sheets of soft shapes, added up and developed.

Points are (x, y) in parts of the picture's side, y downwards; what is stopped of the rays is in parts of what
a whole trunk stops.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LABEL = "PHANTOM"


def curve(points, closed: bool = False, steps: int = 8) -> np.ndarray:
    """A smooth line (..., m, 2) through `points` (..., n, 2), a Catmull-Rom spline."""
    p = np.asarray(points, dtype=float)
    before, after = 2 * p[..., :1, :] - p[..., 1:2, :], 2 * p[..., -1:, :] - p[..., -2:-1, :]
    p = np.concatenate([p[..., -1:, :], p, p[..., :2, :]] if closed else [before, p, after], axis=-2)
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    a, b, c, d = (p[..., k : p.shape[-2] - 3 + k, None, :] for k in range(4))
    line = b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    line = line.reshape(*p.shape[:-2], -1, 2)
    return line if closed else np.concatenate([line, p[..., -2:-1, :]], axis=-2)


class Film:
    """One view of `size` pixels a side, and the patient's placing on it, which moves every point alike."""

    def __init__(self, size: int, rng: np.random.Generator):
        self.size, self.rng = size, rng
        angle, scale = rng.normal(0, 0.012), rng.uniform(0.96, 1.02)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.placing = (turn * (scale * rng.uniform(0.95, 1.05), scale)).T  # broad or narrow, at one height
        self.centre = 0.5 + rng.uniform(-0.012, 0.012, 2)

    def place(self, points) -> np.ndarray:
        """Points (..., 2) of the patient, as they lie on the film."""
        return (np.asarray(points, dtype=float) - 0.5) @ self.placing + self.centre

    def grain(self, cells: int) -> np.ndarray:
        """Random texture (size, size), normal about 0, of `cells` blobs a side."""
        coarse = Image.fromarray(self.rng.standard_normal((cells, cells), dtype=np.float32))
        return np.asarray(coarse.resize((self.size, self.size), Image.Resampling.BILINEAR))

    def develop(self, stopped: np.ndarray, marker: str = "") -> Image.Image:
        """The radiograph of what was stopped (size, size): exposed, with noise, label and side marker."""
        exposure = np.float32(1.40 * self.rng.uniform(0.92, 1.08))
        grey = 1.02 * (1 - np.exp(-exposure * stopped * (1 + 0.02 * self.grain(20)))) + 0.02
        grey += 0.05 * (self.rng.random(grey.shape, dtype=np.float32) - 0.5)
        image = Image.fromarray((np.clip(grey, 0, 1) * 255).astype(np.uint8))
        size, pen = self.size, ImageDraw.Draw(image)
        small, large = ImageFont.load_default(max(8, size // 23)), ImageFont.load_default(size // 14)
        corner = 0.015 * size, 0.985 * size
        pen.text(corner, LABEL, 235, small, anchor="ls", stroke_width=1, stroke_fill=20)
        if marker:
            pen.text((0.96 * size, 0.03 * size), marker, 235, large, anchor="rt")
        return image


class Sheet:
    """One layer of a film: shapes of shades 0 to 1, later over earlier, drawn at twice the film's size."""

    def __init__(self, film: Film):
        self.film, self.side = film, 2 * film.size
        self.image = Image.new("L", (self.side, self.side))
        self.pen = ImageDraw.Draw(self.image)

    def area(self, points, shade: float = 1.0) -> None:
        """Fill the polygon of `points` (n, 2)."""
        self.pen.polygon((self.film.place(points) * self.side).ravel().tolist(), fill=round(255 * shade))

    def line(self, points, width: float, shade: float = 1.0) -> None:
        """Draw a line through `points` (n, 2), `width` in parts of the side."""
        pixels = (self.film.place(points) * self.side).ravel().tolist()
        joint = "curve" if width > 0.03 else None  # slow, and only seen in a broad line
        self.pen.line(pixels, fill=round(255 * shade), width=max(1, round(width * self.side)), joint=joint)

    def disc(self, centre, radius: float, shade: float = 1.0) -> None:
        """Fill a circle about `centre` (2,), `radius` in parts of the side."""
        (x, y), r = self.film.place(centre) * self.side, radius * self.side
        self.pen.ellipse([x - r, y - r, x + r, y + r], fill=round(255 * shade))

    def soft(self, cells: int = 0) -> np.ndarray:
        """The layer (size, size), 0 to 1, as soft as if seen through `cells` cells a side; 0 is sharp."""
        size = self.film.size
        factor = max(2, self.side // cells if cells else 2)
        image = self.image.reduce(factor)
        if image.width != size:
            whole = (0, 0, self.side / factor, self.side / factor)
            image = image.resize((size, size), Image.Resampling.BILINEAR, box=whole)
        return np.asarray(image, dtype=np.float32) * np.float32(1 / 255)
