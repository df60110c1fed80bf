"""DataComp's text-based filter: English captions that name a thing of ImageNet-21k."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.filters import _language, _wordnet
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    import pyarrow as pa

TEXT = "text"


@dataclass(frozen=True, kw_only=True)
class TextBased(Filter):
    """Text-based filtering (DataComp, Gadre et al. 2023, arXiv:2304.14108, section 3 and appendix).

    Keeps a row when its caption's top fastText language is `language` and the first WordNet 3.0
    synset of any of its words (split at white space, punctuation left on) has an offset in the
    ImageNet-21k list; the first as NLTK 3.8.1 orders them, see `_wordnet.Entities`. Words are
    looked up first, so the language model sees only rows that have one; what is kept does not
    depend on that order. The reference fails on a null caption; here it is a reason to drop.
    """

    language: str = "en"
    """ISO code that the caption's top label must be."""
    language_model: str = ""
    """Another fastText file, such as lid.176.bin. Empty: the bundled lid.176.ftz."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The caption."""
        return (TEXT,)

    @property
    def reasons(self) -> tuple[str, ...]:
        """In the order they are checked."""
        return ("caption_missing", "no_entity", "language")

    def inputs(self) -> dict[str, dict[str, Any]]:
        """The language model and the word list."""
        return {
            "language_model": _language.identity(self.language_model),
            "word_list": _wordnet.identity(),
        }

    def setup(self) -> None:
        """Load the language model and the word list."""
        _language.require(self.language, self.language_model)
        _wordnet.load()

    def judge(self, batch: "pa.Table") -> Verdict:
        """Words first, then the language of captions that name an entity."""
        is_entity = _wordnet.load().__getitem__
        reasons = []
        asked: list[str] = []
        for text in _language.captions(batch[TEXT], np.arange(batch.num_rows)):
            if text is None:
                reasons.append(1)
            elif any(map(is_entity, text.split())):
                reasons.append(0)
                asked.append(text)
            else:
                reasons.append(2)
        verdict = np.array(reasons, np.int8)
        right = _language.is_language(asked, self.language, self.language_model)
        verdict[np.flatnonzero(verdict == 0)[~right]] = 3
        return verdict
