"""Drop rows whose picture, caption or url is exactly that of an earlier row."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gristmill.filters import _hash128
from gristmill.filters._strings import strings
from gristmill.filters.base import GroupFilter, Keyed

if TYPE_CHECKING:
    import pyarrow as pa

SHA256 = "sha256"
SHA256_DIGITS, KEY_DIGITS = 64, 32


@dataclass(frozen=True, kw_only=True)
class ExactDuplicates(GroupFilter):
    """Keep the first of rows that share a value (Lee et al. 2022, arXiv:2107.06499, section 4).

    Rows with the same `column` form a group. A sha256 is its own key: its first 128 bits, upper or
    lower case. Any other value is compared by BLAKE2b-128, byte for byte. A null or empty value,
    or a sha256 that is not 64 hex digits, says nothing about the row, so it has no key and stays.
    """

    column: str = SHA256
    """The column compared: sha256 (the same picture file), text, url or any string column."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The column compared."""
        return (self.column,)

    def keyed(self, batch: "pa.Table") -> Keyed:
        """One key for each row that has a value."""
        import pyarrow.compute as pc

        values = strings(batch, self.column)
        if self.column == SHA256:
            rows = np.flatnonzero(_hash128.well_formed_hex(values, SHA256_DIGITS))
            digits = pc.utf8_slice_codeunits(values.take(rows), 0, KEY_DIGITS)
            return Keyed(rows=rows, keys=_hash128.words_of_hex(digits).reshape(-1, 2))
        told = pc.fill_null(pc.greater(pc.binary_length(values), 0), False)
        rows = np.flatnonzero(told.to_numpy())
        keys = _hash128.keys_of_values(values.take(rows), person=b"gristmill.exact")
        return Keyed(rows=rows, keys=keys)
