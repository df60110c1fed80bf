"""List uids by weight: good pairs more than once, doubtful ones now and then."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError
from gristmill.filters import _hash128
from gristmill.filters._strings import strings
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

UID, WEIGHT = "uid", "weight"
UID_DIGITS = 32
MISSING, THINNED = 1, 2


@dataclass(frozen=True, kw_only=True)
class SoftCap(Filter):
    """Resample by a weight with a cap on repeats (the soft cap of Yu et al. 2023,
    arXiv:2309.15954; weights below 1 thin, as MetaCLIP's balancing of frequent entries does, Xu et
    al. 2023, arXiv:2309.16671, section 3).

    A row is listed min(weight, cap) times on average: as often as the whole number says, and once
    more with the probability of the rest, which a hash of uid and seed decides. So the outcome of
    a row depends on nothing else, and a larger weight never lists it less. Weights from whichever
    rule stand in the column `weight`; a null, NaN or negative one drops the row.
    """

    cap: float = 2.0
    """Most listings of a row. Subsets that list many rows often train on fewer distinct pairs."""
    seed: int = 0
    """Decides the fractions."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cap) and self.cap > 0):
            raise BadInputError(f"cap must be a number above 0, not {self.cap}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Weight, and the uid for chance."""
        return (WEIGHT, UID)

    @property
    def reasons(self) -> tuple[str, ...]:
        """No usable weight; or a weight below 1 and no luck."""
        return ("weight_missing", "thinned")

    def judge(self, batch: "pa.Table") -> Verdict:
        """Drop what is listed no time at all."""
        listed, missing = self._listings(batch)
        verdict = np.where(listed > 0, 0, THINNED).astype(np.int8)
        verdict[missing] = MISSING
        return verdict

    def times(self, batch: "pa.Table") -> npt.NDArray[np.int64]:
        """Listings of each row."""
        return np.maximum(self._listings(batch)[0], 1)

    def _listings(self, batch: "pa.Table") -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """How often each row is listed, and which have no usable weight, both [n]."""
        weight = np.asarray(batch[WEIGHT].cast("float64").to_numpy())
        missing = ~(weight >= 0)
        expected = np.minimum(np.where(missing, 0.0, weight), self.cap)
        whole = np.floor(expected)
        return (whole + (self._chance(batch) < expected - whole)).astype(np.int64), missing

    def _chance(self, batch: "pa.Table") -> npt.NDArray[np.float64]:
        """Evenly spread numbers of [0, 1) that depend on uid and seed alone."""
        uids = strings(batch, UID)
        bad = np.flatnonzero(~_hash128.well_formed_hex(uids, UID_DIGITS))
        if len(bad):
            raise BadInputError(f"uid {uids[int(bad[0])].as_py()!r} is not {UID_DIGITS} hex digits")
        words = _hash128.words_of_hex(uids).reshape(-1, 2)
        salt = np.broadcast_to(_hash128.stream64(1, self.seed), (len(words), 1))
        keys = _hash128.keys_of_words(np.concatenate([salt, words], axis=1))
        return (keys[:, 0] >> np.uint64(11)).astype(np.float64) * 2.0**-53
