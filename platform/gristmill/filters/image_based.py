"""DataComp's image-based filter: pictures near those of a labelled set."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gristmill.core.errors import BadInputError
from gristmill.filters import _centroids, _language
from gristmill.filters._reference_set import ReferenceSet, settled_uri
from gristmill.filters.base import Filter, PoolFacts, Verdict

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class ImageBased(Filter):
    """Image-based filtering (DataComp, Gadre et al. 2023, arXiv:2304.14108, section 3).

    Keeps a row whose caption is English, has more than `tokens_above` fastText tokens and more than
    `characters_above` characters, and whose picture's nearest centroid, by inner product of the
    features in float32, is also the nearest of some target picture (in the paper: 100,000 centroids
    of the pool, ImageNet-1k train as targets, L/14 features). Equal products go to the lowest
    centroid. A row without finite features is dropped; the reference would take its first centroid.
    """

    centroids: str = ""
    """Centroids: an .npy [k, d], or the folder of a `gristmill pool cluster` run."""
    targets: str = ""
    """Target pictures: a scored pool's folder, an .npz, or an .npy of features [m, d] by the same
    model; or an .npy of the target centroids' numbers, if these are known."""
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

    @property
    def columns(self) -> tuple[str, ...]:
        """Caption and features."""
        return self._with("", "").columns

    @property
    def reasons(self) -> tuple[str, ...]:
        """The caption's, then the picture's."""
        return self._with("", "").reasons

    def inputs(self) -> dict[str, dict[str, Any]]:
        """Centroids, targets and the language model.

        Raises:
            BadInputError: Centroids or targets are not given.
        """
        if not self.centroids or not self.targets:
            raise BadInputError(
                "image_based needs --centroids (gristmill pool cluster makes them) and --targets "
                "(features of a labelled image set)"
            )
        return {
            "centroids": _centroids.identity(self.centroids),
            "targets": ReferenceSet(self.targets).identity(),
            "language_model": _language.identity(self.language_model),
        }

    def fit(self, facts: PoolFacts) -> Filter:  # noqa: ARG002 - the targets are not in the pool
        """Find the centroids that targets fall on, once; targets are streamed."""
        sha256 = self.inputs()["centroids"]["sha256"]
        nearest = _centroids.load(self.centroids, sha256)
        return self._with(sha256, _centroids.targeted(self.targets, self.column, nearest))

    def _with(self, sha256: str, hit: str) -> _centroids.OnTargets:
        return _centroids.OnTargets(
            centroids=self.centroids,
            centroids_sha256=sha256,
            hit=hit,
            column=self.column,
            tokens_above=self.tokens_above,
            characters_above=self.characters_above,
            language_model=self.language_model,
        )

    def judge(self, batch: "pa.Table") -> Verdict:  # noqa: ARG002 - it cannot
        """Not before `fit`."""
        raise BadInputError("image_based needs its targets' centroids: call fit first")
