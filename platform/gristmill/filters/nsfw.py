"""Drop pictures that a classifier takes for unsafe, by a score that stands in the metadata."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.filters import _cut
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

NSFW = "nsfw_score"


@dataclass(frozen=True, kw_only=True)
class Nsfw(Filter):
    """Keep pictures whose unsafe score is low, as DataComp's pool and LAION do (Gadre et al.
    2023, arXiv:2304.14108, section 3; Schuhmann et al. 2022, arXiv:2210.08402, section 3).

    Keeps `score <= at_most`. A row without a score is dropped: nobody has looked at it.
    """

    at_most: float = 0.1
    """Largest score to keep; a probability in most classifiers."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.at_most):
            raise BadInputError(f"at_most must be a number, not {self.at_most}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The score."""
        return (NSFW,)

    @property
    def reasons(self) -> tuple[str, ...]:
        """NaN and null scores are told apart from high ones."""
        return ("nsfw_score_missing", "nsfw_score_high")

    def judge(self, batch: "pa.Table") -> Verdict:
        """Compare in double precision."""
        score = _cut.scores(batch, NSFW)
        verdict = np.where(score <= self.at_most, 0, _cut.BEYOND).astype(np.int8)
        verdict[np.isnan(score)] = _cut.MISSING
        return verdict
