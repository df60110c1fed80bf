"""Pictures that people find beautiful, by a score that stands in the metadata."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gristmill.filters import _cut
from gristmill.filters.base import Filter, PoolFacts, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

AESTHETIC = "aesthetic_score"


@dataclass(frozen=True, kw_only=True)
class Aesthetic(Filter):
    """Keep pictures by aesthetic score, as LAION's subsets do (Schuhmann et al. 2022,
    arXiv:2210.08402, section 3): there a score of 1 to 10, cut at 4.5 to 6.5.

    Keeps `score >= threshold`; a fraction is of the whole pool, by DataComp's rule for scores.
    """

    fraction: float | None = None
    """Share of the pool to keep, best first, in (0, 1]. Give this or threshold."""
    threshold: float | None = None
    """Least score to keep. Give this or fraction."""

    def __post_init__(self) -> None:
        _cut.check("aesthetic", fraction=self.fraction, threshold=self.threshold)

    @property
    def columns(self) -> tuple[str, ...]:
        """The score."""
        return (AESTHETIC,)

    @property
    def reasons(self) -> tuple[str, ...]:
        """NaN and null scores are told apart from low ones."""
        return ("aesthetic_score_missing", "aesthetic_score_low")

    def fit(self, facts: PoolFacts) -> Filter:
        """With the fraction turned into a threshold."""
        if self.fraction is None:
            return self
        threshold = _cut.threshold_of(facts, AESTHETIC, self.fraction)
        return dataclasses.replace(self, fraction=None, threshold=threshold)

    def judge(self, batch: "pa.Table") -> Verdict:
        """Compare in double precision."""
        return _cut.keep_from(_cut.scores(batch, AESTHETIC), self.threshold)
