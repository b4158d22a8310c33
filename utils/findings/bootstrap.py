"""The bootstrap over studies, for the findings counted here and for the scores."""

import numpy as np

RESAMPLES = 5000
SEED = 20240917
MIDDLE = (0.025, 0.975)  # the bounds of a 95 % interval, as quantiles of the draws


def resampled(studies: np.ndarray, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """As many studies drawn with replacement, `resamples` times.

    studies: (studies, values) or (studies,)

    Returns the distinct rows of `studies`, (kinds, values) or (kinds,), and how often each was drawn,
    (resamples, kinds). This is a multinomial over the kinds, which are few: so the cost hardly grows with
    the studies, and `scipy.stats.bootstrap` takes six times as long for the mean of 590 scores.
    """
    kinds, counts = np.unique(studies, axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(studies), counts / len(studies), size=resamples)
    return kinds, draws
