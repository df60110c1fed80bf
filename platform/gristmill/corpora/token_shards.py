"""Tokenize a corpus of documents: a file of documents becomes a token shard and its index."""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from gristmill.core import io
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan, human_bytes
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.corpora.corpus import MANIFEST, Corpus, Shard, manifest_of
from gristmill.corpora.document_reader import read_documents
from gristmill.corpora.domains import SPLITS
from gristmill.corpora.tokenizer import FILE, DocumentTokenizer, Vocabulary, read_tokenizer
from gristmill.corpora.tokens import INDEX
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice, SliceWorker, committed, map_slices

BYTES_PER_SECOND = 2e6
"""Rough rate a core for `--plan`."""


@dataclass(frozen=True, kw_only=True)
class TokenizeJob(Job):
    """Make a token corpus: corpus.json, tokenizer.json and tokens/DOMAIN/SPLIT/*.bin, *.idx."""

    uri_fields: ClassVar[tuple[str, ...]] = ("corpus", "tokenizer")
    corpus: str
    """A corpus of documents, from `gristmill corpus ingest`."""
    tokenizer: str
    """A Hugging Face tokenizer.json, or a folder with one."""
    end_token: str = ""
    """The token that ends a document. Empty: <|endoftext|>, </s> or another usual one."""
    execution: Execution = Execution()
    """Where it runs."""

    def plan(self) -> Plan:
        """Text to be read, tokens to be written."""
        corpus = Corpus(self.corpus, "documents")
        width = self._loaded().vocabulary.dtype.itemsize
        size = sum(sum(corpus.sizes(split).values()) for split in SPLITS)
        return Plan(
            title=f"tokenize {len(corpus.domains)} domains of {io.redact(self.corpus)}",
            reads=[("text", size)],
            writes=[("tokens, about, at 4 bytes of text a token", size // 4 * width)],
            cpu_hours=size / BYTES_PER_SECOND / 3600,
            basis="about 2 MB of text/s a core",
        )

    def execute(self, run: Run) -> None:
        """Tokenize file by file, then publish the manifest."""
        corpus = Corpus(self.corpus, "documents")
        tokenizer = self._loaded()
        vocabulary = tokenizer.vocabulary
        pin_input(run, "corpus", corpus.identity())
        pin_input(run, "tokenizer", asdict(vocabulary))
        text = read_tokenizer(self.tokenizer)
        io.write_bytes(run.path(FILE), text.encode())
        run.add_output(FILE)
        pieces = list(_slices(corpus))
        before = committed(run.scratch("tokenized"))
        started = time.monotonic()
        with session(self.execution):
            done = map_slices(
                "tokenize",
                pieces,
                TokenizeFile(corpus.uri, run.uri, text, vocabulary.end_token),
                ledger=run.scratch("tokenized"),
                execution=self.execution,
                unit="bytes",
                also=("tokens", _tokens),
            )
        fresh = [one for piece, one in zip(pieces, done, strict=True) if piece.name not in before]
        speed = sum(map(_tokens, fresh)) / max(time.monotonic() - started, 1e-9)
        self._publish(run, corpus, vocabulary, done, speed)

    def _loaded(self) -> DocumentTokenizer:
        return DocumentTokenizer(
            read_tokenizer(self.tokenizer), self.end_token, name=self.tokenizer
        )

    def _publish(
        self,
        run: Run,
        corpus: Corpus,
        vocabulary: Vocabulary,
        done: Sequence[dict[str, Any]],
        speed: float,
    ) -> None:
        shards: dict[tuple[str, str], list[Shard]] = {}
        for outcome in done:
            shard = Shard(**outcome["shard"])
            shards.setdefault((outcome["domain"], outcome["split"]), []).append(shard)
            for suffix, entry in outcome["files"].items():
                run.add_output(
                    shard.name + suffix, sha256=entry["sha256"], num_bytes=entry["bytes"]
                )
        manifest = manifest_of(
            "tokens", shards, vocabulary=asdict(vocabulary), documents_sha256=corpus.sha256
        )
        io.write_json(run.path(MANIFEST), manifest)
        run.add_output(MANIFEST)
        _report(run, corpus, vocabulary, done, speed)


def _slices(corpus: Corpus) -> list[Slice]:
    found: list[Slice] = []
    for domain in corpus.domains:
        for split in SPLITS:
            for number, shard in enumerate(corpus.shards(domain, split)):
                payload = {
                    "source": shard.name,
                    "domain": domain,
                    "split": split,
                    "target": f"tokens/{domain}/{split}/{number:06d}",
                }
                found.append(Slice(name=f"{len(found):08d}", weight=shard.size, payload=payload))
    return found


@dataclass
class TokenizeFile(SliceWorker):
    """Turns a file of documents into a shard of tokens."""

    source: str
    out: str
    tokenizer: str
    """Text of the tokenizer.json."""
    end_token: str

    def setup(self) -> None:
        """Load the tokenizer, without threads: a slice has one CPU."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self._tokenizer = DocumentTokenizer(self.tokenizer, self.end_token)

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write .bin and .idx; returns counts, hashes and the time it took."""
        started, target = time.monotonic(), str(piece.payload["target"])
        starts, ids, tokens = [], [], 0
        with io.open_hashed(io.join(self.out, target + ".bin")) as binary:
            for batch in read_documents(io.join(self.source, piece.payload["source"])):
                for row, found in zip(
                    batch, self._tokenizer.encode([row["text"] for row in batch]), strict=True
                ):
                    starts.append(tokens)
                    ids.append(bytes.fromhex(row["id"]))
                    tokens += len(found)
                    binary.write(found.tobytes())
        index = np.zeros(len(starts), INDEX)
        index["start"], index["id"] = starts, np.array(ids, "V16")
        with io.open_hashed(io.join(self.out, target + ".idx")) as beside:
            beside.write(index.tobytes())
        shard = Shard(
            name=target,
            documents=len(starts),
            size=tokens,
            sha256=binary.sha256,
            index_sha256=beside.sha256,
        )
        return {
            "domain": piece.payload["domain"],
            "split": piece.payload["split"],
            "shard": asdict(shard),
            "files": {".bin": binary.entry, ".idx": beside.entry},
            "text_bytes": piece.weight,
            "seconds": time.monotonic() - started,
        }


def _tokens(outcome: dict[str, Any]) -> int:
    return int(outcome["shard"]["size"])


def _report(
    run: Run,
    corpus: Corpus,
    vocabulary: Vocabulary,
    done: Sequence[dict[str, Any]],
    speed: float,
) -> None:
    tokens = sum(map(_tokens, done))
    busy = sum(d["seconds"] for d in done)
    rows = []
    for domain in corpus.domains:
        own = [d for d in done if d["domain"] == domain]
        counts = [sum(d["shard"]["size"] for d in own if d["split"] == s) for s in SPLITS]
        size = sum(d["text_bytes"] for d in own)
        rows.append((domain, *counts, sum(counts) / tokens, size / max(sum(counts), 1)))
    page = Report(
        title="Tokens of a corpus",
        subtitle=f"{tokens:,} tokens in {len(rows)} domains, "
        f"{human_bytes(tokens * vocabulary.dtype.itemsize)}",
    )
    page.table(
        "Tokens by domain", ("domain", *SPLITS, "share of tokens", "bytes of text a token"), rows
    )
    page.table(
        "Speed",
        ("what", "tokens/s"),
        [
            ("a worker, while at work", round(tokens / max(busy, 1e-9))),
            ("this run, start to end", round(speed)),
        ],
        note="The second figure is of what this run itself did: what was done before is left out.",
    )
    page.text("Vocabulary", f"{vocabulary.size:,} ids, sha256 {vocabulary.sha256}")
    page.save(run.path(REPORT))
    run.set_summary(
        tokens=tokens,
        documents=sum(d["shard"]["documents"] for d in done),
        vocabulary=vocabulary.sha256,
        vocab_size=vocabulary.size,
        tokens_per_second=round(speed),
        tokens_per_second_per_worker=round(tokens / max(busy, 1e-9)),
        domains={name: {"train": t, "validation": v} for name, t, v, _, _ in rows},
    )
