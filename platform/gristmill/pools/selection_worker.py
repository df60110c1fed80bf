"""What the filter job's workers do: judge a slice, write its kept uids, count and show the rest."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.execution.work import Slice, SliceWorker
from gristmill.filters.base import AllOf, Filter
from gristmill.pools import columns
from gristmill.pools.examples import Examples
from gristmill.pools.judging import Chain, Judged
from gristmill.pools.merge import save_part
from gristmill.pools.uid import UidArray, parse_uids

SAMPLES_PER_REASON = 12


@dataclass
class JudgeSlice(SliceWorker):
    """Judges the rows of a slice and writes the kept uids."""

    chain: Chain
    parts: str
    ranges: int
    peek: list[str]
    """Uids whose pictures the driver holds; their verdicts are told apart."""
    _all: AllOf = field(init=False, repr=False)

    def setup(self) -> None:
        """Load what the filters need."""
        self.chain.setup()
        self._all = AllOf(parts=self.chain.parts)

    def process(self, piece: Slice) -> dict[str, Any]:
        """Counts by reason, a few examples of each, verdicts of rows whose picture we have."""
        import pyarrow as pa
        import pyarrow.compute as pc

        counts = np.zeros(len(self._all.reasons) + 1, np.int64)
        listed: list[UidArray] = []
        examples = Examples(self._all, SAMPLES_PER_REASON, self.chain.judged)
        peeked: dict[str, int] = {}
        for judged in self.chain.read(piece):
            counts += np.bincount(judged.verdict, minlength=len(counts))
            listed.append(self._listed(piece, judged))
            examples.add(judged.table, judged.verdict)
            if self.peek:
                uids = judged.table[columns.UID]
                hits = np.flatnonzero(pc.is_in(uids, pa.array(self.peek, uids.type)).to_numpy())
                peeked.update({uids[int(i)].as_py(): int(judged.verdict[i]) for i in hits})
        entries = np.concatenate(listed)
        save_part(io.join(self.parts, piece.name), entries, self.ranges)
        return {
            "rows": int(counts.sum()),
            "kept": int(counts[0]),
            "listed": len(entries),
            "counts": counts.tolist(),
            "examples": examples.found,
            "peeked": peeked,
        }

    def _listed(self, piece: Slice, judged: Judged) -> UidArray:
        """The uids of the kept rows, each as often as the filters say."""
        rows = np.flatnonzero(judged.verdict == 0)
        where, table = piece.payload["uri"], judged.table
        uids = parse_uids(table[columns.UID].take(rows), where=where, rows=judged.row + rows)
        if all(type(part).times is Filter.times for part in self._all.parts):
            return uids
        times = self._all.times(table.take(rows))
        if times is None:
            return uids
        if times.shape != uids.shape or (times < 1).any():
            raise BadInputError(
                f"times must give each kept row a number of at least 1; it gave {times.shape} for "
                f"{len(uids)} rows, least {times.min() if len(times) else 'none'}"
            )
        return np.repeat(uids, times)
