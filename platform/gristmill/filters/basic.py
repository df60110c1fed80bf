"""DataComp's basic filter: English, a real caption, a real picture."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.core.errors import BadInputError
from gristmill.filters import _language
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

TEXT, WIDTH, HEIGHT = "text", "original_width", "original_height"


@dataclass(frozen=True, kw_only=True)
class Basic(Filter):
    """Basic filtering (DataComp, Gadre et al. 2023, arXiv:2304.14108, section 3 and appendix).

    Keeps a row when its caption's top fastText language is `language`, it has more than
    `words_above` words (split at white space) and more than `characters_above` characters, the
    smaller side has at least `min_side` pixels and the aspect ratio is at most `max_aspect_ratio`.
    The cheap rules run first, so the language model sees only rows they keep; what is kept does
    not depend on that order. The reference fails on a null caption; here it is a reason to drop.
    """

    language: str = "en"
    """ISO code that the caption's top label must be."""
    words_above: int = 2
    """Keep captions with more words than this."""
    characters_above: int = 5
    """Keep captions with more characters than this."""
    min_side: int = 200
    """Least pixels of the smaller side."""
    max_aspect_ratio: float = 3.0
    """Largest ratio of the longer side to the smaller."""
    language_model: str = ""
    """Another fastText file, such as lid.176.bin. Empty: the bundled lid.176.ftz."""

    def __post_init__(self) -> None:
        if self.max_aspect_ratio < 1:
            raise BadInputError(f"max_aspect_ratio must be at least 1, not {self.max_aspect_ratio}")

    @property
    def columns(self) -> tuple[str, ...]:
        """Caption and picture size."""
        return (TEXT, WIDTH, HEIGHT)

    @property
    def reasons(self) -> tuple[str, ...]:
        """In the order they are checked."""
        return (
            "size_unknown",
            "image_too_small",
            "aspect_ratio",
            "caption_missing",
            "few_words",
            "few_characters",
            "language",
        )

    def inputs(self) -> dict[str, dict[str, Any]]:
        """The language model."""
        return {"language_model": _language.identity(self.language_model)}

    def setup(self) -> None:
        """Load the language model."""
        _language.require(self.language, self.language_model)

    def judge(self, batch: "pa.Table") -> Verdict:
        """Sizes by whole columns, then captions of what is left."""
        verdict = self._judge_size(batch)
        left = np.flatnonzero(verdict == 0)
        asked: list[str] = []
        reasons = []
        for text in _language.captions(batch[TEXT], left):
            reasons.append(reason := self._judge_caption(text))
            if reason == 0 and text is not None:
                asked.append(text)
        verdict[left] = reasons
        left = left[verdict[left] == 0]
        right = _language.is_language(asked, self.language, self.language_model)
        verdict[left[~right]] = 7
        return verdict

    def _judge_size(self, batch: "pa.Table") -> Verdict:
        width = _floats(batch[WIDTH])
        height = _floats(batch[HEIGHT])
        small, large = np.minimum(width, height), np.maximum(width, height)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = large / small
        verdict = np.zeros(len(width), np.int8)
        verdict[~(ratio <= self.max_aspect_ratio)] = 3
        verdict[small < self.min_side] = 2
        verdict[np.isnan(width) | np.isnan(height)] = 1
        return verdict

    def _judge_caption(self, text: str | None) -> int:
        if text is None:
            return 4
        # It cuts off no more words than it takes to know.
        if len(text.split(None, self.words_above)) <= self.words_above:
            return 5
        return 6 if len(text) <= self.characters_above else 0


def _floats(column: "pa.ChunkedArray") -> np.ndarray:
    """A number column as float64, null as NaN."""
    return column.cast("float64").to_numpy()
