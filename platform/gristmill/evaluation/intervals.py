"""95 % intervals of a score over its test samples. They say nothing about the training's seed."""

import math
from typing import Any

import numpy as np

Z = 1.959963984540054
"""The normal quantile of 0.975."""
RESAMPLES = 1000
SEED = 0


def wilson(successes: int, count: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927, JASA 22)."""
    share, z2 = successes / count, Z * Z
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    spread = share * (1 - share) / count + z2 / (4 * count * count)
    half = Z / (1 + z2 / count) * math.sqrt(spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_recall_interval(correct: Any, support: Any) -> tuple[float, float]:
    """Interval of a mean of class recalls, from Wilson's interval of each (MOVER).

    Zou and Donner 2008, Statistics in Medicine 27:1693, for a mean of independent shares. A
    bootstrap would give no width at all to a model that is always right or wrong in each class.

    Args:
        correct: Right predictions a class, shape (C,).
        support: Samples a class, shape (C,); classes without samples do not count.
    """
    counts = [(int(k), int(n)) for k, n in zip(correct, support, strict=True) if n]
    shares = [k / n for k, n in counts]
    limits = [wilson(k, n) for k, n in counts]
    mean = sum(shares) / len(shares)
    below = math.sqrt(sum((p - low) ** 2 for p, (low, _) in zip(shares, limits, strict=True)))
    above = math.sqrt(sum((high - p) ** 2 for p, (_, high) in zip(shares, limits, strict=True)))
    return max(0.0, mean - below / len(shares)), min(1.0, mean + above / len(shares))


def ratio_interval(parts: Any, sizes: Any) -> tuple[float, float]:
    """Percentile bootstrap over groups of a mean of ratios of sums.

    Args:
        parts: Hits a group and ratio, shape (G, R).
        sizes: Attempts a group and ratio, shape (G, R).

    Returns:
        The interval of mean over R of (sum of parts / sum of sizes), groups drawn anew; Wilson's
        over the groups when every draw would be the same.
    """
    parts, sizes = np.asarray(parts, float), np.asarray(sizes, float)
    if not parts.any() or (parts == sizes).all():
        return wilson(len(parts) if parts.any() else 0, len(parts))
    rng = np.random.default_rng(SEED)
    values = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = rng.integers(0, len(parts), len(parts))
        values[i] = (parts[drawn].sum(axis=0) / sizes[drawn].sum(axis=0)).mean()
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
