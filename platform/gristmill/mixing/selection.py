"""Choose a regressor for a target by cross-validation, and scale its intervals.

Only training rows are used: every figure comes from rows that the predicting fit had not seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gristmill.core import plugins
from gristmill.core.errors import BadInputError
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
ODD, MOST_ODD, LEAST_TARGETS = 3.5, 0.03, 3


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

    The best has the least held-out squared error; the stack also wins where it is within one
    standard error of the best, as a mean risks less than a choice. It is judged with shares that
    come from the other folds only. Rows of the same weights are runs of one mixture: they are held
    out together, and it is mixtures that are counted.

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
    counted = np.cumsum(_row_shares(group)[order])
    mixtures = len(np.unique(group))
    rank = min(COVERAGE * (mixtures + 1), mixtures)
    return float(np.interp(rank, counted, ratios[order])) or 1e-12


def _row_shares(group: Groups) -> Array:
    """What a row counts: one over the runs of its mixture."""
    _, place, runs = np.unique(group, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / runs[place.reshape(-1)])


def odd_runs(
    fits: Mapping[str, TargetFit], losses: Mapping[str, Array], group: Groups
) -> npt.NDArray[np.bool_]:
    """Which rows were mispredicted on most targets at once, [n]: runs that went wrong.

    A surface that is hard to learn errs on a target here and there; a proxy that diverged, or
    whose data was mixed up, errs on all. A row is odd when the root mean square over targets of its
    held-out error, in median errors of the target, is over 3.5 times the median row's: of four
    rules the one whose intervals hold 90 % of the runs that go right, on training rows that no fit
    saw (docs/decisions/0007). With fewer than three targets none is, and never more than 3 % of the
    mixtures (a run counts as its share of its mixture's runs), the worst, so that intervals for any
    run still hold 87 %.
    """
    ratios = []
    for name, fit in sorted(fits.items()):
        ratio = np.abs(losses[name] - fit.seen.mean) / fit.seen.spread
        ratios.append(ratio / max(float(np.median(ratio)), 1e-12))
    row = np.sqrt((np.array(ratios) ** 2).mean(0))
    odd = np.zeros(len(row), bool)
    if len(ratios) >= LEAST_TARGETS:
        order = np.argsort(-row, kind="stable")
        most = MOST_ODD * len(np.unique(group))
        worst = order[np.cumsum(_row_shares(group)[order]) <= most]
        odd[worst] = row[worst] > ODD * np.median(row)
    return odd


def calibrated(
    fit: TargetFit, losses: Array, odd: npt.NDArray[np.bool_], group: Groups
) -> TargetFit:
    """The fit with intervals for runs that go right: odd ones do not widen them."""
    ratio = np.abs(losses - fit.seen.mean) / fit.seen.spread
    return replace(fit, factor=quantile(ratio[~odd], group[~odd]))


def _choice(seen: Mapping[str, Prediction], losses: Array, group: Groups) -> str:
    runs = np.bincount(group)
    squares = {
        name: np.bincount(group, (losses - p.mean) ** 2) / runs for name, p in sorted(seen.items())
    }
    best = min(squares, key=lambda name: float(squares[name].mean()))
    if STACK not in squares or best == STACK:
        return best
    worse = squares[STACK] - squares[best]
    return STACK if worse.mean() <= worse.std() / len(worse) ** 0.5 else best


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
