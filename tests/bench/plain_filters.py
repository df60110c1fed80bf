"""DataComp's filters as its own script goes about them: a process a file, pandas, a row at a time."""

import functools
import tempfile

import numpy as np

SCORE = "clip_l14_similarity_score"
UID = np.dtype("u8,u8")


def warm():
    """What every process needs before the clock starts."""
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    _model()


def ready(_):
    return True


@functools.cache
def _model():
    import fasttext

    from gristmill.filters._language import model_path

    return fasttext.load_model(model_path())


@functools.cache
def _wordnet(folder):
    from nltk_wordnet import Measure

    return Measure(folder, tempfile.mkdtemp()).reader


def offsets():
    """The ImageNet-21k list as WordNet offsets, in its order."""
    from make_wordnet_tables import listed_offsets

    return sorted(listed_offsets())


def filtered(processes, rule, files, *more):
    """The subset by a rule."""
    if rule == "clip":
        more = (_cut(files, 0.3),)
    parts = processes.map(RULES[rule], files, *([m] * len(files) for m in more))
    found = np.concatenate(list(parts))
    found.sort()
    return found


def _cut(files, fraction):
    import pandas as pd

    scores = pd.concat([pd.read_parquet(file, columns=[SCORE]) for file in files])[SCORE].to_numpy()
    return -np.sort(-scores)[int(len(scores) * fraction)]


def _uids(column):
    return np.array([(int(u[:16], 16), int(u[16:], 16)) for u in column], UID)


def _clip(file, cut):
    import pandas as pd

    table = pd.read_parquet(file, columns=["uid", SCORE])
    return _uids(table["uid"][table[SCORE] >= cut])


def _english(texts):
    predict = _model().predict
    return texts.apply(lambda text: predict(text.replace("\n", " "))[0][0]) == "__label__en"


def _basic(file):
    import pandas as pd

    table = pd.read_parquet(file, columns=["uid", "text", "original_width", "original_height"])
    words = table["text"].apply(lambda text: len(text.split()))
    characters = table["text"].apply(len)
    small = np.minimum(table["original_width"], table["original_height"])
    large = np.maximum(table["original_width"], table["original_height"])
    keep = _english(table["text"]) & (words > 2) & (characters > 5)
    return _uids(table["uid"][keep & (small >= 200) & (large / small <= 3)])


def _text(file, folder, listed):
    import pandas as pd

    wordnet = _wordnet(folder)

    def entity(text):
        for word in text.split():
            synsets = wordnet.synsets(word)
            if synsets and synsets[0].offset() in listed:
                return True
        return False

    table = pd.read_parquet(file, columns=["uid", "text"])
    table = table[_english(table["text"])]
    return _uids(table["uid"][table["text"].apply(entity)])


RULES = {"clip": _clip, "basic": _basic, "text": _text}
