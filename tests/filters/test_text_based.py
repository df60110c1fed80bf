"""text_based against its rule written down row by row."""

import random
import shutil

import fasttext
import nltk_wordnet
import numpy as np
import pyarrow as pa
import pytest
from made_up import CAPTIONS

from gristmill.core.errors import BadInputError
from gristmill.filters import _language
from gristmill.filters.text_based import TextBased

KEPT, MISSING, NO_ENTITY, LANGUAGE = range(4)


def judge(texts, chosen=None):
    chosen = chosen or TextBased()
    chosen.setup()
    return chosen.judge(pa.table({"text": pa.array(texts, pa.string())}))


def plain(text, is_entity, model):
    if text is None:
        return MISSING
    if not any(is_entity[word] for word in text.split()):
        return NO_ENTITY
    return KEPT if model.predict(text.replace("\n", " "))[0] == ("__label__en",) else LANGUAGE


def captions(is_entity, rows, seed=0):
    """Captions of words whose answer by NLTK is on record, some within an English sentence."""
    rng = random.Random(seed)
    no_entity = [word for word in is_entity if not is_entity[word]]
    for _ in range(rows):
        words = rng.choices(no_entity, k=rng.randint(0, 4))
        if rng.random() < 0.4:
            words += rng.sample(list(is_entity), 2)
        if rng.random() < 0.7:
            words += rng.choice(nltk_wordnet.FRAMES).split()
        rng.shuffle(words)
        yield (
            None if rng.random() < 0.02 else rng.choice((" ", "\n", "\u3000", " \x1c")).join(words)
        )


def test_keeps_what_the_rule_keeps_row_by_row():
    is_entity = nltk_wordnet.expected()
    texts = list(captions(is_entity, 5000))
    model = fasttext.load_model(_language.model_path())
    expected = [plain(text, is_entity, model) for text in texts]
    assert np.bincount(expected).min() > 50
    assert judge(texts).tolist() == expected


def test_captions_one_can_follow():
    assert judge(
        [
            "a photo of a brown dog running through the park",
            "a photo of a brown DOG\nrunning through the park",
            "how they could become so very different",
            "un chien brun qui court dans le parc avec un saint-bernard",
            CAPTIONS["ru"][0],
            "",
            None,
        ]
    ).tolist() == [KEPT, KEPT, NO_ENTITY, NO_ENTITY, NO_ENTITY, NO_ENTITY, MISSING]
    assert judge(["der hund und ein dog spielen heute zusammen im garten"]).tolist() == [LANGUAGE]


def test_batches_without_rows_or_texts():
    assert judge([]).shape == (0,)
    assert judge([]).dtype == np.int8
    assert judge([None, None]).tolist() == [MISSING, MISSING]


def test_the_run_pins_model_and_word_list(tmp_path):
    own = shutil.copy(_language.model_path(), tmp_path / "own.ftz")
    inputs = TextBased(language_model=str(own)).inputs()
    assert inputs["language_model"]["file"] == "own.ftz"
    assert len(inputs["word_list"]) == 2
    assert inputs["word_list"] == TextBased().inputs()["word_list"]
    assert inputs["language_model"]["sha256"] == TextBased().inputs()["language_model"]["sha256"]


def test_another_language_and_one_that_is_not_there():
    german = "der hund und ein dog spielen heute zusammen im garten"
    assert judge([german], TextBased(language="de")).tolist() == [KEPT]
    with pytest.raises(BadInputError, match="no language 'xx'"):
        TextBased(language="xx").setup()
