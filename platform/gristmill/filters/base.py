"""The contract of a filter, and `&`.

A filter is a frozen dataclass. It names the columns it reads and the reasons it drops for, and
judges a batch: 0 keeps a row, i drops it for `reasons[i - 1]`. It is pure: no state, no I/O after
`setup`, the same verdict whatever the batch. One that needs a fact about the whole pool, such as a
quantile, gets it in `fit` and returns a filter that no longer needs it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError

if TYPE_CHECKING:
    import pyarrow as pa

Verdict = npt.NDArray[np.int8]
"""Shape (rows,): 0 keeps, i drops for `reasons[i - 1]`."""


class PoolFacts(Protocol):
    """Facts about a whole pool that a filter may ask for in `fit`; found in flat memory."""

    @property
    def num_rows(self) -> int:
        """Rows in the pool."""
        ...

    def rows_of(self, column: str) -> int:
        """Rows in which a column can be read: all, unless corrupt ones are being skipped."""
        ...

    def value_at_rank(self, column: str, rank: int) -> float:
        """The value at index `rank` (from 0) of a number column in falling order.

        NaN and null stand after all numbers; NaN is returned when `rank` falls among them.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Filter(ABC):
    """Keeps or drops rows of pool metadata."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Metadata columns it reads."""

    @property
    @abstractmethod
    def reasons(self) -> tuple[str, ...]:
        """Why it drops, in the order it checks; short nouns for the report's funnel."""

    def fit(self, facts: PoolFacts) -> "Filter":  # noqa: ARG002 - most need no fact
        """The filter with every fact about the pool filled in."""
        return self

    def setup(self) -> None:  # noqa: B027 - most need nothing
        """Load what judging needs (a language model, a word list); runs once a process."""

    @abstractmethod
    def judge(self, batch: "pa.Table") -> Verdict:
        """A verdict for each row of a batch that has `columns`; of an empty batch, none."""

    def __and__(self, other: "Filter") -> "AllOf":
        """Both: the second judges only what the first keeps."""
        mine = self.parts if isinstance(self, AllOf) else (self,)
        theirs = other.parts if isinstance(other, AllOf) else (other,)
        return AllOf(parts=mine + theirs)


@dataclass(frozen=True, kw_only=True)
class AllOf(Filter):
    """Filters one after another; what an earlier one drops, a later one never sees."""

    parts: tuple[Filter, ...]
    """The filters, cheapest first."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise BadInputError("a composed filter needs at least one part")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of all parts, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.columns))

    @property
    def reasons(self) -> tuple[str, ...]:
        """Reasons of all parts in order, with the part's number where two share a word."""
        plain = [reason for part in self.parts for reason in part.reasons]
        if len(set(plain)) == len(plain):
            return tuple(plain)
        return tuple(f"{i}.{r}" for i, part in enumerate(self.parts, 1) for r in part.reasons)

    def fit(self, facts: PoolFacts) -> "Filter":
        """Each part fitted on the whole pool, as DataComp's own intersections are."""
        return AllOf(parts=tuple(part.fit(facts) for part in self.parts))

    def setup(self) -> None:
        """Set up each part."""
        for part in self.parts:
            part.setup()

    def judge(self, batch: "pa.Table") -> Verdict:
        """The first part that drops a row gives its reason."""
        verdict = np.zeros(batch.num_rows, np.int8)
        alive = np.arange(batch.num_rows)
        offset = 0
        for part in self.parts:
            whole = len(alive) == batch.num_rows
            rows = batch.select(list(part.columns)) if part.columns else batch
            found = part.judge(rows if whole else rows.take(alive))
            verdict[alive] = np.where(found > 0, found + offset, 0)
            alive = alive[found == 0]
            offset += len(part.reasons)
        return verdict
