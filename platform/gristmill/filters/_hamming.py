"""Which of many 64-bit codes lies nearest, within a few bits."""

import itertools

import numpy as np
import numpy.typing as npt

CODE_BITS = 64
PAIRS_AT_ONCE = 1 << 21
LEAST_BITS = 8
NONE = -1
Codes = npt.NDArray[np.uint64]
_ONES = np.array([bin(i).count("1") for i in range(1 << 16)], np.uint8)


def distances(left: Codes, right: Codes) -> npt.NDArray[np.int64]:
    """Bits in which codes differ."""
    words = np.ascontiguousarray(left ^ right).view(np.uint16).reshape(-1, 4)
    return _ONES[words].sum(axis=1, dtype=np.int64)


class HammingIndex:
    """Finds the nearest reference code within a distance.

    Codes at most r bits apart agree in one of r + 1 bands of their bits (multi-index hashing,
    Norouzi et al. 2012, arXiv:1307.2982), so only references that share a band are compared.

    Args:
        references: Shape [K]; of equal ones the first is found.
        within: Largest distance that counts.
        usable: Shape [K]: which references count. Those with few set bits never do: a proper hash
            has about 32, a flat picture's one or none, and all flat pictures look alike.
    """

    def __init__(self, references: Codes, within: int, usable: npt.NDArray[np.bool_]) -> None:
        zero = np.zeros_like(references)
        chosen = np.flatnonzero(usable & (distances(references, zero) >= LEAST_BITS))
        self._codes, first = np.unique(references[chosen], return_index=True)
        self._first = chosen[first]
        self._within = within
        edges = [CODE_BITS * i // (within + 1) for i in range(within + 2)]
        self._bands = []
        for low, high in itertools.pairwise(edges):
            keys = _band(self._codes, low, high)
            order = np.argsort(keys, kind="stable")
            self._bands.append((low, high, keys[order], order))

    def find(self, codes: Codes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(index of the nearest reference or -1, its distance), shapes [N]; ties: the first."""
        # One number orders by distance, then index.
        worst = np.int64(CODE_BITS) << 40
        best = np.full(len(codes), worst, np.int64)
        for low, high, keys, order in self._bands:
            mine = _band(codes, low, high)
            left = np.searchsorted(keys, mine, "left")
            count = np.searchsorted(keys, mine, "right") - left
            for rows in _portions(count):
                row = np.repeat(rows, count[rows])
                step = np.arange(len(row)) - np.repeat(
                    np.cumsum(count[rows]) - count[rows], count[rows]
                )
                place = order[left[row] + step]
                apart = distances(codes[row], self._codes[place])
                near = apart <= self._within
                ranked = (apart[near] << 40) | self._first[place[near]]
                np.minimum.at(best, row[near], ranked)
        found = best < worst
        index = np.where(found, best & ((1 << 40) - 1), NONE)
        return index, np.where(found, best >> 40, CODE_BITS + 1)


def _band(codes: Codes, low: int, high: int) -> Codes:
    mask = np.uint64((1 << (high - low)) - 1)
    return (codes >> np.uint64(low)) & mask


def _portions(count: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Row numbers cut so that each portion has a bounded number of pairs (or is one row)."""
    if not len(count):
        return []
    portion = np.cumsum(count) // PAIRS_AT_ONCE
    return np.split(np.arange(len(count)), np.flatnonzero(np.diff(portion)) + 1)
