"""Search on the simplex under caps, without gradients, since trees have none."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError
from gristmill.regressors.base import Array

Indexes = npt.NDArray[np.int64]
Cost = Callable[[Array], Array]
"""Costs [n] of mixtures [n, domains]; infinite where a mixture is not allowed."""
FIRST_STEP, ROUGH_STEP, LAST_STEP = 0.1, 5e-3, 2e-4
SPREADS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Strengths of the draws, beside the 1 of RegMix: from corners to near the prior."""
ROWS_AT_ONCE = 5000
MOST_PAIRED = 20
"""Domains that weight is moved from, and to, in pairs: all of so many, else the likeliest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Best:
    """What a search found."""

    weights: Array
    """Shape (domains,)."""
    cost: float
    """Its cost."""


def check_caps(caps: Array) -> None:
    """Refuse caps that no mixture keeps.

    Raises:
        BadInputError: They sum to less than 1.
    """
    if caps.sum() < 1 - 1e-9:
        raise BadInputError(
            f"the caps of all domains sum to {caps.sum():.4g}, less than 1: the planned tokens "
            "need more repetition than is allowed; plan fewer tokens or allow more"
        )


def cap(weights: Array, caps: Array) -> Array:
    """Mixtures [n, domains] brought under caps: what is cut goes to the others in proportion."""
    result = np.minimum(weights, caps)
    for _ in range(weights.shape[1] + 1):
        missing = 1 - result.sum(1, keepdims=True)
        if (np.abs(missing) < 1e-12).all():
            break
        room = caps - result
        wish = np.where(room > 1e-15, result, 0.0)
        empty = wish.sum(1, keepdims=True) <= 0
        wish = np.where(empty, room, wish)
        total = np.maximum(wish.sum(1, keepdims=True), 1e-300)
        result = np.minimum(result + missing * wish / total, caps)
    return result


def draws(mean: Array, count: int, caps: Array, seed: int) -> Array:
    """Dirichlet draws around a mean, as RegMix simulates, half at other strengths; capped."""
    random = np.random.default_rng(seed)
    strength = np.ones(count)
    strength[count // 2 :] = random.choice(SPREADS, size=count - count // 2)
    found = random.standard_gamma(strength[:, None] * mean * len(mean) ** 0.5)
    total = found.sum(1, keepdims=True)
    found = np.where(total > 0, found / np.maximum(total, 1e-300), mean)
    return cap(found, caps)


def costs(cost: Cost, weights: Array) -> Array:
    """Costs of many mixtures, in pieces that fit in memory."""
    pieces = [
        cost(weights[start : start + ROWS_AT_ONCE])
        for start in range(0, len(weights), ROWS_AT_ONCE)
    ]
    return np.concatenate(pieces)


def descend(
    cost: Cost, start: Array, caps: Array, *, first: float = FIRST_STEP, last: float = LAST_STEP
) -> Best:
    """The best mixture near a start: move weight between domains while that helps.

    A pattern search (Kolda, Lewis & Torczon 2003). Moves towards one domain, or away from one, come
    first, being few; moves between pairs, when none of those helps, from the domains whose loss of
    weight cost least to those whose gain did, as pairs of a hundred domains would be ten thousand.
    The step doubles after a move that helps and halves when none does.
    """
    here, step = start.copy(), first
    value = float(cost(here[None])[0])
    while step >= last:
        rows = _single(here, caps, step)
        single = costs(cost, rows)
        better = _best_move(rows, single, value)
        if better is None:
            rows = _pairs(here, caps, step, *_likeliest(single, len(here)))
            better = _best_move(rows, costs(cost, rows), value) if len(rows) else None
        if better is None:
            step /= 2
        else:
            here, value = better
            step = min(2 * step, first)
    here = np.maximum(here, 0.0)
    return Best(weights=here / here.sum(), cost=value)


def _best_move(rows: Array, found: Array, value: float) -> tuple[Array, float] | None:
    """The best of some moves, if it is better than where they start."""
    best = int(np.argmin(found))
    if found[best] < value - 1e-9 * max(1.0, abs(value)):
        return rows[best], float(found[best])
    return None


def _likeliest(single: Array, domains: int) -> tuple[Indexes, Indexes]:
    """Domains to take weight from and to give it to, by the costs of `_single`'s moves."""
    sources = np.argsort(single[domains:], kind="stable")[:MOST_PAIRED]
    targets = np.argsort(single[:domains], kind="stable")[:MOST_PAIRED]
    return np.sort(sources), np.sort(targets)


def _single(here: Array, caps: Array, step: float) -> Array:
    """More of one domain at the cost of all others, or less of one in favour of all others."""
    towards = (1 - step) * here + step * np.eye(len(here))
    less = np.maximum(here - step * np.eye(len(here)), 0.0)
    total = less.sum(1, keepdims=True)
    away = np.where(total > 0, less / np.maximum(total, 1e-300), here)
    return cap(np.concatenate([towards, away]), caps)


def _pairs(here: Array, caps: Array, step: float, sources: Indexes, targets: Indexes) -> Array:
    """A step from one domain to another, for each pair that has the weight and the room."""
    source, target = (side.ravel() for side in np.meshgrid(sources, targets, indexing="ij"))
    source, target = source[source != target], target[source != target]
    size = np.minimum(np.minimum(here[source], caps[target] - here[target]), step)
    useful = size > 1e-9
    rows = np.repeat(here[None], int(useful.sum()), axis=0)
    each = np.arange(len(rows))
    rows[each, source[useful]] -= size[useful]
    rows[each, target[useful]] += size[useful]
    return rows


def search(cost: Cost, starts: Array, caps: Array) -> Best:
    """The best of several starts: a rough `descend` from each, a fine one from the best."""
    found = [descend(cost, row, caps, last=ROUGH_STEP) for row in starts]
    best = min(found, key=lambda best: best.cost)
    return descend(cost, best.weights, caps, first=2 * ROUGH_STEP)
