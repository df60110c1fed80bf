"""The word list against NLTK: a kept table of its answers, and NLTK itself where it can be had."""

from pathlib import Path

import make_wordnet_tables as tables
import nltk_wordnet
import pyarrow.parquet as pq
import pytest

from gristmill.filters import _wordnet as w

FOLDER = Path(w.__file__).parent


def codes(**parts):
    """Words of up to four states, by part of speech."""
    return {
        word: sum(state << w.BITS * part for part, state in enumerate(states))
        for word, states in parts.items()
    }


def test_answers_are_those_of_nltk():
    expected = nltk_wordnet.expected()
    assert len(expected) > 3000 and sum(expected.values()) > 400
    found = w.load()
    assert {word: found[word] for word in expected} == expected


def test_the_first_part_of_speech_that_knows_a_word_decides():
    entities = w.Entities(
        codes(noun=[w.LEMMA, w.LEMMA_LISTED], verb=[0, w.LEMMA_LISTED], adverb=[0, 0, 0, w.LEMMA])
    )
    assert not entities["noun"]
    assert entities["verb"] and entities["VERBED"]
    assert not entities["adverb"] and not entities["adverbs"] and not entities["unknown"]


def test_rules_are_applied_until_a_lemma_is_found():
    entities = w.Entities(codes(dog=[w.LEMMA_LISTED], dogs=[0, w.LEMMA]))
    assert entities["dog"] and entities["dogs"] and entities["dogsses"]
    assert not entities["dogmen"]


def test_an_irregular_form_is_no_lemma_and_stops_the_rules():
    entities = w.Entities(
        codes(
            foot=[w.LEMMA_LISTED], feet=[w.IRREGULAR_LISTED], bas=[w.NOWHERE], ba=[w.LEMMA_LISTED]
        )
    )
    assert entities["feet"]
    assert not entities["feet" + "s"], "feet is not a lemma that a rule may lead to"
    assert not entities["bas"], "not ba, since the list of exceptions has it"


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(w, "MOST_KEPT", 10)
    entities = w.Entities({})
    for i in range(25):
        assert not entities[f"word{i}"]
        assert len(entities) <= 10
    entities.clear()
    assert not entities["s" * 5000] and not entities


def test_the_tables_are_whole_small_and_sorted():
    words = []
    for name in w.TABLES:
        assert (FOLDER / name).stat().st_size < 500_000
        table = pq.read_table(FOLDER / name)
        part = table["word"].to_pylist()
        assert part == sorted(set(part))
        words += part
    assert len(set(words)) == len(words) == 152_385
    assert max(map(len, words)) == w.LONGEST
    assert "Princeton" in (FOLDER / "wordnet_LICENSE.txt").read_text()
    assert set(w.identity()) == set(w.TABLES) and all(len(h) == 64 for h in w.identity().values())


@pytest.fixture(scope="module")
def debian(tmp_path_factory):
    pytest.importorskip("timm")
    folder = nltk_wordnet.debian_folder(tmp_path_factory.mktemp("debian"))
    return folder or pytest.skip("Debian's wordnet-base is not to be had here")


@pytest.mark.slow
def test_the_tables_are_what_debian_and_timm_give(debian, tmp_path):
    tables.main(debian, tmp_path)
    for name in w.TABLES:
        assert pq.read_table(tmp_path / name).equals(pq.read_table(FOLDER / name))


@pytest.mark.slow
def test_every_lemma_exception_and_many_surface_forms_as_nltk_has_them(debian, tmp_path):
    pytest.importorskip("nltk")
    measure = nltk_wordnet.Measure(debian, tmp_path)
    words = {*measure.lemmas, *measure.irregular, *nltk_wordnet.ODD}
    assert len(words) > 152_000
    made = set(measure.surface_forms(4000, seed=0)) - {""}
    assert len(made) > 100_000
    words |= made
    if not measure.repeats_rules:
        left_out = {word for word in words if measure.wants_repeats(word) and w.load()[word]}
        assert len(left_out) < 0.02 * len(words)
        words -= left_out
    found = w.load()
    wrong = [word for word in words if found[word] != measure.is_entity(word)]
    assert wrong == []
