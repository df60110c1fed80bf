"""Facts about a table worked out plainly, row by row: the measure of the distributed ones."""

import math

import numpy as np
import pyarrow as pa

from gristmill.filters.base import AllOf


class PlainFacts:
    """PoolFacts of one table in memory."""

    def __init__(self, table, earlier=()):
        self.table, self.earlier = table, list(earlier)
        self.num_rows = table.num_rows

    def rows_of(self, column):
        return self.num_rows

    def value_at_rank(self, column, rank):
        values = self.table[column].cast("float64").to_numpy()
        return float(-np.sort(-values)[rank])

    def among(self, earlier):
        facts = PlainFacts(self.table, [*self.earlier, *earlier])
        facts.root = getattr(self, "root", self)
        return facts

    def repeats(self, chosen):
        root = getattr(self, "root", self)
        kept = np.arange(self.num_rows)
        if self.earlier:
            before = AllOf(parts=tuple(self.earlier))
            before.setup()
            kept = np.flatnonzero(before.judge(root.table.select(list(before.columns))) == 0)
        chosen.setup()
        found = np.zeros(self.num_rows, np.int8)
        found[kept[sorted(repeated_rows(chosen, root.table.take(kept)))]] = 1
        name = f"repeats-{len(root.table.column_names)}"
        root.table = root.table.append_column(name, pa.array(found))
        return name


def repeated_rows(chosen, table):
    """Rows of a table that a GroupFilter drops."""
    keyed = chosen.keyed(table.select(list(chosen.columns)))
    best = table[chosen.best_by].to_pylist() if chosen.best_by else [0.0] * table.num_rows
    groups = {}
    for i, (row, key) in enumerate(zip(keyed.rows.tolist(), keyed.keys.tolist(), strict=True)):
        value = best[row]
        missing = value is None or math.isnan(value)
        groups.setdefault(tuple(key), []).append((missing, 0.0 if missing else -value, row, i))
    gone = set()
    for group in groups.values():
        group.sort()
        payload = None if keyed.payload is None else keyed.payload[[g[3] for g in group]]
        dropped = chosen.repeated(payload, len(group))
        gone.update(g[2] for g, drop in zip(group, dropped, strict=True) if drop)
    return gone
