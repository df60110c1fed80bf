"""Read a slice and judge its rows by a chain of filters, going on from what an earlier pass judged.

A pass that looks for repeats needs the verdicts of the filters before it, and so does the last
pass. Verdicts are kept by slice, one byte a row, so that no row meets a filter twice.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gristmill.core import io
from gristmill.core.errors import CorruptDataError
from gristmill.execution.parts import gather
from gristmill.execution.work import Slice
from gristmill.filters.base import AllOf, Filter, GroupFilter, Verdict
from gristmill.pools.pool import read_slice

if TYPE_CHECKING:
    import pyarrow as pa

ROW = np.dtype("<i8")


def parts_of(chosen: Filter) -> tuple[Filter, ...]:
    """The filters of a chain, or the one filter."""
    return chosen.parts if isinstance(chosen, AllOf) else (chosen,)


def columns_of(parts: Sequence[Filter]) -> list[str]:
    """Columns that filters read of the pool, each once."""
    names: dict[str, None] = {}
    for part in parts:
        names.update(dict.fromkeys(part.columns))
        if isinstance(part, GroupFilter) and part.best_by:
            names[part.best_by] = None
    return list(names)


@dataclass(frozen=True)
class Judged:
    """A row group, or a part of a large one, with its verdict."""

    row: int
    """Row number in the file of the first row."""
    at: int
    """Row number in the slice of the first row."""
    table: "pa.Table"
    verdict: Verdict


@dataclass
class Chain:
    """Fitted filters in order, and what is known of the rows already."""

    parts: tuple[Filter, ...]
    also: tuple[str, ...] = ()
    """Further columns to read."""
    marks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns of marks: where their part files lie, cut by slice."""
    numbers: dict[str, int] = field(default_factory=dict)
    """Which slice of the pool each is, and so which segment of the marks is its own."""
    starts: dict[str, int] = field(default_factory=dict)
    """Row number in the pool of each slice's first row."""
    judged: int = 0
    """How many of the parts an earlier pass has judged."""
    verdicts: str = ""
    """Folder of its verdicts."""

    def setup(self) -> None:
        """Set up the parts that are still to judge, and those that say how often to list a row."""
        for number, part in enumerate(self.parts):
            if number >= self.judged or type(part).times is not Filter.times:
                part.setup()

    @property
    def columns(self) -> list[str]:
        """What has to be read of the pool."""
        kept = [p for p in self.parts[: self.judged] if type(p).times is not Filter.times]
        wanted = [*self.also, *columns_of(kept), *columns_of(self.parts[self.judged :])]
        return [name for name in dict.fromkeys(wanted) if name not in self.marks]

    def read(self, piece: Slice) -> Iterator[Judged]:
        """The slice's row groups, judged.

        Raises:
            CorruptDataError: A row group cannot be read, or a caption is not UTF-8.
        """
        at = 0
        earlier = self._earlier(piece)
        marked = {name: self._marked(piece, name) for name in self.marks}
        for row, table in read_slice(piece, self.columns):
            span = slice(at, at + table.num_rows)
            for name, column in marked.items():
                table = _with_column(table, name, column[span])
            yield Judged(row, at, table, self._judge(piece, row, table, earlier[span]))
            at = span.stop

    def _judge(self, piece: Slice, row: int, table: "pa.Table", verdict: Verdict) -> Verdict:
        if self.judged == len(self.parts):
            return verdict
        with placed_errors(piece, row):
            return AllOf(parts=self.parts).judge_from(self.judged, table, verdict)

    def _earlier(self, piece: Slice) -> Verdict:
        if not self.verdicts:
            return np.zeros(piece.weight, np.int8)
        uri = io.join(self.verdicts, piece.name)
        if not io.exists(uri):
            where = f"{io.redact(piece.payload['uri'])}, rows from {piece.payload['row']}"
            raise CorruptDataError(f"{where}: an earlier pass could not read them")
        return io.map_records(uri, np.dtype(np.int8))

    def _marked(self, piece: Slice, name: str) -> Verdict:
        rows = gather(self.marks[name], self.numbers[piece.name], ROW)
        column = np.zeros(piece.weight, np.int8)
        column[rows - self.starts[piece.name]] = 1
        return column


@contextlib.contextmanager
def placed_errors(piece: Slice, row: int) -> Iterator[None]:
    """Say where, when a filter finds that a value cannot be read.

    Raises:
        CorruptDataError: In place of what the filter raised; names the file and the row.
    """
    try:
        yield
    except (CorruptDataError, UnicodeDecodeError) as error:
        what = "" if isinstance(error, CorruptDataError) else "a caption is not UTF-8: "
        where = f"{io.redact(piece.payload['uri'])}, rows from {row}"
        raise CorruptDataError(f"{where}: {what}{error}") from error


def _with_column(table: "pa.Table", name: str, values: Verdict) -> "pa.Table":
    import pyarrow as pa

    return table.append_column(name, pa.array(values))
