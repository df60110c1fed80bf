"""The ingest of a corpus: named domains in, shuffled documents without repeats out.

Three maps: read every source into parts by key range; settle each range (exact repeats go, the
rest is counted); write each range by domain and split. Keys are hashes of seed and text, so the
result depends on the documents alone, not on the names, order or cut of the files.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gristmill.core import io, source_files
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.records import Found, NoRecordsError, find_records, is_compressed, kind_of
from gristmill.core.run import Run
from gristmill.corpora import embedded
from gristmill.corpora.corpus import MANIFEST, Shard, manifest_of
from gristmill.corpora.domains import parse_sources
from gristmill.corpora.ingest_report import DomainCounts, report
from gristmill.corpora.ingest_worker import KEY_BYTES, KEYS, ReadSlice, SettleRange, WriteRange
from gristmill.execution.parts import range_slices
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice, map_slices

TEXT_PER_RANGE = 64 << 20
"""About what one range of keys holds: a worker's load in the last map."""
SUFFIX = re.compile(r"(?!.*\.(gz|zst)$)\.[A-Za-z0-9._+-]+", re.IGNORECASE)
HELD_BYTES = 64 << 20
"""What a reader holds before it writes parts: packed files are read in one go, however long."""
UNPACKED = 4
"""Bytes of text to a byte of compressed file, roughly."""


@dataclass(frozen=True, kw_only=True)
class IngestCorpusJob(Job):
    """Make a corpus of documents: corpus.json and documents/DOMAIN/{train,validation}/*.parquet."""

    domains: tuple[str, ...]
    """`name=URI` for each domain: a file or folder (any fsspec URI) of .jsonl, .jsonl.gz,
    .jsonl.zst, .parquet or text files; a name given again adds to the domain."""
    text_field: str = "text"
    """Field or column that holds the document."""
    text_suffixes: tuple[str, ...] = (".txt", ".md", ".rst")
    """Files of which each is one document, packed (.gz, .zst) or not. Of a folder all other files
    are left out, and counted."""
    validation: float = 0.05
    """Share of each domain's bytes that becomes its validation split."""
    max_validation_bytes: int = 20_000_000
    """Bytes of a domain's validation split, at most about."""
    duplicates: Literal["corpus", "domain"] = "corpus"
    """Where a document may occur once: in the corpus (the domain whose name sorts first keeps it),
    or in each domain."""
    max_bytes: int = 10_000_000
    """Longer documents are dropped, in bytes of UTF-8."""
    seed: int = 0
    """Chooses the order of the documents, and with it the split."""
    skip_corrupt: bool = False
    """Go on past files that cannot be read to their end, counting them."""
    execution: Execution = Execution()
    """Where it runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.domains, tuple | list):
            return  # a recipe leaves them to the caller
        sources = parse_sources(self.domains)
        if not sources:
            raise BadInputError("no domains; give --domains name=URI ...")
        for suffix in self.text_suffixes:
            if not SUFFIX.fullmatch(suffix) or kind_of(suffix) not in ("", "txt"):
                raise BadInputError(
                    f"text_suffixes has {suffix!r}: give endings such as .html, none of which "
                    "names records or a packed file"
                )
        if not 0 <= self.validation < 1:
            raise BadInputError(f"validation must be in [0, 1), not {self.validation}")
        if self.max_bytes < 1 or self.max_validation_bytes < 1:
            raise BadInputError("max_bytes and max_validation_bytes must be at least 1")
        if abs(self.seed) >= 1 << 63:
            raise BadInputError(f"seed must fit 64 bits, not {self.seed}")
        words = [
            f"{name}={uri if embedded.is_embedded(uri) else io.absolute(uri)}"
            for name, uris in sources.items()
            for uri in uris
        ]
        object.__setattr__(self, "domains", tuple(words))

    def plan(self) -> Plan:
        """What there is to take in."""
        reads = []
        for name, uris in parse_sources(self.domains).items():
            for uri in uris:
                size = embedded.MAX_BYTES
                if not embedded.is_embedded(uri):
                    size = sum(source_files.sizes_of(self._found(name, uri).files))
                reads.append((f"{name}: {io.redact(uri)}", size))
        total = sum(size for _, size in reads)
        return Plan(
            title=f"ingest a corpus of {len(parse_sources(self.domains))} domains",
            reads=reads,
            writes=[("documents, at most about", total), ("parts, until it is done", 2 * total)],
            cpu_hours=total / 20e6 / 3600,
            basis="about 20 MB/s a core",
        )

    def execute(self, run: Run) -> None:
        """Read, settle, cut, write; then publish the manifest."""
        pieces, total, skipped = self._pieces(run)
        names = list(parse_sources(self.domains))
        ranges = max(1, -(-total // TEXT_PER_RANGE))
        parts = run.scratch("parts")
        reader = ReadSlice(
            parts, names, self.text_field, self.max_bytes, self.seed, ranges, HELD_BYTES
        )
        with session(self.execution):
            read = map_slices(
                "read documents",
                pieces,
                reader,
                ledger=run.scratch("read"),
                execution=self.execution,
                unit="bytes",
                skip_corrupt=self.skip_corrupt,
            )
            counts = _counted(names, pieces, read)
            made = [
                (io.join(parts, part), names.index(piece.payload["domain"]))
                for piece, outcome in zip(pieces, read, strict=True)
                if "corrupt" not in outcome
                for part in outcome["parts"]
            ]
            _refuse_empty(counts, self.text_field)
            settled = self._settle(run, [part for part, _ in made], names, ranges, counts)
            cuts = [
                _cut(i, settled, run.scratch("settled"), self._wanted) for i in range(len(names))
            ]
            writer = WriteRange(
                run.uri,
                run.scratch("settled"),
                [(part + ".texts", place) for part, place in made],
                names,
                [cut.hex() for cut in cuts],
            )
            written = map_slices(
                "write documents",
                range_slices(ranges, sum(c.kept for c in counts.values())),
                writer,
                ledger=run.scratch("written"),
                execution=self.execution,
                unit="documents",
            )
        corrupt = [str(r["corrupt"]) for r in read if "corrupt" in r]
        for name, own in skipped.items():
            counts[name].skipped = own
        self._publish(run, written, counts, corrupt)

    def _pieces(self, run: Run) -> tuple[list[Slice], int, dict[str, Counter[str]]]:
        """The slices of all sources, pinned; about how many bytes of text; what is left out."""
        pieces: list[Slice] = []
        total = 0
        skipped: dict[str, Counter[str]] = {}
        for name, uris in parse_sources(self.domains).items():
            found = []
            for uri in uris:
                if embedded.is_embedded(uri):
                    uri = embedded.write(uri, run.scratch("embedded"))
                there = self._found(name, uri)
                files = there.files
                skipped.setdefault(name, Counter()).update(there.skipped)
                sizes = source_files.sizes_of(files)
                found.append(source_files.names_and_sizes(uri, files, sizes))
                for payload, size in source_files.cut(files, sizes):
                    payload = {"domain": name, **payload}
                    pieces.append(Slice(name=f"{len(pieces):08d}", weight=size, payload=payload))
                total += sum(
                    n * (UNPACKED if is_compressed(f) or kind_of(f) == "parquet" else 1)
                    for f, n in zip(files, sizes, strict=True)
                )
            pin_input(run, f"domain-{name}", {"sources": found})
        return pieces, total, skipped

    def _found(self, domain: str, uri: str) -> Found:
        try:
            return find_records(uri, self.text_suffixes)
        except BadInputError as error:
            hint = "; --text-suffixes names further files of text"
            more = hint if isinstance(error, NoRecordsError) else ""
            raise BadInputError(f"domain {domain}: {error}{more}") from error

    def _settle(
        self,
        run: Run,
        parts: Sequence[str],
        names: Sequence[str],
        ranges: int,
        counts: "dict[str, DomainCounts]",
    ) -> list[dict[str, Any]]:
        keys = [part + ".keys" for part in parts]
        total = sum(c.documents for c in counts.values())
        settled = map_slices(
            "drop repeats",
            range_slices(ranges, total),
            SettleRange(keys, run.scratch("settled"), len(names), self.duplicates == "corpus"),
            ledger=run.scratch("settled-done"),
            execution=self.execution,
            unit="documents",
        )
        for place, name in enumerate(names):
            counts[name].kept = sum(s["documents"][place] for s in settled)
            counts[name].kept_bytes = sum(s["bytes"][place] for s in settled)
            if counts[name].kept < (2 if self.validation else 1):
                raise BadInputError(
                    f"domain {name} has {counts[name].kept} documents left of "
                    f"{counts[name].documents}, after exact repeats"
                    + (" (in domains before it, too)" if self.duplicates == "corpus" else "")
                    + "; it needs two, one to train on and one to validate on"
                )
        return settled

    def _wanted(self, size: int) -> float:
        """Validation bytes of a domain of so many bytes."""
        return min(self.validation * size, self.max_validation_bytes)

    def _publish(
        self,
        run: Run,
        written: Sequence[dict[str, Any]],
        counts: "dict[str, DomainCounts]",
        corrupt: Sequence[str],
    ) -> None:
        shards: dict[tuple[str, str], list[Shard]] = {}
        for outcome in written:
            for name, e in outcome["files"].items():
                run.add_output(name, sha256=e["sha256"], num_bytes=e["bytes"])
                shard = Shard(
                    name=name, documents=e["documents"], size=e["size"], sha256=e["sha256"]
                )
                shards.setdefault((e["domain"], e["split"]), []).append(shard)
                counts[e["domain"]].add(e["split"], e["documents"], e["size"])
        io.write_json(run.path(MANIFEST), manifest_of("documents", shards, seed=self.seed))
        run.add_output(MANIFEST)
        report(run, counts, corrupt)


def _counted(
    names: Sequence[str], pieces: Sequence[Slice], read: Sequence[dict[str, Any]]
) -> "dict[str, DomainCounts]":
    counts = {name: DomainCounts(dropped=Counter()) for name in names}
    for piece, outcome in zip(pieces, read, strict=True):
        if "corrupt" not in outcome:
            own = counts[piece.payload["domain"]]
            own.asked += outcome["asked"]
            own.documents += outcome["documents"]
            own.dropped.update(outcome["dropped"])
    return counts


def _refuse_empty(counts: "dict[str, DomainCounts]", field: str) -> None:
    for name, own in counts.items():
        if not own.documents:
            raise BadInputError(
                f"domain {name} is empty: none of its {own.asked} records became a document "
                f"({dict(own.dropped)}); the text is looked for in {field!r}"
            )


def _cut(place: int, settled: Sequence[dict[str, Any]], folder: str, wanted: Any) -> bytes:
    """The first key of a domain's training split.

    Documents go to validation in the order of their keys until they hold the wanted bytes; at
    least one does, when any are wanted, and at least one does not.
    """
    documents = [s["documents"][place] for s in settled]
    sizes = [s["bytes"][place] for s in settled]
    want, last = wanted(sum(sizes)), sum(documents) - 1
    before_documents, before_bytes = 0, 0
    if not want:
        return bytes(KEY_BYTES)
    for number, (count, size) in enumerate(zip(documents, sizes, strict=True)):
        ends = before_bytes + size >= want or before_documents + count > last
        if count and ends:
            kept = io.map_records(io.join(folder, f"{number:06d}"), KEYS)
            own = kept[kept["domain"] == place]
            filled = np.cumsum(own["bytes"].astype(np.int64)) + before_bytes >= want
            first = int(np.argmax(filled)) + 1 if filled.any() else count
            first = min(first, last - before_documents)
            if first < count:
                return bytes(np.array([own["f0"][first], own["f1"][first]], ">u8").tobytes())
            key = int.from_bytes(np.array([own["f0"][-1], own["f1"][-1]], ">u8").tobytes(), "big")
            return (key + 1).to_bytes(KEY_BYTES, "big")  # the range's last one is in, the next not
        before_documents, before_bytes = before_documents + count, before_bytes + size
    raise AssertionError("a domain has a last document")
