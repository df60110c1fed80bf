"""Runs that went wrong: found by held-out errors, left out, and everything fitted again.

One proxy that diverged late, or whose data was mixed up, has losses that are finite and wrong. Left
in, it bends every fit; what is known of it is that fits of the other runs miss it by far.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.mixing.selection import LEAST_MIXTURES, Groups, TargetFit, calibrated, row_shares
from gristmill.regressors.base import Array, groups_of

ODD, MOST_ODD, LEAST_TARGETS = 3.5, 0.03, 3
WILD, WILD_DEVIATIONS, MOST_WILD = 10.0, 4.0, 0.1
"""Errors on one target that no surface is hard enough for: over so many of the median row, and so
many deviations of the losses themselves, where even a guess of the middle errs by one."""

NORMAL_MAD = 1.4826
"""Standard deviations in a median absolute deviation, of normal values."""
PASSES = 2
"""Fits without odd runs, at most."""

Mask = npt.NDArray[np.bool_]
Losses = Mapping[str, Array]
FitAll = Callable[[str, Array, Losses], Mapping[str, TargetFit]]
"""Fits every target: a name for the pass, mixtures [n, domains], losses [n] by target."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cleaned:
    """Fits of the runs that went right."""

    fits: Mapping[str, TargetFit]
    """By target."""
    kept: Mask
    """Shape (n,): which rows they are of."""
    usual: Mask
    """Shape (n,): which of these intervals are scaled by; not by odd ones that stay in the fits."""
    error: Array
    """Shape (n,): a row's error while it was held out, in those of the median row."""


def fit_without_odd(weights: Array, losses: Losses, fit_all: FitAll) -> Cleaned:
    """Fit all targets, leave wild runs out, and fit the others anew.

    A run that is only odd stays: with three targets or more, over 3.5 times the median row's error,
    3 % of the mixtures at most. Intervals are not scaled by it (docs/decisions/0007).

    The first errors are of fits that a wild run has bent: its neighbours look odd, others hide
    behind it. So where there was one, every row is judged again by the fit without it.

    Args:
        weights: Mixtures [n, domains].
        losses: Target -> losses [n].
        fit_all: Fits every target.
    """
    group = groups_of(weights)
    kept = np.ones(len(weights), bool)
    fits = fit_all("fit", weights, losses)
    for number in range(PASSES):
        errors = _errors(fits, weights, losses, kept)
        wild = np.asarray(
            ((errors.ratio > WILD) & (errors.deviations > WILD_DEVIATIONS)).any(axis=0)
        )
        odd = _worst(wild, errors.row, group, max(MOST_WILD, 1 / len(np.unique(group))))
        if (odd == ~kept).all():
            break
        bent = bool((wild & kept).any())
        kept = ~odd
        here = {name: values[kept] for name, values in losses.items()}
        fits = fit_all(f"fit-again-{number + 1}", weights[kept], here)
        if not bent:
            break
    error = _errors(fits, weights, losses, kept).row
    usual = kept & ~_worst(~kept | ((error > ODD) & (len(losses) >= LEAST_TARGETS)),
                           np.where(kept, error, np.inf), group, MOST_ODD)  # fmt: skip
    own = {n: calibrated(f, losses[n][kept], usual[kept], group[kept]) for n, f in fits.items()}
    return Cleaned(fits=own, kept=kept, usual=usual, error=error)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Errors:
    """How far rows were mispredicted by fits that had not seen them."""

    deviations: Array
    """Shape (targets, n): in deviations of the target's losses."""
    ratio: Array
    """Shape (targets, n): over their spreads, in those of the target's median row that was kept."""
    row: Array
    """Shape (n,): the ratio's root mean square over targets, in that of the median row. A surface
    that is hard to learn errs on a target here and there; a run that went wrong errs on all."""


def _errors(fits: Mapping[str, TargetFit], weights: Array, losses: Losses, kept: Mask) -> _Errors:
    """Of rows in the fits while they were held out; the others are none of theirs."""
    deviations, ratio = np.empty((2, len(fits), len(weights)))
    for i, (name, fit) in enumerate(sorted(fits.items())):
        mean, spread = np.empty((2, len(weights)))
        mean[kept], spread[kept] = fit.seen.mean, fit.seen.spread
        found = fit.fits[fit.chosen].predict(weights[~kept])
        mean[~kept], spread[~kept] = found.mean, found.spread
        error = np.abs(losses[name] - mean)
        deviations[i] = error / (_deviation(losses[name]) or np.inf)
        ratio[i] = error / spread
        ratio[i] /= float(np.median(ratio[i][kept])) or np.inf  # constant, or learned to the bit
    row = np.sqrt((ratio**2).mean(0))
    row = row / (float(np.median(row[kept])) or 1.0)
    return _Errors(deviations=deviations, ratio=ratio, row=row)


def _deviation(losses: Array) -> float:
    """Robust: a wild loss does not make itself small."""
    return NORMAL_MAD * float(np.median(np.abs(losses - np.median(losses))))


def _worst(wrong: Mask, error: Array, group: Groups, most: float) -> Mask:
    """Of the rows that are wrong those of most error, to a share of the mixtures, [n].

    A run counts as its share of its mixture's runs; and never so many go that too few stay.
    """
    mixtures = len(np.unique(group))
    order = np.argsort(-np.where(wrong, error, -1.0), kind="stable")
    room = min(most * mixtures, mixtures - LEAST_MIXTURES) + 1e-9
    worst = np.zeros(len(error), bool)
    worst[order[np.cumsum(row_shares(group)[order]) <= room]] = True
    return worst & wrong
