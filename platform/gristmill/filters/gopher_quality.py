"""Gopher's quality rules for documents."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError
from gristmill.filters import _words
from gristmill.filters._documents import TEXT, judge_texts, require_positive
from gristmill.filters._words import WordKind, Words
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

BULLETS = ("•", "-")
ELLIPSES = ("...", "…")


@dataclass(frozen=True, kw_only=True)
class GopherQuality(Filter):
    """MassiveText's quality filter (Rae et al. 2021, arXiv:2112.11446, appendix A1.1).

    Between 50 and 100,000 words; mean word length 3 to 10; at most 0.1 hashes or ellipses a word;
    at most 90 % of lines begin with a bullet and 30 % end with an ellipsis; 80 % of words hold a
    letter; two of the stop words. Where the paper leaves a choice we take datatrove's, which
    FineWeb was made with: number and length count words beyond punctuation marks, shares are of all
    words, a bullet is • or -, a stop word counts once and in lower case only.
    """

    min_words: int = 50
    """Least words that are more than punctuation."""
    max_words: int = 100_000
    """Most words that are more than punctuation."""
    min_mean_length: float = 3.0
    """Least mean length of those words, in characters."""
    max_mean_length: float = 10.0
    """Largest mean length of those words."""
    max_symbol_ratio: float = 0.1
    """Most hash signs a word, and most ellipses a word."""
    max_bullet_lines: float = 0.9
    """Largest share of lines that begin with a bullet."""
    max_ellipsis_lines: float = 0.3
    """Largest share of lines that end with an ellipsis."""
    min_alphabetic: float = 0.8
    """Least share of words with a letter."""
    min_stop_words: int = 2
    """Least number of different stop words."""
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    """The stop words, each a single word."""
    words: WordKind = "plain"
    """Who cuts words: plain is ours (filters/_words.py), spacy is datatrove's, much slower."""

    def __post_init__(self) -> None:
        require_positive(self, "max_symbol_ratio", "max_bullet_lines", "max_ellipsis_lines")
        if not 0 <= self.min_words <= self.max_words:
            raise BadInputError(
                f"min_words {self.min_words} and max_words {self.max_words} leave no document"
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
            "few_words",
            "many_words",
            "short_words",
            "long_words",
            "hashes",
            "ellipses",
            "bullet_lines",
            "ellipsis_lines",
            "few_letters",
            "few_stop_words",
        )

    def setup(self) -> None:
        """Make the table of characters; with spacy load its rules."""
        _words.load(self.words)

    def judge(self, batch: "pa.Table") -> Verdict:
        """Word counts by whole arrays, then the texts that are left one by one."""
        return judge_texts(batch, self._judge)

    def _judge(self, texts: list[str]) -> Verdict:
        words = _words.words_of(texts, self.words)
        verdict = self._judge_words(words)
        counts, letters = words.counts, words.sums(words.have(_words.ALPHA))
        for i in np.flatnonzero(verdict == 0).tolist():
            verdict[i] = self._judge_text(texts[i], int(counts[i]), int(letters[i]))
        left = verdict == 0
        verdict[left & (self._stop_words(words, left) < self.min_stop_words)] = 11
        return verdict

    def _judge_words(self, words: Words) -> Verdict:
        """Number and mean length of the words that are more than marks."""
        real = words.beyond_marks()
        number = words.sums(real)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = words.sums(np.where(real, words.lengths, 0)) / number
        verdict = np.zeros(len(number), np.int8)
        verdict[mean > self.max_mean_length] = 5
        verdict[mean < self.min_mean_length] = 4
        verdict[number > self.max_words] = 3
        verdict[number < self.min_words] = 2
        return verdict

    def _judge_text(self, text: str, words: int, letters: int) -> int:
        if words and text.count("#") / words > self.max_symbol_ratio:
            return 6
        if words and sum(map(text.count, ELLIPSES)) / words > self.max_symbol_ratio:
            return 7
        lines = text.splitlines()
        if lines and _starting(lines) / len(lines) > self.max_bullet_lines:
            return 8
        if lines and _ending(lines) / len(lines) > self.max_ellipsis_lines:
            return 9
        return 10 if words and letters / words < self.min_alphabetic else 0

    def _stop_words(self, words: Words, wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Different stop words of each wanted text."""
        found = np.zeros(len(wanted), np.int64)
        for stop in dict.fromkeys(self.stop_words):
            found += words.sums(words.equal_to(stop)) > 0
        return found


def _starting(lines: list[str]) -> int:
    return sum(line.lstrip().startswith(BULLETS) for line in lines)


def _ending(lines: list[str]) -> int:
    return sum(line.rstrip().endswith(ELLIPSES) for line in lines)
