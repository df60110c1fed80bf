"""What reshard keeps of an input shard: uids, how often, and where the members lie.

A list is one file: a line of JSON, then the samples, then their members, as bare records.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.pools.subset import Subset, search
from gristmill.pools.tar import IMAGE_EXTENSIONS, MAX_RECORD_BYTES, TarReader
from gristmill.pools.tar_index import TarIndex
from gristmill.pools.uid import UID_DTYPE, UidArray, parse_uids, uid_of_hex

try:
    from orjson import loads as _loads
except ImportError:  # it is only faster
    _loads = json.loads  # type: ignore[assignment]

SAMPLE = np.dtype([("entry", "<i8"), ("times", "<i8"), ("uid", UID_DTYPE), ("members", "<i8")])
"""A kept sample: its first entry in the subset, how often it is listed, its number of members."""
MEMBER = np.dtype([("kind", "<i8"), ("offset", "<i8"), ("size", "<i8")])
"""A member of one: which extension, and where its bytes are in the tar."""


@dataclass(frozen=True, kw_only=True)
class KeptList:
    """The samples of an input shard that go to the output, in its order."""

    extensions: tuple[str, ...]
    samples: npt.NDArray[np.void]
    """Of dtype SAMPLE, shape (samples,)."""
    members: npt.NDArray[np.void]
    """Of dtype MEMBER, shape (members,), sample by sample, a sample's picture first."""

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """First member of each sample, shape (samples,)."""
        return np.asarray(np.cumsum(self.samples["members"]) - self.samples["members"])

    def only(self, chosen: npt.NDArray[np.bool_]) -> "KeptList":
        """The list of some of the samples."""
        members = self.members[np.repeat(chosen, self.samples["members"])]
        return KeptList(extensions=self.extensions, samples=self.samples[chosen], members=members)

    def save(self, uri: str) -> None:
        """Write the file."""
        head = {
            "extensions": self.extensions,
            "samples": len(self.samples),
            "members": len(self.members),
        }
        line = json.dumps(head).encode() + b"\n"
        io.write_bytes(uri, line + self.samples.tobytes() + self.members.tobytes())

    @classmethod
    def load(cls, uri: str) -> "KeptList":
        """Read what `save` wrote."""
        data = io.read_bytes(uri)
        start = data.index(b"\n") + 1
        head: dict[str, Any] = json.loads(data[:start])
        middle = start + head["samples"] * SAMPLE.itemsize
        return cls(
            extensions=tuple(head["extensions"]),
            samples=np.frombuffer(data, SAMPLE, head["samples"], start),
            members=np.frombuffer(data, MEMBER, head["members"], middle),
        )


def listed_samples(
    subset: Subset, index: TarIndex, places: npt.NDArray[np.int64], uids: UidArray
) -> tuple[KeptList, int]:
    """The samples of a shard that a subset lists, and how many listed ones bear an earlier uid.

    Args:
        subset: What to keep.
        index: The shard's.
        places: The samples whose uids are known, ascending, shape (n,).
        uids: Their uids, shape (n,).
    """
    entry = search(subset.uids, uids, "left")
    times = search(subset.uids, uids, "right") - entry
    hit = np.flatnonzero(times)
    chosen = hit[np.sort(np.unique(entry[hit], return_index=True)[1])]
    starts = index.starts[places[chosen]]
    counts = index.starts[places[chosen] + 1] - starts
    rows = np.repeat(starts, counts) + count_up(counts)
    owner = np.repeat(np.arange(len(chosen)), counts)
    rows = rows[_picture_first(index, rows, owner)]
    samples = np.empty(len(chosen), SAMPLE)
    samples["entry"], samples["times"] = entry[chosen], times[chosen]
    samples["uid"], samples["members"] = uids[chosen], counts
    members = np.empty(len(rows), MEMBER)
    members["kind"], members["offset"] = index.kinds[rows], index.offsets[rows]
    members["size"] = index.sizes[rows]
    kept = KeptList(extensions=index.extensions, samples=samples, members=members)
    return kept, len(hit) - len(chosen)


def _picture_first(
    index: TarIndex, rows: npt.NDArray[np.int64], owner: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The order of members within their samples: the picture, then by extension."""
    no_picture = len(IMAGE_EXTENSIONS)
    rank = {e: i for i, e in enumerate(IMAGE_EXTENSIONS)}
    ranks = np.array([rank.get(e, no_picture) for e in index.extensions], np.int64)
    mine = ranks[index.kinds[rows]]
    best = np.full(int(owner.max(initial=-1)) + 1, no_picture)
    np.minimum.at(best, owner, mine)
    picture = (mine == best[owner]) & (mine < no_picture)
    return np.lexsort((index.kinds[rows], ~picture, owner))


def count_up(times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0 .. t-1 for each t, in a row."""
    starts = np.repeat(np.cumsum(times) - times, times)
    return np.arange(len(starts)) - starts


def sample_uids(reader: TarReader, index: TarIndex) -> tuple[npt.NDArray[np.int64], UidArray]:
    """The samples whose json has a uid of 32 hex digits, ascending, and those uids."""
    if "json" not in index.extensions:
        return np.zeros(0, np.int64), np.zeros(0, UID_DTYPE)
    rows = np.flatnonzero(index.kinds == index.extensions.index("json"))
    places = np.searchsorted(index.starts, rows, "right") - 1
    spans = list(zip(index.offsets[rows].tolist(), index.sizes[rows].tolist(), strict=True))
    try:
        if (index.sizes[rows] <= MAX_RECORD_BYTES).all():
            return places, _parse([_loads(reader.read_at(at, n))["uid"] for at, n in spans])
    except (BadInputError, TypeError, ValueError, KeyError, RecursionError):
        pass  # one of them is odd: take them one by one
    texts = [_uid_text(reader, at, size) for at, size in spans]
    good = np.array([_is_uid(text) for text in texts], bool)
    return places[good], _parse([t for t, fine in zip(texts, good, strict=True) if fine])


def _uid_text(reader: TarReader, offset: int, size: int) -> Any:
    """The uid as it stands in a json; None when there is none or the json is not an object."""
    if size > MAX_RECORD_BYTES:
        return None
    try:  # Python's reader takes more than orjson: NaN, UTF-16, lone surrogates
        record = json.loads(reader.read_at(offset, size))
    except (ValueError, RecursionError):
        return None
    return record.get("uid") if isinstance(record, dict) else None


def _parse(texts: list[Any]) -> UidArray:
    import pyarrow as pa

    return parse_uids(pa.array(texts, pa.string()), where="json")


def _is_uid(text: Any) -> bool:
    try:
        uid_of_hex(text)
    except BadInputError:
        return False
    return True
