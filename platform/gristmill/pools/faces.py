"""Face boxes of a subset's pairs: gathered once from the metadata, looked up by uid, blurred.

Boxes are [x0, y0, x1, y1] as shares of the picture's width and height (DataComp, face_bboxes).
"""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.run import Run
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice, SliceWorker, map_slices
from gristmill.pools import columns
from gristmill.pools.pool import Pool, read_slice
from gristmill.pools.subset import Subset, positions
from gristmill.pools.uid import UID_DTYPE, UidArray, hex_of_uid, parse_uids

if TYPE_CHECKING:
    from PIL.Image import Image

UIDS, BOXES = "uids.npy", "boxes.npy"
BOX_DTYPE = np.dtype([("row", "<i8"), ("box", "<f4", (4,))])
BLUR_SHARE = 0.1
"""Blur radius as a share of the box's diagonal."""


@dataclass
class _ReadFaces(SliceWorker):
    """Takes the boxes of a metadata slice's kept rows."""

    subset: str
    parts: str
    _uids: UidArray | None = field(default=None, repr=False)

    def setup(self) -> None:
        """The distinct uids of the subset."""
        self._uids = Subset.load(self.subset, check=False).unique()[0]

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write which entries this slice answers, and their boxes."""
        assert self._uids is not None
        answered, boxes = [], []
        for row, table in read_slice(piece, [columns.UID, columns.FACES]):
            uids = parse_uids(table[columns.UID], where=piece.payload["uri"], first_row=row)
            place = positions(self._uids, uids)
            for i in np.flatnonzero(place >= 0):
                value = table[columns.FACES][int(i)].as_py()
                if value is None:
                    continue  # not known: not the same as none
                found = _boxes(value, piece, row + int(i))
                answered.append(int(place[i]))
                boxes += [(int(place[i]), box) for box in found]
        io.write_bytes(
            io.join(self.parts, piece.name + ".rows"), np.array(answered, "<i8").tobytes()
        )
        io.write_bytes(
            io.join(self.parts, piece.name + ".boxes"), np.array(boxes, BOX_DTYPE).tobytes()
        )
        return {}


def _boxes(value: Any, piece: Slice, row: int) -> list[tuple[float, ...]]:
    """A row's boxes; DataComp stores a list of lists of four, or its JSON."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
        boxes = [tuple(float(x) for x in box) for box in value]
    except (ValueError, TypeError, RecursionError):
        boxes = [()]
    if not all(len(b) == 4 and -1 < b[0] < b[2] < 2 and -1 < b[1] < b[3] < 2 for b in boxes):
        raise BadInputError(
            f"{io.redact(piece.payload['uri'])}, row {row}: face_bboxes {value!r:.80} are not "
            "boxes [x0, y0, x1, y1] in shares of the picture"
        )
    return boxes


def gather_faces(run: Run, pool: Pool, subset: str, execution: Execution) -> str:
    """Gather the boxes of a subset's uids into one table in the run's scratch; returns its folder.

    Raises:
        BadInputError: A uid of the subset is not in the metadata. (DataComp's resharder writes
            such a pair unblurred; a face shown by mistake cannot be taken back.)
    """
    pool.require([columns.UID, columns.FACES])
    parts, target = run.scratch("faces-parts"), run.scratch("faces")
    pieces = pool.slices()
    worker = _ReadFaces(io.absolute(subset), parts)
    map_slices("faces", pieces, worker, ledger=run.scratch("faces-done"), execution=execution)
    uids = Subset.load(subset, check=False).unique()[0]
    known = np.zeros(len(uids), bool)
    tables = []
    for piece in pieces:
        known[np.frombuffer(io.read_bytes(io.join(parts, piece.name + ".rows")), "<i8")] = True
        data = io.read_bytes(io.join(parts, piece.name + ".boxes"))
        tables.append(np.frombuffer(data, BOX_DTYPE))
    if not known.all():
        first = hex_of_uid(uids[int(np.argmin(known))])
        raise BadInputError(
            f"{int((~known).sum())} uids of the subset, such as {first}, have no face_bboxes in "
            "the pool's metadata, so whether they show faces is not known; take them out"
        )
    boxes = np.concatenate(tables)
    boxes = boxes[np.argsort(boxes["row"], kind="stable")]
    io.write_bytes(io.join(target, UIDS), uids.tobytes())
    io.write_bytes(io.join(target, BOXES), boxes.tobytes())
    return target


@dataclass(frozen=True)
class FaceBoxes:
    """Boxes by uid."""

    uids: UidArray
    boxes: np.ndarray

    @classmethod
    def load(cls, folder: str) -> "FaceBoxes":
        """Read what `gather_faces` wrote."""
        uids = io.map_records(io.join(folder, UIDS), UID_DTYPE)
        return cls(uids, io.map_records(io.join(folder, BOXES), BOX_DTYPE))

    def any_of(self, uids: UidArray) -> npt.NDArray[np.bool_]:
        """Whether each uid shows a face, shape (n,).

        Raises:
            BadInputError: One is not in the table.
        """
        rows = positions(self.uids, uids)
        if (rows < 0).any():
            first = hex_of_uid(uids[int(np.argmin(rows))])
            raise BadInputError(f"no face boxes are known for uid {first}")
        low = np.searchsorted(self.boxes["row"], rows, "left")
        return np.asarray(np.searchsorted(self.boxes["row"], rows, "right") > low)

    def of(self, uid: tuple[int, int]) -> list[list[float]]:
        """The boxes of one uid; none if it shows no face.

        Raises:
            BadInputError: The uid is not in the table.
        """
        row = int(positions(self.uids, np.array([uid], UID_DTYPE))[0])
        if row < 0:
            raise BadInputError(f"no face boxes are known for uid {hex_of_uid(uid)}")
        low = np.searchsorted(self.boxes["row"], row, "left")
        high = np.searchsorted(self.boxes["row"], row, "right")
        return [[float(x) for x in box] for box in self.boxes["box"][low:high]]


def blur(image: "Image", boxes: list[list[float]]) -> "Image":
    """The picture with each box blurred beyond recognition (Gaussian, a tenth of its diagonal)."""
    from PIL import ImageFilter

    width, height = image.size
    image = image.copy()
    for x0, y0, x1, y1 in boxes:
        area = (
            max(int(x0 * width), 0),
            max(int(y0 * height), 0),
            min(int(np.ceil(x1 * width)), width),
            min(int(np.ceil(y1 * height)), height),
        )
        if area[2] > area[0] and area[3] > area[1]:
            diagonal = float(np.hypot(area[2] - area[0], area[3] - area[1]))
            patch = image.crop(area).filter(ImageFilter.GaussianBlur(max(diagonal * BLUR_SHARE, 2)))
            image.paste(patch, area)
    return image
