"""DataComp's CLIP score filter: pairs whose image and caption agree."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gristmill.filters import _cut
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
        _cut.check("clip_score", fraction=self.fraction, threshold=self.threshold)

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
        threshold = _cut.threshold_of(facts, self.columns[0], self.fraction)
        return dataclasses.replace(self, fraction=None, threshold=threshold)

    def judge(self, batch: "pa.Table") -> Verdict:
        """Compare in double precision, as the reference does."""
        return _cut.keep_from(_cut.scores(batch, self.columns[0]), self.threshold)
