"""What the ingest of a corpus does in its three maps: read, settle a key range, write it.

A document's key is a hash of the seed and its text. So equal documents have equal keys and meet in
one range, and the order of keys is a shuffled order that no file's name or place has a say in.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.documents import line_limit, text_of
from gristmill.core.records import Unreadable
from gristmill.core.source_files import read_piece
from gristmill.execution.parts import gather, read_segment, save_by_key, save_segments
from gristmill.execution.slices import Slice, SliceWorker

KEY_BYTES = 16
KEYS = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("domain", "<u4"), ("bytes", "<u4")])
"""Of one document: its key, its domain's place among the sorted names, its size."""
ROWS_PER_GROUP = 2000
HELD_BYTES_A_DOCUMENT = 250
"""What Python needs beside a document's own bytes, about: short ones count for more."""


def document_key(text: bytes, seed: int) -> bytes:
    """The key: 16 bytes that depend on the seed and every byte of the text's UTF-8."""
    salt = seed.to_bytes(16, "little", signed=True)
    return hashlib.blake2b(
        text, digest_size=KEY_BYTES, salt=salt, person=b"gristmill.corpus"
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
    """Reads a slice of a domain's source; leaves its documents and their keys, by key range.

    Each time that it holds enough it writes two parts and lets go, so its memory does not grow with
    a file. A document that two of its parts hold is dropped like one of two slices.
    """

    target: str
    domains: list[str]
    text_field: str
    max_bytes: int
    seed: int
    ranges: int
    held_bytes: int
    """What is held before parts are written."""

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the parts; returns their names and counts."""
        place = self.domains.index(piece.payload["domain"])
        dropped, asked, taken, parts = Counter[str](), 0, 0, list[str]()
        texts, held = dict[bytes, bytes](), 0
        limit = line_limit(self.max_bytes)
        for _, record in read_piece(piece.payload, [self.text_field], limit=limit):
            asked += 1
            found = text_of(record, self.text_field, self.max_bytes)
            if isinstance(found, Unreadable):
                dropped[found.reason] += 1
                continue
            taken += 1
            text = found.encode()
            if (key := document_key(text, self.seed)) in texts:
                continue
            texts[key] = text
            held += len(text) + HELD_BYTES_A_DOCUMENT
            if held >= self.held_bytes:
                parts.append(self._save(f"{piece.name}-{len(parts):06d}", place, texts))
                texts, held = {}, 0
        if texts:
            parts.append(self._save(f"{piece.name}-{len(parts):06d}", place, texts))
        return {"asked": asked, "documents": taken, "dropped": dict(dropped), "parts": parts}

    def _save(self, name: str, place: int, texts: dict[bytes, bytes]) -> str:
        """Write what is held to two parts, sorted by key, and forget it."""
        keys = sorted(texts)
        records = np.zeros(len(keys), KEYS)
        columns = key_columns(keys)
        records["f0"], records["f1"], records["domain"] = columns[:, 0], columns[:, 1], place
        records["bytes"] = [len(texts[key]) for key in keys]
        save_by_key(io.join(self.target, name + ".keys"), records, self.ranges)
        segments: list[list[bytes]] = [[] for _ in range(self.ranges)]
        for key in keys:
            segments[range_of(key, self.ranges)].append(key)
        packed = [_packed([(key, texts.pop(key)) for key in own]) for own in segments]
        save_segments(io.join(self.target, name + ".texts"), packed)
        return name


def _packed(rows: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Keys and texts as an Arrow stream; nothing for no rows."""
    import pyarrow as pa

    if not rows:
        return b""
    table = pa.table(
        {
            "key": pa.array([key for key, _ in rows], pa.binary(KEY_BYTES)),
            "text": pa.array([text for _, text in rows], pa.large_binary()),
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

    def _texts(self, piece: Slice) -> dict[tuple[bytes, int], bytes]:
        import pyarrow as pa

        kept = io.map_records(io.join(self.settled, piece.name), KEYS)
        columns = np.stack([kept["f0"], kept["f1"]], 1).astype(">u8").tobytes()
        keys = [columns[i : i + KEY_BYTES] for i in range(0, len(columns), KEY_BYTES)]
        wanted = set(zip(keys, kept["domain"].tolist(), strict=True))
        found: dict[tuple[bytes, int], bytes] = {}
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


def _write(uri: str, rows: Sequence[tuple[bytes, bytes]]) -> dict[str, Any]:
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
    size = sum(len(text) for _, text in rows)
    return {"documents": len(rows), "size": size, **hashing.entry}
