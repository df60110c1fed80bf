"""Language id below fastText's Python layer against the public call, and files that are no model."""

import dataclasses
import random
import struct

import fasttext
import numpy as np
import pyarrow as pa
import pytest
from made_up import CAPTIONS, ODD

from gristmill.core.errors import BadInputError
from gristmill.filters import _fasttext_file, _language


@pytest.fixture(scope="module")
def public():
    model = fasttext.load_model(_language.model_path())

    def top(text):
        labels = model.predict(text.replace("\n", " "))[0]
        return labels[0].split("__label__")[1] if labels else ""

    return top


def some_texts(count, seed=0):
    rng = random.Random(seed)
    captions = [text for group in CAPTIONS.values() for text in group] + ODD
    letters = "abc déßñ жщ 公園 ع अ 😀 \t\r\n\x00\x0b\x1c\u2028\u3000 .,!0123"
    for _ in range(count):
        kind = rng.random()
        if kind < 0.4:
            yield rng.choice(captions) + f" {rng.randrange(999)}"
        elif kind < 0.7:
            words = " ".join(rng.choice(captions) for _ in range(9)).split()
            yield rng.choice((" ", "\n", "  ")).join(rng.choices(words, k=rng.randint(1, 20)))
        else:
            yield "".join(rng.choices(letters, k=rng.randint(0, 30)))


def test_labels_are_those_of_the_public_call(public):
    texts = [*some_texts(_language.LINES_A_CALL * 3 + 7), "", "\n", " ", "\x00", "word " * 5000]
    expected = [public(text) for text in texts]
    assert len(set(expected)) > 20
    assert _language.languages(texts) == expected
    for language in ("en", "fr"):
        right = _language.is_language(texts, language)
        assert right.dtype == bool
        assert right.tolist() == [found == language for found in expected]


def test_no_texts():
    assert _language.languages([]) == []
    assert _language.is_language([], "en").shape == (0,)


def test_the_files_labels_are_read_without_fasttext():
    labels = _fasttext_file.labels(_language.model_path())
    assert len(labels) == 176 and "__label__en" in labels


def test_an_unknown_language_is_refused():
    with pytest.raises(BadInputError, match="'english'; its 176 labels"):
        _language.require("english")


@pytest.mark.parametrize("share", [0, 1e-5, 4e-5, 6e-5, 1e-4, 0.1, 0.5, 0.9, 0.9999])
def test_a_model_that_was_cut_short_is_refused(tmp_path, share):
    """fastText itself dies of some of these, and quietly reads others."""
    with open(_language.model_path(), "rb") as file:
        data = file.read()
    path = tmp_path / "cut.ftz"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadInputError, match="not a"):
        _language.load(str(path))
    with pytest.raises(BadInputError, match="not a"):
        _language.identity(str(path))


def dense_model(kind, *, missing=0):
    """A tiny model that is not quantized, as lid.176.bin: two labels, one word, four dimensions."""
    data = struct.pack("<ii12id", 793712314, 12, 4, 5, 5, 1, 5, 1, 3, kind, 0, 0, 0, 100, 1e-4)
    data += struct.pack("<iiiqq", 3, 1, 2, 10, -1)
    for word, label in ((b"hello", 0), (b"__label__en", 1), (b"__label__fr", 1)):
        data += word + b"\0" + struct.pack("<qb", 5, label)
    for rows in (1, 2):
        numbers = np.arange(rows * 4, dtype="<f4").tobytes()
        data += b"\0" + struct.pack("<qq", rows, 4) + numbers
    return data[: len(data) - missing]


def test_models_of_full_precision(tmp_path):
    path = tmp_path / "own.bin"
    path.write_bytes(dense_model(3))
    assert _fasttext_file.labels(str(path)) == {"__label__en", "__label__fr"}
    assert _language.languages(["hello", "unknown"], str(path))[0] in ("en", "fr")
    path.write_bytes(dense_model(3, missing=1))
    with pytest.raises(BadInputError, match="not a whole fastText model"):
        _fasttext_file.labels(str(path))
    path.write_bytes(dense_model(1))
    with pytest.raises(BadInputError, match="word vectors"):
        _fasttext_file.labels(str(path))


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 100, bytes(1000), b"PAR1" * 100])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(BadInputError, match="is not a fastText model"):
        _language.load(str(path))


def test_no_file():
    with pytest.raises(BadInputError, match="no fastText model at nowhere.bin"):
        _language.load("nowhere.bin")


def test_a_file_is_hashed_once(tmp_path, monkeypatch):
    path = tmp_path / "own.bin"
    path.write_bytes(dense_model(3))
    calls = []
    monkeypatch.setattr(_language, "sha256", lambda uri: calls.append(uri) or "00")
    for _ in range(3):
        assert _language.identity(str(path)) == {"file": "own.bin", "sha256": "00"}
    assert len(calls) == 1
    with open(_language.model_path(), "rb") as file:
        path.write_bytes(file.read())
    _language.identity(str(path))
    assert len(calls) == 2


def column_of(texts):
    """Strings from bytes, valid or not."""
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))]
    return pa.chunked_array([pa.Array.from_buffers(pa.string(), len(texts), buffers)])


def test_only_the_rows_asked_for_must_be_utf8():
    column = column_of([b"ok", b"\xff\xfe", b"fine"])
    assert _language.captions(column, np.array([0, 2])) == ["ok", "fine"]
    with pytest.raises(UnicodeDecodeError):
        _language.captions(column, np.array([0, 1]))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary("int32", "string")])
def test_kinds_of_string_column(kind):
    column = pa.chunked_array([pa.array(["a", None]).cast(kind), pa.array(["b"]).cast(kind)])
    assert _language.captions(column, np.arange(3)) == ["a", None, "b"]
    assert _language.captions(column, np.array([1, 2])) == [None, "b"]


def test_a_column_that_holds_no_text_is_refused():
    with pytest.raises(BadInputError, match="must be strings, not int64"):
        _language.captions(pa.chunked_array([[1, 2]]), np.arange(2))
    with pytest.raises(BadInputError, match="must be strings, not list"):
        _language.captions(pa.chunked_array([[["a"]]]), np.arange(1))
    nulls = pa.chunked_array([pa.nulls(2)])
    assert _language.captions(nulls, np.arange(2)) == [None, None]


def test_filters_in_a_row_ask_about_each_caption_once(monkeypatch):
    from gristmill.filters.basic import Basic
    from gristmill.filters.text_based import TextBased

    texts = ["a photo of a dog in the park", "zwei Hunde im Park", "a red bicycle by a wall"] * 50
    size = [400] * len(texts)
    table = pa.table({"text": texts, "original_width": size, "original_height": size})
    model = _language.load()
    asked = []

    class Counting:
        def multilinePredict(self, lines, *rest):
            asked.extend(lines)
            return model.predictor.multilinePredict(lines, *rest)

    counting = dataclasses.replace(model, predictor=Counting(), remembered={})
    monkeypatch.setattr(_language, "load", lambda name="": counting)
    both = Basic() & TextBased() & Basic(words_above=3)
    verdict = both.judge(table)
    assert len(asked) == len(set(asked)) == 3
    monkeypatch.setattr(_language, "MOST_REMEMBERED", 2)
    assert np.array_equal(both.judge(table), verdict)
