"""Findings probes, made up."""

import numpy as np

from utils.findings.groups import GROUPS
from utils.findings.probe import Probe

NONE = Probe((), np.zeros((0, 1)), np.zeros(0), np.zeros((0, 0)))  # reads nothing, so no heading has a plan


def by_chance(features: np.ndarray, names: tuple[str, ...], seed: int = 0) -> Probe:
    """A probe of random weights that finds each finding likely in half of the studies with `features`."""
    assert names == tuple(group.name for group in GROUPS if group.name in names)
    flat = features.reshape(len(features), -1).astype(float)
    weight = np.random.default_rng(seed).normal(size=(len(names), flat.shape[1])) / flat.std()
    scores = flat @ weight.T
    bias = -np.median(scores, axis=0)
    spread = (scores + bias).std(axis=0)
    seen = 1 / (1 + np.exp(-(scores + bias) / spread))
    return Probe(names, weight / spread[:, None], bias / spread, np.sort(seen, axis=0))
