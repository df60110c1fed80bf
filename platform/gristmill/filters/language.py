"""Documents in given languages, by fastText's score."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.filters import _language
from gristmill.filters._documents import TEXT, judge_texts
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Language(Filter):
    """Keep documents whose top language is among some, surely enough.

    FineWeb keeps English at 0.65 (Penedo et al. 2024, arXiv:2406.17557, section 3.3), by fastText's
    lid.176 over the whole text with new lines read as spaces (Joulin et al. 2017,
    arXiv:1607.01759). Only the top label counts: where two of `languages` share a text, neither is
    helped by the other.
    """

    languages: tuple[str, ...] = ("en",)
    """ISO codes of the languages to keep."""
    min_score: float = 0.65
    """Least score of the top label, 0 to 1."""
    language_model: str = ""
    """Another fastText file, such as lid.176.bin. Empty: the bundled lid.176.ftz."""

    def __post_init__(self) -> None:
        if not self.languages or isinstance(self.languages, str):
            raise BadInputError(
                f"languages must list codes, such as ('en', 'de'), not {self.languages!r}"
            )
        if not 0 <= self.min_score <= 1:
            raise BadInputError(f"min_score must lie in 0 to 1, not {self.min_score}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The document."""
        return (TEXT,)

    @property
    def reasons(self) -> tuple[str, ...]:
        """A blank text has a language too, of a low score; without any token there is none."""
        return ("text_missing", "no_language", "other_language", "language_score_low")

    def inputs(self) -> dict[str, dict[str, Any]]:
        """The language model."""
        return {"language_model": _language.identity(self.language_model)}

    def setup(self) -> None:
        """Load the model.

        Raises:
            BadInputError: It does not know one of the languages.
        """
        for language in self.languages:
            _language.require(language, self.language_model)

    def judge(self, batch: "pa.Table") -> Verdict:
        """One call a document."""
        return judge_texts(batch, self._judge)

    def _judge(self, texts: list[str]) -> Verdict:
        predict = _language.load(self.language_model).predictor.predict
        wanted = {_language.LABEL + language for language in self.languages}
        verdict = np.zeros(len(texts), np.int8)
        for i, text in enumerate(texts):
            found = predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict")
            if not found:
                verdict[i] = 2
            elif found[0][1] not in wanted:
                verdict[i] = 3
            elif found[0][0] < self.min_score:
                verdict[i] = 4
        return verdict
