"""Which domain each sequence of the stream comes from: exact shares at every prefix.

Problem. With weights w_d = q_d / Q (whole millionths), give each slot n = 0, 1, 2... a domain, such
that after every n slots each domain has floor(n w_d) or ceil(n w_d) of them; so
|count_d(n) - n w_d| < 1 always. Rounding each n w_d by itself does not do: the roundings need not
sum to n. Nor does taking the largest deficit: with many domains it strays beyond 1 (a big domain
beside many equal small ones).

Method. This is the chairman assignment problem (Tijdeman, Discrete Mathematics 32, 1980), equal to
fair scheduling on one processor (Baruah, Cohen, Plaxton and Varvel, Algorithmica 15, 1996): the
k-th sequence of d (k = 0, 1...) must take a slot from floor(k / w_d) to ceil((k + 1) / w_d) - 1.

1. The windows give the bound. A sequence k placed at slot t >= floor(k / w) has (t + 1) w > k, so a
   count of k + 1 is below n w + 1. Sequences with ceil((k + 1) / w) <= n are all placed before slot
   n, and there are floor(n w) of them.
2. A placement exists. Let every slot share itself out by the weights; then sequence k gets w_d
   from each moment of (k / w, (k + 1) / w], 1 in all, inside its window. That is a fractional
   perfect matching of sequences and slots, and a bipartite graph with one has a whole one.
3. Earliest deadline first finds it, as it does for unit jobs with whole release times whenever
   there is one; and since the weights sum to 1, it never idles.

After P = Q / gcd(q) slots each count is exactly P w_d and the windows begin anew. So one period,
laid down once (at most a million slots, about a second; 5,000 slots for RegMix's multiples of
2e-4), answers any slot at once, with no replay and no state to keep in a checkpoint.
"""

import heapq
import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


class Apportionment:
    """The domain of any slot, and how many sequences each domain had before it."""

    def __init__(self, parts: Mapping[str, int]) -> None:
        """Lay down one period.

        Args:
            parts: Domain -> weight as a whole number above 0, of any sum.
        """
        assert min(parts.values()) > 0, "weights of 0 have no slots"
        self.domains = tuple(sorted(parts))
        divisor = math.gcd(*parts.values())
        self.per_period = np.array([parts[d] // divisor for d in self.domains], np.int64)
        self.period = int(self.per_period.sum())
        self._table = _period(tuple(self.per_period.tolist()))
        self._slots = [np.flatnonzero(self._table == i) for i in range(len(self.domains))]
        self._rank = np.empty(self.period, np.int64)
        for slots in self._slots:
            self._rank[slots] = np.arange(len(slots))

    def at(self, slots: IntArray) -> tuple[IntArray, IntArray]:
        """Of each slot: its domain's place in `domains`, and which sequence of it this is."""
        periods, inside = np.divmod(slots, self.period)
        domain = self._table[inside].astype(np.int64)
        return domain, periods * self.per_period[domain] + self._rank[inside]

    def counts(self, slots: int) -> dict[str, int]:
        """How many of the first `slots` sequences come from each domain."""
        periods, inside = divmod(slots, self.period)
        return {
            name: int(periods * self.per_period[i] + np.searchsorted(self._slots[i], inside))
            for i, name in enumerate(self.domains)
        }


@lru_cache(maxsize=8)
def _period(counts: tuple[int, ...]) -> npt.NDArray[np.int16]:
    """Earliest deadline first over one period; ties go to the first name."""
    period, kinds = sum(counts), len(counts)
    owner = np.repeat(np.arange(kinds), counts)
    number = np.concatenate([np.arange(count) for count in counts])
    weight = np.repeat(np.array(counts, np.int64), counts)
    release = number * period // weight
    deadline = -((-(number + 1) * period) // weight)
    order = np.argsort(release, kind="stable")
    waiting = (deadline * kinds + owner)[order].tolist()  # one number: deadline, then name
    released = np.searchsorted(release[order], np.arange(period), "right").tolist()
    heap: list[int] = []
    table, ready = np.empty(period, np.int16), 0
    for slot, upto in enumerate(released):
        for job in waiting[ready:upto]:
            heapq.heappush(heap, job)
        ready = upto
        table[slot] = heapq.heappop(heap) % kinds
    table.setflags(write=False)
    return table
