"""Ordinary least squares on the weights: RegMix's linear baseline (arXiv:2407.01492, section 3)."""

from dataclasses import dataclass

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.regressors.base import Array, Fitted, Prediction, Regressor, State


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
        return FittedLine(inverse @ (weights.T @ (losses - center)), inverse, center)

    def restore(self, state: State) -> Fitted:
        """The line again."""
        return FittedLine(
            state.arrays["coefficients"], state.arrays["inverse"], state.values["center"]
        )


class FittedLine(Fitted):
    """Coefficients and the inverse Gram matrix, which gives the spread."""

    def __init__(self, coefficients: Array, inverse: Array, center: float) -> None:
        self._coefficients, self._inverse, self._center = coefficients, inverse, center

    def predict(self, weights: Array) -> Prediction:
        """The line, and the usual growth of its error away from the data."""
        leverage = np.einsum("ij,jk,ik->i", weights, self._inverse, weights)
        return Prediction(
            mean=self._center + weights @ self._coefficients,
            spread=np.sqrt(1 + np.clip(leverage, 0, None)),
        )

    def state(self) -> State:
        """Coefficients [domains] and inverse [domains, domains]."""
        return State(
            values={"center": self._center},
            arrays={"coefficients": self._coefficients, "inverse": self._inverse},
        )
