"""Subset files: sorted uids in an .npy of dtype `u8,u8` (DataComp). A uid may repeat."""

import os
import tempfile
from dataclasses import dataclass
from typing import IO

import numpy as np

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.pools.uid import UID_DTYPE, UidArray, first_fall, hex_of_uid, uid_of_hex

CHECK_AT_ONCE = 1 << 22
MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class Subset:
    """Sorted uids, shape (n,), perhaps mapped from a file."""

    uids: UidArray

    def __post_init__(self) -> None:
        if self.uids.dtype != UID_DTYPE or self.uids.ndim != 1:
            raise BadInputError(
                f"a subset is a flat array of dtype u8,u8; this is {self.uids.dtype} with shape "
                f"{self.uids.shape}"
            )

    def __len__(self) -> int:
        return len(self.uids)

    def __contains__(self, uid: str) -> bool:
        return self.count(*uid_of_hex(uid)) > 0

    def __and__(self, other: "Subset") -> "Subset":
        """Uids in both; one that repeats keeps the smaller number of repeats."""
        mine, my_counts = self.unique()
        theirs, their_counts = other.unique()
        place = positions(theirs, mine)
        hit = place >= 0
        counts = np.minimum(my_counts[hit], their_counts[place[hit]])
        return Subset(np.repeat(mine[hit], counts))

    def unique(self) -> tuple[UidArray, np.ndarray]:
        """Distinct uids and how often each is listed."""
        high, low = self.uids["f0"], self.uids["f1"]
        new = np.ones(len(self.uids), bool)
        new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        starts = np.flatnonzero(new)
        return self.uids[starts], np.diff(np.append(starts, len(self.uids)))

    def count(self, high: int, low: int) -> int:
        """How often a uid is listed."""
        keys = self.uids["f0"]
        left = int(np.searchsorted(keys, np.uint64(high), "left"))
        right = int(np.searchsorted(keys, np.uint64(high), "right"))
        return int(np.count_nonzero(self.uids["f1"][left:right] == np.uint64(low)))

    def counts(self, uids: UidArray) -> np.ndarray:
        """How often each of `uids` is listed, shape (n,)."""
        left = search(self.uids, uids, "left")
        return search(self.uids, uids, "right") - left

    def check(self) -> None:
        """Walk the whole file once in pieces.

        Raises:
            BadInputError: It is not sorted; names the position.
        """
        for start in range(0, len(self.uids), CHECK_AT_ONCE):
            piece = self.uids[start : start + CHECK_AT_ONCE + 1]
            if (fall := first_fall(piece)) >= 0:
                at = start + fall
                pair = f"{hex_of_uid(self.uids[at])} comes before {hex_of_uid(self.uids[at + 1])}"
                raise BadInputError(
                    f"the subset is not sorted: entry {at} {pair}; sort it with numpy.sort"
                )

    @classmethod
    def load(cls, uri: str, *, check: bool = True) -> "Subset":
        """Map a subset file: an .npy, or the bare array as a memmap file.

        A remote file is first fetched to a temporary one, which goes when the array does.

        Raises:
            BadInputError: Wrong dtype, shape or order.
            CorruptDataError: Cut short, or not a subset file.
        """
        path = io.local_path(uri) if io.is_local(uri) else _fetch(uri)
        try:
            subset = cls(_map(path, uri))
        finally:
            if not io.is_local(uri):
                os.unlink(path)  # the mapping keeps the bytes
        if check:
            subset.check()
        return subset

    def save(self, uri: str) -> None:
        """Write the .npy."""
        with io.open_write(uri) as file:
            write_header(file, len(self.uids))
            for start in range(0, len(self.uids), CHECK_AT_ONCE):
                file.write(self.uids[start : start + CHECK_AT_ONCE].tobytes())


def search(sorted_uids: UidArray, uids: UidArray, side: str) -> np.ndarray:
    """`numpy.searchsorted` for uids, shape (n,); numpy's own compares records in Python speed.

    The first 16 digits are searched as integers. Runs there are one uid, all but always; the few
    that mix uids are settled one by one.
    """
    keys, rest = sorted_uids["f0"], sorted_uids["f1"]
    left = np.searchsorted(keys, uids["f0"], "left")
    right = np.searchsorted(keys, uids["f0"], "right")
    result = left.copy()
    hit = np.flatnonzero(right > left)
    first, last, low = rest[left[hit]], rest[right[hit] - 1], uids["f1"][hit]
    uniform = first == last
    above = low > first if side == "left" else low >= first
    result[hit] = np.where(uniform & above, right[hit], left[hit])
    for i in hit[~uniform]:
        inner = np.searchsorted(rest[left[i] : right[i]], uids["f1"][i], side)  # type: ignore[call-overload]
        result[i] = left[i] + inner
    return np.asarray(result)


def positions(sorted_unique: UidArray, uids: UidArray) -> np.ndarray:
    """Where each uid stands in a sorted array without repeats, or -1, shape (n,)."""
    left = search(sorted_unique, uids, "left")
    right = search(sorted_unique, uids, "right")
    return np.where(right > left, left, -1)


def write_header(file: IO[bytes], count: int) -> None:
    """The .npy header of a subset of `count` uids, as numpy.save writes it."""
    np.lib.format.write_array_header_1_0(
        file,  # type: ignore[arg-type]
        {
            "descr": np.lib.format.dtype_to_descr(UID_DTYPE),
            "fortran_order": False,
            "shape": (count,),
        },
    )


def _fetch(uri: str) -> str:
    with tempfile.NamedTemporaryFile(prefix="gristmill-subset-", delete=False) as spool:
        with io.open_read(uri) as remote:
            while chunk := remote.read(io.CHUNK_BYTES):
                spool.write(chunk)
        return spool.name


def _map(path: str, uri: str) -> UidArray:
    shown = io.redact(uri)
    try:
        with open(path, "rb") as file:
            magic = file.read(len(MAGIC))
        size = os.path.getsize(path)
        if magic == MAGIC:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        elif size % UID_DTYPE.itemsize == 0 and size:
            mapped = np.memmap(path, UID_DTYPE, mode="r")
        else:
            raise CorruptDataError(f"{shown} is neither an .npy nor an array of u8,u8")
    except FileNotFoundError as error:
        raise BadInputError(f"no subset file at {shown}") from error
    except CorruptDataError:
        raise
    except (ValueError, OSError) as error:
        if size and magic == MAGIC and _is_empty_npy(path):
            return np.zeros(0, UID_DTYPE)
        raise CorruptDataError(f"{shown} is not a whole .npy file: {error}") from error
    if mapped.dtype != UID_DTYPE or mapped.ndim != 1:
        raise BadInputError(
            f"{shown} has dtype {mapped.dtype} and shape {mapped.shape}; a subset u8,u8 and (n,)"
        )
    return mapped


def _is_empty_npy(path: str) -> bool:
    """Whether an .npy holds no entries, which cannot be mapped."""
    try:
        return np.load(path, allow_pickle=False).size == 0
    except (ValueError, OSError):
        return False
