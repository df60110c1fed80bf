"""The n-grams of an evaluation set as sorted hashes, to look a document's n-grams up in."""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.core.records import Unreadable, read_records, record_files
from gristmill.filters._ngrams import BASE, LENGTHS_BASE, PrefixHash
from gristmill.filters._words import CHUNK_CHARACTERS, Words, plain_words

MOST_NGRAMS = 1 << 25
"""About 1 GB of hashes in each process."""
LONGEST_ITEM = 1 << 26
ID_FIELDS = ("id", "uid", "doc_id", "question_id")
_SECOND = (0xC2B2AE3D27D4EB4F, 0xA0761D6478BD642F)
Hashes = npt.NDArray[np.uint64]


def normalised(texts: Sequence[str]) -> Words:
    """Lower-case runs of letters, digits and underscores; anything else only parts them."""
    return plain_words([text.lower() for text in texts], alone=True)


class WordWindows:
    """Windows of words of a few texts, with two independent hashes of 64 bits each."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self.text = np.repeat(np.arange(len(words.counts)), words.counts)
        self._first = self._hasher(BASE, LENGTHS_BASE)

    def _hasher(self, base: int, window_base: int) -> PrefixHash:
        """Words are hashed first, so that `a bc` and `ab c` differ."""
        ends = self._words.ends
        number = np.arange(len(ends))
        words = PrefixHash(self._words.chars, ends, base).between(number[:-1], number[1:])
        return PrefixHash(words, number, window_base)

    def starts(self, size: int) -> npt.NDArray[np.int64]:
        """First words of all windows of `size` words within a text."""
        count = max(len(self.text) - size + 1, 0)
        return np.flatnonzero(self.text[:count] == self.text[len(self.text) - count :])

    def hashes(self, first: npt.NDArray[np.int64], size: int) -> Hashes:
        """The first hash of the windows of `size` words from `first` on."""
        return self._first.between(first, first + size)

    def checks(self, first: npt.NDArray[np.int64], size: int) -> Hashes:
        """The second hash of the same."""
        return self._second.between(first, first + size)

    @functools.cached_property
    def _second(self) -> PrefixHash:
        return self._hasher(*_SECOND)


@dataclass(frozen=True)
class Table:
    """The windows of one size."""

    hashes: Hashes
    """Sorted, each once."""
    checks: Hashes
    items: npt.NDArray[np.int32]
    """The first item that has the window."""
    sieve: npt.NDArray[np.bool_]
    """Whether any hash has these highest bits; most lookups end here."""

    def find(self, windows: WordWindows, size: int) -> tuple[npt.NDArray[np.int64], Any]:
        """Windows that are in the table, by first word, and each one's item."""
        first = windows.starts(size)
        hashes = windows.hashes(first, size)
        maybe = np.flatnonzero(self.sieve[hashes >> np.uint64(65 - len(self.sieve).bit_length())])
        first, hashes = first[maybe], hashes[maybe]
        place = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        same = self.hashes[place] == hashes
        first, place = first[same], place[same]
        if len(first):
            same = self.checks[place] == windows.checks(first, size)
            first, place = first[same], place[same]
        return first, self.items[place]

    @classmethod
    def of(cls, hashes: Hashes, checks: Hashes, items: npt.NDArray[np.int32]) -> "Table":
        """Sort; of equal windows the first item stays."""
        hashes, first = np.unique(hashes, return_index=True)
        bits = max(len(hashes) * 8, 2).bit_length()
        sieve = np.zeros(1 << bits, bool)
        sieve[hashes >> np.uint64(64 - bits)] = True
        return cls(hashes, checks[first], items[first], sieve)


@dataclass(frozen=True)
class EvaluationNgrams:
    """What documents must not hold: a table for each size of window, and the items' names."""

    tables: dict[int, Table]
    names: list[str]
    short: int
    """Items with too few words to look for."""


def identity(uri: str) -> dict[str, Any]:
    """Hash of the set's files, for a run's inputs."""
    digest = hashlib.sha256()
    files = record_files(uri)
    for file in files:
        digest.update(f"{file.removeprefix(uri)}\n{io.sha256(file)}\n".encode())
    return {"uri": io.redact(uri), "files": len(files), "sha256": digest.hexdigest()}


@functools.lru_cache(maxsize=2)
def load(uri: str, field: str, ngram: int, shortest: int) -> EvaluationNgrams:
    """Read an evaluation set.

    Raises:
        BadInputError: No item of it has enough words, or there are more n-grams than memory allows.
    """
    found: dict[int, list[tuple[Hashes, Hashes, npt.NDArray[np.int32]]]] = {}
    names: list[str] = []
    total, short = 0, 0
    for batch in _batches(uri, field):
        words = normalised([text for _, text in batch])
        windows = WordWindows(words)
        sizes = np.where(words.counts < shortest, 0, np.minimum(words.counts, ngram))
        short += int((sizes == 0).sum())
        for size in np.unique(sizes[sizes > 0]).tolist():
            first = windows.starts(size)
            first = first[sizes[windows.text[first]] == size]
            total += len(first)
            if total > MOST_NGRAMS:
                raise BadInputError(
                    f"{io.redact(uri)} has over {MOST_NGRAMS:,} n-grams; split the evaluation set "
                    "and filter once with each part"
                )
            items = (windows.text[first] + len(names)).astype(np.int32)
            part = (windows.hashes(first, size), windows.checks(first, size), items)
            found.setdefault(size, []).append(part)
        names += [name for name, _ in batch]
    if not found:
        raise BadInputError(
            f"none of {len(names)} items of {io.redact(uri)} has {shortest} words in {field!r}"
        )
    tables = {
        size: Table.of(*(np.concatenate([p[i] for p in parts]) for i in range(3)))  # type: ignore[arg-type]
        for size, parts in sorted(found.items())
    }
    return EvaluationNgrams(tables, names, short)


def _batches(uri: str, field: str) -> Iterator[list[tuple[str, str]]]:
    waiting: list[tuple[str, str]] = []
    size = 0
    for item in _items(uri, field):
        waiting.append(item)
        size += len(item[1])
        if size > CHUNK_CHARACTERS:
            yield waiting
            waiting, size = [], 0
    yield waiting


def _items(uri: str, field: str) -> Iterator[tuple[str, str]]:
    """(name, text) of each item.

    Raises:
        BadInputError: An item cannot be read or has no text: it would go unprotected.
    """
    for file in record_files(uri):
        below = file.removeprefix(uri).lstrip("/") or file.rpartition("/")[2]
        records = read_records(file, (field, *ID_FIELDS), limit=LONGEST_ITEM)
        for number, record in enumerate(records, 1):
            where = f"{below}:{number}"
            if isinstance(record, Unreadable):
                raise BadInputError(f"{io.redact(file)}, record {number}: {record.reason}")
            text = record.get(field)
            if not isinstance(text, str):
                raise BadInputError(
                    f"{io.redact(file)}, record {number} has no text in {field!r}; it has "
                    f"{', '.join(sorted(record)) or 'nothing'}"
                )
            name = next((record[n] for n in ID_FIELDS if record.get(n) is not None), "")
            yield f"{where} ({name})" if name != "" else where, text
