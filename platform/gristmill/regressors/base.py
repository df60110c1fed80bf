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
