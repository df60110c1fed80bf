"""What the materialising of a mixture does with one shard of its output."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.core import io
from gristmill.corpora.corpus import Corpus
from gristmill.corpora.document_reader import read_documents
from gristmill.corpora.mixture import Mixture
from gristmill.corpora.stream import TokenStream
from gristmill.corpora.tokens import TokenCorpus
from gristmill.execution.slices import Slice, SliceWorker

ROW = np.dtype([("domain", "<u4"), ("epoch", "<u4"), ("sequence", "<u8")])
"""Beside each sequence: its domain's place among the names in mixed.json, epoch and number."""
ROWS_AT_ONCE = 256
ROWS_PER_GROUP = 2000


@dataclass
class MixTokens(SliceWorker):
    """Writes a run of the stream's sequences."""

    out: str
    corpora: list[str]
    weights: dict[str, float]
    seq_len: int
    seed: int

    def setup(self) -> None:
        """Lay down the stream's order."""
        self._corpus = TokenCorpus(*self.corpora)
        self._stream = TokenStream(
            self._corpus,
            Mixture(weights=self.weights),
            seq_len=self.seq_len,
            batch_size=1,
            seed=self.seed,
        )

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write NAME.bin and NAME.rows; returns counts by domain and hashes."""
        first, last = piece.payload["first"], piece.payload["last"]
        name, dtype = f"mixed/{piece.name}", self._corpus.vocabulary.dtype
        counts = np.zeros(len(self._stream.domains), np.int64)
        with (
            io.open_hashed(io.join(self.out, name + ".bin")) as binary,
            io.open_hashed(io.join(self.out, name + ".rows")) as beside,
        ):
            for start in range(first, last, ROWS_AT_ONCE):
                numbers = np.arange(start, min(start + ROWS_AT_ONCE, last), dtype=np.int64)
                picks, tokens = self._stream.at(numbers), self._stream.read(numbers)
                binary.write(tokens.astype(dtype).tobytes())
                rows = np.zeros(len(numbers), ROW)
                rows["domain"], rows["epoch"] = picks.domain, picks.epoch
                rows["sequence"] = picks.sequence
                beside.write(rows.tobytes())
                counts += np.bincount(picks.domain, minlength=len(counts))
        return {
            "size": dict(zip(self._stream.domains, (counts * self.seq_len).tolist(), strict=True)),
            "files": {name + ".bin": binary.entry, name + ".rows": beside.entry},
        }


@dataclass
class MixDocuments(SliceWorker):
    """Writes the documents of one output shard.

    A domain's documents, epoch after epoch, lie on a line of bytes. Shard s takes those that begin
    in its s-th part, so any shard is written without the others.
    """

    out: str
    corpora: dict[str, str]
    """Domain -> folder of its corpus."""
    wanted: dict[str, int]
    """Domain -> bytes over all shards."""
    shards: int
    suffix: str
    seed: int

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write the shard, shuffled; returns bytes by domain and its hash."""
        number = int(piece.payload["shard"])
        rows: list[dict[str, Any]] = []
        size = dict.fromkeys(self.wanted, 0)
        for domain, total in self.wanted.items():
            start, stop = (total * i // self.shards for i in (number, number + 1))
            for row in self._documents(domain, start, stop):
                rows.append(row)
                size[domain] += len(row["text"].encode())
        rows.sort(key=lambda row: self._place(number, row))
        name = f"mixed/{piece.name}{self.suffix}"
        with io.open_hashed(io.join(self.out, name)) as hashing:
            WRITERS[self.suffix](hashing, rows)
        return {"size": size, "documents": len(rows), "files": {name: hashing.entry}}

    def _place(self, shard: int, row: Mapping[str, Any]) -> bytes:
        words = f"{self.seed} {shard} {row['epoch']} {row['domain']} {row['id']}".encode()
        return hashlib.blake2b(words, digest_size=16, person=b"gristmill.mix").digest()

    def _documents(self, domain: str, start: int, stop: int) -> Iterator[dict[str, Any]]:
        """Documents that begin in [start, stop) of the domain's endless line."""
        corpus = Corpus(self.corpora[domain], "documents")
        epoch_bytes = corpus.size(domain)
        for epoch in range(start // epoch_bytes, -(-stop // epoch_bytes)):
            begin = epoch * epoch_bytes
            for shard in corpus.shards(domain):
                if begin < stop and begin + shard.size > start:
                    yield from self._of_file(corpus, domain, shard.name, begin, start, stop, epoch)
                begin += shard.size

    @staticmethod
    def _of_file(
        corpus: Corpus, domain: str, name: str, begin: int, start: int, stop: int, epoch: int
    ) -> Iterator[dict[str, Any]]:
        for batch in read_documents(io.join(corpus.uri, name)):
            for row in batch:
                if start <= begin < stop:
                    yield {"id": row["id"], "text": row["text"], "domain": domain, "epoch": epoch}
                begin += len(row["text"].encode())


def _write_lines(file: Any, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def _write_parquet(file: Any, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {
        "id": pa.string(),
        "text": pa.large_string(),
        "domain": pa.string(),
        "epoch": pa.int32(),
    }
    table = pa.table({n: pa.array([row[n] for row in rows], kind) for n, kind in kinds.items()})
    pq.write_table(table, file, compression="zstd", row_group_size=ROWS_PER_GROUP)


WRITERS = {".jsonl": _write_lines, ".parquet": _write_parquet}
