"""A pool's k-means centroids, and the filter that keeps rows nearest to chosen ones of them."""

import base64
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.arrays import RowReader, from_column
from gristmill.core.errors import BadInputError
from gristmill.filters import _caption_rule, _language
from gristmill.filters._nearest import Nearest
from gristmill.filters._reference_set import ReferenceSet, refuse_half_made
from gristmill.filters._strings import strings
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

CENTROIDS = "centroids.npy"
TEXT = "text"
TARGET_ROWS_AT_ONCE = 1 << 13


def centroid_file(uri: str) -> str:
    """The file of centroids: the .npy itself, or the one in the folder of a `pool cluster` run."""
    return uri if uri.endswith(".npy") else io.join(uri, CENTROIDS)


def identity(uri: str) -> dict[str, Any]:
    """What pins centroids in a run.

    Raises:
        BadInputError: They come from a `pool cluster` run that is not done.
    """
    file = centroid_file(uri)
    if file != uri:
        refuse_half_made(uri)
    return {"file": io.redact(file), "sha256": io.sha256(file)}


@functools.lru_cache(maxsize=2)
def load(uri: str, sha256: str) -> Nearest:
    """The centroids, kept for the life of the process.

    Raises:
        BadInputError: They are not the ones the run began with.
    """
    file = centroid_file(uri)
    if io.sha256(file) != sha256:
        raise BadInputError(f"{io.redact(file)} changed since this run began")
    with RowReader(file) as reader:
        found = reader.require_features().read(0, reader.num_rows)
    return Nearest(found.astype(np.float32, copy=False))


def targeted(uri: str, column: str, nearest: Nearest) -> str:
    """Which centroids are the nearest of some target picture, as `pack` writes it.

    Targets are streamed. An .npy of whole numbers is taken for the centroids' ids themselves,
    worked out before.

    Raises:
        BadInputError: No target has usable features, or an id is no centroid's.
    """
    hit = np.zeros(nearest.num_references, np.bool_)
    ids = _ids(uri)
    if ids is not None:
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(hit):
            raise BadInputError(
                f"{io.redact(uri)} names centroids from {ids.min()} to {ids.max()}; there are "
                f"{len(hit)}, numbered from 0"
            )
        hit[ids] = True
    else:
        for block in ReferenceSet(uri).blocks(column):
            found = nearest.find(block)
            hit[found[found >= 0]] = True
    if not hit.any():
        raise BadInputError(f"{io.redact(uri)} holds no target with usable features")
    return pack(hit)


def _ids(uri: str) -> npt.NDArray[np.int64] | None:
    """Centroid ids of an .npy of whole numbers; None for anything else."""
    if not uri.endswith(".npy"):
        return None
    with RowReader(uri) as reader:
        header = reader.header
        if header.dtype.kind not in "iu" or len(header.shape) != 1:
            return None
        return reader.read(0, reader.num_rows).astype(np.int64)


def pack(hit: npt.NDArray[np.bool_]) -> str:
    """A mask [k] as base64 of its packed bits: 100,000 centroids are 17 kB in a stored config."""
    return base64.b64encode(np.packbits(hit).tobytes()).decode()


def unpack(packed: str, size: int) -> npt.NDArray[np.bool_]:
    """The mask [k] that `pack` wrote."""
    bits = np.frombuffer(base64.b64decode(packed), np.uint8)
    return np.unpackbits(bits, count=size).astype(np.bool_)


@dataclass(frozen=True, kw_only=True)
class OnTargets(Filter):
    """What image_based becomes once it is known which centroids the targets fall on."""

    centroids: str
    centroids_sha256: str
    hit: str
    """The centroids that a target falls on, as `pack` writes it."""
    column: str
    tokens_above: int
    characters_above: int
    language_model: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Caption and features."""
        return (TEXT, self.column)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The caption's, then the picture's."""
        return (*_caption_rule.REASONS, "features_missing", "off_target")

    def setup(self) -> None:
        """Load the language model and the centroids."""
        _language.load(self.language_model)
        load(self.centroids, self.centroids_sha256)

    def judge(self, batch: "pa.Table") -> Verdict:
        """Captions first: a language costs less than comparing with every centroid."""
        verdict = _caption_rule.judge_captions(
            strings(batch, TEXT),
            tokens_above=self.tokens_above,
            characters_above=self.characters_above,
            model=self.language_model,
        )
        left = np.flatnonzero(verdict == 0)
        nearest = load(self.centroids, self.centroids_sha256)
        found = nearest.find(from_column(batch[self.column], self.column)[left])
        on_target = unpack(self.hit, nearest.num_references)[found]
        verdict[left] = np.where(found < 0, 5, np.where(on_target, 0, 6))
        return verdict
