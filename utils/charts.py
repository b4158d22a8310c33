"""The figures. Each function returns a `Chart`, a matplotlib Figure with its alt text; `save` writes it."""

from .charts_data import confusion, gallery, loss_curve, region_coverage
from .charts_drawing import Chart, save
from .charts_scores import differences, error_types, region_bars, score_distribution

__all__ = [
    "Chart",
    "confusion",
    "differences",
    "error_types",
    "gallery",
    "loss_curve",
    "region_bars",
    "region_coverage",
    "save",
    "score_distribution",
]
