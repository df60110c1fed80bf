"""DataComp's reproduction of LAION-2B's filter: English captions that agree with their image."""

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError
from gristmill.filters import _language
from gristmill.filters.base import Filter, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

TEXT, SCORE = "text", "clip_b32_similarity_score"
MOST_BYTES = 1000
"""Of a caption that gcld3 looks at, as in DataComp."""


@dataclass(frozen=True, kw_only=True)
class Laion2b(Filter):
    """LAION-2B filtering as DataComp has it (Gadre et al. 2023, arXiv:2304.14108, section 3).

    Keeps a row when gcld3 (0 to 1000 bytes, newlines read as spaces) calls its caption `language`
    and its ViT-B/32 CLIP score is at least `threshold`; LAION-5B (Schuhmann et al. 2022,
    arXiv:2210.08402) chose the two rules. The score comes first, so the language is asked only for
    rows that have enough; what is kept does not depend on that order. The reference fails on a null
    caption; here it is a reason to drop.
    """

    language: str = "en"
    """ISO code that the caption's language must be."""
    threshold: float = 0.28
    """Least ViT-B/32 CLIP score to keep."""
    detector: Literal["gcld3", "fasttext"] = "gcld3"
    """What tells the language. gcld3 is DataComp's. fasttext, the lid.176 of the other baselines,
    is our variant for where gcld3 cannot be installed; it keeps other rows."""
    language_model: str = ""
    """Another fastText file for the detector fasttext. Empty: the bundled lid.176.ftz."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise BadInputError(f"threshold must be a number, not {self.threshold}")
        if self.language_model and self.detector != "fasttext":
            raise BadInputError(
                f"language_model {self.language_model} goes with detector=fasttext only"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Score and caption."""
        return (SCORE, TEXT)

    @property
    def reasons(self) -> tuple[str, ...]:
        """In the order they are checked."""
        return ("clip_score_missing", "clip_score_low", "caption_missing", "language")

    def inputs(self) -> dict[str, dict[str, Any]]:
        """What tells the language: the fastText file, or gcld3's version (its model is inside)."""
        if self.detector == "fasttext":
            return {"language_model": _language.identity(self.language_model)}
        from importlib.metadata import version

        _gcld3()
        return {"language_model": {"package": "gcld3", "version": version("gcld3")}}

    def setup(self) -> None:
        """Load what tells the language."""
        if self.detector == "fasttext":
            _language.require(self.language, self.language_model)
        else:
            _gcld3()

    def judge(self, batch: "pa.Table") -> Verdict:
        """Compare scores in double precision, as the reference does, then ask for languages."""
        score = batch[SCORE].cast("float64").to_numpy()
        verdict = np.where(score >= self.threshold, 0, 2).astype(np.int8)
        verdict[np.isnan(score)] = 1
        left = np.flatnonzero(verdict == 0)
        texts = _language.captions(batch[TEXT], left)
        verdict[left[[text is None for text in texts]]] = 3
        left = left[verdict[left] == 0]
        asked = [text for text in texts if text is not None]
        verdict[left[~self._is_language(asked)]] = 4
        return verdict

    def _is_language(self, texts: "Sequence[str]") -> npt.NDArray[np.bool_]:
        if self.detector == "fasttext":
            return _language.is_language(texts, self.language, self.language_model)
        find = _gcld3().FindLanguage
        return np.array(
            [find(text.replace("\n", " ")).language == self.language for text in texts], bool
        )


@functools.cache
def _gcld3() -> Any:
    """DataComp's identifier, made once a process.

    Raises:
        BadInputError: gcld3 is not installed.
    """
    try:
        import gcld3
    except ImportError as error:
        raise BadInputError(
            f"laion2b needs gcld3 ({error}): pip install 'gristmill[cld3]', which compiles it and "
            "wants a C++ compiler, protoc and protobuf's headers (Debian: protobuf-compiler, "
            "libprotobuf-dev); or choose the variant detector=fasttext"
        ) from error
    return gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=MOST_BYTES)
