"""DataComp's CLIP score filter: pairs whose image and caption agree."""

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.filters.base import Filter, PoolFacts, Verdict

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class ClipScore(Filter):
    """Keep pairs by CLIP similarity (DataComp, Gadre et al. 2023, arXiv:2304.14108, section 3).

    Keeps `score >= threshold`. A fraction f of a pool of N rows means the threshold is the score
    at index int(f N) of all scores in falling order, so int(f N) + 1 rows and their ties are kept.
    """

    arch: Literal["b32", "l14"] = "l14"
    """Which CLIP model made the score: the column clip_{arch}_similarity_score."""
    fraction: float | None = None
    """Share of the pool to keep, best first, in (0, 1]. Give this or threshold."""
    threshold: float | None = None
    """Least score to keep. Give this or fraction."""

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.threshold is None):
            raise BadInputError("give clip_score either --fraction or --threshold, one of the two")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise BadInputError(f"fraction must lie in (0, 1], not {self.fraction}")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise BadInputError(f"threshold must be a number, not {self.threshold}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The score."""
        return (f"clip_{self.arch}_similarity_score",)

    @property
    def reasons(self) -> tuple[str, ...]:
        """NaN and null scores are told apart from low ones."""
        return ("clip_score_missing", "clip_score_low")

    def fit(self, facts: PoolFacts) -> Filter:
        """With the fraction turned into a threshold.

        Raises:
            BadInputError: So many scores are NaN or null that the cut falls among them.
        """
        if self.fraction is None:
            return self
        rows = facts.rows_of(self.columns[0])
        if rows == 0:
            return dataclasses.replace(self, fraction=None, threshold=0.0)
        rank = min(int(rows * self.fraction), rows - 1)
        value = facts.value_at_rank(self.columns[0], rank)
        if math.isnan(value):
            raise BadInputError(
                f"the best {self.fraction} of {rows} rows includes rows whose "
                f"{self.columns[0]} is NaN or null; score the pool again or give a threshold"
            )
        return dataclasses.replace(self, fraction=None, threshold=value)

    def judge(self, batch: "pa.Table") -> Verdict:
        """Compare in double precision, as the reference does."""
        if self.threshold is None:
            raise BadInputError("a fraction needs the whole pool: call fit first")
        score = batch[self.columns[0]].cast("float64").to_numpy()
        verdict = np.where(score >= self.threshold, 0, 2).astype(np.int8)
        verdict[np.isnan(score)] = 1
        return verdict
