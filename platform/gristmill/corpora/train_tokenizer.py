"""Train a byte-level BPE on a corpus: 2 to 4 thousand tokens suit proxies of 1M parameters."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gristmill.core import io
from gristmill.core.errors import BadInputError, MissingExtraError
from gristmill.core.inputs import pin_input
from gristmill.core.job import Job
from gristmill.core.plan import Plan, human_bytes
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.corpora.corpus import Corpus
from gristmill.corpora.document_reader import read_texts
from gristmill.corpora.tokenizer import END_TOKENS, FILE, DocumentTokenizer
from gristmill.execution.session import Execution

BYTE_TOKENS = 256
MEASURED_BYTES = 200_000
"""Validation text of a domain that the report measures on."""


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerJob(Job):
    """Make tokenizer.json: byte-level BPE (Sennrich et al., ACL 2016; bytes: Radford et al. 2019).

    Each domain gives the same amount of training text, so that no large domain takes all merges.
    """

    uri_fields: ClassVar[tuple[str, ...]] = ("corpus",)
    corpus: str
    """A corpus of documents, from `gristmill corpus ingest`."""
    vocab_size: int = 4096
    """Tokens, among them 256 bytes and the end token."""
    sample_bytes: int = 50_000_000
    """Text to learn from, at most about: the first documents of each training split."""
    min_frequency: int = 2
    """Pairs seen less often are not merged."""
    execution: Execution = Execution()
    """Not used: one process counts the pairs, in as many threads as it has CPUs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocab_size <= BYTE_TOKENS:
            raise BadInputError(
                f"vocab_size must be over {BYTE_TOKENS}, the number of bytes, not {self.vocab_size}"
            )
        if self.sample_bytes < 1 or self.min_frequency < 1:
            raise BadInputError("sample_bytes and min_frequency must be at least 1")

    def plan(self) -> Plan:
        """What is read."""
        corpus = Corpus(self.corpus, "documents")
        size = sum(min(self._share(corpus), corpus.size(d)) for d in corpus.domains)
        return Plan(
            title=f"train a BPE of {self.vocab_size:,} tokens on {len(corpus.domains)} domains",
            reads=[("training text", size)],
            writes=[(FILE, 40 * self.vocab_size)],
            cpu_hours=size / 2e6 / 3600,
            basis="about 2 MB/s a core",
        )

    def execute(self, run: Run) -> None:
        """Read, train, measure."""
        corpus = Corpus(self.corpus, "documents")
        pin_input(run, "corpus", corpus.identity())
        text = self._trained(corpus)
        io.write_bytes(run.path(FILE), text.encode())
        run.add_output(FILE)
        tokenizer = DocumentTokenizer(text)
        _report(run, corpus, tokenizer)

    def _share(self, corpus: Corpus) -> int:
        return max(self.sample_bytes // len(corpus.domains), 1)

    def _trained(self, corpus: Corpus) -> str:
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtraError("tokenizers", "lm") from error
        from tokenizers import decoders, models, pre_tokenizers, trainers

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=[END_TOKENS[0]],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(self._texts(corpus), trainer)
        return str(tokenizer.to_str(pretty=True))

    def _texts(self, corpus: Corpus) -> Iterator[str]:
        for domain in corpus.domains:
            yield from read_texts(corpus, domain, "train", self._share(corpus))


def _report(run: Run, corpus: Corpus, tokenizer: DocumentTokenizer) -> None:
    rows = []
    for domain in corpus.domains:
        split = "validation" if corpus.documents(domain, "validation") else "train"
        texts = list(read_texts(corpus, domain, split, MEASURED_BYTES))
        size = sum(len(text.encode()) for text in texts)
        tokens = sum(len(ids) for ids in tokenizer.encode(texts))
        rows.append((domain, split, size, tokens, size / tokens))
    vocabulary = tokenizer.vocabulary
    page = Report(
        title="A tokenizer",
        subtitle=f"byte-level BPE of {vocabulary.size:,} tokens, end token {vocabulary.end_token}",
    )
    page.table(
        "Compression",
        ("domain", "measured on", "bytes", "tokens", "bytes a token"),
        rows,
        note=f"At most {human_bytes(MEASURED_BYTES)} of each domain.",
    )
    page.text("Vocabulary", f"sha256 {vocabulary.sha256}")
    page.save(run.path(REPORT))
    run.set_summary(
        vocab_size=vocabulary.size,
        vocabulary=vocabulary.sha256,
        bytes_per_token={row[0]: round(row[-1], 4) for row in rows},
    )
