"""A mixing law: the loss is a power law in the effective amount of data for a target.

loss = floor + (w . t + e)^-c, where t says how much a share of each domain is worth to the target:
the form of data mixing laws (Ye et al. 2024, arXiv:2403.16952, section 3, who take an exponential)
with the power law of scaling in tokens. It has domains + 3 parameters, so it does best of all with
few mixtures, or far from them.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from gristmill.core.errors import BadInputError
from gristmill.regressors.base import Array, Fitted, Prediction, Regressor, State, bounded

PRIOR_WEIGHT = 0.02
"""Pull of a parameter towards its start, per deviation, against residuals in loss deviations."""
MOST_LEVERAGE = 1e12
"""Where the law says nothing at all any number as large will do; it must be finite."""


@dataclass(frozen=True, kw_only=True)
class MixingLaw(Regressor):
    """Least squares with a weak pull to equal worth, best of several starts."""

    starts: int = 4
    """Starts of the search; the first is plain, the others are random."""
    max_steps: int = 60
    """Most steps of each."""

    def __post_init__(self) -> None:
        if self.starts < 1 or self.max_steps < 1:
            raise BadInputError(
                f"starts ({self.starts}) and max_steps ({self.max_steps}) must be at least 1"
            )

    def fit(self, weights: Array, losses: Array, *, seed: int = 0) -> Fitted:
        """Search from each start and keep the best."""
        center, deviation = float(losses.mean()), float(losses.std())
        deviation = deviation if deviation > 1e-12 else 1.0
        y = (losses - center) / deviation
        k = weights.shape[1]
        plain = np.concatenate([np.full(k, -1.0), [-3.0, 0.0, -1.5]])
        random = np.random.default_rng(seed)
        best: tuple[float, Array] | None = None
        for i in range(self.starts):
            start = plain if not i else plain + random.normal(size=k + 3) * _width(k) / 2
            found = least_squares(
                lambda theta: _residuals(theta, weights, y, plain),
                start,
                jac=lambda theta: _jacobian(theta, weights),
                max_nfev=self.max_steps,
            )
            if best is None or found.cost < best[0]:
                best = (float(found.cost), found.x)
        assert best is not None
        slopes = _jacobian(best[1], weights)
        inverse = np.linalg.pinv(slopes.T @ slopes, hermitian=True)
        ends = (float(losses.min()), float(losses.max()))
        return FittedLaw(best[1], inverse, center, deviation, ends)

    def restore(self, state: State) -> Fitted:
        """The law again."""
        v, a = state.values, state.arrays
        ends = (v["low"], v["high"])
        return FittedLaw(a["theta"], a["inverse"], v["center"], v["deviation"], ends)


def _width(k: int) -> Array:
    """How far each parameter may lie from its start: log t, log e, log c, floor."""
    return np.concatenate([np.full(k, 2.0), [2.0, 1.0, 3.0]])


def _amount(theta: Array, weights: Array) -> Array:
    k = weights.shape[1]
    return np.asarray(weights @ np.exp(theta[:k]) + np.exp(theta[k]))


def _curve(theta: Array, weights: Array) -> Array:
    k = weights.shape[1]
    logs = np.clip(-np.exp(theta[k + 1]) * np.log(_amount(theta, weights)), -50, 50)
    return np.asarray(theta[k + 2] + np.exp(logs))


def _residuals(theta: Array, weights: Array, y: Array, start: Array) -> Array:
    pull = PRIOR_WEIGHT * len(y) ** 0.5 * (theta - start) / _width(weights.shape[1])
    return np.concatenate([_curve(theta, weights) - y, pull])


def _jacobian(theta: Array, weights: Array) -> Array:
    n, k = weights.shape
    amount, power = _amount(theta, weights), np.exp(theta[k + 1])
    value = np.exp(np.clip(-power * np.log(amount), -50, 50))
    by_amount = -power * value / amount
    top = np.empty((n, k + 3))
    top[:, :k] = by_amount[:, None] * weights * np.exp(theta[:k])
    top[:, k] = by_amount * np.exp(theta[k])
    top[:, k + 1] = -power * np.log(amount) * value
    top[:, k + 2] = 1.0
    return np.concatenate([top, np.diag(PRIOR_WEIGHT * n**0.5 / _width(k))])


class FittedLaw(Fitted):
    """Parameters of a law for standardised losses, and how well they are known."""

    def __init__(
        self,
        theta: Array,
        inverse: Array,
        center: float,
        deviation: float,
        ends: tuple[float, float],
    ) -> None:
        self._theta, self._inverse, self._ends = theta, inverse, ends
        self._center, self._deviation = center, deviation

    def predict(self, weights: Array) -> Prediction:
        """The curve, and the growth of its error where it hangs on what the data left open.

        To first order in the parameters (Seber & Wild 1989, "Nonlinear regression", section 5.1).
        """
        slopes = _jacobian(self._theta, weights)[: len(weights)]
        leverage = np.einsum("ij,jk,ik->i", slopes, self._inverse, slopes)
        return Prediction(
            mean=self.mean(weights), spread=np.sqrt(1 + np.clip(leverage, 0, MOST_LEVERAGE))
        )

    def mean(self, weights: Array) -> Array:
        """The curve, kept near the measured losses: a power law in next to nothing knows no end."""
        curve = self._center + self._deviation * _curve(self._theta, weights)
        return bounded(curve, *self._ends)

    def state(self) -> State:
        """Parameters: log t [domains], log e, log c, floor; and their inverse normal matrix."""
        low, high = self._ends
        return State(
            values={"center": self._center, "deviation": self._deviation, "low": low, "high": high},
            arrays={"theta": self._theta, "inverse": self._inverse},
        )
