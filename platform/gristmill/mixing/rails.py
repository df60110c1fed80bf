"""Guard-rails with a margin: what a proposal may not make worse than the natural mixture does."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from gristmill.mixing.surface import Surface
from gristmill.regressors.base import Array

INTERVAL_SPREADS = 1.645
"""Standard deviations in half of a normal 90 % interval."""
EVEN = 0.5
"""The confidence of a rail that is kept by the means alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rails:
    """Guarded targets, and how surely each is to be kept.

    A rail that the fit's mean just touches is broken as often as not: what counts is measured, of
    the proposal and of the natural mixture, and both predictions err. Their errors are taken as
    independent and normal, which near the natural mixture is on the safe side.
    """

    surface: Surface
    """The fit."""
    most: Mapping[str, float]
    """Target -> the most that its loss may be."""
    natural: Array
    """The mixture that the rails are of, [domains]."""
    confidence: float
    """Least chance that each rail holds, from 0.5."""

    def __bool__(self) -> bool:
        return bool(self.most)

    def by_means(self) -> "Rails":
        """The same without a margin."""
        return replace(self, confidence=EVEN)

    def over(self, weights: Array) -> Array:
        """How far mixtures [n, domains] lie above the rails, margins included, summed, [n]."""
        from scipy.special import ndtri

        spreads = float(ndtri(self.confidence))
        total = np.zeros(len(weights))
        for name, most in self.most.items():
            if spreads > 0:
                found = self.surface.predict(name, weights)
                value = found.mean + spreads * self._deviation(name, found.half)
            else:
                value = self.surface.mean(name, weights)
            total += np.maximum(value - most, 0.0)
        return total

    def chances(self, weights: Array) -> dict[str, float]:
        """The chance that one mixture [domains] keeps each rail, by target."""
        from scipy.special import ndtr

        chances = {}
        for name, most in self.most.items():
            found = self.surface.predict(name, weights[None])
            deviation = float(self._deviation(name, found.half)[0])
            chances[name] = float(ndtr((most - float(found.mean[0])) / max(deviation, 1e-300)))
        return chances

    def _deviation(self, name: str, half: Array) -> Array:
        """Standard deviation of a difference to the natural mixture, as measured."""
        return np.asarray(np.hypot(half, self._natural_half[name]) / INTERVAL_SPREADS)

    @cached_property
    def _natural_half(self) -> dict[str, float]:
        return {
            name: float(self.surface.predict(name, self.natural[None]).half[0])
            for name in self.most
        }
