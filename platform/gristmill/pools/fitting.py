"""What filters may ask about a whole pool: ranks of a column, and which rows repeat others."""

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gristmill.core import io
from gristmill.core.config import to_dict
from gristmill.core.errors import BadInputError
from gristmill.execution.session import Execution
from gristmill.execution.work import Slice
from gristmill.filters.base import Filter, GroupFilter
from gristmill.pools import columns
from gristmill.pools.facts import ColumnFacts
from gristmill.pools.groups import find_repeats
from gristmill.pools.judging import Chain, columns_of, parts_of

PACKAGE = "gristmill."


RESERVED = ("pool", "features")
"""Names of the job's own inputs."""


def inputs_of(chosen: Filter) -> dict[str, dict[str, Any]]:
    """Files that filters read, and the code of those from outside this package, with hashes.

    Raises:
        BadInputError: A filter names an input as the job names its own.
    """
    found = dict(chosen.inputs())
    if clash := [name for name in RESERVED if name in found]:
        raise BadInputError(f"a filter's inputs() may not be named {clash[0]}; choose another name")
    for part in parts_of(chosen):
        kind = type(part)
        file = inspect.getsourcefile(kind) if not kind.__module__.startswith(PACKAGE) else None
        if file:
            found[f"code-{kind.__name__}"] = {"module": kind.__module__, "sha256": io.sha256(file)}
    return found


def check_storable(fitted: Filter) -> None:
    """Refuse, before any work, a fitted filter that the run could not record.

    Raises:
        BadInputError: A field is not a plain value; names the filter.
    """
    for part in parts_of(fitted):
        try:
            json.dumps(to_dict(part))
        except TypeError as error:
            raise BadInputError(
                f"{type(part).__name__} as fitted cannot be recorded: {error}; its fields must be "
                "plain values, so wrap numpy's in float() or int()"
            ) from error


@dataclass
class _Found:
    """What the passes so far left behind; shared by the views that `among` gives."""

    marks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pairs: dict[str, list[list[str]]] = field(default_factory=dict)
    judged: int = 0
    verdicts: str = ""


@dataclass
class WholePool:
    """PoolFacts over metadata slices, each pass resumable in `scratch`."""

    pieces: Sequence[Slice]
    scratch: str
    execution: Execution
    skip_corrupt: bool = False
    earlier: tuple[Filter, ...] = ()
    """Fitted filters; `repeats` looks at what they keep."""
    _found: _Found = field(default_factory=_Found, repr=False)

    @property
    def _ranks(self) -> ColumnFacts:
        return ColumnFacts(self.pieces, self.scratch, self.execution, self.skip_corrupt)

    @property
    def num_rows(self) -> int:
        """Rows in all slices."""
        return self._ranks.num_rows

    def rows_of(self, column: str) -> int:
        """Rows of the slices in which the column could be read."""
        return self._ranks.rows_of(column)

    def value_at_rank(self, column: str, rank: int) -> float:
        """The value at index `rank` (from 0) of a column in falling order, NaN and null last."""
        return self._ranks.value_at_rank(column, rank)

    def among(self, earlier: Sequence[Filter]) -> "WholePool":
        """The same facts, where `repeats` looks only at rows that these filters too keep."""
        return WholePool(
            self.pieces,
            self.scratch,
            self.execution,
            self.skip_corrupt,
            (*self.earlier, *earlier),
            self._found,
        )

    def repeats(self, chosen: GroupFilter) -> str:
        """The name of a column of marks, 1 for rows that repeat a better one."""
        name = f"repeats-{len(self._found.marks) + 1}"
        marks, verdicts, pairs = find_repeats(
            chosen,
            self.chain(self.earlier, also=(columns.UID, *columns_of((chosen,)))),
            self.pieces,
            io.join(self.scratch, name),
            self.execution,
            skip_corrupt=self.skip_corrupt,
        )
        self._found.marks[name] = marks
        self._found.pairs[f"{type(chosen).__name__} ({name})"] = pairs
        self._found.judged, self._found.verdicts = len(self.earlier), verdicts
        return name

    @property
    def pairs(self) -> dict[str, list[list[str]]]:
        """By filter, a few pairs of uids: one that goes, and the first of its group."""
        return self._found.pairs

    def chain(self, parts: tuple[Filter, ...], *, also: tuple[str, ...]) -> Chain:
        """Filters over the slices, going on from what the passes so far judged."""
        weights: Any = [piece.weight for piece in self.pieces]
        starts = np.cumsum([0, *weights])[:-1].tolist()
        return Chain(
            parts=parts,
            also=also,
            marks=dict(self._found.marks),
            numbers={piece.name: i for i, piece in enumerate(self.pieces)},
            starts={p.name: s for p, s in zip(self.pieces, starts, strict=True)},
            judged=self._found.judged,
            verdicts=self._found.verdicts,
        )
