"""The contract of a filter, and `&`.

A filter is a frozen dataclass. It names the columns it reads and the reasons it drops for, and
judges a batch: 0 keeps a row, i drops it for `reasons[i - 1]`. It is pure: no state, no I/O after
`setup`, the same verdict whatever the batch. One that needs a fact about the whole pool, such as a
quantile, gets it in `fit` and returns a filter that no longer needs it.

A GroupFilter drops repeats: it gives rows keys, and of rows that share one only the first stays.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import tyro

from gristmill.core.errors import BadInputError

if TYPE_CHECKING:
    import pyarrow as pa

Verdict = npt.NDArray[np.int8]
"""Shape (rows,): 0 keeps, i drops for `reasons[i - 1]`."""
MOST_REASONS = 127


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

    def among(self, earlier: "Sequence[Filter]") -> "PoolFacts":
        """The same facts, where `repeats` looks only at rows that these filters too keep.

        Ranks and counts stay those of the whole pool, as DataComp's intersections want them.
        """
        ...

    def repeats(self, chosen: "GroupFilter") -> str:
        """The name of a column, 1 for rows that repeat an earlier one and 0 for the others."""
        ...


@dataclass(frozen=True, kw_only=True)
class Filter(ABC):
    """Keeps or drops rows of pool metadata."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Metadata columns it reads; features beside the metadata (`l14_img`) count as columns."""

    @property
    @abstractmethod
    def reasons(self) -> tuple[str, ...]:
        """Why it drops, in the order it checks; short nouns for the report's funnel."""

    def inputs(self) -> dict[str, dict[str, Any]]:
        """Files it reads beside the pool, by name, with the hashes that pin them in the run."""
        return {}

    def fit(self, facts: PoolFacts) -> "Filter":  # noqa: ARG002 - most need no fact
        """The filter with every fact about the pool filled in."""
        return self

    def setup(self) -> None:  # noqa: B027 - most need nothing
        """Load what judging needs (a language model, a word list); runs once a process."""

    @abstractmethod
    def judge(self, batch: "pa.Table") -> Verdict:
        """A verdict for each row of a batch that has `columns`; of an empty batch, none."""

    def times(self, batch: "pa.Table") -> npt.NDArray[np.int64] | None:  # noqa: ARG002
        """How often the subset lists each row if it is kept, at least 1; None means once each."""
        return None

    def notes(self, batch: "pa.Table") -> list[str] | None:  # noqa: ARG002 - most say nothing
        """A few words on each row for the report's examples, such as what it is too near to."""
        return None

    def __and__(self, other: "Filter") -> "AllOf":
        """Both: the second judges only what the first keeps."""
        mine = self.parts if isinstance(self, AllOf) else (self,)
        theirs = other.parts if isinstance(other, AllOf) else (other,)
        return AllOf(parts=mine + theirs)


@dataclass(frozen=True)
class Keyed:
    """Keys of a batch's rows; a row may have none, one or several."""

    rows: npt.NDArray[np.int64]
    """Shape (m,): row numbers in the batch."""
    keys: npt.NDArray[np.uint64]
    """Shape (m, 2): 128-bit keys. Well-mixed ones (hashes) spread the work evenly."""
    payload: npt.NDArray[Any] | None = None
    """Shape (m, ...): what `repeated` compares within a group; None when the key says it all."""


@dataclass(frozen=True, kw_only=True)
class GroupFilter(Filter):
    """Drops rows that repeat an earlier row, among those that the filters before it keep.

    Rows that share a key form a group. In it the rows stand best first (by `best_by`, ties in the
    pool's order), and `repeated` says which go. A row with several keys goes if any group drops it.
    """

    best_by: str = ""
    """A number column whose largest value stands first. Empty: the pool's order."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """The one reason of all of these."""
        return ("duplicate",)

    @abstractmethod
    def keyed(self, batch: "pa.Table") -> Keyed:
        """Keys of a batch that has `columns`; rows without a key are never repeats."""

    def repeated(self, payload: npt.NDArray[Any] | None, rows: int) -> npt.NDArray[np.bool_]:  # noqa: ARG002
        """Which rows of one group go, shape (rows,), best row first. Here: all but the first."""
        gone = np.ones(rows, bool)
        gone[:1] = False
        return gone

    def fit(self, facts: PoolFacts) -> Filter:
        """A filter that reads what a pass over the pool found.

        Raises:
            BadInputError: It has `times` or `notes`, which only filters that judge are asked for.
        """
        for method in ("times", "notes"):
            if getattr(type(self), method) is not getattr(Filter, method):
                raise BadInputError(
                    f"{type(self).__name__} drops repeats, so its {method} would not be asked; put "
                    "that in a filter of its own"
                )
        return Marked(column=facts.repeats(self), reason=self.reasons[0])

    def judge(self, batch: "pa.Table") -> Verdict:  # noqa: ARG002 - it cannot
        """Not before `fit`."""
        raise BadInputError(f"{type(self).__name__} needs the whole pool: call fit first")


@dataclass(frozen=True, kw_only=True)
class Marked(Filter):
    """Drops the rows that a pass over the pool marked."""

    column: str
    """Column of 0 and 1."""
    reason: str
    """Why marked rows go."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The marks."""
        return (self.column,)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The one it was given."""
        return (self.reason,)

    def judge(self, batch: "pa.Table") -> Verdict:
        """Drop where the mark is 1."""
        return batch[self.column].to_numpy().astype(np.int8)


@dataclass(frozen=True, kw_only=True)
class AllOf(Filter):
    """Filters one after another; what an earlier one drops, a later one never sees."""

    parts: tyro.conf.Suppress[tuple[Filter, ...]]
    """The filters, cheapest first. No flags of their own: two parts may share a field's name."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise BadInputError("a composed filter needs at least one part")
        if len(self.reasons) > MOST_REASONS:
            raise BadInputError(
                f"these filters have {len(self.reasons)} reasons; at most {MOST_REASONS} fit"
            )

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

    def inputs(self) -> dict[str, dict[str, Any]]:
        """Inputs of all parts; a later part's file under a name in use gets its number."""
        found: dict[str, dict[str, Any]] = {}
        for i, part in enumerate(self.parts, 1):
            for name, entry in part.inputs().items():
                same = found.get(name, entry) == entry
                found[name if same else f"{i}.{name}"] = entry
        return found

    def fit(self, facts: PoolFacts) -> "Filter":
        """Each part fitted: ranks on the whole pool, repeats among what the parts before keep."""
        fitted: list[Filter] = []
        for part in self.parts:
            made = part.fit(facts.among(fitted))
            fitted += made.parts if isinstance(made, AllOf) else (made,)
        return AllOf(parts=tuple(fitted))

    def setup(self) -> None:
        """Set up each part."""
        for part in self.parts:
            part.setup()

    def judge(self, batch: "pa.Table") -> Verdict:
        """The first part that drops a row gives its reason."""
        return self.judge_from(0, batch, np.zeros(batch.num_rows, np.int8))

    def judge_from(self, first: int, batch: "pa.Table", verdict: Verdict) -> Verdict:
        """Go on with part `first` from the verdict that the parts before it gave."""
        verdict = verdict.copy()
        alive = np.flatnonzero(verdict == 0)
        offset = sum(len(part.reasons) for part in self.parts[:first])
        for part in self.parts[first:]:
            whole = len(alive) == batch.num_rows
            rows = batch.select(list(part.columns)) if part.columns else batch
            found = _checked(part, part.judge(rows if whole else rows.take(alive)), len(alive))
            verdict[alive] = np.where(found > 0, found + offset, 0)
            alive = alive[found == 0]
            offset += len(part.reasons)
        return verdict

    def times(self, batch: "pa.Table") -> npt.NDArray[np.int64] | None:
        """The product of the parts' numbers."""
        product = None
        for part in self.parts:
            if (more := part.times(batch)) is not None:
                product = more if product is None else product * more
        return product


def _checked(part: Filter, verdict: Verdict, rows: int) -> Verdict:
    """The verdict, if it is one.

    Raises:
        BadInputError: The filter broke its contract.
    """
    most = len(part.reasons)
    if verdict.shape != (rows,) or (rows and (verdict.min() < 0 or verdict.max() > most)):
        raise BadInputError(
            f"{type(part).__name__}.judge must give one verdict a row, from 0 to {most}; "
            f"it gave shape {verdict.shape} for {rows} rows"
        )
    return verdict
