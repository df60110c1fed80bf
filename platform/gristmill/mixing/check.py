"""The check run: mixtures trained with several new seeds, and what the fit had said of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gristmill.mixing.objective import Objective
from gristmill.mixing.simplex import cap
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
    guarded: Mapping[str, Array] = field(default_factory=dict)
    """Guarded target -> what the proposed mixture measured above the natural one, by seed."""

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
    def broken(self) -> list[str]:
        """Guarded targets that measured worse than at the natural mixture, mean over seeds."""
        return [name for name, change in sorted(self.guarded.items()) if change.mean() > 0]

    @property
    def random(self) -> int:
        """Random mixtures."""
        return sum(name.startswith(RANDOM) for name in self.names)

    @property
    def rivals(self) -> list[str]:
        """Random mixtures that are as good as the proposed one, by the mean over seeds."""
        best = self.of(PROPOSED).mean()
        return [n for n in self.names if n.startswith(RANDOM) and self.of(n).mean() <= best]

    @property
    def wins_over_random(self) -> int:
        """Random mixtures that the proposed one beats, by the mean over seeds."""
        return self.random - len(self.rivals)


def write_check_design(
    uri: str, named: Mapping[str, Mapping[str, float]], random: Table | None, caps: Array
) -> None:
    """Write the mixtures of a check.

    Args:
        uri: The CSV.
        named: Name -> domain -> weight.
        random: Others, which are called random-1 and so on.
        caps: Largest weights [domains], that these are brought under.
    """
    domains = sorted(next(iter(named.values())))
    rows = [np.array([weights[name] for name in domains]) for weights in named.values()]
    names = list(named)
    if random is not None:
        rows += list(cap(aligned(random, domains, "the corpora"), caps))
        names += [f"{RANDOM}{index}" for index in random.index]
    weights = np.stack(rows)
    write_mixtures(uri, names, domains, weights / weights.sum(1, keepdims=True))


def read_check(
    objective: Objective, mixtures: Table, losses: Sequence[Table], rails: Collection[str] = ()
) -> Check:
    """The check that was measured.

    Args:
        objective: The fit, and what is to be low.
        mixtures: What was trained.
        losses: What was measured, a table a seed. Mixtures that one of them lacks are left out.
        rails: Guarded targets.
    """
    names = tuple(n for n in mixtures.index if all(n in table.index for table in losses))
    place = {name: i for i, name in enumerate(mixtures.index)}
    weights = aligned(mixtures, objective.surface.domains, "the fit")[[place[n] for n in names]]
    measured, by_target = [], []
    for table in losses:
        rows = table.rows(names)
        by_target.append(rows)
        column = {target: rows[:, i] for i, target in enumerate(table.columns)}
        parts = [share * column[t] for t, share in objective.shares.items()]
        measured.append(np.sum(parts, axis=0))
    every = np.stack(by_target)
    mean = every.mean(0)
    change = every[:, names.index(PROPOSED)] - every[:, names.index(NATURAL)]
    return Check(
        names=names,
        measured=np.stack(measured),
        predicted=objective.mean(weights),
        half=objective.half(weights),
        targets={
            name: dict(zip(losses[0].columns, map(float, row), strict=True))
            for name, row in zip(names, mean, strict=True)
        },
        guarded={name: change[:, losses[0].columns.index(name)] for name in sorted(rails)},
    )
