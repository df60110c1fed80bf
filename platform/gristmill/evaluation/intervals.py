"""95 % intervals of a score over its test samples. They say nothing about the training's seed."""

import math
from typing import Any

import numpy as np

Z = 1.959963984540054
"""The normal quantile of 0.975."""
RESAMPLES = 1000
SEED = 0


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, JASA 22, equation for p)."""
    share, z2 = successes / count, Z * Z
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    spread = share * (1 - share) / count + z2 / (4 * count * count)
    half = Z / (1 + z2 / count) * math.sqrt(spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_recall_interval(correct: Any, support: Any) -> tuple[float, float]:
    """Percentile bootstrap of a mean of class recalls, resampled within each class.

    Args:
        correct: Right predictions a class, shape (C,).
        support: Samples a class, shape (C,); classes without samples do not count.
    """
    correct, support = np.asarray(correct), np.asarray(support)
    correct, support = correct[support > 0], support[support > 0]
    draws = np.random.default_rng(SEED).binomial(
        support, correct / support, size=(RESAMPLES, len(support))
    )
    return _percentiles((draws / support).mean(axis=1))


def ratio_interval(parts: Any, sizes: Any) -> tuple[float, float]:
    """Percentile bootstrap over groups of a mean of ratios of sums.

    Args:
        parts: Hits a group and ratio, shape (G, R).
        sizes: Attempts a group and ratio, shape (G, R).

    Returns:
        The interval of mean over R of (sum of parts / sum of sizes), groups drawn anew.
    """
    parts, sizes = np.asarray(parts, float), np.asarray(sizes, float)
    rng = np.random.default_rng(SEED)
    values = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = rng.integers(0, len(parts), len(parts))
        values[i] = (parts[drawn].sum(axis=0) / sizes[drawn].sum(axis=0)).mean()
    return _percentiles(values)


def _percentiles(values: Any) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
