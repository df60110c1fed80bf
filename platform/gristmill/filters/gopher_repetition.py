"""Gopher's repetition rules for documents."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.filters import _words
from gristmill.filters._documents import TEXT, judge_texts, require_positive
from gristmill.filters._ngrams import Windows
from gristmill.filters._words import WordKind
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

PARAGRAPHS = re.compile(r"\n{2,}")
LINES = re.compile(r"\n+")
TOP_NGRAMS = (2, 3, 4)
REPEATED_NGRAMS = (5, 6, 7, 8, 9, 10)
FIRST_NGRAM_CODE = 7


@dataclass(frozen=True, kw_only=True)
class GopherRepetition(Filter):
    """MassiveText's repetition filter (Rae et al. 2021, arXiv:2112.11446, table A1).

    Shares of repeated paragraphs and lines, by number and by characters; of the most frequent 2- to
    4-gram's characters; of the characters in repeated 5- to 10-grams. As in datatrove, which
    FineWeb was made with: paragraphs are parted by empty lines, a share of characters is of the
    whole text, the top n-gram is the first among the most frequent, and repeated n-grams are
    counted in one walk that jumps over each it finds, so that none counts twice.

    N-grams are compared by hashes of 49 bits, as the words run together. Cheap bounds over whole
    arrays settle most texts; only those whose bound is over the line are counted.
    """

    paragraph_share: float = 0.3
    """Largest share of paragraphs that repeat an earlier one."""
    paragraph_characters: float = 0.2
    """Largest share of characters in such paragraphs."""
    line_share: float = 0.3
    """Largest share of lines that repeat an earlier one."""
    line_characters: float = 0.2
    """Largest share of characters in such lines."""
    top_shares: tuple[float, ...] = (0.2, 0.18, 0.16)
    """Largest shares of characters in the most frequent 2-, 3- and 4-gram."""
    repeated_shares: tuple[float, ...] = (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)
    """Largest shares of characters in 5-, 6-, 7-, 8-, 9- and 10-grams that come again."""
    words: WordKind = "plain"
    """Who cuts words: plain is ours (filters/_words.py), spacy is datatrove's, much slower."""

    def __post_init__(self) -> None:
        require_positive(
            self, "paragraph_share", "paragraph_characters", "line_share", "line_characters"
        )
        for name, sizes in (("top_shares", TOP_NGRAMS), ("repeated_shares", REPEATED_NGRAMS)):
            shares = getattr(self, name)
            if len(shares) != len(sizes) or not all(share > 0 for share in shares):
                raise BadInputError(
                    f"{name} must be {len(sizes)} numbers above 0, for n-grams of "
                    f"{', '.join(map(str, sizes))} words, not {shares}"
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """The document."""
        return (TEXT,)

    @property
    def reasons(self) -> tuple[str, ...]:
        """In the order they are checked."""
        return (
            "text_missing",
            "text_empty",
            "repeated_paragraphs",
            "repeated_paragraph_characters",
            "repeated_lines",
            "repeated_line_characters",
            *(f"top_{n}_gram" for n in TOP_NGRAMS),
            *(f"repeated_{n}_grams" for n in REPEATED_NGRAMS),
        )

    def setup(self) -> None:
        """Make the table of characters; with spacy load its rules."""
        _words.load(self.words)

    def judge(self, batch: "pa.Table") -> Verdict:
        """Lines and paragraphs first, then n-grams of what is left."""
        return judge_texts(batch, self._judge)

    def _judge(self, texts: list[str]) -> Verdict:
        verdict = np.array([self._judge_lines(text) for text in texts], np.int8)
        left = np.flatnonzero(verdict == 0)
        if len(left):
            verdict[left] = self._judge_ngrams([texts[i] for i in left])
        return verdict

    def _judge_lines(self, text: str) -> int:
        if not text:
            return 2
        parts = PARAGRAPHS.split(text.strip())
        again, characters = _repeats(parts)
        if again / len(parts) > self.paragraph_share:
            return 3
        if characters / len(text) > self.paragraph_characters:
            return 4
        parts = LINES.split(text)
        again, characters = _repeats(parts)
        if again / len(parts) > self.line_share:
            return 5
        return 6 if characters / len(text) > self.line_characters else 0

    def _judge_ngrams(self, texts: Sequence[str]) -> Verdict:
        """Texts that are not blank; the rules in turn, each on what the earlier ones left."""
        windows = Windows(_words.words_of(texts, self.words))
        sizes = np.fromiter(map(len, texts), np.int64, len(texts))
        verdict = np.zeros(len(texts), np.int8)
        code = FIRST_NGRAM_CODE
        for n, share in zip(TOP_NGRAMS, self.top_shares, strict=True):
            ngrams = windows.ngrams(n, spaced=True)
            doubtful = (verdict == 0) & (ngrams.most_in_top() / sizes > share)
            verdict[ngrams.in_top(doubtful) / sizes > share] = code
            code += 1
        for n, share in zip(REPEATED_NGRAMS, self.repeated_shares, strict=True):
            ngrams = windows.ngrams(n, spaced=False)
            doubtful = (verdict == 0) & (ngrams.most_repeated() / sizes > share)
            verdict[ngrams.repeated(doubtful) / sizes > share] = code
            code += 1
        return verdict


def _repeats(parts: Sequence[str]) -> tuple[int, int]:
    """How many parts repeat an earlier one, and the characters in those."""
    distinct = set(parts)
    if len(distinct) == len(parts):
        return 0, 0
    return len(parts) - len(distinct), sum(map(len, parts)) - sum(map(len, distinct))
