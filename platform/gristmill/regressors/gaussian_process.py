"""A Gaussian process on log and plain weights, with a length scale and an offset a domain.

RegMix (arXiv:2407.01492) fits boosted trees; losses of mixtures are smooth in log(weight + offset),
which a Gaussian process (Rasmussen & Williams 2006, chapters 2 and 5) learns from half the proxies.
Its parameters are those of highest posterior density; there is nothing to tune.
"""

from dataclasses import dataclass

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.regressors._marginal import Posterior, Prior, most_probable
from gristmill.regressors.base import Array, Fitted, Prediction, Regressor, State, bounded


@dataclass(frozen=True, kw_only=True)
class GaussianProcess(Regressor):
    """Matern-3/2 plus linear covariance, noise of its own for weights that rounding blurs."""

    max_steps: int = 80
    """Most steps of the search for its parameters."""

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise BadInputError(f"max_steps must be at least 1, not {self.max_steps}")

    def fit(self, weights: Array, losses: Array, *, seed: int = 0) -> Fitted:
        """Learn; losses above 0 are taken as logarithms."""
        logarithm = bool((losses > 0).all())
        values = np.log(losses) if logarithm else losses
        center, deviation = float(values.mean()), float(values.std())
        deviation = deviation if deviation > 1e-12 else 1.0
        y = (values - center) / deviation
        theta = most_probable(weights, y, Prior(), max_steps=self.max_steps, seed=seed)
        return FittedProcess(weights, y, theta, center, deviation, logarithm)

    def restore(self, state: State) -> Fitted:
        """The process given its training rows again."""
        v, a = state.values, state.arrays
        return FittedProcess(
            a["weights"], a["y"], a["theta"], v["center"], v["deviation"], v["logarithm"]
        )


class FittedProcess(Fitted):
    """A process with its training rows."""

    def __init__(
        self,
        weights: Array,
        y: Array,
        theta: Array,
        center: float,
        deviation: float,
        logarithm: bool,
    ) -> None:
        self._y, self._center, self._deviation, self._logarithm = y, center, deviation, logarithm
        self._posterior = Posterior.given(weights, y, theta)
        ends = self._losses(np.array([y.min(), y.max()]))
        self._ends = float(ends[0]), float(ends[1])

    def predict(self, weights: Array) -> Prediction:
        """Mean and deviation; of logarithms the median, and the deviation to first order."""
        found, spread = self._posterior.predict(weights)
        mean, spread = bounded(self._losses(found), *self._ends), self._deviation * spread
        return Prediction(mean=mean, spread=spread * mean if self._logarithm else spread)

    def mean(self, weights: Array) -> Array:
        """The mean without the solves that its deviation needs."""
        return bounded(self._losses(self._posterior.mean(weights)), *self._ends)

    def _losses(self, y: Array) -> Array:
        """Standardised values in units of the losses."""
        values = self._center + self._deviation * y
        return np.exp(values) if self._logarithm else values

    def state(self) -> State:
        """Training rows and parameters; the factor is cheap to make again."""
        return State(
            values={
                "center": self._center,
                "deviation": self._deviation,
                "logarithm": self._logarithm,
            },
            arrays={
                "weights": self._posterior.weights,
                "y": self._y,
                "theta": self._posterior.theta,
            },
        )
