"""Gradient-boosted trees, RegMix's choice (arXiv:2407.01492, section 3), by XGBoost.

RegMix stops early on its test mixtures; here the number of rounds is fixed, so nothing leaks.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.core.errors import BadInputError, CorruptDataError, MissingExtraError
from gristmill.regressors.base import Array, Fitted, Prediction, Regressor, State, Support


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise MissingExtraError("xgboost", "mix") from error
    return xgboost


@dataclass(frozen=True, kw_only=True)
class BoostedTrees(Regressor):
    """Shallow trees and a small step; one thread, so that a seed gives the same trees anywhere."""

    rounds: int = 500
    """Trees."""
    depth: int = 3
    """Splits on the way to a leaf, at most."""
    step: float = 0.04
    """Learning rate."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.depth < 1 or not 0 < self.step <= 1:
            raise BadInputError(
                f"rounds ({self.rounds}) and depth ({self.depth}) must be at least 1 and step "
                f"({self.step}) lie in (0, 1]"
            )

    def fit(self, weights: Array, losses: Array, *, seed: int = 0) -> Fitted:
        """Grow the trees."""
        xgboost = _xgboost()
        center = float(losses.mean())
        booster = xgboost.train(
            {
                "max_depth": self.depth,
                "eta": self.step,
                "seed": seed,
                "nthread": 1,
                "tree_method": "exact",
                "base_score": 0.0,
                "verbosity": 0,
            },
            xgboost.DMatrix(weights, losses - center, nthread=1),
            num_boost_round=self.rounds,
        )
        return FittedTrees(booster, center, weights)

    def restore(self, state: State) -> Fitted:
        """The trees from XGBoost's own JSON.

        Raises:
            CorruptDataError: It is not that.
        """
        xgboost = _xgboost()
        booster = xgboost.Booster({"nthread": 1})
        try:
            booster.load_model(bytearray(state.arrays["json"].tobytes()))
        except xgboost.core.XGBoostError as error:
            raise CorruptDataError(f"the stored trees are not XGBoost's JSON: {error}") from error
        return FittedTrees(booster, state.values["center"], state.arrays["weights"])


class FittedTrees(Fitted):
    """Trees for what is left after the mean."""

    def __init__(self, booster: Any, center: float, weights: Array) -> None:
        self._booster, self._center, self._weights = booster, center, weights
        self._support = Support(weights)

    def predict(self, weights: Array) -> Prediction:
        """Sum of leaves. Trees say nothing of their error: it is taken to be the same among the
        training mixtures, and to grow with the distance to them outside."""
        outside = np.maximum(self._support.beyond(weights) - 1, 0.0)
        return Prediction(mean=self.mean(weights), spread=np.hypot(1.0, outside))

    def mean(self, weights: Array) -> Array:
        """Sum of leaves."""
        rows = _xgboost().DMatrix(weights, nthread=1)
        mean = np.asarray(self._booster.predict(rows), np.float64) if len(weights) else np.empty(0)
        return self._center + mean

    def state(self) -> State:
        """XGBoost's JSON as bytes, and the training mixtures."""
        text = bytes(self._booster.save_raw("json"))
        return State(
            values={"center": self._center},
            arrays={"json": np.frombuffer(text, np.uint8), "weights": self._weights},
        )
