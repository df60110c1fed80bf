"""Designs that choose among candidates: far apart, or where a fit has most to learn."""

import numpy as np

from gristmill.mixing.surface import Surface
from gristmill.regressors.base import Array

FLOOR = 1e-3
"""Distances are between log(weight + this): where losses change evenly."""


def place(weights: Array) -> Array:
    """Coordinates in which a step changes losses about as much anywhere."""
    return np.log(weights + FLOOR)


def far_apart(candidates: Array, count: int, near: Array) -> list[int]:
    """Rows of candidates, each the farthest from all before it (Gonzalez 1985).

    Args:
        candidates: Mixtures [n, domains].
        count: How many rows.
        near: Mixtures [m, domains] that are there already; without them the first is the middle.
    """
    where = place(candidates)
    if len(near):
        distance = np.full(len(where), np.inf)
        for point in place(near):
            distance = np.minimum(distance, ((where - point) ** 2).sum(1))
        chosen = [int(np.argmax(distance))]
    else:
        chosen = [int(np.argmin(((where - where.mean(0)) ** 2).sum(1)))]
        distance = np.full(len(where), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, ((where - where[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(np.argmax(distance)))
    return chosen


def informative(surface: Surface, target_shares: dict[str, float], candidates: Array) -> Array:
    """How unsure the fit is of each candidate: spread, and disagreement of the regressors.

    Each target counts in units of its own range, by its share.
    """
    total = np.zeros(len(candidates))
    for name, share in target_shares.items():
        fit = surface.fits[name]
        trust = {n: 1 / max(s.rmse, 1e-12) ** 2 for n, s in fit.scores.items() if n != "stack"}
        weight = np.array(list(trust.values())) / sum(trust.values())
        means = np.stack([fit.fits[n].mean(candidates) for n in trust])
        center = weight @ means
        disagreement = weight @ (means - center) ** 2
        half = surface.predict(name, candidates).half
        unit = float(surface.losses[name].std()) or 1.0
        total += share * np.sqrt(disagreement + half**2) / unit
    return total


def promising(surface: Surface, target_shares: dict[str, float], candidates: Array) -> Array:
    """How good each may be: minus the lower end of its interval (Srinivas et al. 2010)."""
    total = np.zeros(len(candidates))
    for name, share in target_shares.items():
        found = surface.predict(name, candidates)
        total -= share * (found.mean - found.half)
    return total


def next_batch(
    surface: Surface, target_shares: dict[str, float], candidates: Array, count: int, near: Array
) -> list[int]:
    """Rows of candidates for a next round: unsure ones and promising ones in turns.

    Args:
        surface: The fit so far.
        target_shares: Target -> its share.
        candidates: Mixtures [n, domains].
        count: How many rows.
        near: Mixtures [m, domains] that are there already.
    """
    unsure = greedy(
        informative(surface, target_shares, candidates), candidates, -(-count // 2), near
    )
    good = promising(surface, target_shares, candidates)
    good[unsure] = good.min()
    best = greedy(good, candidates, count // 2, candidates[unsure])
    return [row for pair in zip(unsure, [*best, -1], strict=False) for row in pair if row >= 0]


def greedy(worth: Array, candidates: Array, count: int, near: Array) -> list[int]:
    """Rows of most worth that are not close to each other or to those that are there.

    A candidate's worth is counted down by its nearness, as exp(-distance^2 / typical^2), to what
    was chosen: a batch of near copies would measure one thing over and over.
    """
    where = place(candidates)
    low, high = float(worth.min()), float(worth.max())
    value = (worth - low) / (high - low) if high > low else np.ones(len(worth))
    typical = float(np.median(((where - np.median(where, axis=0)) ** 2).sum(1))) or 1.0
    room = np.ones(len(where))
    for point in place(near):
        room = np.minimum(room, 1 - np.exp(-((where - point) ** 2).sum(1) / (0.1 * typical)))
    chosen: list[int] = []
    for _ in range(count):
        best = int(np.argmax(np.where(np.isin(np.arange(len(where)), chosen), -1, value * room)))
        chosen.append(best)
        apart = ((where - where[best]) ** 2).sum(1)
        room = np.minimum(room, 1 - np.exp(-apart / (0.1 * typical)))
    return chosen
