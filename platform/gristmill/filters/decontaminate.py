"""Decontamination: drop rows whose picture is, nearly, one of an evaluation set."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.arrays import RowReader, from_column
from gristmill.core.errors import BadInputError
from gristmill.filters import _hash128
from gristmill.filters._hamming import HammingIndex
from gristmill.filters._nearest import Nearest
from gristmill.filters._reference_set import ReferenceSet, settled_uri
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

PHASH, HASH_DIGITS = "phash", 16
MOST_BYTES = 2 << 30
"""Evaluation features held by a worker: DataComp's 40 tasks have about 0.8 million pictures, 1.2 GB
as 768 numbers of float16."""
MOST_BITS = 16


@dataclass(frozen=True, kw_only=True)
class Decontaminate(Filter):
    """Drops near duplicates of evaluation pictures (DataComp, Gadre et al. 2023, arXiv:2304.14108).

    DataComp removed them from its pools by the similarity of a model trained for near duplicates
    (Yokoo 2021, arXiv:2112.04323). Here the likeness is the cosine of CLIP image features, as
    SemDeDup has it (Abbas et al. 2023, arXiv:2303.09540), or the bits in which perceptual hashes
    differ. CLIP is coarser than a copy detector: look at the pairs in the report, then set the cut.
    A row whose picture cannot be compared is dropped as well, since nothing shows that it is clean.
    Evaluation pictures whose hash has fewer than 8 set bits are flat and match none.
    """

    evaluation: str = ""
    """Evaluation pictures: a scored pool's folder, an .npz, or an .npy of features [m, d]; for
    phash a pool's folder, or an .npy or .npz of hashes [m] as uint64."""
    by: Literal["features", "phash"] = "features"
    """What is compared."""
    column: str = "l14_img"
    """Features to compare, of the pool and of the evaluation pictures."""
    similarity: float = 0.95
    """Drop at this cosine or more."""
    max_distance: int = 4
    """Drop at this many differing bits of 64 or fewer."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "evaluation", settled_uri("evaluation", self.evaluation))
        if not -1 <= self.similarity <= 1:
            raise BadInputError(f"similarity is a cosine in [-1, 1], not {self.similarity}")
        if not 0 <= self.max_distance <= MOST_BITS:
            raise BadInputError(
                f"max_distance must be from 0 to {MOST_BITS} bits, not {self.max_distance}"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The features or the hash."""
        return (self.column if self.by == "features" else PHASH,)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What cannot be compared is told apart."""
        return ("picture_unknown", "evaluation_image")

    def inputs(self) -> dict[str, dict[str, Any]]:
        """The evaluation set."""
        if not self.evaluation:
            raise BadInputError("decontaminate needs --evaluation: a scored pool, an .npz or .npy")
        return {"evaluation": ReferenceSet(self.evaluation).identity()}

    def setup(self) -> None:
        """Load the evaluation set anew: it may have changed since this process last did."""
        for cached in (_load_features, _load_hashes, _names):
            cached.cache_clear()
        self._nearest() if self.by == "features" else self._hashes()

    def judge(self, batch: "pa.Table") -> Verdict:
        """Compare with every evaluation picture; the nearest decides."""
        if self.by == "features":
            rows = from_column(batch[self.column], self.column)
            nearest = self._nearest()
            known = _comparable(rows)
            score = nearest.scores(rows, nearest.find(rows, floor=self.similarity))
            near = score >= self.similarity
        else:
            codes, known = codes_of(batch[PHASH])
            near = self._hashes().find(codes)[0] >= 0
        return np.where(known, np.where(near, 2, 0), 1).astype(np.int8)

    def notes(self, batch: "pa.Table") -> list[str] | None:
        """The nearest evaluation picture of each row, and how near it is."""
        if self.by == "features":
            rows = from_column(batch[self.column], self.column)
            found = self._nearest().find(rows)
            score = self._nearest().scores(rows, found)
            known = _comparable(rows)
            words = [f"cosine {s:.4f} to" for s in score]
        else:
            codes, known = codes_of(batch[PHASH])
            found, bits = self._hashes().find(codes)
            words = [f"{b} bits from" for b in bits]
            nothing = f"no evaluation picture within {self.max_distance} bits"
        said = []
        for index, text, good in zip(found.tolist(), words, known.tolist(), strict=True):
            if not good:
                said.append("cannot be compared")
            else:
                said.append(f"{text} {self._name(index)}" if index >= 0 else nothing)
        return said

    def _name(self, index: int) -> str:
        names = _names(self.evaluation)
        return f"evaluation picture {names[index].decode() if len(names) else f'number {index}'}"

    def _nearest(self) -> Nearest:
        return _load_features(self.evaluation, self.column)

    def _hashes(self) -> HammingIndex:
        return _load_hashes(self.evaluation, self.max_distance)


def _comparable(rows: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Rows that have a direction: finite and not all zero."""
    return np.isfinite(rows).all(axis=1) & rows.any(axis=1)


@functools.lru_cache(maxsize=4)
def _load_features(uri: str, column: str) -> Nearest:
    evaluation = ReferenceSet(uri)
    size = evaluation.num_bytes(column)
    if size > MOST_BYTES:
        raise BadInputError(
            f"the features of {io.redact(uri)} take {size:,} bytes, and a worker holds at most "
            f"{MOST_BYTES:,}; split the set and join two filters with &"
        )
    blocks = list(evaluation.blocks(column))
    if not blocks:
        raise BadInputError(f"{io.redact(uri)} holds no pictures")
    return Nearest(np.concatenate(blocks), unit=True)


@functools.lru_cache(maxsize=4)
def _load_hashes(uri: str, within: int) -> HammingIndex:
    evaluation = ReferenceSet(uri)
    if evaluation.is_file:
        with RowReader(uri, PHASH if uri.endswith(".npz") else "") as reader:
            if reader.header.dtype != np.dtype("<u8") or len(reader.header.shape) != 1:
                raise BadInputError(f"{reader.where} is {reader.header.dtype}, not uint64 [m]")
            codes = reader.read(0, reader.num_rows)
            return HammingIndex(codes, within, np.ones(len(codes), np.bool_))
    # Those without a hash keep their number, which leads to their name.
    columns = [codes_of(column) for column in evaluation.column(PHASH)]
    known = np.concatenate([k for _, k in columns])
    return HammingIndex(np.concatenate([c for c, _ in columns]), within, known)


@functools.lru_cache(maxsize=4)
def _names(uri: str) -> npt.NDArray[np.bytes_]:
    return ReferenceSet(uri).names()


def codes_of(column: "pa.ChunkedArray") -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Hashes as numbers [N], and which there are; from uint64 or from 16 hex digits.

    Raises:
        BadInputError: The column holds something else.
    """
    import pyarrow as pa

    known = np.asarray(column.is_valid().to_numpy(), np.bool_)
    kind = column.type
    if pa.types.is_uint64(kind):
        return column.fill_null(0).to_numpy().astype(np.uint64), known
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise BadInputError(f"column {PHASH} is {kind}; gristmill pool hash makes hex digits of it")
    present = column.drop_null()
    bad = np.flatnonzero(~_hash128.well_formed_hex(present, HASH_DIGITS))
    if len(bad):
        raise BadInputError(
            f"column {PHASH} holds {present[int(bad[0])].as_py()!r}, not {HASH_DIGITS} hex digits; "
            "gristmill pool hash makes the column"
        )
    codes = np.zeros(len(column), np.uint64)
    codes[known] = _hash128.words_of_hex(present).reshape(-1)
    return codes, known
