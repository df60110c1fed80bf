"""Keep everything: the baseline every other filter is held against."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class NoFilter(Filter):
    """Every uid of the pool (DataComp, Gadre et al. 2023, arXiv:2304.14108, section 3)."""

    @property
    def columns(self) -> tuple[str, ...]:
        """None: uids are read anyway."""
        return ()

    @property
    def reasons(self) -> tuple[str, ...]:
        """It drops nothing."""
        return ()

    def judge(self, batch: "pa.Table") -> Verdict:
        """Keep each row."""
        return np.zeros(batch.num_rows, np.int8)
