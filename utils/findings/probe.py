"""The findings probe: what a radiograph shows, read off the frozen vision tower by logistic regression.

It has one weight per feature, and a bias, for each frequent finding of the training reports; a region that a
report leaves out is unknown, not negative. All steps before the last are linear: the probe is kept as one
matrix.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from utils.regions import REGIONS
from utils.run.disk import replacing_file
from utils.run.workspace import StepError

from .groups import GROUPS, Group, frequent, named
from .plans import NORMAL, Plan, words_of

FOLDS, COMPONENTS, SEED = 5, 256, 0
STRENGTHS = tuple(10.0**power for power in range(-5, 1))  # of the regression, tried by cross-validation
WEIGHTS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.5, 2.0)  # of recall, on a curve
TENSORS = ("weight", "bias", "calibration")  # of a probe's file
LEAST = 2 * FOLDS  # studies with a finding, and as many without, or nothing can be learnt of it

Studies = Sequence[dict[str, str]]  # their findings by region


@dataclass(frozen=True)
class Probe:
    """What `fit` learnt."""

    names: tuple[str, ...]  # of the findings, in the order of `GROUPS`
    weight: np.ndarray  # (findings, features)
    bias: np.ndarray  # (findings,)
    calibration: np.ndarray  # (studies, findings): probabilities of the studies that the threshold is set on
    normal: tuple[str, ...] = ()  # regions that a plan calls normal where it names no finding
    made_of: str = ""  # by `trained on`, to know the probe again

    @property
    def groups(self) -> tuple[Group, ...]:
        """The findings as groups."""
        return tuple(group for group in GROUPS if group.name in self.names)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(studies, findings), each between 0 and 1, of (studies, ...) features."""
        return _logistic(_flat(features) @ self.weight.T.astype(np.float64) + self.bias)

    def threshold(self, recall_weight: float) -> float:
        """The probability from which on a finding is named: one for all findings.

        It has the highest F-measure to be expected on the calibration studies if their probabilities are
        true; recall weighs `recall_weight` times as much as precision. A threshold of its own would name a
        finding that the probe cannot see in most studies.
        """
        if not self.calibration.size:
            return 0.0
        weight, ranked = recall_weight**2, np.sort(self.calibration, axis=None)[::-1]
        right, count = np.cumsum(ranked), np.arange(1, len(ranked) + 1)
        best = ((1 + weight) * right / (weight * ranked.sum() + count)).argmax()
        return float(ranked[best])

    def plans(self, features: np.ndarray, recall_weight: float) -> list[Plan]:
        """For each study, by region, the findings that its report is to name, or that it is normal."""
        over = self.probabilities(features) >= self.threshold(recall_weight)
        named = [[group for group, is_over in zip(self.groups, row, strict=True) if is_over] for row in over]
        normal = {region: (NORMAL,) if region in self.normal else () for region in REGIONS}
        return [
            {
                region: tuple(g.name for g in of_study if g.region == region) or normal[region]
                for region in REGIONS
            }
            for of_study in named
        ]

    def save(self, path: Path) -> None:
        """Write the probe as one safetensors file, as a whole or not at all."""
        tensors = {name: np.ascontiguousarray(getattr(self, name), dtype=np.float32) for name in TENSORS}
        noted = {"names": self.names, "normal": self.normal, "made_of": self.made_of}
        with replacing_file(path) as temporary:
            # One entry: of several, the library writes now one first, now another.
            save_file(tensors, temporary, {"probe": json.dumps(noted)})


def load(path: Path) -> Probe:
    """The probe in `path`. Raises StepError where it is damaged or of another kind."""
    try:
        with safe_open(path, "numpy") as file:
            noted = json.loads(file.metadata()["probe"])
            tensors, names = {name: file.get_tensor(name) for name in TENSORS}, tuple(noted["names"])
            unknown = set(names) - {group.name for group in GROUPS}
            if unknown or len(names) != len(tensors["weight"]):
                raise KeyError(f"findings {', '.join(unknown) or names}")
            return Probe(names, **tensors, normal=tuple(noted["normal"]), made_of=noted["made_of"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise StepError(f"{path} is not a findings probe ({error}): run notebook 03 again.") from None


def labels(studies: Studies, groups: Sequence[Group]) -> np.ndarray:
    """(studies, findings): 1 where a report names a finding, 0 where not, NaN where it lacks the region."""

    def label(study: dict[str, str], group: Group) -> float:
        text = study.get(group.region, "").strip()
        return float(group.name in named(text, group.region)) if text else np.nan

    rows = [[label(study, group) for group in groups] for study in studies]
    return np.array(rows, float).reshape(len(studies), len(groups))


@threadpool_limits.wrap(limits=1)  # many small products: threads that wait for one another take longer
def fit(
    features: np.ndarray,
    studies: Studies,
    held_out: tuple[np.ndarray, Studies] | None = None,
    made_of: str = "",
) -> Probe:
    """The probe of training studies with these features, (studies, ...), on findings that at least
    `groups.FREQUENT` of them name, and enough have and lack to be cross-validated; there may be none.

    held_out: features and findings of the validation studies, on which the strength of the regression is
        chosen, probabilities are calibrated and the threshold is set; without them, or where too few of them
        have a finding, out-of-fold probabilities of the training studies take their place
    """
    groups = [group for group in frequent(studies) if _both(labels(studies, [group]), LEAST)]
    flat, truth = _flat(features), labels(studies, groups)
    if not groups:
        return Probe((), np.zeros((0, flat.shape[1])), np.zeros(0), np.zeros((0, 0)), made_of=made_of)
    count = min(COMPONENTS, *flat.shape)
    scaler, components = StandardScaler(), PCA(count, random_state=SEED)
    reducing = make_pipeline(scaler, components)
    reduced = reducing.fit_transform(flat)
    apart = (reducing.transform(_flat(held_out[0])), labels(held_out[1], groups)) if held_out else None
    tried = [_at_strength(reduced, truth, apart, strength) for strength in STRENGTHS]
    _, weight, bias, calibration = min(tried, key=lambda at_strength: at_strength[0])
    along, scale = weight @ components.components_, np.where(scaler.scale_, scaler.scale_, 1)
    bias = bias - along @ (scaler.mean_ / scale) - weight @ (components.components_ @ components.mean_)
    normal = tuple(words_of(studies, groups).denied)
    return Probe(tuple(group.name for group in groups), along / scale, bias, calibration, normal, made_of)


def _at_strength(
    features: np.ndarray, truth: np.ndarray, apart: tuple[np.ndarray, np.ndarray] | None, strength: float
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Of all findings: mean log-loss where the threshold is set, weight, bias, probabilities there."""
    learnt = []
    for number, wanted in enumerate(truth.T):
        known = ~np.isnan(wanted)
        given, seen = features[known], wanted[known]
        regression = LogisticRegression(C=strength, solver="newton-cholesky").fit(given, seen)
        weight, bias = regression.coef_[0], regression.intercept_[0]
        if apart is not None and _both(apart[1][:, number]):
            scores, seen = apart[0] @ weight + bias, apart[1][:, number]
        else:
            folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
            scores = cross_val_predict(regression, given, seen, cv=folds, method="decision_function")
        slope, shift = _calibrate(scores, seen)
        known = ~np.isnan(seen)
        sure = _logistic(slope * scores + shift)
        loss = log_loss(seen[known], sure[known])
        learnt.append((loss, slope * weight, slope * bias + shift, np.sort(sure)))
    losses, weights, biases, calibration = zip(*learnt, strict=True)
    # A finding whose region reports leave out has fewer studies.
    at = np.linspace(0, 1, max(map(len, calibration)))
    columns = [np.interp(at, np.linspace(0, 1, len(column)), column) for column in calibration]
    return float(np.mean(losses)), np.array(weights), np.array(biases), np.array(columns).T


def quality(probe: Probe, features: np.ndarray, studies: Studies) -> pd.DataFrame:
    """How well the probe ranks studies that it was not taught on, one row per finding.

    Columns: finding, region, n (studies whose report speaks of the region), present (those that name the
    finding), auc (area under the curve; NaN where none or all of them do). Without studies there are no rows.
    """
    truth, seen, rows = labels(studies, probe.groups), probe.probabilities(features), []
    for group, wanted, column in zip(probe.groups, truth.T, seen.T, strict=True) if len(studies) else ():
        known = ~np.isnan(wanted)
        area = roc_auc_score(wanted[known], column[known]) if _both(wanted) else np.nan
        rows.append((group.name, group.region, known.sum(), int(np.nansum(wanted)), area))
    return pd.DataFrame(rows, columns=["finding", "region", "n", "present", "auc"])


def operating_points(probe: Probe, features: np.ndarray, studies: Studies) -> pd.DataFrame:
    """What the probe would name at each of `WEIGHTS` of recall, all findings together, one row per weight.

    Columns: recall_weight, present, named, right, precision (NaN where nothing is named), recall.
    Without studies there are no rows.
    """
    truth, seen, rows = labels(studies, probe.groups), probe.probabilities(features), []
    for weight in WEIGHTS if probe.names and len(studies) else ():
        over = (seen >= probe.threshold(weight)) & ~np.isnan(truth)
        present, count, right = np.nansum(truth), over.sum(), (over & (truth == 1)).sum()
        rates = right / count if count else np.nan, right / present if present else np.nan
        rows.append((weight, int(present), int(count), int(right), *rates))
    return pd.DataFrame(rows, columns=["recall_weight", "present", "named", "right", "precision", "recall"])


def _calibrate(scores: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Slope and shift that make `scores` log-odds of `wanted` (Platt, 1999); 1 and 0 if that is no better."""
    known = ~np.isnan(wanted)
    if not _both(wanted):
        return 1.0, 0.0
    platt = LogisticRegression(C=1e3).fit(scores[known, None], wanted[known])
    slope, shift = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    plain = log_loss(wanted[known], _logistic(scores[known]))
    is_better = slope > 0 and log_loss(wanted[known], _logistic(slope * scores[known] + shift)) <= plain
    return (slope, shift) if is_better else (1.0, 0.0)


def _both(wanted: np.ndarray, least: int = 1) -> bool:
    """Whether at least so many studies have the finding, and as many lack it."""
    present = np.nansum(wanted)
    return bool(least <= present <= np.count_nonzero(~np.isnan(wanted)) - least)


def _flat(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    return features.reshape(len(features), np.prod(features.shape[1:], dtype=int))


def _logistic(scores: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(scores, -30, 30)))
