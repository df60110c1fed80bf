import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.filters.caption_quality import CaptionQuality, count_kinds, repeated_share

GOOD = [
    "A photo of a brown dog running through the park",
    "the old harbour at sunset, with fishing boats",
    "коричневая собака бежит по парку",
    "公園を走る茶色の犬の写真",
    "Das alte Fahrrad lehnt an der Mauer (1987)",
    "NASA",
    "IMG of the year: a fox",
    "photo of 3 cats",
    "the stock image of a market in Paris",
    "Dr. Who on the com. tower",
    "नमस्ते दुनिया",
]
BAD = [
    (None, "caption_missing"),
    ("", "caption_missing"),
    (" \n\t", "caption_missing"),
    ("word " * 300, "caption_long"),
    ("IMG_2034.jpg", "file_name"),
    ("IMG_2034", "file_name"),
    ("DSC00231 (2)", "file_name"),
    ("Screen Shot 2014-03-01", "file_name"),
    ("my holiday photo.PNG", "file_name"),
    ("see http://example.invalid/a?b=c for more", "address"),
    ("visit www.example.invalid today", "address"),
    ("example-shop.com", "address"),
    ("Image not available", "boilerplate"),
    ("Red shoes - CLICK TO ENLARGE", "boilerplate"),
    ("*** --- ### a", "few_letters"),
    ("12 34 abcdefg hijk 56", "many_digits"),
    ("BUY CHEAP SHOES ONLINE", "all_capitals"),
    ("ДЕШЁВЫЕ ТУФЛИ ОНЛАЙН", "all_capitals"),
    ("shoes shoes Shoes red shoes shoes", "repeated_words"),
]


def reasons_of(chosen, texts):
    verdict = chosen.judge(pa.table({"text": pa.array(texts, pa.string())}))
    return ["" if v == 0 else chosen.reasons[v - 1] for v in verdict]


@pytest.mark.parametrize("text", GOOD)
def test_captions_of_many_scripts_stay(text):
    assert reasons_of(CaptionQuality(), [text]) == [""]


@pytest.mark.parametrize(("text", "reason"), BAD)
def test_noise_goes_with_its_reason(text, reason):
    assert reasons_of(CaptionQuality(), [text]) == [reason]


def test_every_rule_has_a_value_that_turns_it_off():
    off = CaptionQuality(
        drop_file_names=False,
        drop_addresses=False,
        boilerplate=(),
        max_characters=0,
        min_letters=0.0,
        max_digits=1.0,
        max_capitals=1.0,
        max_repeated_words=1.0,
    )
    texts = [t for t, reason in BAD if reason != "caption_missing"]
    assert reasons_of(off, texts) == [""] * len(texts)


def test_boilerplate_is_taken_literally():
    chosen = CaptionQuality(boilerplate=("a.b (c)", "été"))
    assert reasons_of(chosen, ["see A.B (C) now", "see aXb c", "un ÉTÉ bleu"]) == [
        "boilerplate",
        "",
        "boilerplate",
    ]


def plain_counts(text):
    kind = unicodedata.category
    return (
        len(text),
        sum(kind(c)[0] in "LM" for c in text),
        sum(kind(c) == "Nd" for c in text),
        sum(kind(c) in ("Lu", "Lt") for c in text),
        sum(kind(c) == "Ll" for c in text),
        sum(c.isspace() for c in text),
    )


texts = st.lists(st.text(max_size=30), max_size=12)


@given(texts)
def test_characters_are_counted_as_unicode_says(listed):
    counts = count_kinds(pa.chunked_array([pa.array(listed, pa.large_string())]))
    fields = (
        counts.total, counts.letters, counts.digits, counts.upper, counts.lower, counts.spaces,
    )  # fmt: skip
    assert list(zip(*(f.tolist() for f in fields), strict=True)) == [
        plain_counts(t) for t in listed
    ]


@given(st.lists(st.lists(st.sampled_from(["a", "A", "b", "é", "日"]), max_size=8), max_size=12))
def test_repeated_words_are_counted_within_each_text(lists):
    joined = [" ".join(words) for words in lists]
    found = repeated_share(pa.chunked_array([pa.array(joined, pa.large_string())]))
    for words, share in zip(lists, found, strict=True):
        if words:
            assert share == pytest.approx(1 - len({w.lower() for w in words}) / len(words))


@given(texts)
def test_a_batch_is_judged_row_by_row(listed):
    chosen = CaptionQuality()
    alone = [reasons_of(chosen, [text])[0] for text in listed]
    assert reasons_of(chosen, listed) == alone


def test_setup_makes_the_first_batch_as_cheap_as_others():
    chosen = CaptionQuality()
    chosen.setup()
    assert chosen.judge(pa.table({"text": pa.array([], pa.string())})).shape == (0,)
    assert np.array_equal(chosen.judge(pa.table({"text": GOOD})), np.zeros(len(GOOD), np.int8))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"min_letters": 1.5}, "min_letters is a share of 0 to 1, not 1.5"),
        ({"max_digits": -0.1}, "max_digits"),
        ({"max_characters": -1}, "max_characters must be at least 0"),
    ],
)
def test_wrong_settings_are_named(fields, words):
    with pytest.raises(BadInputError, match=words):
        CaptionQuality(**fields)


def test_text_that_is_not_utf8_is_named():
    broken = pa.array([b"a \xff b"]).view(pa.string())
    with pytest.raises(CorruptDataError, match="column text"):
        CaptionQuality().judge(pa.table({"text": broken}))
