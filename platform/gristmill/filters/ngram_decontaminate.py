"""Drop documents that share text with an evaluation set."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.filters import _evaluation_ngrams
from gristmill.filters._documents import TEXT, judge_texts
from gristmill.filters._evaluation_ngrams import EvaluationNgrams, WordWindows, normalised
from gristmill.filters._reference_set import settled_uri
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class NgramDecontaminate(Filter):
    """Drop documents that share n-grams with evaluation items.

    As for GPT-3 (Brown et al. 2020, arXiv:2005.14165, appendix C): 13 words, in lower case and
    without punctuation. Words are runs of letters, digits and underscores, so that marks and
    line breaks hide no match. An item of fewer than `ngram` words is looked for whole; one of fewer
    than `shortest` (GPT-3's least n) is not, since it would match everywhere. Unlike GPT-3 we drop
    the document rather than cut 200 characters around the match out of it.

    Two hashes of 64 bits must agree, so a false match is not to be expected on any pool.
    """

    evaluation: str
    """The evaluation set: a file or folder (any fsspec URI) of .jsonl(.gz|.zst), .parquet or .txt
    files; a .txt file is one item. Item names in the report are from `id` or `uid` if there."""
    evaluation_field: str = "text"
    """Field or column that holds an item's text."""
    ngram: int = 13
    """Words that must agree in a row."""
    min_ngrams: int = 1
    """Drop from so many shared n-grams on; places in the document are counted. A short item that is
    looked for whole drops it at once."""
    shortest: int = 8
    """Items with fewer words are not looked for."""

    def __post_init__(self) -> None:
        if isinstance(self.evaluation, str):
            object.__setattr__(self, "evaluation", settled_uri("evaluation", self.evaluation))
            if not self.evaluation:
                raise BadInputError("give ngram_decontaminate --evaluation a file or folder")
        if not 1 <= self.shortest <= self.ngram:
            raise BadInputError(
                f"shortest must lie in 1 to ngram ({self.ngram}), not {self.shortest}"
            )
        if self.min_ngrams < 1:
            raise BadInputError(f"min_ngrams must be at least 1, not {self.min_ngrams}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The document."""
        return (TEXT,)

    @property
    def reasons(self) -> tuple[str, ...]:
        """A null text is no document."""
        return ("text_missing", "evaluation_text")

    def inputs(self) -> dict[str, dict[str, Any]]:
        """The evaluation set."""
        return {"evaluation": _evaluation_ngrams.identity(self.evaluation)}

    def setup(self) -> None:
        """Read the evaluation set anew: it may have changed since this process last did."""
        _evaluation_ngrams.load.cache_clear()
        self._evaluation()

    def judge(self, batch: "pa.Table") -> Verdict:
        """Hash all n-grams and look them up."""
        return judge_texts(batch, self._judge)

    def notes(self, batch: "pa.Table") -> list[str] | None:
        """For each row the item it shares text with, and the first words shared."""
        return [self._note(text) if text else "" for text in batch[TEXT].to_pylist()]

    def _evaluation(self) -> EvaluationNgrams:
        return _evaluation_ngrams.load(
            self.evaluation, self.evaluation_field, self.ngram, self.shortest
        )

    def _judge(self, texts: list[str]) -> Verdict:
        windows = WordWindows(normalised(texts))
        found = np.zeros(len(texts), np.int64)
        for size, table in self._evaluation().tables.items():
            first, _ = table.find(windows, size)
            shared = np.bincount(windows.text[first], minlength=len(texts))
            found += shared * self._weight(size)
        return np.where(found >= self.min_ngrams, 2, 0).astype(np.int8)

    def _weight(self, size: int) -> int:
        return 1 if size == self.ngram else self.min_ngrams

    def _note(self, text: str) -> str:
        words = normalised([text])
        windows, evaluation = WordWindows(words), self._evaluation()
        hits: list[tuple[int, int, int]] = []
        for size, table in evaluation.tables.items():
            first, items = table.find(windows, size)
            hits += [(int(f), size, int(i)) for f, i in zip(first[:1], items[:1], strict=True)]
        if not hits:
            return ""
        start, size, item = min(hits)
        shared = " ".join(words.of(0)[start : start + size])
        return f"shares {shared!r} with {evaluation.names[item]}"
