"""Drop alt-text noise: file names, addresses, boilerplate, shouting and stammering."""

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError
from gristmill.filters._strings import strings
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

TEXT = "text"
FILE_NAME = (
    r"(?i)\.(jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif|raw|psd|pdf)\W*\z"
    r"|\A\W*(img|image|dsc[nf]?|pict?|picture|photo|mvc|p|screen ?shot|scan)[-_ ]*\d[-_ \d()]*\W*\z"
)
ADDRESS = (
    r"(?i)https?://|\bwww\.|\A\W*[a-z0-9.-]+\.(com|net|org|info|biz|co\.[a-z]{2}|ru|de)\b\S*\z"
)
BOILERPLATE = (
    "image not available", "no image available", "photo not available", "picture not available",
    "no photo available", "image unavailable", "image coming soon", "photo coming soon",
    "image placeholder", "placeholder image", "default image", "untitled image", "loading image",
    "click to enlarge", "click for larger", "click here to", "click to view", "click to zoom",
    "enlarge image", "view larger image", "zoom image", "add to cart", "buy now", "user avatar",
)  # fmt: skip
"""Phrases of pages, not of pictures. Those that only lead a description in are not among them."""
LETTER, DIGIT, UPPER, LOWER, SPACE = 0, 1, 2, 3, 4
CASED_FROM = 12
"""Capitals say something of captions with as many letters that have a case."""


@dataclass(frozen=True, kw_only=True)
class CaptionQuality(Filter):
    """Heuristics against alt-text that describes no picture.

    The kinds of noise are those of Conceptual Captions (Sharma et al. 2018, section 3: boilerplate,
    repeated tokens, odd capitals) and of Data-Juicer's operators (Chen et al. 2023,
    arXiv:2309.02033: share of letters, of special characters, text length, repetition); the limits
    are ours. Shares are of the characters that are not white space. Each rule is off at the value
    that its field names.
    """

    drop_file_names: bool = True
    """Captions that are a file's name or a camera's number (IMG_2034.jpg, DSC00231)."""
    drop_addresses: bool = True
    """Captions that hold a url, or are a host's name."""
    boilerplate: tuple[str, ...] = BOILERPLATE
    """Phrases that drop a caption holding them, in upper or lower case; () for none."""
    max_characters: int = 1000
    """Longest caption; 0 for any. CLIP reads 77 tokens."""
    min_letters: float = 0.5
    """Least share of letters of any script; 0 for any."""
    max_digits: float = 0.3
    """Largest share of digits; 1 for any."""
    max_capitals: float = 0.9
    """Largest share of capitals among letters with a case, from 12 such letters on; 1 for any."""
    max_repeated_words: float = 0.5
    """Largest share of words that repeat an earlier word of the caption; 1 for any."""

    def __post_init__(self) -> None:
        for name in ("min_letters", "max_digits", "max_capitals", "max_repeated_words"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInputError(f"{name} is a share of 0 to 1, not {getattr(self, name)}")
        if self.max_characters < 0:
            raise BadInputError(f"max_characters must be at least 0, not {self.max_characters}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The caption."""
        return (TEXT,)

    @property
    def reasons(self) -> tuple[str, ...]:
        """In the order they are checked."""
        return (
            "caption_missing",
            "caption_long",
            "file_name",
            "address",
            "boilerplate",
            "few_letters",
            "many_digits",
            "all_capitals",
            "repeated_words",
        )

    def setup(self) -> None:
        """Build the table of character kinds."""
        _kinds()

    def judge(self, batch: "pa.Table") -> Verdict:
        """Every rule on whole columns; the first that applies gives the reason."""
        import pyarrow.compute as pc

        texts = strings(batch, TEXT)
        verdict = np.zeros(len(texts), np.int8)
        lengths = pc.fill_null(pc.utf8_length(pc.utf8_trim_whitespace(texts)), 0).to_numpy()
        verdict[lengths == 0] = 1
        if self.max_characters:
            verdict[(verdict == 0) & (lengths > self.max_characters)] = 2
        for reason, pattern in self._patterns():
            left = np.flatnonzero(verdict == 0)
            hit = pc.match_substring_regex(texts.take(left), pattern).to_numpy()
            verdict[left[hit]] = reason
        left = np.flatnonzero(verdict == 0)
        verdict[left] = self._judge_shares(texts.take(left))
        left = np.flatnonzero(verdict == 0)
        repeats = repeated_share(texts.take(left))
        verdict[left[repeats > self.max_repeated_words]] = 9
        return verdict

    def _patterns(self) -> list[tuple[int, str]]:
        """(reason, RE2 pattern) of the rules that are on."""
        phrases = "|".join(re.escape(phrase) for phrase in self.boilerplate)
        return [
            *([(3, FILE_NAME)] if self.drop_file_names else []),
            *([(4, ADDRESS)] if self.drop_addresses else []),
            *([(5, f"(?i){phrases}")] if phrases else []),
        ]

    def _judge_shares(self, texts: "pa.ChunkedArray") -> Verdict:
        counts = count_kinds(texts)
        shown = np.maximum(counts.total - counts.spaces, 1)
        cased = counts.upper + counts.lower
        shouting = (counts.upper > self.max_capitals * cased) & (cased >= CASED_FROM)
        verdict = np.zeros(len(texts), np.int8)
        verdict[shouting] = 8
        verdict[counts.digits > self.max_digits * shown] = 7
        verdict[counts.letters < self.min_letters * shown] = 6
        return verdict


@dataclass(frozen=True)
class KindCounts:
    """Characters of each kind in each text; every field has shape (n,)."""

    total: npt.NDArray[np.int64]
    letters: npt.NDArray[np.int64]
    """Letters and marks of any script."""
    digits: npt.NDArray[np.int64]
    upper: npt.NDArray[np.int64]
    lower: npt.NDArray[np.int64]
    spaces: npt.NDArray[np.int64]


def count_kinds(texts: "pa.ChunkedArray") -> KindCounts:
    """Count characters by kind, as whole arrays of code points."""
    import pyarrow.compute as pc

    total = pc.utf8_length(texts).to_numpy().astype(np.int64)
    ends = np.concatenate([[0], np.cumsum(total)])
    points = np.frombuffer("".join(texts.to_pylist()).encode("utf-32-le"), np.uint32)
    kinds = _kinds()[points]
    found = []
    for kind in (LETTER, DIGIT, UPPER, LOWER, SPACE):
        running = np.cumsum(kinds >> kind & 1, dtype=np.int64)
        found.append(np.diff(np.concatenate([[0], running])[ends]))
    return KindCounts(total, *found)


@functools.lru_cache(maxsize=1)
def _kinds() -> npt.NDArray[np.uint8]:
    """One bit a kind for every code point."""
    table = np.zeros(0x110000, np.uint8)
    for point in range(len(table)):
        character = chr(point)
        category = unicodedata.category(character)
        bits = (category[0] in "LM") << LETTER | (category == "Nd") << DIGIT
        bits |= (category in ("Lu", "Lt")) << UPPER | (category == "Ll") << LOWER
        table[point] = bits | character.isspace() << SPACE
    return table


def repeated_share(texts: "pa.ChunkedArray") -> npt.NDArray[np.float64]:
    """Share of each text's words, split at white space, that repeat an earlier one, case aside."""
    import pyarrow.compute as pc

    lists = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(pc.utf8_lower(texts)))
    counts = pc.list_value_length(lists).to_numpy().astype(np.int64)
    words = pc.list_flatten(lists).combine_chunks().dictionary_encode().indices.to_numpy()
    pairs = np.repeat(np.arange(len(counts)), counts) << 32 | words
    distinct = np.bincount(np.unique(pairs) >> 32, minlength=len(counts))
    return 1 - distinct / np.maximum(counts, 1)
