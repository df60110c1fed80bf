"""Mixtures by RegMix's rules (arXiv:2407.01492, section 3.1 and its released code), exact.

Weights are whole numbers of units of 2e-4, so they sum to 1 and keep their bounds after rounding.
(The released code rounds and does not normalise, so its sums drift.) Domains are drawn in the order
of their names, so the order they are given in changes nothing.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError
from gristmill.regressors.base import Array

UNITS = 5000
"""Units of weight in a mixture: multiples of 2e-4."""
TRIES = 60
MOST_DRAWN = 60_000
"""Candidates drawn at once."""
Units = npt.NDArray[np.int64]
"""Shape (mixtures, domains), rows sum to UNITS."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How mixtures are drawn."""

    temperature: float = 0.5
    """The prior is the token shares to this power."""
    max_repetition: float = 15.0
    """A weight is at most this often its domain's token share, and at most 1."""
    weakest: float = 0.1
    """Lowest strength of the Dirichlet."""
    strongest: float = 5.0
    """Highest strength."""
    strengths: int = 15
    """Strengths between them, evenly apart in the logarithm."""
    candidates: int = 100
    """Candidates drawn for each mixture wanted."""

    def __post_init__(self) -> None:
        if not (0 < self.weakest <= self.strongest < math.inf and self.strengths >= 1):
            raise BadInputError(
                f"strengths go from weakest ({self.weakest}) to strongest ({self.strongest}), both "
                f"above 0, in at least one step ({self.strengths})"
            )
        if not (0 <= self.temperature <= 1 and self.max_repetition > 0 and self.candidates >= 1):
            raise BadInputError(
                f"temperature ({self.temperature}) lies in [0, 1], max_repetition "
                f"({self.max_repetition}) above 0 and candidates ({self.candidates}) from 1"
            )


def bounds(shares: Array, rules: Rules, caps: Array | None = None) -> Units:
    """Most units of each domain: its share times max_repetition, before the temperature; or a cap.

    Raises:
        BadInputError: No mixture keeps them all.
    """
    highest = np.minimum(rules.max_repetition * shares, 1.0 if caps is None else caps)
    most = np.floor(highest * UNITS + 1e-9).astype(np.int64)
    if most.sum() < UNITS:
        raise BadInputError(
            f"with at most {rules.max_repetition:g} times their token shares"
            f"{'' if caps is None or (caps >= 1).all() else ' and under their caps'} the domains "
            f"fill only {most.sum() / UNITS:.4g} of a mixture; allow more repetition"
        )
    return most


def prior(shares: Array, rules: Rules) -> Array:
    """Mean of the draws."""
    warm = shares**rules.temperature
    return np.asarray(warm / warm.sum())


def draw(
    count: int,
    shares: Array,
    rules: Rules,
    seed: int,
    *,
    taken: Units | None = None,
    caps: Array | None = None,
) -> Units:
    """Distinct mixtures, chosen at random among all candidates that keep the rules.

    Args:
        count: How many.
        shares: Token shares [domains], in the order of the domains' names.
        rules: How.
        seed: Chooses them.
        taken: Mixtures that must not come again.
        caps: Largest weights [domains], beside the rules.

    Raises:
        BadInputError: The rules do not leave that many.
    """
    random = np.random.default_rng(seed)
    found = pool(count, shares, rules, random, taken=taken, caps=caps)
    return np.asarray(found[random.permutation(len(found))[:count]])


def pool(
    count: int,
    shares: Array,
    rules: Rules,
    random: np.random.Generator,
    *,
    taken: Units | None = None,
    caps: Array | None = None,
) -> Units:
    """All distinct candidates of one go, at least `count`, sorted."""
    most, mean = bounds(shares, rules, caps), prior(shares, rules)
    found = np.zeros((0, len(shares)), np.int64)
    wanted = max(count * rules.candidates, 200)
    for _ in range(TRIES):
        for start in range(0, wanted, MOST_DRAWN):
            fresh = _candidates(min(MOST_DRAWN, wanted - start), mean, most, rules, random)
            found = _distinct(np.concatenate([found, fresh]))
        if taken is not None:
            found = without(found, taken)
        if len(found) >= count:
            return found
    raise BadInputError(
        f"only {len(found)} of {count} mixtures keep the bounds after {TRIES * wanted:,} draws; "
        "ask for fewer, or allow more repetition"
    )


def _candidates(
    count: int, mean: Array, most: Units, rules: Rules, random: np.random.Generator
) -> Units:
    ladder = np.logspace(np.log10(rules.weakest), np.log10(rules.strongest), rules.strengths)
    strength = ladder[random.integers(rules.strengths, size=count)]
    drawn = random.standard_gamma(strength[:, None] * mean)
    total = drawn.sum(1, keepdims=True)
    weights = np.divide(drawn, total, out=np.zeros_like(drawn), where=total > 0)
    weights = weights[(total[:, 0] > 0) & (weights * UNITS <= most).all(1)]
    weights[weights * UNITS < 1] = 0.0
    total = weights.sum(1, keepdims=True)
    weights = weights / total
    return to_units(weights[(weights * UNITS <= most).all(1)], most)


def to_units(weights: Array, most: Units) -> Units:
    """Whole units by largest remainder, none above its bound; ties go to the first domain.

    Args:
        weights: Mixtures [n, domains] that keep the bounds before rounding.
        most: Bounds in units.
    """
    exact = weights * UNITS
    units = np.minimum(np.floor(exact + 1e-9).astype(np.int64), most)
    missing = UNITS - units.sum(1)
    while (missing > 0).any():
        rest = np.where((units < most) & (exact > 0), exact - units, -np.inf)
        order = np.argsort(-rest, axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(units.shape[1])[None, :], axis=1)
        more = (rank < missing[:, None]) & np.isfinite(rest)
        stuck = ~more.any(1) & (missing > 0)
        if stuck.any():  # all domains of the row are full: open the empty ones
            exact = np.where(stuck[:, None], np.maximum(exact, 1e-9), exact)
        units += more
        missing = UNITS - units.sum(1)
    return units


def _distinct(units: Units) -> Units:
    """Rows once each, sorted: an L1 distance of at most 1e-5 means equal units."""
    return np.unique(units, axis=0)


def without(units: Units, taken: Units) -> Units:
    """Rows that are not among those that are taken."""
    known = {row.tobytes() for row in np.ascontiguousarray(taken, np.int64)}
    return units[[row.tobytes() not in known for row in np.ascontiguousarray(units)]]
