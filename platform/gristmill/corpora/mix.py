"""Materialise a mixture for other trainers: packed sequences, or documents, in shuffled shards.

Sequences come in the very order of `stream.py`, so a trainer that reads the shards front to back
sees what ours would. Of documents, weights are shares of bytes instead of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.corpora.corpus import Corpus, kind_at
from gristmill.corpora.ledger import HEADER, Ledger, make_ledger
from gristmill.corpora.mix_worker import MixDocuments, MixTokens
from gristmill.corpora.mixture import NATURAL, Mixture, read_mixture, settled
from gristmill.corpora.stream import TokenStream
from gristmill.corpora.tokens import TokenCorpus
from gristmill.execution.session import Execution, session
from gristmill.execution.slices import Slice, SliceWorker, map_slices

MIXED = "mixed.json"
MIXTURE = "mixture.json"


@dataclass(frozen=True, kw_only=True)
class MixCorpusJob(Job):
    """Write mixed/* and mixed.json: a mixture's sequences or documents, ready for any trainer."""

    corpus: tuple[str, ...]
    """One or several corpora: of tokens for format tokens, of documents for jsonl and parquet. To
    mix text pools, first `gristmill corpus ingest --domains NAME=POOL/metadata`."""
    size: int
    """How much: tokens (format tokens) or bytes of text (jsonl, parquet)."""
    mixture: str = NATURAL
    """`natural` (by size), `uniform`, `name=weight,name=weight`, or a JSON file of weights."""
    format: Literal["tokens", "jsonl", "parquet"] = "tokens"
    """tokens: rows of seq_len + 1 ids, u16 or u32. jsonl, parquet: id, text, domain, epoch."""
    seq_len: int = 2048
    """Tokens of a sequence, less the last label."""
    max_epochs: float = 4.0
    """A mixture that repeats a domain more often is refused."""
    shard_bytes: int = 256_000_000
    """Size of an output file, about."""
    seed: int = 0
    """Chooses the order."""
    execution: Execution = Execution()
    """Where it runs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.corpus:
            raise BadInputError("no corpora; give --corpus FOLDER ...")
        for name in ("size", "seq_len", "shard_bytes"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not self.max_epochs > 0:
            raise BadInputError(f"max_epochs must be above 0, not {self.max_epochs}")
        object.__setattr__(self, "corpus", tuple(io.absolute(uri) for uri in self.corpus))
        object.__setattr__(self, "mixture", settled(self.mixture))

    def plan(self) -> Plan:
        """The ledger, before anything starts; refuses what `execute` would refuse."""
        ledger = self._task("")[1]
        unit = "tokens" if self.format == "tokens" else "bytes"
        lines = [(e.domain, f"{e.tokens:,} {unit}, {e.epochs:.2f} epochs") for e in ledger.entries]
        return Plan(
            title=f"mix {ledger.tokens:,} {unit} of {len(ledger.entries)} domains",
            writes=[("mixed", ledger.tokens * (2 if unit == "tokens" else 1))],
            work=lines,
            cpu_hours=ledger.tokens / 30e6 / 3600,
            basis=f"about 30 million {unit}/s a core",
        )

    def execute(self, run: Run) -> None:
        """Write shard by shard, then publish the manifest."""
        mixture, ledger, worker, pieces, identity = self._task(run.uri)
        pin_input(run, "corpus", {**identity, "mixture": mixture.to_json()})
        mixture.save(run.path(MIXTURE))
        run.add_output(MIXTURE)
        with session(self.execution):
            done = map_slices(
                "mix",
                pieces,
                worker,
                ledger=run.scratch("mixed"),
                execution=self.execution,
                unit="tokens" if self.format == "tokens" else "bytes",
            )
        self._publish(run, mixture, ledger, identity, done)

    # -- what is to be done --------------------------------------------------------------------

    def _task(self, out: str) -> tuple[Mixture, Ledger, SliceWorker, list[Slice], dict[str, Any]]:
        wanted = "tokens" if self.format == "tokens" else "documents"
        for uri in self.corpus:
            if (kind := kind_at(uri)) != wanted:
                raise BadInputError(
                    f"{io.redact(uri)} is a corpus of {kind}; format {self.format} takes {wanted}"
                )
        return self._tokens(out) if self.format == "tokens" else self._documents(out)

    def _tokens(self, out: str) -> tuple[Mixture, Ledger, SliceWorker, list[Slice], dict[str, Any]]:
        corpus = TokenCorpus(*self.corpus)
        mixture = read_mixture(self.mixture, corpus.sizes())
        stream = TokenStream(corpus, mixture, seq_len=self.seq_len, batch_size=1, seed=self.seed)
        total = max(self.size // self.seq_len, 1)
        ledger = stream.require_epochs(total, self.max_epochs)
        row_bytes = (self.seq_len + 1) * corpus.vocabulary.dtype.itemsize
        rows = max(self.shard_bytes // row_bytes, 1)
        pieces = []
        for number, first in enumerate(range(0, total, rows)):
            last = min(first + rows, total)
            payload = {"first": first, "last": last}
            weight = (last - first) * self.seq_len
            pieces.append(Slice(name=f"{number:06d}", weight=weight, payload=payload))
        worker = MixTokens(out, list(self.corpus), dict(mixture.weights), self.seq_len, self.seed)
        identity = {
            **corpus.identity(),
            "seq_len": self.seq_len,
            "dtype": corpus.vocabulary.dtype.str,
            "domains": list(stream.domains),
        }
        return mixture, ledger, worker, pieces, identity

    def _documents(
        self, out: str
    ) -> tuple[Mixture, Ledger, SliceWorker, list[Slice], dict[str, Any]]:
        corpora: dict[str, Corpus] = {}
        for corpus in (Corpus(uri, "documents") for uri in self.corpus):
            for domain in corpus.domains:
                if domain in corpora:
                    raise BadInputError(
                        f"domain {domain} is in {io.redact(corpora[domain].uri)} and in "
                        f"{io.redact(corpus.uri)}; give each domain once"
                    )
                corpora[domain] = corpus
        available = {domain: corpus.size(domain) for domain, corpus in corpora.items()}
        mixture = read_mixture(self.mixture, available)
        wanted = {d: round(w * self.size) for d, w in mixture.weights.items() if w}
        wanted = {domain: max(size, 1) for domain, size in wanted.items()}
        ledger = make_ledger(mixture.weights, wanted, available, 1)
        ledger.require_epochs(self.max_epochs)
        shards = -(-self.size // self.shard_bytes)
        pieces = [
            Slice(name=f"{i:06d}", weight=max(self.size // shards, 1), payload={"shard": i})
            for i in range(shards)
        ]
        homes = {domain: corpora[domain].uri for domain in wanted}
        worker = MixDocuments(out, homes, wanted, shards, f".{self.format}", self.seed)
        found = {corpus.uri: corpus.identity() for corpus in corpora.values()}
        return mixture, ledger, worker, pieces, {"corpora": list(found.values())}

    # -- what was done -------------------------------------------------------------------------

    def _publish(
        self,
        run: Run,
        mixture: Mixture,
        planned: Ledger,
        identity: dict[str, Any],
        done: Sequence[dict[str, Any]],
    ) -> None:
        files = {name: entry for d in done for name, entry in d["files"].items()}
        for name, entry in files.items():
            run.add_output(name, sha256=entry["sha256"], num_bytes=entry["bytes"])
        size = {d: sum(one["size"].get(d, 0) for one in done) for d in mixture.weights}
        length = planned.seq_len
        ledger = make_ledger(
            mixture.weights,
            {domain: n // length for domain, n in size.items()},
            {e.domain: e.available for e in planned.entries},
            length,
        )
        manifest = {
            "format": 1,
            "kind": self.format,
            "seed": self.seed,
            **mixture.to_json(),
            **identity,
            "ledger": ledger.to_json(),
            "files": files,
        }
        io.write_json(run.path(MIXED), manifest)
        run.add_output(MIXED)
        _report(run, ledger, "tokens" if self.format == "tokens" else "bytes")


def _report(run: Run, ledger: Ledger, unit: str) -> None:
    page = Report(
        title="A mixture",
        subtitle=f"{ledger.tokens:,} {unit} of {len(ledger.entries)} domains",
    )
    header = [word.replace("tokens", unit) for word in HEADER]
    page.table("Ledger", header, ledger.rows(), note="Epochs: how often a domain is gone through.")
    page.save(run.path(REPORT))
    run.set_summary(
        **{unit: ledger.tokens},
        domains={e.domain: {"share": e.share, "epochs": e.epochs} for e in ledger.entries},
    )
