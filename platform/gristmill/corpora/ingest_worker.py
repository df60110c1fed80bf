"""What the ingest of a corpus does in its three maps: read, settle a key range, write it.

A document's key is a hash of the seed and its text. So equal documents have equal keys and meet in
one range, and the order of keys is a shuffled order that no file's name or place has a say in.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.documents import line_limit, text_of
from gristmill.core.records import Unreadable, read_records
from gristmill.execution.parts import gather, read_segment, save_by_key, save_segments
from gristmill.execution.slices import Slice, SliceWorker

KEY_BYTES = 16
KEYS = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("domain", "<u4"), ("bytes", "<u4")])
"""Of one document: its key, its domain's place among the sorted names, its size."""
ROWS_PER_GROUP = 2000


def document_key(text: str, seed: int) -> bytes:
    """The key: 16 bytes that depend on the seed and every byte of the text."""
    salt = seed.to_bytes(16, "little", signed=True)
    return hashlib.blake2b(
        text.encode(), digest_size=KEY_BYTES, salt=salt, person=b"gristmill.corpus"
    ).digest()


def range_of(key: bytes, ranges: int) -> int:
    """Which of the equal ranges of the key space a key is in."""
    # The range i begins at (i << 64) // ranges, so this is the last i with a start at or below.
    return ((int.from_bytes(key[:8], "big") + 1) * ranges - 1) >> 64


def key_columns(keys: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    """Keys as two columns of numbers that sort as the bytes do."""
    return np.frombuffer(b"".join(keys), ">u8").reshape(-1, 2).astype(np.uint64)


@dataclass
class ReadSlice(SliceWorker):
    """Reads a slice of a domain's source; leaves its documents and their keys, by key range."""

    target: str
    domains: list[str]
    text_field: str
    max_bytes: int
    seed: int
    ranges: int

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write two parts; returns counts."""
        dropped, asked, texts, taken = Counter[str](), 0, dict[bytes, str](), 0
        for record in self._records(piece):
            asked += 1
            text = text_of(record, self.text_field, self.max_bytes)
            if isinstance(text, Unreadable):
                dropped[text.reason] += 1
            else:
                taken += 1
                texts[document_key(text, self.seed)] = text
        ordered = sorted(texts.items())
        place = self.domains.index(piece.payload["domain"])
        records = np.zeros(len(ordered), KEYS)
        columns = key_columns([key for key, _ in ordered])
        records["f0"], records["f1"], records["domain"] = columns[:, 0], columns[:, 1], place
        records["bytes"] = [len(text.encode()) for _, text in ordered]
        save_by_key(io.join(self.target, piece.name + ".keys"), records, self.ranges)
        segments: list[list[tuple[bytes, str]]] = [[] for _ in range(self.ranges)]
        for key, text in ordered:
            segments[range_of(key, self.ranges)].append((key, text))
        save_segments(io.join(self.target, piece.name + ".texts"), [_packed(s) for s in segments])
        return {"asked": asked, "documents": taken, "dropped": dict(dropped)}

    def _records(self, piece: Slice) -> Iterator[Any]:
        start, stop = int(piece.payload.get("start", 0)), piece.payload.get("stop")
        for uri in piece.payload["files"]:
            yield from read_records(
                uri, [self.text_field], limit=line_limit(self.max_bytes), start=start, stop=stop
            )


def _packed(rows: Sequence[tuple[bytes, str]]) -> bytes:
    """Keys and texts as an Arrow stream; nothing for no rows."""
    import pyarrow as pa

    if not rows:
        return b""
    table = pa.table(
        {
            "key": pa.array([key for key, _ in rows], pa.binary(KEY_BYTES)),
            "text": pa.array([text for _, text in rows], pa.large_string()),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@dataclass
class SettleRange(SliceWorker):
    """Drops the repeats in a range of keys; what stays goes to a file of bare records."""

    parts: list[str]
    target: str
    domains: int
    across: bool
    """Whether a document of one domain is a repeat in another: the first name keeps it."""

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the range's keys, sorted, each once; returns documents and bytes by domain."""
        found = gather(self.parts, piece.payload["range"], KEYS)
        found = found[np.lexsort((found["domain"], found["f1"], found["f0"]))]
        again = np.zeros(len(found), bool)
        again[1:] = (found["f0"][1:] == found["f0"][:-1]) & (found["f1"][1:] == found["f1"][:-1])
        if not self.across:
            again[1:] &= found["domain"][1:] == found["domain"][:-1]
        kept = found[~again]
        io.write_bytes(io.join(self.target, piece.name), kept.tobytes())
        sizes = np.zeros(self.domains, np.int64)
        np.add.at(sizes, kept["domain"], kept["bytes"].astype(np.int64))
        counts = np.bincount(kept["domain"], minlength=self.domains)
        return {"documents": counts.tolist(), "bytes": sizes.tolist()}


@dataclass
class WriteRange(SliceWorker):
    """Writes the documents of a range of keys, by domain and split."""

    out: str
    settled: str
    parts: list[tuple[str, int]]
    """(part of texts, place of its domain)."""
    domains: list[str]
    cuts: list[str]
    """Of each domain: hex of the first key of the training split."""

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the files; returns their entries."""
        texts = self._texts(piece)
        written = {}
        for place, domain in enumerate(self.domains):
            rows = sorted((key, text) for (key, at), text in texts.items() if at == place)
            cut = bytes.fromhex(self.cuts[place])
            for split, chosen in (
                ("validation", [row for row in rows if row[0] < cut]),
                ("train", [row for row in rows if row[0] >= cut]),
            ):
                if chosen:
                    name = f"documents/{domain}/{split}/{piece.name}.parquet"
                    entry = _write(io.join(self.out, name), chosen)
                    written[name] = {"domain": domain, "split": split, **entry}
        return {"files": written}

    def _texts(self, piece: Slice) -> dict[tuple[bytes, int], str]:
        import pyarrow as pa

        kept = io.map_records(io.join(self.settled, piece.name), KEYS)
        columns = np.stack([kept["f0"], kept["f1"]], 1).astype(">u8").tobytes()
        keys = [columns[i : i + KEY_BYTES] for i in range(0, len(columns), KEY_BYTES)]
        wanted = set(zip(keys, kept["domain"].tolist(), strict=True))
        found: dict[tuple[bytes, int], str] = {}
        for part, place in self.parts:
            data = read_segment(part, piece.payload["range"], np.dtype(np.uint8))
            if not len(data):
                continue
            with pa.ipc.open_stream(pa.py_buffer(np.ascontiguousarray(data))) as reader:
                table = reader.read_all()
            for key, text in zip(table["key"], table["text"], strict=True):
                if (name := (key.as_py(), place)) in wanted and name not in found:
                    found[name] = text.as_py()
        assert len(found) == len(wanted), "parts of keys and of texts disagree"
        return found


def _write(uri: str, rows: Sequence[tuple[bytes, str]]) -> dict[str, Any]:
    """A parquet file of documents; returns its counts and hash."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "id": pa.array([key.hex() for key, _ in rows], pa.string()),
            "text": pa.array([text for _, text in rows], pa.large_string()),
        }
    )
    with io.open_hashed(uri) as hashing:
        pq.write_table(table, hashing, compression="zstd", row_group_size=ROWS_PER_GROUP)
    size = sum(len(text.encode()) for _, text in rows)
    return {"documents": len(rows), "size": size, **hashing.entry}
