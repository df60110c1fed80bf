"""The rates that plans count with: a file of data, each figure with its origin."""

import functools
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from gristmill.core.errors import BadInputError


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A figure as a range, and how we know it."""

    name: str
    low: float
    high: float
    unit: str
    kind: Literal["measured", "published", "assumed", "modelled"]
    """modelled: derived here from one of the others."""
    origin: str
    """Page, paper or people."""

    def line(self) -> str:
        """The rate as a line for a terminal."""
        span = (
            f"{self.low:,.4g}" if self.low == self.high else f"{self.low:,.4g} to {self.high:,.4g}"
        )
        return f"{self.name}: {span} {self.unit} ({self.kind}: {self.origin})"


@functools.cache
def _table() -> dict[str, Rate]:
    import yaml

    data = yaml.safe_load(files("gristmill.clusters").joinpath("rates.yaml").read_text())
    return {
        name: Rate(name=name, **{**row, "low": float(row["low"]), "high": float(row["high"])})
        for name, row in data.items()
    }


def rate(name: str) -> Rate:
    """A rate by its name.

    Raises:
        BadInputError: There is none.
    """
    if name not in _table():
        raise BadInputError(
            f"no rate {name!r} in clusters/rates.yaml; known: {', '.join(_table())}"
        )
    return _table()[name]


def all_rates() -> tuple[Rate, ...]:
    """All rates of the file."""
    return tuple(_table().values())
