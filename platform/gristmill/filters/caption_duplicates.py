"""Drop captions or documents that say nearly the same as an earlier one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.filters._minhash import MinHash
from gristmill.filters._strings import strings
from gristmill.filters.base import GroupFilter, Keyed

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class CaptionDuplicates(GroupFilter):
    """Drop near copies of a text by MinHash (Broder 1997) with the bands of FineWeb (Penedo et al.
    2024, arXiv:2406.17557, section 3.4).

    Texts are compared as sets of word n-grams, after NFKC, lower case and with all but letters,
    marks and digits read as spaces. A pair of similarity s shares a band, and the later text goes,
    with probability 1 - (1 - s**rows_per_band)**bands: 0.77 at 0.75, 0.92 at 0.8 as set here. A
    text shorter than an n-gram goes only for an equal one; so do texts of scripts that put no
    spaces between words, unless they hold punctuation. A text without a letter or digit has no
    key. As in FineWeb, no pair is compared beyond its band.
    """

    column: str = "text"
    """The texts: captions, or the documents of a text pool."""
    ngram: int = 5
    """Words of a shingle. 2 or 3 serve short captions better."""
    bands: int = 14
    """Chances to meet; more find more pairs."""
    rows_per_band: int = 8
    """Minima that must agree in a band; more let fewer pairs meet."""
    seed: int = 0
    """Chooses the hash functions."""

    def __post_init__(self) -> None:
        for name in ("ngram", "bands", "rows_per_band"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The texts."""
        return (self.column,)

    def keyed(self, batch: "pa.Table") -> Keyed:
        """A key for each band of each text that has a word."""
        texts = strings(batch, self.column)
        minhash = MinHash(
            ngram=self.ngram, bands=self.bands, rows_per_band=self.rows_per_band, seed=self.seed
        )
        rows, keys = minhash.band_keys(texts)
        return Keyed(rows=np.repeat(rows, self.bands), keys=keys.reshape(-1, 2))
