"""Choose a regressor for a target by cross-validation, and scale its intervals.

Only training rows are used: every figure comes from rows that the predicting fit had not seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gristmill.core import plugins
from gristmill.core.errors import BadInputError
from gristmill.mixing.tables import rounding
from gristmill.regressors.base import (
    Array,
    Fitted,
    Prediction,
    Regressor,
    folds,
    groups_of,
    held_out,
)
from gristmill.regressors.stack import FittedStack, blend, members, scale_of, shares

PACKAGE = "gristmill.regressors"
STACK = "stack"
COVERAGE = 0.9
LEAST_MIXTURES = 8
BEND = 3.0
"""Errors count by their squares up to so many times the median one, and in proportion beyond."""
WIDEST = 2.0
"""Half an interval's width at most, in measured ranges: means lie within one range beyond."""

Groups = npt.NDArray[np.int64]
"""The mixture of each row, by number."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How well held-out losses were predicted."""

    spearman: float
    """Rank correlation; 0 where the predictions are all the same."""
    pearson: float
    """Linear correlation."""
    mae: float
    """Mean absolute error, in units of the loss."""
    rmse: float
    """Root mean square error."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Interval:
    """Expected losses and their 90 % intervals."""

    mean: Array
    """Shape (n,)."""
    half: Array
    """Shape (n,): half the interval's width."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetFit:
    """All that was learned of one target."""

    chosen: str
    """The regressor that predicts."""
    fits: Mapping[str, Fitted]
    """Each candidate on all rows; the stack among them when it was one."""
    scores: Mapping[str, Scores]
    """Held out, by candidate."""
    shares: Mapping[str, float]
    """What the stack takes of each."""
    seen: Prediction
    """What the chosen one predicted of each row while it was held out."""
    factor: float
    """Half an interval's width over the chosen one's spread."""
    error_scale: Mapping[str, float]
    """Root mean square of held-out errors over spreads, by candidate."""
    least: float
    """Half an interval's width at least: half a unit of the measured losses' last decimal."""
    widest: float
    """Half an interval's width at most."""

    def interval(self, weights: Array) -> Interval:
        """What is expected of mixtures [n, domains]."""
        found = self.fits[self.chosen].predict(weights)
        return Interval(mean=found.mean, half=self.half(found.spread))

    def half(self, spread: Array) -> Array:
        """Half of the intervals' widths, from spreads of the chosen regressor."""
        return np.maximum(np.minimum(self.factor * spread, self.widest), self.least)


def score(losses: Array, predicted: Array) -> Scores:
    """Agreement of predictions with what was measured."""
    error = predicted - losses
    return Scores(
        spearman=_correlation(_ranks(losses), _ranks(predicted)),
        pearson=_correlation(losses, predicted),
        mae=float(np.abs(error).mean()),
        rmse=float(np.sqrt((error**2).mean())),
    )


def fit_target(
    weights: Array,
    losses: Array,
    candidates: Sequence[str],
    *,
    num_folds: int = 10,
    seed: int = 0,
) -> TargetFit:
    """Cross-validate each candidate, fit all of them on all rows, choose the best.

    The best has the least held-out error, squared; errors out of all proportion count in proportion
    only (Huber 1964), as one bad run is no reason to choose by. The stack also wins where it is
    within one standard error of the best, as a mean risks less than a choice. It is judged with
    shares that come from the other folds only. Rows of the same weights are runs of one mixture:
    they are held out together, and it is mixtures that are counted.

    Args:
        weights: Mixtures [n, domains].
        losses: Losses [n].
        candidates: Regressors by name.
        num_folds: Folds.
        seed: Chooses the folds, and what is random in a regressor.

    Raises:
        BadInputError: Too few mixtures, or an unknown regressor.
    """
    group = groups_of(weights)
    require_mixtures(group)
    made = {n: plugins.find(PACKAGE, n, Regressor)() for n in sorted(set(candidates) - {STACK})}
    parts = folds(group, num_folds, seed)
    seen = {n: held_out(m, weights, losses, parts, seed=seed) for n, m in made.items()}
    fits: dict[str, Fitted] = {n: m.fit(weights, losses, seed=seed) for n, m in made.items()}
    wanted: dict[str, float] = {}
    if STACK in candidates and len(made) > 1:
        wanted = shares(seen, losses)
        fits[STACK] = FittedStack(members(fits, seen, wanted, losses))
        seen[STACK] = _stacked(seen, losses, parts)
    scores = {n: score(losses, p.mean) for n, p in seen.items()}
    chosen = _choice(seen, losses, group)
    return TargetFit(
        chosen=chosen,
        fits=fits,
        scores=scores,
        shares=wanted,
        seen=seen[chosen],
        factor=quantile(np.abs(losses - seen[chosen].mean) / seen[chosen].spread, group),
        error_scale={n: scale_of(p, losses) for n, p in seen.items()},
        least=rounding(losses) / 2,
        widest=WIDEST * float(np.ptp(losses)),
    )


def require_mixtures(group: Groups) -> None:
    """Refuse a table of too few mixtures; many runs of one are one.

    Raises:
        BadInputError: There are fewer than 8.
    """
    count = len(np.unique(group))
    if count < LEAST_MIXTURES:
        rows = f" (in {len(group)} rows)" if len(group) != count else ""
        raise BadInputError(
            f"{count} mixtures{rows} are too few to learn from: give {LEAST_MIXTURES}"
        )


def quantile(ratios: Array, group: Groups) -> float:
    """The conformal quantile: the value below which a new ratio lies with probability 0.9.

    Vovk et al. (2005), "Algorithmic learning in a random world", section 2.2: a new value lies
    below the one of rank k of n with probability k / (n + 1). So the rank wanted is 0.9 (n + 1),
    between two ratios as a rule; the line between them is taken, as rounding up covers too much of
    few. Where mixtures have several runs each, n counts mixtures, and a mixture's runs share its
    rank: a run of a new mixture is what an interval is for (Lee, Barber & Willett 2023,
    "Distribution-free inference with hierarchical data").

    Args:
        ratios: Held-out errors over spreads, [n].
        group: The mixture of each, [n].
    """
    order = np.argsort(ratios, kind="stable")
    counted = np.cumsum(row_shares(group)[order])
    mixtures = len(np.unique(group))
    rank = min(COVERAGE * (mixtures + 1), mixtures)
    return float(np.interp(rank, counted, ratios[order])) or 1e-12


def row_shares(group: Groups) -> Array:
    """What a row counts: one over the runs of its mixture."""
    _, place, runs = np.unique(group, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / runs[place.reshape(-1)])


def calibrated(
    fit: TargetFit, losses: Array, usual: npt.NDArray[np.bool_], group: Groups
) -> TargetFit:
    """The fit with intervals for runs that go right: only usual rows scale them."""
    ratio = np.abs(losses - fit.seen.mean) / fit.seen.spread
    return replace(fit, factor=quantile(ratio[usual], group[usual]))


def _choice(seen: Mapping[str, Prediction], losses: Array, group: Groups) -> str:
    runs = np.bincount(group)
    errors = {name: np.abs(losses - p.mean) for name, p in sorted(seen.items())}
    bend = BEND * min(float(np.median(error)) for error in errors.values())
    costs = {name: np.bincount(group, _huber(error, bend)) / runs for name, error in errors.items()}
    best = min(costs, key=lambda name: float(costs[name].mean()))
    if STACK not in costs or best == STACK:
        return best
    worse = costs[STACK] - costs[best]
    return STACK if worse.mean() <= worse.std() / len(worse) ** 0.5 else best


def _huber(error: Array, bend: float) -> Array:
    """Squares up to the bend, and the line that goes on from there."""
    return np.where(error <= bend, error**2, bend * (2 * error - bend)) if bend else error


def _stacked(
    seen: Mapping[str, Prediction], losses: Array, parts: Sequence[npt.NDArray[np.int64]]
) -> Prediction:
    mean, spread = np.empty(len(losses)), np.empty(len(losses))
    for part in parts:
        rest = np.setdiff1d(np.arange(len(losses)), part)
        others = {n: Prediction(mean=p.mean[rest], spread=p.spread[rest]) for n, p in seen.items()}
        found = blend(
            [
                (
                    share,
                    scale_of(others[n], losses[rest]),
                    Prediction(mean=seen[n].mean[part], spread=seen[n].spread[part]),
                )
                for n, share in shares(others, losses[rest]).items()
            ]
        )
        mean[part], spread[part] = found.mean, found.spread
    return Prediction(mean=mean, spread=spread)


def _ranks(values: Array) -> Array:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values))


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0
