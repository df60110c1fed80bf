"""Verdict and reason of the filters for documents equal datatrove's."""

import functools
import unicodedata
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_texts import documents

from gristmill.core.errors import BadInputError
from gristmill.filters import _words
from gristmill.filters._ngrams import NGrams, Windows
from gristmill.filters.c4_quality import C4Quality, plain_sentences
from gristmill.filters.fineweb_quality import FinewebQuality
from gristmill.filters.gopher_quality import GopherQuality
from gristmill.filters.gopher_repetition import GopherRepetition

GOPHER_QUALITY = {
    "gopher_short_doc": "few_words",
    "gopher_long_doc": "many_words",
    "gopher_below_avg_threshold": "short_words",
    "gopher_above_avg_threshold": "long_words",
    "gopher_too_many_hashes": "hashes",
    "gopher_too_many_ellipsis": "ellipses",
    "gopher_too_many_bullets": "bullet_lines",
    "gopher_too_many_end_ellipsis": "ellipsis_lines",
    "gopher_below_alpha_threshold": "few_letters",
    "gopher_enough_stop_words": "few_stop_words",
}
GOPHER_REPETITION = {
    "empty": "text_empty",
    "dup_para_frac": "repeated_paragraphs",
    "dup_para_char_frac": "repeated_paragraph_characters",
    "dup_line_frac": "repeated_lines",
    "dup_line_char_frac": "repeated_line_characters",
    **{f"top_{n}_gram": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"duplicated_{n}_n_grams": f"repeated_{n}_grams" for n in range(5, 11)},
}
C4 = {
    "lorem_ipsum": "lorem_ipsum",
    "curly_bracket": "curly_bracket",
    "too_few_sentences": "few_sentences",
}
FINEWEB = {
    "empty": "text_blank",
    "line_punct_ratio": "punctuated_lines",
    "short_line_ratio": "short_lines",
    "char_dup_ratio": "repeated_line_characters",
    "list_ratio": "new_lines",
}
PAIRS = {
    "GopherQualityFilter": (GopherQuality, "words", GOPHER_QUALITY),
    "GopherRepetitionFilter": (GopherRepetition, "words", GOPHER_REPETITION),
    "C4QualityFilter": (C4Quality, "sentences", C4),
    "FineWebQualityFilter": (FinewebQuality, "words", FINEWEB),
}


def table(texts):
    return pa.table({"text": pa.array(texts, pa.string())})


def judged(chosen, texts):
    chosen.setup()
    codes = chosen.judge(table(texts))
    return ["" if code == 0 else chosen.reasons[code - 1] for code in codes]


@functools.cache
def plain_words(text, language=None):
    """The same words, character by character."""
    return list(_runs(text))


def _runs(text):
    def inside(c):
        return c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M"

    i = 0
    while i < len(text):
        if text[i].isspace():
            i += 1
            continue
        j = i + 1
        if not inside(text[i]):
            while j < len(text) and text[j] == text[i]:
                j += 1
        else:
            while j < len(text) and (
                inside(text[j]) or (text[j] in ".,'’" and j + 1 < len(text) and inside(text[j + 1]))
            ):
                j += 1
        yield text[i:j]
        i = j


def theirs(name, texts, monkeypatch, words):
    """What datatrove says, with its own words or with ours."""
    from datatrove.data import Document
    from datatrove.pipeline import filters

    chosen = getattr(filters, name)()
    module = __import__(type(chosen).__module__, fromlist=["x"])
    if words == "plain" and hasattr(module, "split_into_words"):
        monkeypatch.setattr(module, "split_into_words", plain_words)
    elif words == "plain":
        monkeypatch.setattr(
            module, "split_into_sentences", lambda line, _: [line] * plain_sentences(line)
        )
    reasons = PAIRS[name][2]
    found = []
    for text in texts:
        verdict = chosen.filter(Document(text=text, id="0"))
        found.append(reasons[verdict[1]] if isinstance(verdict, tuple) else "")
    return found


LONG = "internationalization" * 2
RARE = [
    # Lines of two long words: many new lines a word, though no line is short or comes again.
    "\n".join(f"{LONG}{i} {LONG[::-1]}{i}." for i in range(40)),
]
"""What real documents on a machine may not have."""


@pytest.mark.parametrize(("words", "count"), [("plain", 3000), ("spacy", 700)])
@pytest.mark.parametrize("name", PAIRS)
def test_verdict_and_reason_are_datatroves(name, words, count, monkeypatch):
    pytest.importorskip("datatrove")
    pytest.importorskip("spacy")
    kind, field, reasons = PAIRS[name]
    texts = [*documents(count), *RARE]
    mine = judged(kind(**{field: words}), texts)
    reference = theirs(name, texts, monkeypatch, words)
    wrong = [
        (texts[i][:80], a, b)
        for i, (a, b) in enumerate(zip(mine, reference, strict=True))
        if a != b
    ]
    assert not wrong, f"{len(wrong)} differ, such as {wrong[:3]}"
    if words == "plain":
        rare = {"many_words", "ellipsis_lines"}
        assert set(reasons.values()) - set(mine) <= rare | {"repeated_10_grams"}, "untested rules"
        assert "" in mine


def test_plain_words_are_as_their_docstring_says():
    texts = documents(3000)
    words = _words.plain_words(texts)
    for i, text in enumerate(texts):
        assert words.of(i) == plain_words(text), repr(text[:200])
    assert plain_words("don't 3.5, e.g. a-b (x) ...!! ==") == [
        *("don't", "3.5", ",", "e.g", ".", "a", "-", "b", "(", "x", ")", "...", "!!", "==")
    ]


def test_marks_are_datatroves():
    text = pytest.importorskip("datatrove.utils.text")
    assert {ord(c) for c in text.PUNCTUATION_SET} == _words.marks()
    assert set(text.TERMINAL_PUNCTUATION) == set(_words.sentence_ends())


@pytest.mark.parametrize("limit", [1, 50, 5000])
def test_chunks_do_not_matter(limit, monkeypatch):
    texts = documents(250)
    for kind, _, _ in PAIRS.values():
        whole = judged(kind(), texts)
        with monkeypatch.context() as patched:
            small = functools.partial(_words.chunks, limit=limit)
            patched.setattr("gristmill.filters._documents.chunks", small)
            assert judged(kind(), texts) == whole


@pytest.mark.parametrize("kind", [k for k, _, _ in PAIRS.values()])
def test_null_texts_have_a_reason_of_their_own(kind):
    assert judged(kind(), [None, None])[0] == "text_missing"
    assert judged(kind(), ["", None, "x"])[1] == "text_missing"
    assert kind().judge(table([])).shape == (0,)


def test_rules_can_be_turned_off_by_their_thresholds():
    lax = GopherQuality(min_words=0, min_alphabetic=0, min_stop_words=0, min_mean_length=0)
    assert judged(lax, ["", "\n", "x"]) == ["", "", ""]
    assert judged(C4Quality(min_sentences=0), [""]) == [""]
    with pytest.raises(BadInputError, match="leave no document"):
        GopherQuality(min_words=5, max_words=4)
    with pytest.raises(BadInputError, match="line_share must be above 0, not 0"):
        GopherRepetition(line_share=0)
    with pytest.raises(BadInputError, match="top_shares must be 3 numbers above 0"):
        GopherRepetition(top_shares=(0.1, 0.1))


def top_characters(words, n):
    ngrams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    return len(ngrams.most_common(1)[0][0]) * ngrams.most_common(1)[0][1] if ngrams else 0


def repeated_characters(words, n):
    seen, total, i = set(), 0, 0
    while i <= len(words) - n:
        ngram = "".join(words[i : i + n])
        if ngram in seen:
            total += len(ngram)
            i += n
        else:
            seen.add(ngram)
            i += 1
    return total


def test_counts_of_ngrams_and_their_bounds():
    texts = [t for t in documents(1500, seed=3) if t.strip()]
    words = _words.plain_words(texts)
    windows, everyone = Windows(words), np.ones(len(texts), bool)
    some = np.arange(len(texts)) % 3 == 0
    for n in (2, 4, 5, 10):
        cut = [words.of(i) for i in range(len(texts))]
        for spaced, exact, bound, count in [
            (True, top_characters, NGrams.most_in_top, NGrams.in_top),
            (False, repeated_characters, NGrams.most_repeated, NGrams.repeated),
        ]:
            ngrams = windows.ngrams(n, spaced=spaced)
            wanted = np.array([exact(w, n) for w in cut])
            assert (bound(ngrams) >= wanted).all()
            assert np.array_equal(count(ngrams, everyone), wanted)
            assert np.array_equal(count(ngrams, some), wanted * some)


def test_a_text_larger_than_a_chunk():
    rng = np.random.default_rng(0)
    text = " ".join(f"w{i}" for i in rng.integers(0, 500, 200_000))
    words = _words.plain_words([text])
    assert len(text) > 1.5 * _words.CHUNK_CHARACTERS
    ngrams = Windows(words).ngrams(2, spaced=True)
    assert ngrams.in_top(np.ones(1, bool)).tolist() == [top_characters(text.split(), 2)]
    ngrams = Windows(words).ngrams(2, spaced=False)
    assert ngrams.repeated(np.ones(1, bool)).tolist() == [repeated_characters(text.split(), 2)]


@given(st.lists(st.text("ab ", max_size=60), max_size=6), st.integers(2, 6))
def test_counts_of_ngrams_on_texts_of_two_letters(texts, n):
    words = _words.plain_words(texts)
    windows, everyone = Windows(words), np.ones(len(texts), bool)
    for spaced, exact, count in [
        (True, top_characters, NGrams.in_top),
        (False, repeated_characters, NGrams.repeated),
    ]:
        wanted = [exact(text.split(), n) for text in texts]
        assert count(windows.ngrams(n, spaced=spaced), everyone).tolist() == wanted
