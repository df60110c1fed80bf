"""What a fit says of domains: importance by permutation (Breiman 2001, section 10), on the simplex,
and interactions as second differences (Friedman & Popescu 2008, section 8.1).

Mixtures made so that lie far from all trained ones are left out: there a fit only extrapolates.
"""

import numpy as np
import numpy.typing as npt

from gristmill.mixing.surface import Surface
from gristmill.regressors.base import Array, Support

ROWS = 96
LEAST_NEAR = 0.25
PAIRED_DOMAINS = 6
"""Interactions are sought among this many domains of most importance to a target."""


def importance(surface: Surface, target: str) -> Array:
    """Root mean square change of the mean when a weight is another mixture's, [domains]."""
    rows, others = _rows(surface)
    base = surface.mean(target, rows)
    swapped = [swap(rows, others, (k,)) for k in range(rows.shape[1])]
    found = surface.mean(target, np.concatenate(swapped)).reshape(len(swapped), -1)
    known = [_within(surface.support, made) for made in swapped]
    return np.array([_rms((one - base)[near]) for one, near in zip(found, known, strict=True)])


def interactions(surface: Surface, target: str, weight: Array) -> list[tuple[float, str, str]]:
    """(root mean square second difference, domain, domain) among the most important domains."""
    rows, others = _rows(surface)
    top = sorted(np.argsort(-weight, kind="stable")[:PAIRED_DOMAINS].tolist())
    base = surface.mean(target, rows)
    single = {k: surface.mean(target, swap(rows, others, (k,))) for k in top}
    found = []
    for i, a in enumerate(top):
        for b in top[i + 1 :]:
            made = swap(rows, others, (a, b))
            second = surface.mean(target, made) - single[a] - single[b] + base
            near = _within(surface.support, made)
            found.append((_rms(second[near]), surface.domains[a], surface.domains[b]))
    return found


def _within(support: Support, made: Array) -> npt.NDArray[np.bool_]:
    """Which made-up mixtures lie among the trained ones, [n]; at least the nearest quarter."""
    far = support.beyond(made)
    return np.asarray(far <= max(1.0, float(np.quantile(far, LEAST_NEAR))))


def _rms(values: Array) -> float:
    return float(np.sqrt((values**2).mean()))


def swap(rows: Array, others: Array, columns: tuple[int, ...]) -> Array:
    """Rows with the weights of some columns from other rows; the rest fills up in proportion."""
    picked = list(columns)
    result = rows.copy()
    result[:, picked] = others[:, picked]
    over = result[:, picked].sum(1)
    result[:, picked] /= np.maximum(over, 1.0)[:, None]
    rest = np.ones(rows.shape[1], bool)
    rest[picked] = False
    left = 1 - result[:, picked].sum(1)
    held = rows[:, rest]
    total = held.sum(1, keepdims=True)
    even = np.full_like(held, 1 / max(rest.sum(), 1))
    result[:, rest] = left[:, None] * np.divide(held, total, out=even, where=total > 0)
    return result


def _rows(surface: Surface) -> tuple[Array, Array]:
    order = np.random.default_rng(surface.seed).permutation(len(surface.weights))[:ROWS]
    rows = surface.weights[order]
    return rows, np.roll(rows, 1, axis=0)
