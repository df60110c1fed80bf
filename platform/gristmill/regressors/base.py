"""The contract of a regressor: weights of mixtures and one target's losses in, a fit out.

A regressor is a frozen dataclass of settings. `fit` gives a `Fitted`, which predicts and can say
its whole state as JSON values and arrays; `restore` makes it again from these, so nothing on disk
is ever unpickled. Columns stand in the caller's order, which must be the same at fit and predict:
gristmill.mixing sorts them by domain name.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class State:
    """All that a fit knows."""

    values: dict[str, Any] = field(default_factory=dict)
    """Plain JSON values."""
    arrays: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Numbers, by name."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a fit expects of mixtures."""

    mean: Array
    """Shape (n,): the expected loss."""
    spread: Array
    """Shape (n,), above 0: how unsure the fit is, up to one factor for all rows. Intervals are
    scaled by held-out errors, so only the ratio between rows matters."""


class Fitted(ABC):
    """A regressor that has seen its training mixtures."""

    @abstractmethod
    def predict(self, weights: Array) -> Prediction:
        """Expected losses of mixtures [n, domains], n = 0 included."""

    def mean(self, weights: Array) -> Array:
        """The expected losses alone, where that is cheaper."""
        return self.predict(weights).mean

    @abstractmethod
    def state(self) -> State:
        """What `Regressor.restore` needs to predict the same."""


@dataclass(frozen=True, kw_only=True)
class Regressor(ABC):
    """Learns one target's loss from mixtures."""

    @abstractmethod
    def fit(self, weights: Array, losses: Array, *, seed: int = 0) -> Fitted:
        """Learn from mixtures [n, domains], rows on the simplex, and their losses [n], finite.

        The same rows and seed give the same fit.
        """

    @abstractmethod
    def restore(self, state: State) -> Fitted:
        """The fit whose `state` this is."""


ROOM = 0.5
"""Beyond the measured losses, in shares of their range: so far a prediction is left as it is."""
FLOOR = 1e-3
"""Distances are between log(weight + this), where losses change evenly, and plain weights."""
REACH = 0.9
"""Of the training mixtures this share has its nearest neighbour within the design's reach."""
ROWS_AT_ONCE = 2048


def bounded(values: Array, low: float, high: float) -> Array:
    """Predictions kept near what was measured; smooth and rising, so that no rank changes.

    Up to half the measured range beyond either end they stay as they are; from there they come
    ever nearer to a whole range beyond. No form fitted to a few mixtures is to be believed farther.

    Args:
        values: Predictions.
        low: The least loss that was measured.
        high: The greatest.
    """
    room = ROOM * (high - low)
    over = np.maximum(values - (high + room), 0.0)
    under = np.maximum((low - room) - values, 0.0)
    inside = np.clip(values, low - room, high + room)
    whole = max(room, 1e-300)
    return np.asarray(inside + room * (over / (whole + over) - under / (whole + under)))


class Support:
    """Where the training mixtures lie: what is far from all of them is extrapolation."""

    def __init__(self, weights: Array) -> None:
        self._known = np.unique(weights, axis=0)
        self._reach = [
            (float(np.quantile(_nearest(p, p, own=True), REACH)) if len(p) > 1 else 0.0) or 1.0
            for p in _places(self._known)
        ]

    def beyond(self, weights: Array) -> Array:
        """Distance of mixtures [n, domains] to the nearest known one over the design's reach, [n].

        Up to about 1 it is as among the training mixtures themselves. The larger counts of the
        distances by logarithms, which tell small weights apart, and by weights, which tell corners.
        """
        found = [
            np.concatenate(
                [_nearest(p[i : i + ROWS_AT_ONCE], q) for i in range(0, len(p), ROWS_AT_ONCE)]
                or [np.zeros(0)]
            )
            / reach
            for p, q, reach in zip(_places(weights), _places(self._known), self._reach, strict=True)
        ]
        return np.maximum(*found)


def _places(weights: Array) -> tuple[Array, Array]:
    return np.log(weights + FLOOR), weights


def _nearest(a: Array, b: Array, *, own: bool = False) -> Array:
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
    if own:
        squares[np.diag_indices(len(a))] = np.inf
    return np.asarray(np.sqrt(np.maximum(squares.min(1), 0.0)))


def groups_of(weights: Array) -> npt.NDArray[np.int64]:
    """The mixture of each row [n, domains] by number, in order of first appearance, [n].

    Rows of the same weights are runs of one mixture, with other seeds say.
    """
    _, first, group = np.unique(weights, axis=0, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[group.reshape(-1)])


def folds(group: npt.NDArray[np.int64], count: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Row numbers of random folds of nearly as many mixtures, each sorted.

    Runs of one mixture stand in one fold: what is held out must be unseen.

    Args:
        group: The mixture of each row, as `groups_of` numbers them.
        count: Folds; at most as many as there are mixtures.
        seed: Chooses them.

    Raises:
        BadInputError: There would be fewer than two folds.
    """
    mixtures = int(group.max()) + 1 if len(group) else 0
    count = min(count, mixtures)
    if count < 2:
        raise BadInputError(
            f"{count} folds of {mixtures} mixtures cannot be made: use 2 or more of each"
        )
    order = np.random.default_rng(seed).permutation(mixtures)
    return [np.flatnonzero(np.isin(group, order[start::count])) for start in range(count)]


def held_out(
    regressor: Regressor,
    weights: Array,
    losses: Array,
    parts: Sequence[npt.NDArray[np.int64]],
    *,
    seed: int = 0,
) -> Prediction:
    """What fits on the other folds predict for each fold: every row is predicted unseen."""
    mean, spread = np.empty(len(losses)), np.empty(len(losses))
    for part in parts:
        rest = np.setdiff1d(np.arange(len(losses)), part)
        found = regressor.fit(weights[rest], losses[rest], seed=seed).predict(weights[part])
        mean[part], spread[part] = found.mean, found.spread
    return Prediction(mean=mean, spread=spread)
