"""DataComp's best filter: pictures near a labelled set, and pairs whose image and caption agree."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from gristmill.core.errors import BadInputError
from gristmill.filters._reference_set import settled_uri
from gristmill.filters.base import AllOf, Filter, PoolFacts, Verdict
from gristmill.filters.clip_score import ClipScore
from gristmill.filters.image_based import ImageBased

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class ImageBasedIntersectClipScore(Filter):
    """CLIP score, then image-based (DataComp, Gadre et al. 2023, arXiv:2304.14108, section 3).

    The same as `clip_score & image_based`: a fraction is of the whole pool, and pictures are
    compared with the centroids only in rows of sufficient score.
    """

    arch: Literal["b32", "l14"] = "l14"
    """Which CLIP model made the score: the column clip_{arch}_similarity_score."""
    fraction: float | None = None
    """Share of the pool to keep by score, in (0, 1]. Give this or threshold."""
    threshold: float | None = None
    """Least score to keep. Give this or fraction."""
    centroids: str = ""
    """Centroids: an .npy [k, d], or the folder of a `gristmill pool cluster` run."""
    targets: str = ""
    """Target pictures, as image_based takes them."""
    column: str = "l14_img"
    """Features to compare, of the pool and of the targets."""
    tokens_above: int = 1
    """Keep captions with more fastText tokens than this; a newline counts as one."""
    characters_above: int = 5
    """Keep captions with more characters than this."""
    language_model: str = ""
    """Another fastText file, such as lid.176.bin. Empty: the bundled lid.176.ftz."""

    def __post_init__(self) -> None:
        for name in ("centroids", "targets"):
            object.__setattr__(self, name, settled_uri(name, getattr(self, name)))
        self._parts()

    def _parts(self) -> AllOf:
        """The two filters; ClipScore checks its own fields."""
        shared = {f.name: getattr(self, f.name) for f in fields(ImageBased)}
        score = ClipScore(arch=self.arch, fraction=self.fraction, threshold=self.threshold)
        return AllOf(parts=(score, ImageBased(**shared)))

    @property
    def columns(self) -> tuple[str, ...]:
        """The score, then caption and features."""
        return self._parts().columns

    @property
    def reasons(self) -> tuple[str, ...]:
        """The score's, the caption's, the picture's."""
        return self._parts().reasons

    def inputs(self) -> dict[str, dict[str, Any]]:
        """Those of image_based."""
        return self._parts().inputs()

    def fit(self, facts: PoolFacts) -> Filter:
        """Both parts fitted."""
        return self._parts().fit(facts)

    def judge(self, batch: "pa.Table") -> Verdict:  # noqa: ARG002 - it cannot
        """Not before `fit`."""
        raise BadInputError("this filter needs the whole pool and its targets: call fit first")
