"""FineWeb's own rules for documents."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gristmill.filters import _words
from gristmill.filters._documents import TEXT, judge_texts
from gristmill.filters._words import WordKind
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class FinewebQuality(Filter):
    """FineWeb's heuristics (Penedo et al. 2024, arXiv:2406.17557, section 3.6).

    Drops a document when at most 12 % of its lines end with a mark that ends sentences, when 67 %
    of them are under 30 characters, or when over a share of its characters is in repeated lines.
    The paper says 0.1 of the characters; the code that FineWeb was made with, datatrove, has 0.01
    and one rule more, on new lines a word, and those are the defaults here. Blank lines do not
    count as lines. Sentence ends are those of every script; a quotation mark is none.
    """

    min_punctuated_lines: float = 0.12
    """Least share of lines that end with a sentence's end."""
    max_short_lines: float = 0.67
    """Largest share of short lines."""
    short_line: int = 30
    """A line of at most so many characters is short."""
    max_repeated_characters: float = 0.01
    """Largest share of characters (new lines apart) in lines that repeat an earlier one."""
    max_new_lines: float = 0.3
    """Most new lines a word."""
    words: WordKind = "plain"
    """Who cuts words: plain is ours (filters/_words.py), spacy is datatrove's, much slower."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The document."""
        return (TEXT,)

    @property
    def reasons(self) -> tuple[str, ...]:
        """In the order they are checked."""
        return (
            "text_missing",
            "text_blank",
            "punctuated_lines",
            "short_lines",
            "repeated_line_characters",
            "new_lines",
        )

    def setup(self) -> None:
        """Make the table of characters; with spacy load its rules."""
        _words.load(self.words)

    def judge(self, batch: "pa.Table") -> Verdict:
        """Lines first; words only of what is left."""
        return judge_texts(batch, self._judge)

    def _judge(self, texts: list[str]) -> Verdict:
        ends = frozenset(_words.sentence_ends())
        verdict = np.array([self._judge_lines(text, ends) for text in texts], np.int8)
        left = np.flatnonzero(verdict == 0)
        chosen = [texts[i] for i in left]
        new_lines = np.array([text.count("\n") for text in chosen], np.int64)
        words = _words.words_of(chosen, self.words).counts
        with np.errstate(divide="ignore", invalid="ignore"):
            verdict[left[new_lines / words > self.max_new_lines]] = 6
        return verdict

    def _judge_lines(self, text: str, ends: frozenset[str]) -> int:
        lines = [line for line in text.split("\n") if line and not line.isspace()]
        if not lines:
            return 2
        if sum(line[-1] in ends for line in lines) / len(lines) < self.min_punctuated_lines:
            return 3
        short = sum(len(line) <= self.short_line for line in lines)
        if short / len(lines) > self.max_short_lines:
            return 4
        distinct = set(lines)
        if len(distinct) == len(lines):
            return 0
        again = sum(map(len, lines)) - sum(map(len, distinct))
        share = again / (len(text) - text.count("\n"))
        return 5 if share > self.max_repeated_characters else 0
