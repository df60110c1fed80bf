"""A pseudo-random permutation of 0..size-1 at random access, by a Feistel network.

A Feistel network permutes 2^(2b) numbers whatever its round function is (Luby and Rackoff, SIAM
Journal on Computing 17, 1988). Numbers at or above `size` are sent through again until they fall
below it (cycle walking: Black and Rogaway, CT-RSA 2002, section 3), which keeps it a permutation;
2^(2b) < 4 size, so that takes fewer than four turns on average.
"""

import hashlib

import numpy as np
import numpy.typing as npt

ROUNDS = 8
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""Multipliers of the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""


class Permutation:
    """One permutation, chosen by a key of words and numbers; nothing is stored but round keys."""

    def __init__(self, size: int, *key: str | int) -> None:
        """Choose the permutation.

        Args:
            size: How many numbers there are, at least 1.
            key: What chooses it, such as seed, domain and epoch.
        """
        assert size >= 1, "nothing to permute"
        self.size = size
        self._half_bits = max(((size - 1).bit_length() + 1) // 2, 1)
        words = "".join(f"{len(str(part))}:{part}" for part in key).encode()
        digest = hashlib.blake2b(words, digest_size=8 * ROUNDS, person=b"gristmill.order")
        self._keys = np.frombuffer(digest.digest(), "<u8")

    def __call__(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The number at each place; places are in [0, size)."""
        value = self._network(places.astype(np.uint64))
        while len(outside := np.flatnonzero(value >= self.size)):
            value[outside] = self._network(value[outside])
        return value.astype(np.int64)

    def _network(self, value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        bits, mask = np.uint64(self._half_bits), np.uint64((1 << self._half_bits) - 1)
        left, right = value >> bits, value & mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        return (left << bits) | right


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * _MIX[0]
    x = (x ^ (x >> np.uint64(27))) * _MIX[1]
    return x ^ (x >> np.uint64(31))
