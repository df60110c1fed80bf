"""Which samples make up an output shard: the global order, and the members of a part of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.pools.kept import MEMBER, KeptList, count_up
from gristmill.pools.uid import UID_DTYPE, UidArray, hex_of_uid

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The samples of an output shard in order, and their members."""

    shards: Numbers
    """Number of the input shard of each sample, shape (samples,)."""
    uids: UidArray
    """Shape (samples,)."""
    copies: Numbers
    """0 for the first time a uid is written, 1 for the second, shape (samples,)."""
    starts: Numbers
    """First member of each sample, and the number of members, shape (samples + 1,)."""
    members: npt.NDArray[np.void]
    """Of dtype MEMBER, shape (members,)."""
    extensions: tuple[str, ...]
    """What the members' kinds mean."""

    def key(self, sample: int) -> str:
        """The sample's key in the output."""
        return f"{hex_of_uid(self.uids[sample])}-{self.copies[sample]}"

    def names(self, start: int, stop: int) -> list[bytes]:
        """The names of all members of samples [start, stop) in the output."""
        digits = self.uids[start:stop].view("<u8").astype(">u8").tobytes().hex()
        copies = self.copies[start:stop].tolist()
        keys = [f"{digits[32 * i : 32 * i + 32]}-{copy}." for i, copy in enumerate(copies)]
        owner = np.repeat(np.arange(stop - start), np.diff(self.starts[start : stop + 1]))
        kinds = self.members["kind"][self.starts[start] : self.starts[stop]]
        names = [
            keys[sample] + self.extensions[kind]
            for sample, kind in zip(owner.tolist(), kinds.tolist(), strict=True)
        ]
        return [name.encode("utf-8", "surrogateescape") for name in names]


def plan_shard(order: Numbers, counts: Sequence[int], kept_list: Callable[[int], KeptList]) -> Plan:
    """The plan of an output shard.

    Args:
        order: Its samples, as places in the pool's order of kept samples.
        counts: How many of these each input shard gives.
        kept_list: The kept samples of an input shard.
    """
    ends = np.cumsum(counts)
    shards = np.searchsorted(ends, order, "right")
    uids, copies = np.empty(len(order), UID_DTYPE), np.empty(len(order), np.int64)
    first, lengths = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    pools, have = [np.zeros(0, MEMBER)], 0
    extensions: dict[str, int] = {}
    for number in np.unique(shards).tolist():
        kept = kept_list(number)
        mine = np.flatnonzero(shards == number)
        places = order[mine] - (ends[number] - counts[number])
        times = kept.samples["times"]
        sample = np.searchsorted(np.cumsum(times), places, "right")
        uids[mine], copies[mine] = kept.samples["uid"][sample], count_up(times)[places]
        first[mine], lengths[mine] = kept.starts[sample] + have, kept.samples["members"][sample]
        members = kept.members.copy()
        kinds = [extensions.setdefault(e, len(extensions)) for e in kept.extensions]
        members["kind"] = np.array(kinds, np.int64)[members["kind"]]
        pools.append(members)
        have += len(members)
    rows = np.repeat(first, lengths) + count_up(lengths)
    return Plan(
        shards=shards,
        uids=uids,
        copies=copies,
        starts=np.append(0, np.cumsum(lengths)),
        members=np.concatenate(pools)[rows],
        extensions=tuple(extensions),
    )


def runs(alone: npt.NDArray[np.bool_], sizes: Numbers, most: int) -> Iterator[tuple[int, int]]:
    """Cut samples into runs [start, stop) of at most `most` bytes; some stand alone.

    Args:
        alone: The samples that make a run of their own, shape (n,); those larger
            than `most` do too.
        sizes: Bytes of each, shape (n,).
        most: At least one byte.
    """
    ends = np.cumsum(sizes)
    barriers = np.append(np.flatnonzero(alone | (sizes > most)), len(sizes))
    start = 0
    for barrier in barriers.tolist():
        while start < barrier:
            limit = ends[start] - sizes[start] + most
            stop = min(int(np.searchsorted(ends, limit, "right")), barrier)
            yield start, stop
            start = stop
        if barrier < len(sizes):
            yield barrier, barrier + 1
            start = barrier + 1


def shuffled(start: int, stop: int, total: int, window: int, seed: int) -> Numbers:
    """Which places of the pool's order the places [start, stop) of the output take.

    Windows of `window` places are permuted, each by a generator seeded with (seed, window number):
    so any output shard can work out its own part alone.
    """
    if window <= 1:
        return np.arange(start, stop)
    pieces: list[Numbers] = []
    for number in range(start // window, -(-stop // window)):
        low = number * window
        high = min(low + window, total)
        order = low + np.random.default_rng([seed, number]).permutation(high - low)
        pieces.append(order[max(start - low, 0) : stop - low])
    return np.concatenate(pieces).astype(np.int64)
