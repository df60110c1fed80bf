"""What reshard's workers do: find the kept samples of an input shard, write an output shard."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.execution.slices import Slice, SliceWorker
from gristmill.pools.columns import FACES
from gristmill.pools.faces import FaceBoxes, blur
from gristmill.pools.image import decode_rgb, encode_webp
from gristmill.pools.subset import Subset, search
from gristmill.pools.tar import Sample, TarReader, TarWriter, member_bytes, read_record
from gristmill.pools.uid import UID_DTYPE, hex_of_uid, uid_of_hex

OPEN_TARS = 64
REPEATED = "uid already in an earlier sample"


@dataclass
class FindKept(SliceWorker):
    """Notes the place of each sample of a shard that the subset lists, once a listing."""

    subset: str
    kept: str
    _subset: Subset | None = field(default=None, repr=False)

    def setup(self) -> None:
        """Map the subset; its order was checked by the driver."""
        self._subset = Subset.load(self.subset, check=False)

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write (place in the shard, entry in the subset, times listed) of each sample to keep."""
        assert self._subset is not None
        number, uids, places, dropped = -1, [], [], Counter[str]()
        with TarReader(piece.payload["uri"]) as reader:
            for number, sample in enumerate(reader.samples()):
                try:
                    uids.append(sample_uid(reader, sample))
                    places.append(number)
                except BadInputError:
                    dropped["sample without a uid"] += 1
        wanted = np.array(uids, UID_DTYPE)
        entry = search(self._subset.uids, wanted, "left")
        times = search(self._subset.uids, wanted, "right") - entry
        listed = np.stack([np.array(places, np.int64), entry, times], axis=1)[times > 0]
        found = listed[np.sort(np.unique(listed[:, 1], return_index=True)[1])]
        if repeated := len(listed) - len(found):
            dropped[REPEATED] = repeated
        io.write_bytes(io.join(self.kept, piece.name), found.astype("<i8").tobytes())
        return {"samples": number + 1, "found": len(found), "dropped": dict(dropped)}


def read_kept(folder: str, number: int) -> npt.NDArray[np.int64]:
    """What `FindKept` wrote for an input shard: (place, entry, times), int64 [n, 3]."""
    data = io.read_bytes(io.join(folder, f"{number:06d}"))
    return np.frombuffer(data, "<i8").reshape(-1, 3)


def _count_up(times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0 .. t-1 for each t, in a row."""
    starts = np.repeat(np.cumsum(times) - times, times)
    return np.arange(len(starts)) - starts


def sample_uid(reader: TarReader, sample: Sample) -> tuple[int, int]:
    """The uid in a sample's json.

    Raises:
        BadInputError: There is no json, or no uid of 32 hex digits in it.
    """
    return uid_of_hex(read_record(reader, sample).get("uid"))


@dataclass
class WriteShard(SliceWorker):
    """Writes one output shard: places [start, stop) of the global order."""

    inputs: list[str]
    counts: list[int]
    kept: str
    out: str
    shard_format: str
    window: int
    seed: int
    faces: str
    blur: bool
    inject: bool
    webp_quality: int
    _boxes: FaceBoxes | None = field(default=None, repr=False)

    def setup(self) -> None:
        """Map the face boxes."""
        self._boxes = FaceBoxes.load(self.faces) if self.faces else None

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the shard and its stats; returns counts and the shard's hash."""
        name = self.shard_format.format(piece.payload["number"])
        dropped, samples, blurred = Counter[str](), 0, 0
        with io.open_hashed(io.join(self.out, name)) as hashing:
            writer = TarWriter(hashing)  # type: ignore[arg-type]
            for reader, sample, copy in self._samples(piece):
                try:
                    parts, changed = self._parts(reader, sample)
                except CorruptDataError:
                    dropped["picture to blur cannot be decoded"] += 1
                    continue
                uid = hex_of_uid(sample_uid(reader, sample))
                writer.add_sample(f"{uid}-{copy}", parts)
                samples += 1
                blurred += changed
                del parts  # lets go of the mapping before the tar is closed
            writer.finish()
        stats = name.removesuffix(".tar") + "_stats.json"
        io.write_json(io.join(self.out, stats), {"successes": samples})
        return {
            "samples": samples,
            "blurred": blurred,
            **hashing.entry,
            "dropped": dict(dropped),
        }

    def _samples(self, piece: Slice) -> Iterator[tuple[TarReader, Sample, int]]:
        """(open tar, sample, copy number) in output order; at most OPEN_TARS tars are open."""
        start, stop = int(piece.payload["start"]), int(piece.payload["stop"])
        order = shuffled(start, stop, sum(self.counts), self.window, self.seed)
        begins = np.cumsum(self.counts) - np.array(self.counts)
        shard_of = np.searchsorted(begins + np.array(self.counts), order, "right")
        open_tars: dict[int, tuple[TarReader, list[Sample], npt.NDArray[np.int64]]] = {}
        with contextlib.ExitStack() as stack:
            for place, shard in zip(order, shard_of, strict=True):
                number = int(shard)
                if number not in open_tars:
                    if len(open_tars) == OPEN_TARS:
                        open_tars.pop(next(iter(open_tars)))[0].close()
                    reader = stack.enter_context(TarReader(self.inputs[number]))
                    rows = read_kept(self.kept, number)
                    places = np.repeat(rows[:, 0], rows[:, 2])
                    copies = _count_up(rows[:, 2])
                    both = np.stack([places, copies], axis=1)
                    open_tars[number] = (reader, list(reader.samples()), both)
                reader, samples, rows = open_tars[number]
                at, copy = rows[place - begins[number]]
                yield reader, samples[at], int(copy)

    def _parts(self, reader: TarReader, sample: Sample) -> tuple[dict[str, Any], bool]:
        """A sample's files by extension, blurred and with boxes added where asked."""
        image = sample.image_extension
        names = sorted(sample.members, key=lambda e: (e != image, e))
        parts: dict[str, Any] = {e: member_bytes(reader, sample.members[e]) for e in names}
        boxes = self._boxes.of(sample_uid(reader, sample)) if self._boxes else []
        if boxes and self.inject:
            record = read_record(reader, sample)
            parts["json"] = json.dumps({**record, FACES: boxes}).encode()
        if not (boxes and self.blur and image):
            return parts, False
        where = f"{io.redact(reader.uri)}: sample {sample.key}"
        picture = blur(decode_rgb(bytes(parts.pop(image)), where=where), boxes)
        return {"webp": encode_webp(picture, quality=self.webp_quality), **parts}, True


def shuffled(start: int, stop: int, total: int, window: int, seed: int) -> npt.NDArray[np.int64]:
    """Which places of the pool's order the places [start, stop) of the output take.

    Windows of `window` places are permuted, each by a generator seeded with (seed, window number):
    so any output shard can work out its own part alone.
    """
    if window <= 1:
        return np.arange(start, stop)
    pieces: list[Sequence[int] | npt.NDArray[np.int64]] = []
    for number in range(start // window, -(-stop // window)):
        low = number * window
        high = min(low + window, total)
        order = low + np.random.default_rng([seed, number]).permutation(high - low)
        pieces.append(order[max(start - low, 0) : stop - low])
    return np.concatenate(pieces).astype(np.int64)
