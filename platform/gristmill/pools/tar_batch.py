"""Copy members from tars into a tar, many at a time.

A batch is laid out in one buffer as it will stand in the tar. Members that lie in their source as
they will lie in the output are read at once, with the headers between them; then our headers are
written over those, and padding is made zero. So a byte is moved twice, and hashed while in cache.
"""

import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt

from gristmill.pools.tar import BLOCK, TarReader, member_header

BATCH_BYTES = 1 << 21
LONGEST_NAME = tarfile.LENGTH_NAME
LARGEST_SIZE = 8**11 - 1
"""Above these a header takes more than a block, or other digits."""

_SIZE_AT, _SUM_AT = 124, 148
_BLANK = np.frombuffer(member_header("", 0), np.uint8).copy()
_BLANK[_SIZE_AT : _SIZE_AT + 11] = 0
_BLANK[_SUM_AT : _SUM_AT + 8] = ord(" ")
_BLANK_SUM = int(_BLANK.sum(dtype=np.int64))
_KEEP = np.where(np.arange(BLOCK) < np.arange(BLOCK)[:, None], 255, 0).astype(np.uint8)
"""Row r keeps the first r bytes of a block."""
_KEEP[0] = 255


@dataclass(frozen=True, kw_only=True)
class Members:
    """Members to copy, in output order; all arrays have shape (n,)."""

    names: Sequence[bytes]
    """Their names in the output, each at most LONGEST_NAME bytes."""
    sources: npt.NDArray[np.int64]
    """Number of the tar that holds each."""
    offsets: npt.NDArray[np.int64]
    """Where it begins there."""
    sizes: npt.NDArray[np.int64]
    """Its bytes, each at most LARGEST_SIZE."""


def padded(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """What members of these sizes take in a tar, headers of one block included."""
    return BLOCK + -(-sizes // BLOCK) * BLOCK


def headers(names: Sequence[bytes], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The blocks that `TarWriter.add` writes before each member, shape (n, 512)."""
    made = np.tile(_BLANK, (len(names), 1))
    letters = np.array(names, f"S{LONGEST_NAME}").view(np.uint8).reshape(-1, LONGEST_NAME)
    made[:, :LONGEST_NAME] = letters
    digits = _octal(sizes, 11)
    made[:, _SIZE_AT : _SIZE_AT + 11] = digits
    sums = letters.sum(axis=1, dtype=np.int64) + digits.sum(axis=1, dtype=np.int64) + _BLANK_SUM
    made[:, _SUM_AT : _SUM_AT + 6] = _octal(sums, 6)
    made[:, _SUM_AT + 6] = 0
    return made


def _octal(numbers: npt.NDArray[np.int64], digits: int) -> npt.NDArray[np.uint8]:
    shifts = 3 * np.arange(digits)[::-1]
    return ((numbers[:, None] >> shifts & 7) + ord("0")).astype(np.uint8)


class BatchCopier:
    """Copies batches through one buffer, which grows to the largest."""

    def __init__(self) -> None:
        self._blocks = np.zeros((0, BLOCK), np.uint8)

    def copy(
        self, members: Members, open_tar: Callable[[int], TarReader], target: IO[bytes]
    ) -> None:
        """Append members to `target`.

        Raises:
            CorruptDataError: A source is shorter than it was.
        """
        ends = np.cumsum(padded(members.sizes))
        if len(self._blocks) * BLOCK < ends[-1]:
            self._blocks = np.zeros((-(-int(ends[-1]) // BLOCK), BLOCK), np.uint8)
        begins = ends - padded(members.sizes)
        buffer = self._blocks.reshape(-1).data
        _read(members, begins + BLOCK, open_tar, buffer)
        self._blocks[begins // BLOCK] = headers(members.names, members.sizes)
        last = ends // BLOCK - 1
        self._blocks[last] &= _KEEP[members.sizes % BLOCK]
        target.write(buffer[: int(ends[-1])])


def _read(
    members: Members,
    begins: npt.NDArray[np.int64],
    open_tar: Callable[[int], TarReader],
    buffer: memoryview,
) -> None:
    """Read each member to its place in the buffer, neighbours that lie alike in one go."""
    source, offset = members.sources, members.offsets
    apart = np.ones(len(source) + 1, bool)
    apart[1:-1] = (source[1:] != source[:-1]) | (np.diff(offset) != np.diff(begins))
    first = np.flatnonzero(apart[:-1])
    last = np.flatnonzero(apart[1:])
    ends = begins[last] + members.sizes[last]
    for number, at, begin, end in zip(
        source[first].tolist(),
        offset[first].tolist(),
        begins[first].tolist(),
        ends.tolist(),
        strict=True,
    ):
        open_tar(number).read_into(at, buffer[begin:end])
