"""What a proposal minimises: a weighted set of targets under guard-rails, with an interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.mixing.selection import quantile
from gristmill.mixing.simplex import Cost
from gristmill.mixing.surface import Surface, target_named
from gristmill.regressors.base import Array

ALL = "all"
PENALTY = 1e3
"""Cost of a unit of loss above a guard-rail: more than any target could give back."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """A weighted mean of targets."""

    surface: Surface
    """The fit."""
    shares: Mapping[str, float]
    """Target -> weight; they sum to 1."""

    def mean(self, weights: Array) -> Array:
        """Expected values of mixtures [n, domains]."""
        found = [share * self.surface.mean(t, weights) for t, share in self.shares.items()]
        return np.asarray(np.sum(found, axis=0))

    def half(self, weights: Array) -> Array:
        """Half the width of the 90 % interval of each value, [n].

        Scaled by held-out errors of the weighted sum itself, so that what the targets' errors have
        in common counts.
        """
        spread = self._spread({t: self.surface.predict(t, weights).half for t in self.shares})
        fits, losses = self.surface.fits, self.surface.losses
        seen = self._spread({t: fits[t].half(fits[t].seen.spread) for t in self.shares})
        errors = [share * (losses[t] - fits[t].seen.mean) for t, share in self.shares.items()]
        ratios = np.abs(np.sum(errors, axis=0)) / np.maximum(seen, 1e-300)
        usual = self.surface.usual
        return np.asarray(quantile(ratios[usual], self.surface.group[usual]) * spread)

    def _spread(self, halves: Mapping[str, Array]) -> Array:
        squares = [(self.shares[t] * half) ** 2 for t, half in halves.items()]
        return np.asarray(np.sqrt(np.sum(squares, axis=0)))

    def guarded(self, rails: Mapping[str, float]) -> Cost:
        """The mean, with a steep price on every target above its rail."""

        def cost(weights: Array) -> Array:
            value = self.mean(weights)
            for target, most in rails.items():
                value = value + PENALTY * np.maximum(self.surface.mean(target, weights) - most, 0.0)
            return np.asarray(value)

        return cost


def parse_targets(words: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """Target -> share from words `NAME` or `NAME=WEIGHT`; all targets alike without words.

    Raises:
        BadInputError: An unknown target, one named twice, or a weight that is not above 0.
    """
    if not words:
        return {name: 1 / len(targets) for name in targets}
    found: dict[str, float] = {}
    for word in words:
        name, weight = _split(word, targets)
        if name in found:
            raise BadInputError(f"the target {name} is named twice")
        found[name] = weight
    total = math.fsum(found.values())
    return {name: weight / total for name, weight in sorted(found.items())}


def _split(word: str, targets: Sequence[str]) -> tuple[str, float]:
    if word in targets or "=" not in word:
        return target_named(word, targets), 1.0
    name, _, text = word.rpartition("=")
    try:
        weight = float(text)
    except ValueError:
        raise BadInputError(f"the weight of target {name} is {text!r}, not a number") from None
    if not (weight > 0 and math.isfinite(weight)):
        raise BadInputError(f"the weight of target {name} is {text}; give a number above 0")
    return target_named(name, targets), weight


def parse_guard(words: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Guarded targets from names, or `all`; sorted, each once.

    Raises:
        BadInputError: An unknown target, or `all` among names.
    """
    if tuple(words) == (ALL,):
        return sorted(targets)
    if ALL in words and ALL not in targets:
        raise BadInputError(
            f"the guarded targets are given as {' '.join(words)}: give {ALL} alone, or names"
        )
    return sorted({target_named(word, targets) for word in words})


def parse_rails(
    words: Sequence[str], surface: Surface, baseline: Array, slack: float
) -> dict[str, float]:
    """Target -> the most that its loss may be: its value at the baseline, and a slack.

    Args:
        words: Targets, or `all`.
        surface: The fit.
        baseline: The natural mixture [domains].
        slack: Share of the baseline's loss that a target may lose.
    """
    names = parse_guard(words, surface.targets)
    found = {name: float(surface.mean(name, baseline[None])[0]) for name in names}
    return {name: value + slack * abs(value) for name, value in found.items()}
