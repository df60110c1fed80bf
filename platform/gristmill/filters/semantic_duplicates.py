"""Drop pictures whose features are close to an earlier one's: SemDeDup.

Legend: N rows, C centroids, D feature size.
"""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.core.arrays import from_column
from gristmill.core.errors import BadInputError
from gristmill.filters import _centroids, _hash128
from gristmill.filters._nearest import Nearest
from gristmill.filters._reference_set import settled_uri
from gristmill.filters.base import GroupFilter, Keyed

if TYPE_CHECKING:
    import pyarrow as pa

LATER_AT_ONCE, EARLIER_AT_ONCE = 1024, 8192
"""1024 x 8192 float32 products are 32 MB."""


@dataclass(frozen=True, kw_only=True)
class SemanticDuplicates(GroupFilter):
    """SemDeDup (Abbas et al. 2023, arXiv:2303.09540, section 3): within each cluster of features a
    row goes when its cosine with an earlier one is at least 1 - `epsilon`.

    Clusters are those of nearest centroid by inner product. Pairs across clusters are not compared,
    and a row is compared with every earlier one, even one that goes itself. The paper keeps the
    row farthest from its centroid; here the best by `best_by` stays, or the pool's first. Rows
    whose features are null, zero or not finite have no key and stay.
    """

    centroids: str = ""
    """Centroids [C, D]: an .npy, or the folder of a `gristmill pool cluster` run."""
    column: str = "l14_img"
    """The features compared."""
    epsilon: float = 0.05
    """Largest cosine distance of a duplicate; larger values drop more."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "centroids", settled_uri("centroids", self.centroids))
        if not 0 <= self.epsilon < 1:
            raise BadInputError(f"epsilon must lie in [0, 1), not {self.epsilon}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The features."""
        return (self.column,)

    def inputs(self) -> dict[str, dict[str, Any]]:
        """The centroids."""
        return {"centroids": _centroids.identity(self._named())}

    def setup(self) -> None:
        """Load the centroids, anew for each map: a process may outlive a file."""
        load_centroids.cache_clear()
        load_centroids(self._named())

    def keyed(self, batch: "pa.Table") -> Keyed:
        """The nearest centroid as key; the features as they are stored for payload."""
        features_nd = from_column(batch[self.column], self.column)
        cluster_n = load_centroids(self._named()).find(unit(features_nd))
        rows = np.flatnonzero(cluster_n >= 0)
        keys = _hash128.keys_of_words(cluster_n[rows, None].astype(np.uint64))
        return Keyed(rows=rows, keys=keys, payload=features_nd[rows])

    def repeated(self, payload: npt.NDArray[Any] | None, rows: int) -> npt.NDArray[np.bool_]:  # noqa: ARG002
        """Rows too close to an earlier one."""
        assert payload is not None
        return close_to_an_earlier(unit(payload), 1 - self.epsilon)

    def _named(self) -> str:
        if not self.centroids:
            raise BadInputError(
                "semantic_duplicates needs --centroids: an .npy, or the folder of a gristmill pool "
                "cluster run"
            )
        return self.centroids


@functools.lru_cache(maxsize=1)
def load_centroids(uri: str) -> Nearest:
    """The centroids, kept for the life of the process."""
    return _centroids.load(uri, _centroids.identity(uri)["sha256"])


def unit(rows_nd: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Rows scaled to length 1; one of zeros, or with NaN or infinity, becomes NaN."""
    unit_nd = rows_nd.astype(np.float32)
    length_n = np.sqrt(np.einsum("nd,nd->n", unit_nd, unit_nd, dtype=np.float64))
    sound = np.isfinite(length_n) & (length_n > 0)
    unit_nd /= np.where(sound, length_n, np.nan).astype(np.float32)[:, None]
    return unit_nd


def close_to_an_earlier(rows_nd: npt.NDArray[np.float32], cosine: float) -> npt.NDArray[np.bool_]:
    """Which unit rows have at least this cosine with one before them [N], in flat memory.

    Equal to float32 rounding: a pair within about 1e-6 of the limit may fall on either side.
    """
    close = np.zeros(len(rows_nd), bool)
    for start in range(0, len(rows_nd), LATER_AT_ONCE):
        later = np.arange(start, min(start + LATER_AT_ONCE, len(rows_nd)))
        for before in range(0, later[-1], EARLIER_AT_ONCE):
            later = later[~close[later]]
            if not len(later):
                break
            earlier = np.arange(before, min(before + EARLIER_AT_ONCE, later[-1]))
            product = rows_nd[later] @ rows_nd[before : before + len(earlier)].T
            close[later] |= ((product >= cosine) & (earlier < later[:, None])).any(1)
    return close
