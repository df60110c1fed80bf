"""C4's rules for documents."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gristmill.filters import _words
from gristmill.filters._documents import TEXT, judge_texts
from gristmill.filters._words import WordKind
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
LINE_ENDS = (".", "?", "!", '"', "'")
SENTENCE_BREAK = re.compile(r"[.?!…]['\"’”)\]]*\s+(?![a-z])")


@dataclass(frozen=True, kw_only=True)
class C4Quality(Filter):
    """C4's cleaning as a verdict (Raffel et al. 2020, arXiv:1910.10683, section 2.2).

    Of a page C4 keeps the lines that end in . ? ! or a quotation mark (not in ...), have three
    words and no word over 1,000 characters, and speak neither of JavaScript nor of cookies and
    policies. It drops the page when what is left has under five sentences, or says lorem ipsum or
    {. Here the document is kept or dropped by that rule, and kept whole: a filter gives a verdict
    and rewrites nothing, so the lines that C4 would remove are still in it. C4's list of bad words
    and its removal of spans that three documents share are not part of this.

    Words are what white space parts. Sentences: a mark . ? ! … with closing quotes, then white
    space, then anything but a small letter begins a new one. As in datatrove, lorem ipsum and {
    count only in lines that would be kept so far.
    """

    min_sentences: int = 5
    """Least sentences in the lines that C4 keeps."""
    min_line_words: int = 3
    """Least words of a line."""
    max_word_length: int = 1000
    """Lines with a longer word are left out, in characters."""
    policy_phrases: tuple[str, ...] = (
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    )
    """Lines with one of these, in lower case, are left out."""
    sentences: WordKind = "plain"
    """Who counts sentences: plain is ours, spacy is datatrove's choice, much slower."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The document."""
        return (TEXT,)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Whichever of the page's lines shows first, then the sentences."""
        return ("text_missing", "lorem_ipsum", "curly_bracket", "few_sentences")

    def setup(self) -> None:
        """With spacy load its rules."""
        if self.sentences == "spacy":
            _words.spacy_english()

    def judge(self, batch: "pa.Table") -> Verdict:
        """Text by text, line by line."""
        return judge_texts(batch, lambda texts: np.array(list(map(self._judge, texts)), np.int8))

    def _judge(self, text: str) -> int:
        found = 0
        for line in text.splitlines():
            kept = self._kept(line.strip())
            if not kept:
                continue
            lower = kept.lower()
            if "lorem ipsum" in lower:
                return 2
            if "javascript" in lower:
                continue
            if "{" in kept:
                return 3
            if not any(phrase in lower for phrase in self.policy_phrases):
                found += self._sentences(kept)
        return 4 if found < self.min_sentences else 0

    def _kept(self, line: str) -> str:
        """The line without citations, or nothing when its form rules it out."""
        plain = CITATION.sub("", line) if "[" in line else line
        if not plain.endswith(LINE_ENDS) or plain.endswith("..."):
            return ""
        words = line.split()  # before citations go, as the reference counts
        long = len(line) > self.max_word_length and max(map(len, words)) > self.max_word_length
        return "" if long or len(words) < self.min_line_words else plain

    def _sentences(self, line: str) -> int:
        if self.sentences == "spacy":
            return _words.spacy_sentences(line)
        return plain_sentences(line)


def plain_sentences(line: str) -> int:
    """Sentences of a line that ends with one."""
    return 1 + len(SENTENCE_BREAK.findall(line))
