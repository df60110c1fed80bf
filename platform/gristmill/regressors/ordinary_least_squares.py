"""Ordinary least squares on the weights: RegMix's linear baseline (arXiv:2407.01492, section 3)."""

from dataclasses import dataclass

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.regressors.base import Array, Fitted, Prediction, Regressor, State, bounded


@dataclass(frozen=True, kw_only=True)
class OrdinaryLeastSquares(Regressor):
    """A straight line in the weights. They sum to 1, so the intercept lies in the coefficients."""

    ridge: float = 1e-8
    """Added to the diagonal, so that fewer mixtures than domains still give an answer."""

    def __post_init__(self) -> None:
        if not self.ridge > 0:
            raise BadInputError(f"ridge must be above 0, not {self.ridge}")

    def fit(self, weights: Array, losses: Array, *, seed: int = 0) -> Fitted:  # noqa: ARG002
        """Solve the normal equations. No randomness is used."""
        center = float(losses.mean())
        gram = weights.T @ weights + self.ridge * np.eye(weights.shape[1])
        inverse = np.linalg.inv(gram)
        ends = (float(losses.min()), float(losses.max()))
        return FittedLine(inverse @ (weights.T @ (losses - center)), inverse, center, ends)

    def restore(self, state: State) -> Fitted:
        """The line again."""
        v, a = state.values, state.arrays
        return FittedLine(a["coefficients"], a["inverse"], v["center"], (v["low"], v["high"]))


class FittedLine(Fitted):
    """Coefficients and the inverse Gram matrix, which gives the spread."""

    def __init__(
        self, coefficients: Array, inverse: Array, center: float, ends: tuple[float, float]
    ) -> None:
        self._coefficients, self._inverse = coefficients, inverse
        self._center, self._ends = center, ends

    def predict(self, weights: Array) -> Prediction:
        """The line, and the usual growth of its error away from the data."""
        leverage = np.einsum("ij,jk,ik->i", weights, self._inverse, weights)
        return Prediction(
            mean=bounded(self._center + weights @ self._coefficients, *self._ends),
            spread=np.sqrt(1 + np.clip(leverage, 0, None)),
        )

    def state(self) -> State:
        """Coefficients [domains] and inverse [domains, domains]."""
        low, high = self._ends
        return State(
            values={"center": self._center, "low": low, "high": high},
            arrays={"coefficients": self._coefficients, "inverse": self._inverse},
        )
