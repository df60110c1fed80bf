"""Words of many texts at once, as arrays: what the filters for documents count.

A plain word is a run of letters, digits, marks of accents and underscores, with single apostrophes,
points and commas inside it (don't, 3.5); or any other character that is not white space, with its
own repeats (..., =====). So punctuation marks are words, as spaCy has them, whose English words
datatrove takes; unlike spaCy, a hyphen, a slash and the like always part two words, and don't stays
one.
"""

import functools
import itertools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import MissingExtraError

WordKind = Literal["plain", "spacy"]
"""plain: ours. spacy: the words of spaCy's rules for English, as datatrove takes them (extra text);
then the verdicts are datatrove's, but ten to seventy times slower."""
WORD, SPACE, ALPHA, MARK, JOINER = 1, 2, 4, 8, 16
_JOINERS = ".,'’"
_MORE_MARKS = "«´»–—’“”„…∶━►、〈〉《》「」【】％（），１：；～"
"""With ASCII's marks, control characters and sentence ends: CCNet's list (Wenzek et al. 2020,
arXiv:1911.00359), which holds the full-width 1 too."""
CHUNK_CHARACTERS = 1 << 19
TEXTS_AT_ONCE = 1 << 15


@dataclass(frozen=True)
class Words:
    """The words of a few texts, one after another."""

    chars: npt.NDArray[np.uint32]
    """Code points of all words, without what stands between them."""
    ends: npt.NDArray[np.int64]
    """Shape (words + 1,): where each word begins in `chars`, and where the last one ends."""
    firsts: npt.NDArray[np.int64]
    """Shape (texts + 1,): number of each text's first word, and the number of all words."""

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Words of each text."""
        return np.diff(self.firsts)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Characters of each word."""
        return np.diff(self.ends)

    def have(self, kind: int) -> npt.NDArray[np.bool_]:
        """Which words have a character of a kind (ALPHA, ...)."""
        return self._any((characters()[self.chars] & kind) > 0)

    def beyond_marks(self) -> npt.NDArray[np.bool_]:
        """Which words have a character that is no punctuation mark."""
        return self._any((characters()[self.chars] & MARK) == 0)

    def _any(self, flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        if not len(self.ends) - 1:
            return np.zeros(0, bool)
        return np.bitwise_or.reduceat(flags, self.ends[:-1])

    def equal_to(self, word: str) -> npt.NDArray[np.bool_]:
        """Which words are this one."""
        rows = np.flatnonzero(self.lengths == len(word))
        for place, code in enumerate(encode(word)):
            rows = rows[self.chars[self.ends[rows] + place] == code]
        same = np.zeros(len(self.ends) - 1, bool)
        same[rows] = True
        return same

    def sums(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Sums of a value a word over each text."""
        total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
        return total[self.firsts[1:]] - total[self.firsts[:-1]]

    def of(self, text: int) -> list[str]:
        """The words of one text as strings."""
        first, last = int(self.firsts[text]), int(self.firsts[text + 1])
        cuts = self.ends[first : last + 1]
        joined = decode(self.chars[cuts[0] : cuts[-1]])
        places = (cuts - cuts[0]).tolist()
        return [joined[a:b] for a, b in itertools.pairwise(places)]


def decode(chars: npt.NDArray[np.uint32]) -> str:
    """Code points as a string."""
    return chars.tobytes().decode("utf-32-le", "surrogatepass")


def encode(text: str) -> npt.NDArray[np.uint32]:
    """The code points of a string."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def load(kind: WordKind) -> None:
    """Make ready what cutting needs, once a process."""
    characters()
    if kind == "spacy":
        spacy_english()


def words_of(texts: Sequence[str], kind: WordKind = "plain") -> Words:
    """The words of texts."""
    return plain_words(texts) if kind == "plain" else from_lists(spacy_words(texts))


def from_lists(lists: Sequence[Sequence[str]]) -> Words:
    """Words that were cut elsewhere."""
    every = [word for words in lists for word in words]
    return Words(
        chars=encode("".join(every)),
        ends=_starts(np.fromiter(map(len, every), np.int64, len(every))),
        firsts=_starts(np.fromiter(map(len, lists), np.int64, len(lists))),
    )


def plain_words(texts: Sequence[str], *, alone: bool = False) -> Words:
    """Plain words, cut by whole arrays.

    Args:
        texts: Any strings.
        alone: Leave out marks: only runs of letters and digits, parted by anything else.
    """
    codes = encode("".join(text + "\n" for text in texts))
    kinds = characters()[codes]
    word = (kinds & WORD) > 0
    if not alone and len(codes):
        inner = ((kinds[1:-1] & JOINER) > 0) & word[:-2] & word[2:]
        word[1:-1] |= inner
    token = word if alone else (kinds & SPACE) == 0
    start = token.copy()
    same = codes[1:] == codes[:-1]  # a character's repeats go with it
    start[1:] &= ~(same | (word[1:] & word[:-1]))
    begins = np.flatnonzero(start)
    cuts = _starts(np.fromiter(map(len, texts), np.int64, len(texts)) + 1)
    return Words(
        chars=codes[token],
        ends=np.append(np.flatnonzero(start[token]), np.count_nonzero(token)),
        firsts=np.searchsorted(begins, cuts),
    )


def _starts(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def chunks(texts: Sequence[str], limit: int = CHUNK_CHARACTERS) -> Iterator[tuple[int, int]]:
    """Ranges of texts with about `limit` characters each, so that arrays stay in the cache."""
    first, total = 0, 0
    for i, text in enumerate(texts):
        if i > first and (total + len(text) > limit or i - first >= TEXTS_AT_ONCE):
            yield first, i
            first, total = i, 0
        total += len(text)
    if first < len(texts):
        yield first, len(texts)


@functools.lru_cache(maxsize=1)
def characters() -> npt.NDArray[np.uint8]:
    """What each code point is, as bits; a quarter of a second to make, once a process."""
    table = np.zeros(0x110000, np.uint8)
    for code in range(0x110000):
        char = chr(code)
        if char.isalnum():
            table[code] = WORD | ALPHA if char.isalpha() else WORD
        elif char.isspace():
            table[code] = SPACE
        elif char == "_" or unicodedata.category(char)[0] == "M":
            table[code] = WORD
    for char in _JOINERS:
        table[ord(char)] |= JOINER
    for code in marks():
        table[code] |= MARK
    table.flags.writeable = False
    return table


def marks() -> set[int]:
    """Code points that count as punctuation."""
    plain = {c for c in range(33, 127) if not chr(c).isalnum()}
    controls = {*range(32), *range(127, 160)} - {9, 10}  # a tab and a new line are not among them
    return plain | controls | {ord(c) for c in (*_MORE_MARKS, *sentence_ends())}


@functools.lru_cache(maxsize=1)
def sentence_ends() -> tuple[str, ...]:
    """Characters that end a sentence in some script."""
    text = (resources.files(__package__) / "_sentence_ends.txt").read_text(encoding="utf-8")
    found: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            first, _, last = line.partition("-")
            found.extend(map(chr, range(int(first, 16), int(last or first, 16) + 1)))
    return tuple(found)


@functools.lru_cache(maxsize=1)
def spacy_english() -> Any:
    """spaCy's blank English pipeline with its rule-based sentence cutter; needs no model file.

    Raises:
        MissingExtraError: spaCy is not installed.
    """
    try:
        import spacy
    except ImportError as error:
        raise MissingExtraError("spacy", "text") from error
    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    return pipeline


def spacy_words(texts: Sequence[str]) -> list[list[str]]:
    """The words of spaCy's English rules, stripped, the empty ones left out."""
    with spacy_english().memory_zone():  # else each new word stays in memory for good
        cut = spacy_english().tokenizer
        return [[w for t in _parsed(cut, text) if (w := t.text.strip())] for text in texts]


def spacy_sentences(text: str) -> int:
    """How many sentences spaCy's sentencizer cuts a text into."""
    with spacy_english().memory_zone():
        parsed = _parsed(spacy_english(), text)
        return sum(1 for sentence in parsed.sents if sentence.text.strip())


def _parsed(parser: Callable[[str], Any], text: str) -> Any:
    spacy_english().max_length = max(len(text) + 10, spacy_english().max_length)
    try:
        return parser(text)
    except Exception:
        if "IS_ALPHA" not in text:  # spaCy's own attribute names, as text, break its tokenizer
            raise
        return parser(text.replace("IS_ALPHA", ""))
