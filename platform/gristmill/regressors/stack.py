"""A stack: other regressors' predictions, weighted by what they are worth on rows held out.

Wolpert (1992), "Stacked generalization"; weights are not negative and sum to 1, as Breiman (1996),
"Stacked regressions", found best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from gristmill.core import plugins
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.regressors.base import (
    Array,
    Fitted,
    Prediction,
    Regressor,
    State,
    folds,
    groups_of,
    held_out,
)

PACKAGE = "gristmill.regressors"
LEAST_SHARE = 0.02
"""A part with a smaller share is left out."""


@dataclass(frozen=True, kw_only=True)
class Stack(Regressor):
    """A weighted mean of other regressors."""

    parts: tuple[str, ...] = ("boosted_trees", "gaussian_process", "mixing_law")
    """Regressors by name."""
    folds: int = 5
    """Folds of the cross-validation that weighs them."""

    def __post_init__(self) -> None:
        if len(self.parts) < 2 or len(set(self.parts)) < len(self.parts) or "stack" in self.parts:
            raise BadInputError(
                f"a stack needs two or more different regressors, none a stack, not {self.parts}"
            )

    def fit(self, weights: Array, losses: Array, *, seed: int = 0) -> Fitted:
        """Weigh the parts on held-out rows, then fit them on all."""
        pieces = folds(groups_of(weights), self.folds, seed)
        made = {name: plugins.find(PACKAGE, name, Regressor)() for name in sorted(self.parts)}
        seen = {
            name: held_out(part, weights, losses, pieces, seed=seed) for name, part in made.items()
        }
        fits = {name: part.fit(weights, losses, seed=seed) for name, part in made.items()}
        return FittedStack(members(fits, seen, shares(seen, losses), losses))

    def restore(self, state: State) -> Fitted:
        """Each part again.

        Raises:
            CorruptDataError: The state names a part that this stack has not.
        """
        if foreign := sorted(set(state.values["parts"]) - set(self.parts)):
            raise CorruptDataError(
                f"the stored stack names {', '.join(foreign)}, not of its parts "
                f"{', '.join(self.parts)}"
            )
        parts = {}
        for name, entry in sorted(state.values["parts"].items()):
            prefix = f"{name}/"
            arrays = {
                key.removeprefix(prefix): array
                for key, array in state.arrays.items()
                if key.startswith(prefix)
            }
            kind = plugins.find(PACKAGE, name, Regressor)
            fitted = kind().restore(State(values=entry["values"], arrays=arrays))
            parts[name] = Member(share=entry["share"], scale=entry["scale"], fitted=fitted)
        return FittedStack(parts)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A part of a stack."""

    share: float
    """Its weight in the mean."""
    scale: float
    """Brings its spread to the size of its held-out errors, so that spreads can be added."""
    fitted: Fitted
    """The part, fitted on all rows."""


def shares(seen: Mapping[str, Prediction], losses: Array) -> dict[str, float]:
    """Weights of parts, none negative, sum 1, of least squared error on held-out predictions.

    Args:
        seen: Held-out predictions of n rows by part.
        losses: What was measured, [n].
    """
    names = sorted(seen)
    errors = np.stack([seen[name].mean - losses for name in names], axis=1)
    scale = float(np.abs(errors).max()) or 1.0
    # That they sum to 1 is a row so heavy that breaking it costs more than any error could.
    heavy = 1e4 * len(losses) ** 0.5
    target = np.concatenate([np.zeros(len(losses)), [heavy]])
    found, _ = nnls(np.vstack([errors / scale, np.full(len(names), heavy)]), target)
    found[found < LEAST_SHARE * found.sum()] = 0.0
    if not found.sum() > 0:
        found = np.ones(len(names))
    found = found / found.sum()
    return {name: float(s) for name, s in zip(names, found, strict=True) if s > 0}


def scale_of(seen: Prediction, losses: Array) -> float:
    """Root mean square of held-out errors over their spreads."""
    return float(np.sqrt((((losses - seen.mean) / seen.spread) ** 2).mean())) or 1e-12


def members(
    fits: Mapping[str, Fitted],
    seen: Mapping[str, Prediction],
    wanted: Mapping[str, float],
    losses: Array,
) -> dict[str, Member]:
    """The parts that have a share, with their scales."""
    return {
        name: Member(share=share, scale=scale_of(seen[name], losses), fitted=fits[name])
        for name, share in sorted(wanted.items())
    }


def blend(parts: Sequence[tuple[float, float, Prediction]]) -> Prediction:
    """The mean of (share, scale, prediction), and the weighted mean of scaled spreads."""
    mean = np.sum([share * p.mean for share, _, p in parts], axis=0)
    spread = np.sum([share * scale * p.spread for share, scale, p in parts], axis=0)
    return Prediction(mean=mean, spread=spread)


class FittedStack(Fitted):
    """Fitted parts with their shares."""

    def __init__(self, parts: Mapping[str, Member]) -> None:
        self._parts = dict(parts)

    def predict(self, weights: Array) -> Prediction:
        """The weighted mean."""
        return blend([(m.share, m.scale, m.fitted.predict(weights)) for m in self._parts.values()])

    def mean(self, weights: Array) -> Array:
        """The weighted mean without its spread."""
        found = [m.share * m.fitted.mean(weights) for m in self._parts.values()]
        return np.asarray(np.sum(found, axis=0))

    def state(self) -> State:
        """The parts' states under their names."""
        entries: dict[str, Any] = {}
        arrays: dict[str, Any] = {}
        for name, member in self._parts.items():
            state = member.fitted.state()
            entries[name] = {
                "share": member.share,
                "scale": member.scale,
                "values": state.values,
            }
            arrays |= {f"{name}/{key}": array for key, array in state.arrays.items()}
        return State(values={"parts": entries}, arrays=arrays)
