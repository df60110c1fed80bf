"""Uids of image-text pairs: 32 hex digits from content, and their 16-byte form in subsets."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError

UID_DTYPE = np.dtype("u8,u8")
"""One uid in a subset file: first and last 16 hex digits as unsigned integers (DataComp)."""

UidArray = npt.NDArray[np.void]


def pair_uid(image_sha256: str, text: str, url: str = "") -> str:
    """The uid of a pair: 32 hex digits of a BLAKE2b over its image, caption and url.

    Args:
        image_sha256: 64 hex digits, the SHA-256 of the image's encoded bytes.
        text: The caption as it stands in the pool.
        url: Where the image came from; empty when unknown.
    """
    digest = hashlib.blake2b(digest_size=16, person=b"gristmill.pair")
    words = (image_sha256, text, url)
    for part in (word.encode("utf-8", "surrogatepass") for word in words):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


_BAD = -1
_DIGIT = np.full(256, _BAD, np.int16)
_DIGIT[np.frombuffer(b"0123456789", np.uint8)] = np.arange(10)
_DIGIT[np.frombuffer(b"abcdef", np.uint8)] = np.arange(10, 16)
_DIGIT[np.frombuffer(b"ABCDEF", np.uint8)] = np.arange(10, 16)
_PAIR = (_DIGIT[None, :] * 16 + _DIGIT[:, None]).astype(np.int16)
"""Two digits at once: [second, first] as they stand in a little-endian 16-bit word."""
_PAIR[(_DIGIT[None, :] < 0) | (_DIGIT[:, None] < 0)] = _BAD
_PAIR_OF_WORD = _PAIR.reshape(-1)


def parse_uids(
    column: Any, *, where: str, first_row: int = 0, rows: npt.NDArray[np.int64] | None = None
) -> UidArray:
    """Uids of a string column as an array of `UID_DTYPE`, shape (n,), in row order.

    Args:
        column: An Arrow string array or chunked array.
        where: Names the file in errors.
        first_row: Row number in that file of the column's first entry.
        rows: Row numbers in that file of all entries, where they are not neighbours.

    Raises:
        BadInputError: A uid is null or not 32 hex digits; names the file and row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # older Arrow, when there are no chunks
            column = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], pa.string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise BadInputError(f"{where}: column uid is {column.type}, not string")
    lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
    bad = np.flatnonzero(lengths != 32)
    if not len(bad):
        pairs = _PAIR_OF_WORD[_characters(column).view("<u2")]
        bad = np.flatnonzero((pairs < 0).any(axis=1)) if pairs.size and pairs.min() < 0 else bad
    if len(bad):
        at = int(bad[0])
        row = first_row + at if rows is None else int(rows[at])
        raise BadInputError(
            f"{where}, row {row}: uid {column[at].as_py()!r} is not 32 hex digits "
            f"({len(bad)} such rows in this row group)"
        )
    return pairs.astype(np.uint8).view(">u8").astype("<u8").view(UID_DTYPE).reshape(-1)


def _characters(column: Any) -> npt.NDArray[np.uint8]:
    """The bytes of a string array whose entries all have 32, as [n, 32]."""
    import pyarrow as pa

    column = column.cast(pa.large_string())
    _, offsets, data = column.buffers()
    if data is None or not len(column):
        return np.zeros((0, 32), np.uint8)
    start = int(np.frombuffer(offsets, np.int64)[column.offset])
    return np.frombuffer(data, np.uint8, 32 * len(column), start).reshape(-1, 32)


def uid_of_hex(text: object) -> tuple[int, int]:
    """One uid as a pair of integers.

    Raises:
        BadInputError: The text is not 32 hex digits.
    """
    if not (isinstance(text, str) and len(text) == 32 and set(text) <= _DIGITS):
        raise BadInputError(f"uid {text!r} is not 32 hex digits")
    return int(text[:16], 16), int(text[16:], 16)


_DIGITS = set("0123456789abcdefABCDEF")


def hex_of_uid(uid: Sequence[int]) -> str:
    """The 32 hex digits of one entry of a uid array."""
    return f"{int(uid[0]):016x}{int(uid[1]):016x}"


def make_uids(texts: Iterable[str]) -> UidArray:
    """Uids of hex strings as an array, unsorted."""
    return np.array([uid_of_hex(text) for text in texts], UID_DTYPE)


def sort_uids(uids: UidArray) -> UidArray:
    """Sorted by first, then last 16 digits. Far faster than numpy's sort of records.

    Almost always the first 16 digits settle the order; only where they do not is it sorted twice.
    """
    ordered = uids[np.argsort(uids["f0"])]
    if first_fall(ordered) >= 0:
        ordered = uids[np.lexsort((uids["f1"], uids["f0"]))]
    return ordered


def first_fall(uids: UidArray) -> int:
    """Where an array leaves the order of subset files: the first entry above its successor, or -1.

    Equal neighbours are in order.
    """
    high, low = uids["f0"], uids["f1"]
    falls = (high[:-1] > high[1:]) | ((high[:-1] == high[1:]) & (low[:-1] > low[1:]))
    return int(np.argmax(falls)) if falls.any() else -1
