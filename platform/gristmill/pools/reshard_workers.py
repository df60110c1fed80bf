"""What reshard's workers do: find the kept samples of an input shard, write an output shard."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import CorruptDataError
from gristmill.execution.slices import Slice, SliceWorker
from gristmill.pools.columns import FACES
from gristmill.pools.faces import FaceBoxes, blur
from gristmill.pools.image import decode_rgb, encode_webp
from gristmill.pools.kept import KeptList, listed_samples, sample_uids
from gristmill.pools.reshard_plan import Plan, plan_shard, runs, shuffled
from gristmill.pools.subset import Subset
from gristmill.pools.tar import (
    Member,
    Sample,
    TarReader,
    TarWriter,
    member_bytes,
    read_record,
)
from gristmill.pools.tar_batch import (
    BATCH_BYTES,
    LARGEST_SIZE,
    LONGEST_NAME,
    BatchCopier,
    Members,
    padded,
)
from gristmill.pools.tar_index import index_tar

OPEN_TARS = 64
FETCHED_TARS = 2
"""Remote tars that a worker keeps from one output shard to the next, which begins in the last."""
REPEATED = "uid already in an earlier sample"


@dataclass
class FindKept(SliceWorker):
    """Notes each sample of a shard that the subset lists, once a listing."""

    subset: str
    kept: str
    _subset: Subset | None = field(default=None, repr=False)

    def setup(self) -> None:
        """Map the subset; its order was checked by the driver."""
        self._subset = Subset.load(self.subset, check=False)

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the list of samples to keep."""
        assert self._subset is not None
        with TarReader(piece.payload["uri"]) as reader:
            index = index_tar(reader)
            places, uids = sample_uids(reader, index)
        kept, repeated = listed_samples(self._subset, index, places, uids)
        kept.save(io.join(self.kept, piece.name))
        dropped = {"sample without a uid": len(index) - len(places), REPEATED: repeated}
        return {
            "samples": len(index),
            "found": len(kept.samples),
            "dropped": {reason: count for reason, count in dropped.items() if count},
        }


@dataclass
class OpenTars:
    """Input tars by number, at most OPEN_TARS open at a time; the one used last closes last."""

    uris: list[str]
    _open: dict[int, TarReader] = field(default_factory=dict)

    def get(self, number: int) -> TarReader:
        """The tar, opened (a remote one: fetched) if it is not."""
        reader = self._open.pop(number, None)
        if reader is None:
            self._close_but(OPEN_TARS - 1)
            reader = TarReader(self.uris[number])
        self._open[number] = reader
        return reader

    def rest(self) -> None:
        """Close what the next output shard has no use for, and what is cheap to open again."""
        self._close_but(0 if io.is_local(self.uris[0]) else FETCHED_TARS)

    def _close_but(self, count: int) -> None:
        while len(self._open) > count:
            self._open.pop(next(iter(self._open))).close()


@dataclass
class WriteShard(SliceWorker):
    """Writes one output shard: places [start, stop) of the global order."""

    inputs: list[str]
    counts: list[int]
    kept: str
    trimmed: frozenset[int]
    """Input shards whose list of kept samples lies in `placed`, shorter than in `kept`."""
    placed: str
    out: str
    shard_format: str
    window: int
    seed: int
    faces: str
    blur: bool
    inject: bool
    webp_quality: int
    _boxes: FaceBoxes | None = field(default=None, repr=False)
    _tars: OpenTars | None = field(default=None, repr=False)
    _copier: BatchCopier = field(default_factory=BatchCopier, repr=False)

    def setup(self) -> None:
        """Map the face boxes."""
        self._boxes = FaceBoxes.load(self.faces) if self.faces else None
        self._tars = OpenTars(self.inputs)

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the shard and its stats; returns counts and the shard's hash."""
        assert self._tars is not None
        start, stop = int(piece.payload["start"]), int(piece.payload["stop"])
        order = shuffled(start, stop, sum(self.counts), self.window, self.seed)
        plan = plan_shard(order, self.counts, self._kept_list)
        name = self.shard_format.format(piece.payload["number"])
        with io.open_hashed(io.join(self.out, name)) as hashing:
            written = self._write(plan, TarWriter(hashing))  # type: ignore[arg-type]
        self._tars.rest()
        stats = name.removesuffix(".tar") + "_stats.json"
        io.write_json(io.join(self.out, stats), {"successes": written["samples"]})
        return {**written, **hashing.entry}

    def _kept_list(self, number: int) -> KeptList:
        folder = self.placed if number in self.trimmed else self.kept
        return KeptList.load(io.join(folder, f"{number:06d}"))

    def _write(self, plan: Plan, writer: TarWriter) -> dict[str, Any]:
        """Write the samples: plain ones in batches, those to change or with odd names alone."""
        dropped, samples, blurred = Counter[str](), 0, 0
        faces = self._boxes.any_of(plan.uids) if self._boxes else np.zeros(len(plan.uids), bool)
        alone = faces | self._odd(plan)
        bytes_of = np.append(0, np.cumsum(padded(plan.members["size"])))[plan.starts]
        for start, stop in runs(alone, np.diff(bytes_of), BATCH_BYTES):
            if not alone[start] and bytes_of[stop] - bytes_of[start] <= BATCH_BYTES:
                self._copy(plan, start, stop, writer)
                samples += stop - start
                continue
            try:
                parts, changed = self._parts(plan, start)
            except CorruptDataError:
                dropped["picture to blur cannot be decoded"] += 1
                continue
            writer.add_sample(plan.key(start), parts)
            samples += 1
            blurred += changed
            del parts  # lets go of the mapping before the tar is closed
        writer.finish()
        return {"samples": samples, "blurred": blurred, "dropped": dict(dropped)}

    def _odd(self, plan: Plan) -> npt.NDArray[np.bool_]:
        """Samples with a member that needs more than a plain header, shape (samples,)."""
        longest = LONGEST_NAME - len(f"{0:032x}-{plan.copies.max(initial=0)}.")
        lengths = [len(e.encode("utf-8", "surrogateescape")) for e in plan.extensions]
        kinds, sizes = plan.members["kind"], plan.members["size"]
        odd = (np.array(lengths, np.int64)[kinds] > longest) | (sizes > LARGEST_SIZE)
        before = np.append(0, np.cumsum(odd))[plan.starts]
        return np.asarray(np.diff(before) > 0)

    def _copy(self, plan: Plan, start: int, stop: int, writer: TarWriter) -> None:
        assert self._tars is not None
        members = plan.members[plan.starts[start] : plan.starts[stop]]
        if not len(members):
            return
        lengths = np.diff(plan.starts[start : stop + 1])
        batch = Members(
            names=plan.names(start, stop),
            sources=np.repeat(plan.shards[start:stop], lengths),
            offsets=members["offset"],
            sizes=members["size"],
        )
        self._copier.copy(batch, self._tars.get, writer.target)

    def _parts(self, plan: Plan, number: int) -> tuple[dict[str, Any], bool]:
        """A sample's files by extension, blurred and with boxes added where asked."""
        assert self._tars is not None
        reader = self._tars.get(int(plan.shards[number]))
        sample = Sample(plan.key(number))
        for kind, offset, size in plan.members[plan.starts[number] : plan.starts[number + 1]]:
            extension = plan.extensions[kind]
            sample.members[extension] = Member(extension, int(offset), int(size))
        image = sample.image_extension
        parts: dict[str, Any] = {e: member_bytes(reader, m) for e, m in sample.members.items()}
        boxes = self._boxes.of(plan.uids[number]) if self._boxes else []
        if boxes and self.inject:
            record = read_record(reader, sample)
            parts["json"] = json.dumps({**record, FACES: boxes}).encode()
        if not (boxes and self.blur and image):
            return parts, False
        where = f"{io.redact(reader.uri)}: sample {sample.key}"
        picture = blur(decode_rgb(bytes(parts.pop(image)), where=where), boxes)
        return {"webp": encode_webp(picture, quality=self.webp_quality), **parts}, True
