"""128-bit keys for groups of rows: from hex digits, from bytes, from whole arrays of integers.

Keys must be the same in every process and on every machine, so nothing here uses Python's `hash`
or a random stream that a library may change.
"""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio: SplitMix64's step (Steele et al. 2014, section 3)."""
_SECOND = np.uint64(0xD1342543DE82EF95)
"""Another odd multiplier, so that both halves of a key depend on the input differently."""


def mix64(words: Words) -> Words:
    """SplitMix64's finaliser (Steele et al. 2014, "Fast splittable pseudorandom number
    generators"): a bijection after which each bit depends on all. Shape is kept."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def stream64(count: int, seed: int) -> Words:
    """The first `count` numbers of SplitMix64 from a seed, shape (count,)."""
    start = mix64(np.array([seed % (1 << 64)], np.uint64) + GOLDEN)
    return mix64(start + GOLDEN * np.arange(1, count + 1, dtype=np.uint64))


def keys_of_words(words: Words) -> Words:
    """128-bit keys of rows of 64-bit words, shape (..., w) to (..., 2)."""
    high = np.zeros(words.shape[:-1], np.uint64)
    low = np.zeros(words.shape[:-1], np.uint64)
    for i in range(words.shape[-1]):
        high = mix64(high + words[..., i] + GOLDEN)
        low = mix64((low ^ words[..., i]) * _SECOND + GOLDEN)
    return np.stack([high, low], axis=-1)


def keys_of_values(column: Any, *, person: bytes) -> Words:
    """BLAKE2b-128 of each value of a string or binary column without nulls, shape (n, 2).

    Args:
        column: An Arrow array or chunked array; bytes need not be valid UTF-8.
        person: Up to 16 bytes that keep these keys apart from other uses.
    """
    import pyarrow as pa

    blake2b = hashlib.blake2b
    digests = b"".join(
        blake2b(value, digest_size=16, person=person).digest()
        for value in column.cast(pa.large_binary()).to_pylist()
    )
    return np.frombuffer(digests, np.dtype("<u8")).reshape(-1, 2).astype(np.uint64)


def words_of_hex(column: Any) -> Words:
    """Hex strings of one length without nulls as 64-bit words, shape (n, digits / 16).

    Args:
        column: An Arrow string array or chunked array; all of 16, 32, ... hex digits.
    """
    if not len(column):
        return np.zeros((0, 1), np.uint64)
    packed = np.frombuffer(bytes.fromhex("".join(column.to_pylist())), ">u8")
    return packed.astype(np.uint64).reshape(len(column), -1)


def well_formed_hex(column: Any, digits: int) -> npt.NDArray[np.bool_]:
    """Which values of a string column are `digits` hex digits; null is not, shape (n,)."""
    import pyarrow.compute as pc

    good = pc.match_substring_regex(column, rf"\A[0-9a-fA-F]{{{digits}}}\z")
    return np.asarray(pc.fill_null(good, False).to_numpy(), bool)
