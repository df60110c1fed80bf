"""Whether a word's first WordNet sense is a class of ImageNet-21k, without WordNet or NLTK.

The two tables beside this file hold every lemma and every irregular form of WordNet 3.0 with a code
a word, three bits a part of speech; tests/filters/make_wordnet_tables.py makes them from Debian's
wordnet-base. What is left to do here is the lookup and the suffix rules.
"""

import functools
import os
from typing import Any

from gristmill.core.io import sha256

TABLES = ("wordnet_words.parquet", "wordnet_phrases.parquet")
"""Entries without and with an underscore; apart, since a committed file stays under 500 kB."""
BITS = 3
LEMMA, LEMMA_LISTED, IRREGULAR, IRREGULAR_LISTED, NOWHERE = 1, 2, 3, 4, 5
"""What a word is in one part of speech. 0: not in it. Listed: its first sense is a class. Nowhere:
an irregular form none of whose bases is a lemma; WordNet then applies no suffix rule."""
LISTED = (LEMMA_LISTED, IRREGULAR_LISTED)
LONGEST = 71
"""Characters of the longest entry."""
MOST_KEPT = 200_000
"""Answers a process remembers; a few tens of megabytes."""
SUFFIXES: tuple[tuple[tuple[str, str], ...], ...] = (
    (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    (
        ("s", ""),
        ("ies", "y"),
        ("es", "e"),
        ("es", ""),
        ("ed", "e"),
        ("ed", ""),
        ("ing", "e"),
        ("ing", ""),
    ),
    (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    (),
)
"""WordNet's detachment rules for nouns, verbs, adjectives and adverbs, in the order they are tried
(Miller 1995, "WordNet: a lexical database for English"; morphy(7WN)), with NLTK's "ves"."""


class Entities(dict[str, bool]):
    """Answers by word, filled as they are asked for: `entities[word]`.

    True when the first synset that NLTK 3.8.1 gives for the word on WordNet 3.0 has an offset in
    the ImageNet-21k list. That is the first sense of its first base form as a noun, else as a verb,
    an adjective, an adverb. As in the reference the number alone is compared: 16 verbs and 43
    adjectives count because their offset happens to be that of a listed noun.

    NLTK 3.8.1 is what DataComp pins. Newer ones apply the suffix rules once, not until a lemma is
    found, and so say nothing on words such as "dogss".
    """

    def __init__(self, codes: dict[str, int]) -> None:
        super().__init__()
        self._codes = codes

    def __missing__(self, word: str) -> bool:
        found = self._look_up(word.lower())
        if len(word) <= LONGEST:  # a long word is rare, and may be a page long
            if len(self) >= MOST_KEPT:
                self.clear()
            self[word] = found
        return found

    def _look_up(self, form: str) -> bool:
        code = self._codes.get(form, 0)
        for part in range(len(SUFFIXES)):
            state = code >> BITS * part & 7 or self._by_suffix(form, part)
            if state in LISTED:
                return True
            if state in (LEMMA, IRREGULAR):
                return False
        return False

    def _by_suffix(self, form: str, part: int) -> int:
        """State of the first lemma that the rules lead to, applied again and again; 0 if none."""
        rules = SUFFIXES[part]
        forms = [form]
        while forms:
            forms = [
                form[: -len(old)] + new
                for form in forms
                for old, new in rules
                if form.endswith(old)
            ]
            for form in forms:
                if len(form) <= LONGEST:
                    state = self._codes.get(form, 0) >> BITS * part & 7
                    if state in (LEMMA, LEMMA_LISTED):
                        return state
        return 0


@functools.cache
def load() -> Entities:
    """The answers of this process; the tables are read once."""
    import pyarrow.parquet as pq

    codes: dict[str, int] = {}
    for name in TABLES:
        table = pq.ParquetFile(_path(name)).read(use_threads=False)
        codes.update(zip(table["word"].to_pylist(), table["code"].to_pylist(), strict=True))
    return Entities(codes)


@functools.cache
def identity() -> dict[str, Any]:
    """File names and hashes of the tables, for a run's inputs."""
    return {name: sha256(_path(name)) for name in TABLES}


def _path(name: str) -> str:
    return os.path.join(os.path.dirname(__file__), name)
