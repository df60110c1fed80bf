"""The Pareto front of a proposal: the objective against the worst change of any target.

The worst change is over all targets of the fit, in shares of their loss at the natural mixture: 0
means that no target is worse off, -0.01 that every one gains at least 1 %.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gristmill.mixing import simplex
from gristmill.mixing.objective import Objective
from gristmill.regressors.base import Array

LADDER = (0.03, 0.1, 0.3, 0.8, 2.0, 20.0)
"""Prices of the worst change, in units of the objective, that trace the front."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Front:
    """Mixtures of which none is better than another in both, best objective first."""

    weights: Array
    """Shape (n, domains)."""
    value: Array
    """Shape (n,): the objective."""
    worst: Array
    """Shape (n,): the worst change."""


def natural_losses(objective: Objective, baseline: Array) -> dict[str, float]:
    """Every target's expected loss at the natural mixture."""
    surface = objective.surface
    return {name: float(surface.mean(name, baseline[None])[0]) for name in surface.targets}


def worst_change(objective: Objective, weights: Array, losses: Mapping[str, float]) -> Array:
    """Largest share that a target's expected loss grows by, over all targets, [n]."""
    surface = objective.surface
    worst = np.full(len(weights), -np.inf)
    for name, natural in losses.items():
        change = (surface.mean(name, weights) - natural) / max(abs(natural), 1e-12)
        worst = np.maximum(worst, change)
    return worst


def trace(objective: Objective, proposed: Array, baseline: Array, caps: Array) -> Front:
    """Search for each price of the worst change, each from where the one before ended."""
    natural_value = abs(float(objective.mean(baseline[None])[0])) or 1.0
    losses = natural_losses(objective, baseline)
    found = [proposed]
    here = simplex.cap(proposed[None], caps)[0]
    for price in LADDER:

        def cost(weights: Array, price: float = price) -> Array:
            worst = worst_change(objective, weights, losses)
            return objective.mean(weights) + price * natural_value * worst

        here = simplex.descend(cost, here, caps, last=simplex.ROUGH_STEP).weights
        found.append(here)
    rows = np.stack([*found, *simplex.cap(baseline[None], caps)])
    value, worst = objective.mean(rows), worst_change(objective, rows, losses)
    keep = undominated(value, worst)
    return Front(weights=rows[keep], value=value[keep], worst=worst[keep])


def undominated(first: Array, second: Array) -> list[int]:
    """Rows that no other beats in both, by rising `first`; of equal ones the first row."""
    order = np.lexsort((np.arange(len(first)), second, first))
    kept: list[int] = []
    lowest = np.inf
    for row in order.tolist():
        if second[row] < lowest - 1e-12:
            kept.append(row)
            lowest = float(second[row])
    return kept
