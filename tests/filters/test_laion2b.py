"""laion2b against its rule written down row by row, with either detector of languages."""

import math
import random
import sys
from types import SimpleNamespace

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from made_up import CAPTIONS, ODD

from gristmill.core.errors import BadInputError
from gristmill.filters import _language, laion2b
from gristmill.filters.laion2b import Laion2b

KEPT, NO_SCORE, LOW, NO_CAPTION, LANGUAGE = range(5)


def made_up(rows, seed=0):
    rng = random.Random(seed)
    texts = [text for group in CAPTIONS.values() for text in group] + ODD + [None]
    scores = [0.28, 0.2799999, 0.2800001, 0.1, 0.4, math.nan, None]
    return pa.table(
        {
            "text": pa.array([rng.choice(texts) for _ in range(rows)]),
            "clip_b32_similarity_score": pa.array([rng.choice(scores) for _ in range(rows)]),
        }
    )


def plain(row, language_of):
    score, text = row["clip_b32_similarity_score"], row["text"]
    if score is None or math.isnan(score):
        return NO_SCORE
    if score < 0.28:
        return LOW
    if text is None:
        return NO_CAPTION
    return KEPT if language_of(text.replace("\n", " ")) == "en" else LANGUAGE


@pytest.fixture
def no_gcld3_yet():
    laion2b._gcld3.cache_clear()
    yield
    laion2b._gcld3.cache_clear()


def test_keeps_what_the_rule_keeps_with_fasttext():
    table = made_up(2000)
    model = fasttext.load_model(_language.model_path())
    expected = [
        plain(row, lambda text: model.predict(text)[0][0].removeprefix("__label__"))
        for row in table.to_pylist()
    ]
    assert np.bincount(expected).min() > 20
    chosen = Laion2b(detector="fasttext")
    chosen.setup()
    assert chosen.judge(table).tolist() == expected
    assert chosen.judge(table.slice(0, 0)).shape == (0,)
    assert chosen.inputs()["language_model"]["file"] == "lid.176.ftz"


def test_keeps_what_the_rule_keeps_with_gcld3(no_gcld3_yet):
    gcld3 = pytest.importorskip("gcld3")
    table = made_up(2000)
    identifier = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)
    expected = [
        plain(row, lambda text: identifier.FindLanguage(text=text).language)
        for row in table.to_pylist()
    ]
    assert np.bincount(expected).min() > 20
    chosen = Laion2b()
    chosen.setup()
    assert chosen.judge(table).tolist() == expected
    assert chosen.inputs()["language_model"]["package"] == "gcld3"


def test_gcld3_is_asked_as_datacomp_asks_and_only_for_rows_with_score(monkeypatch, no_gcld3_yet):
    asked = []

    class Identifier:
        def __init__(self, *, min_num_bytes, max_num_bytes):
            assert (min_num_bytes, max_num_bytes) == (0, 1000)

        def FindLanguage(self, text):
            asked.append(text)
            return SimpleNamespace(language="en" if "dog" in text else "fr")

    fake = SimpleNamespace(NNetLanguageIdentifier=Identifier)
    monkeypatch.setitem(sys.modules, "gcld3", fake)
    table = pa.table(
        {
            "text": ["a dog\nhere", "a dog", None, "un chien"],
            "clip_b32_similarity_score": [0.3, 0.2, 0.3, 0.28],
        }
    )
    assert Laion2b().judge(table).tolist() == [KEPT, LOW, NO_CAPTION, LANGUAGE]
    assert asked == ["a dog here", "un chien"]


def test_without_gcld3_the_error_has_the_remedies(monkeypatch, no_gcld3_yet):
    monkeypatch.setitem(sys.modules, "gcld3", None)
    for call in (Laion2b().setup, Laion2b().inputs):
        with pytest.raises(BadInputError, match=r"gristmill\[cld3\].*detector=fasttext"):
            call()


@pytest.mark.parametrize("fields", [{"threshold": math.nan}, {"language_model": "lid.176.bin"}])
def test_settings_that_cannot_be_right(fields):
    with pytest.raises(BadInputError):
        Laion2b(**fields)
