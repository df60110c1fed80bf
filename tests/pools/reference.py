"""DataComp's rules written down row by row, as plainly as can be. The measure of our filters."""

import math

import fasttext
import numpy as np

from gristmill.filters._language import model_path


class Language:
    def __init__(self):
        self.model = fasttext.load_model(model_path())

    def of(self, text):
        return self.model.predict(text.replace("\n", " "))[0][0].split("__label__")[1]


def basic(row, language):
    text = row["text"]
    if text is None:  # the reference stops here with an error; we call it no caption
        return False
    small = min(row["original_width"], row["original_height"])
    large = max(row["original_width"], row["original_height"])
    return (
        len(text.split()) > 2
        and len(text) > 5
        and small >= 200
        and large / small <= 3
        and language.of(text) == "en"
    )


def threshold(scores, fraction):
    scores = [math.nan if s is None else s for s in scores]
    falling = -np.sort(-np.array(scores))  # NaN stands last
    return falling[int(len(scores) * fraction)]


def subset_bytes(uids):
    import io

    array = np.array([(int(u[:16], 16), int(u[16:], 16)) for u in uids], np.dtype("u8,u8"))
    array.sort()
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
