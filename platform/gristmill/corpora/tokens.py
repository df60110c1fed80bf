"""Token shards: flat files of ids to map into memory, an index beside each, read by position.

    NAME.bin   ids, u16 or u32 little-endian (u16 when the vocabulary allows), document on document
    NAME.idx   a record a document: u64 its first token in the .bin, 16 bytes its id's hash

The shards of a domain's split, one after another, are one long row of tokens. Sequence s of length
L is tokens [s L, s L + L]: L inputs, and the last one's label too. Nothing is padded or copied.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.corpora.corpus import Corpus, Shard
from gristmill.corpora.domains import SPLITS
from gristmill.corpora.tokenizer import Vocabulary

INDEX = np.dtype([("start", "<u8"), ("id", "V16")])
MAPS_KEPT = 1024
SMALL_BYTES = 1 << 30
"""Corpora up to this size are hashed before they are used: a second or two."""
MEND = "copy it again, or tokenize anew with --overwrite"
TokenArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A domain's split as one row of tokens."""

    uri: str
    shards: tuple[Shard, ...]
    ends: npt.NDArray[np.int64]
    """Where each shard ends in the row."""


class TokenCorpus:
    """Domains of token shards, of one or several folders that share a vocabulary. Numpy only."""

    def __init__(self, *uris: str) -> None:
        """Open the manifests.

        Args:
            uris: Folders of `gristmill corpus tokenize`.

        Raises:
            BadInputError: No such corpus, two with other tokenizers, or a domain in two of them.
            CorruptDataError: A shard is not as long as the manifest says.
        """
        if not uris:
            raise BadInputError("give at least one token corpus")
        corpora = [Corpus(uri, "tokens") for uri in uris]
        self.vocabulary = vocabulary_of(corpora[0])
        self.corpora: Mapping[str, Corpus] = _by_domain(corpora)
        for corpus in corpora[1:]:
            self.require(vocabulary_of(corpus), io.redact(corpus.uri))
        self._rows: dict[tuple[str, str], _Row] = {}
        self._map = lru_cache(MAPS_KEPT)(self._mapped)

    @property
    def domains(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(sorted(self.corpora))

    def require(self, vocabulary: Vocabulary, where: str) -> None:
        """Refuse ids of another tokenizer.

        Args:
            vocabulary: The other one's.
            where: What it belongs to, for the message.

        Raises:
            BadInputError: Its hash is another.
        """
        if vocabulary.sha256 != self.vocabulary.sha256:
            first = io.redact(next(iter(self.corpora.values())).uri)
            raise BadInputError(
                f"{where} has the tokenizer {vocabulary.sha256[:12]} ({vocabulary.size:,} tokens), "
                f"{first} has {self.vocabulary.sha256[:12]} ({self.vocabulary.size:,}); "
                "tokenize both with the same one"
            )

    def tokens(self, domain: str, split: str = "train") -> int:
        """Tokens of a domain's split."""
        return self._corpus(domain).size(domain, split)

    def sizes(self, split: str = "train") -> dict[str, int]:
        """Tokens of every domain: in proportion, the natural mixture."""
        return {domain: self.tokens(domain, split) for domain in self.domains}

    def num_sequences(self, domain: str, seq_len: int, split: str = "train") -> int:
        """Whole sequences of seq_len tokens and a label each.

        Raises:
            BadInputError: There is none.
        """
        found = (self.tokens(domain, split) - 1) // seq_len
        if found < 1:
            raise BadInputError(
                f"domain {domain} has {self.tokens(domain, split):,} tokens in its {split} split, "
                f"less than one sequence of {seq_len + 1}; take a shorter seq_len, or more text"
            )
        return found

    def sequences(
        self, domain: str, numbers: npt.NDArray[np.int64], seq_len: int, split: str = "train"
    ) -> TokenArray:
        """Sequences of a domain by number: int64 [len(numbers), seq_len + 1]."""
        out = np.empty((len(numbers), seq_len + 1), np.int64)
        for row, number in zip(out, numbers.tolist(), strict=True):
            self._read(self._row(domain, split), number * seq_len, row)
        return out

    def between(self, domain: str, first: int, stop: int, split: str = "train") -> TokenArray:
        """Tokens [first, stop) of a domain's row: int64."""
        out = np.empty(stop - first, np.int64)
        self._read(self._row(domain, split), first, out)
        return out

    def document_numbers(
        self, domain: str, numbers: npt.NDArray[np.int64], seq_len: int, split: str = "train"
    ) -> npt.NDArray[np.int64]:
        """Of each token of such sequences: which document of the split it is in; same shape."""
        row, width = self._row(domain, split), seq_len + 1
        out = np.empty((len(numbers), width), np.int64)
        for target, number in zip(out, numbers.tolist(), strict=True):
            first = number * seq_len
            filled = 0
            while filled < width:
                shard, inside = self._place(row, first + filled)
                count = min(width - filled, row.shards[shard].size - inside)
                before = sum(s.documents for s in row.shards[:shard])
                places = np.arange(inside, inside + count)
                found = np.searchsorted(self.starts(domain, split, shard), places, "right")
                target[filled : filled + count] = before + found - 1
                filled += count
        return out

    def starts(self, domain: str, split: str, shard: int) -> npt.NDArray[np.uint64]:
        """The first token of each document of a shard, counted from the shard's start."""
        row = self._row(domain, split)
        return self._map(io.join(row.uri, row.shards[shard].name + ".idx"), INDEX)["start"]

    def ids(self, domain: str, split: str, shard: int) -> list[str]:
        """The ids of a shard's documents, as `corpus ingest` gave them."""
        row = self._row(domain, split)
        index = self._map(io.join(row.uri, row.shards[shard].name + ".idx"), INDEX)
        return [bytes(value).hex() for value in index["id"]]

    def require_whole(self, most_bytes: int = SMALL_BYTES) -> None:
        """Refuse local files that are not those that the manifests have the hashes of.

        Args:
            most_bytes: Larger corpora are not read for it, nor are remote ones: what they are
                damaged in is seen in use, where an id is out of range.

        Raises:
            CorruptDataError: One is another; names it.
        """
        width = self.vocabulary.dtype.itemsize
        if sum(sum(self.sizes(split).values()) for split in SPLITS) * width > most_bytes:
            return
        near = {name: one for name, one in self.corpora.items() if io.is_local(one.uri)}
        for domain, corpus in near.items():
            for split in SPLITS:
                for shard in self._row(domain, split).shards:
                    where = io.join(corpus.uri, shard.name + ".bin")
                    if shard.sha256 and io.sha256(where) != shard.sha256:
                        raise CorruptDataError(
                            f"{io.redact(where)} has other bytes than its manifest says; {MEND}"
                        )

    def identity(self) -> dict[str, Any]:
        """What pins the ids: the manifests, which have every file's hash."""
        corpora = {c.uri: c.identity() for c in self.corpora.values()}
        return {"vocabulary": self.vocabulary.sha256, "corpora": list(corpora.values())}

    # -- reading -------------------------------------------------------------------------------

    def _corpus(self, domain: str) -> Corpus:
        if domain not in self.corpora:
            next(iter(self.corpora.values())).shards(domain)  # raises with the names there are
        return self.corpora[domain]

    def _row(self, domain: str, split: str) -> _Row:
        if (domain, split) not in self._rows:
            corpus = self._corpus(domain)
            shards = corpus.shards(domain, split)
            for shard in shards:
                self._check(corpus.uri, shard)
            ends = np.cumsum([shard.size for shard in shards], dtype=np.int64)
            self._rows[domain, split] = _Row(uri=corpus.uri, shards=shards, ends=ends)
        return self._rows[domain, split]

    def _check(self, uri: str, shard: Shard) -> None:
        """A shard that was cut short would give wrong tokens without a word."""
        for suffix, want in (
            (".bin", shard.size * self.vocabulary.dtype.itemsize),
            (".idx", shard.documents * INDEX.itemsize),
        ):
            where = io.join(uri, shard.name + suffix)
            size = io.size_bytes(where) if io.exists(where) else None
            if size != want:
                raise CorruptDataError(
                    f"{io.redact(where)} should have {want} bytes and has {size}; {MEND}"
                )

    def _place(self, row: _Row, token: int) -> tuple[int, int]:
        shard = int(np.searchsorted(row.ends, token, "right"))
        return shard, token - (int(row.ends[shard - 1]) if shard else 0)

    def _read(self, row: _Row, first: int, target: TokenArray) -> None:
        filled = 0
        while filled < len(target):
            shard, inside = self._place(row, first + filled)
            count = min(len(target) - filled, row.shards[shard].size - inside)
            uri = io.join(row.uri, row.shards[shard].name + ".bin")
            found = self._span(uri, inside, inside + count)
            if len(found) and int(found.max()) >= self.vocabulary.size:
                raise CorruptDataError(
                    f"{io.redact(uri)} holds the id {int(found.max())}, and the vocabulary's "
                    f"{self.vocabulary.size:,} end before: the file is damaged; {MEND}"
                )
            target[filled : filled + count] = found
            filled += count

    def _span(self, uri: str, start: int, stop: int) -> npt.NDArray[Any]:
        dtype = self.vocabulary.dtype
        if io.is_local(uri):
            return self._map(uri, dtype)[start:stop]
        width = dtype.itemsize
        return np.frombuffer(io.read_range(uri, start * width, stop * width), dtype)

    @staticmethod
    def _mapped(uri: str, dtype: "np.dtype[Any]") -> npt.NDArray[Any]:
        return io.map_records(uri, dtype)


def vocabulary_of(corpus: Corpus) -> Vocabulary:
    """The vocabulary that a token corpus is pinned to.

    Raises:
        CorruptDataError: Its manifest does not say.
    """
    try:
        return Vocabulary(**corpus.manifest["vocabulary"])
    except (KeyError, TypeError) as error:
        raise CorruptDataError(
            f"{io.redact(corpus.uri)} does not say which tokenizer made it: {error}"
        ) from error


def _by_domain(corpora: list[Corpus]) -> dict[str, Corpus]:
    found: dict[str, Corpus] = {}
    for corpus in corpora:
        for domain in corpus.domains:
            if domain in found:
                raise BadInputError(
                    f"domain {domain} is in {io.redact(found[domain].uri)} and in "
                    f"{io.redact(corpus.uri)}; give each domain once"
                )
            found[domain] = corpus
    return dict(sorted(found.items()))
