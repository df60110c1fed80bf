"""The check run: mixtures trained with several new seeds, and what the fit had said of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.mixing.objective import Objective
from gristmill.mixing.tables import Table, aligned, write_mixtures
from gristmill.regressors.base import Array

PROPOSED, NATURAL, RANDOM = "proposed", "natural", "random-"


@dataclass(frozen=True, kw_only=True, eq=False)
class Check:
    """Measured and predicted objectives of the same mixtures."""

    names: tuple[str, ...]
    """The mixtures'."""
    measured: Array
    """Shape (seeds, mixtures): the objective."""
    predicted: Array
    """Shape (mixtures,)."""
    half: Array
    """Half of the predictions' 90 % intervals."""
    targets: Mapping[str, Mapping[str, float]]
    """Mixture -> target -> measured loss, mean over seeds."""

    def of(self, name: str) -> Array:
        """A mixture's measured objective by seed."""
        return self.measured[:, self.names.index(name)]

    @property
    def gains(self) -> list[float]:
        """What the proposed mixture measured below the natural one, by seed."""
        return [float(gain) for gain in self.of(NATURAL) - self.of(PROPOSED)]

    @property
    def wins(self) -> int:
        """Seeds in which the proposed mixture beats the natural one."""
        return sum(gain > 0 for gain in self.gains)

    @property
    def random(self) -> int:
        """Random mixtures."""
        return sum(name.startswith(RANDOM) for name in self.names)

    @property
    def wins_over_random(self) -> int:
        """Random mixtures that the proposed one beats, by the mean over seeds."""
        mean = self.measured.mean(0)
        best = mean[self.names.index(PROPOSED)]
        return sum(
            bool(best < value)
            for name, value in zip(self.names, mean, strict=True)
            if name.startswith(RANDOM)
        )


def write_check_design(
    uri: str, named: Mapping[str, Mapping[str, float]], random: Table | None
) -> None:
    """Write the mixtures of a check.

    Args:
        uri: The CSV.
        named: Name -> domain -> weight.
        random: Others, which are called random-1 and so on.
    """
    domains = sorted(next(iter(named.values())))
    rows = [np.array([weights[name] for name in domains]) for weights in named.values()]
    names = list(named)
    if random is not None:
        rows += list(aligned(random, domains, "the corpora"))
        names += [f"{RANDOM}{index}" for index in random.index]
    weights = np.stack(rows)
    write_mixtures(uri, names, domains, weights / weights.sum(1, keepdims=True))


def read_check(objective: Objective, mixtures: Table, losses: Sequence[Table]) -> Check:
    """The check that was measured.

    Args:
        objective: The fit, and what is to be low.
        mixtures: What was trained.
        losses: What was measured, a table a seed.
    """
    weights = aligned(mixtures, objective.surface.domains, "the fit")
    measured, by_target = [], []
    for table in losses:
        place = {name: i for i, name in enumerate(table.columns)}
        rows = table.rows(mixtures.index)
        by_target.append(rows)
        parts = [share * rows[:, place[t]] for t, share in objective.shares.items()]
        measured.append(np.sum(parts, axis=0))
    mean = np.mean(by_target, axis=0)
    return Check(
        names=mixtures.index,
        measured=np.stack(measured),
        predicted=objective.mean(weights),
        half=objective.half(weights),
        targets={
            name: dict(zip(losses[0].columns, map(float, row), strict=True))
            for name, row in zip(mixtures.index, mean, strict=True)
        },
    )
