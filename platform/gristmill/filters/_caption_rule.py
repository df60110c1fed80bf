"""The caption rule of DataComp's image-based baseline."""

from typing import TYPE_CHECKING

import numpy as np

from gristmill.filters import _language
from gristmill.filters.base import Verdict

if TYPE_CHECKING:
    import pyarrow as pa

REASONS = ("caption_missing", "few_tokens", "few_characters", "language")
"""In the order they are checked."""
# fastText's Dictionary::readWord (src/dictionary.cc) splits at these seven bytes alone, and gives a
# newline as a token of its own, </s>. Its wheel for prediction lacks tokenize(), so it is here.
TOKEN = r"[^ \n\r\t\x0b\x0c\x00]+|\n"


def judge_captions(
    texts: "pa.ChunkedArray", *, tokens_above: int = 1, characters_above: int = 5, model: str = ""
) -> Verdict:
    """0 for an English caption of enough tokens and characters, i for `REASONS[i - 1]`.

    DataComp's caption filter for the image-based baseline (arXiv:2304.14108, appendix on baselines)
    counts `fasttext.tokenize(text)`, not words. The language model sees only what the counts keep.
    A null caption, at which the reference stops, is a reason to drop.
    """
    import pyarrow.compute as pc

    verdict = np.zeros(len(texts), np.int8)
    tokens = pc.fill_null(pc.count_substring_regex(texts, TOKEN), 0).to_numpy()
    characters = pc.fill_null(pc.utf8_length(texts), 0).to_numpy()
    verdict[characters <= characters_above] = 3
    verdict[tokens <= tokens_above] = 2
    verdict[texts.is_null().to_numpy()] = 1
    left = np.flatnonzero(verdict == 0)
    found = _language.languages(texts.take(left).to_pylist(), model)
    verdict[left[np.array(found, dtype=object) != "en"]] = 4
    return verdict
