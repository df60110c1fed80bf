import gzip
import json
import random
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_texts import documents

from gristmill.core.errors import BadInputError
from gristmill.filters import _evaluation_ngrams
from gristmill.filters.ngram_decontaminate import NgramDecontaminate


def judged(chosen, texts):
    chosen.setup()
    return chosen.judge(pa.table({"text": pa.array(texts, pa.string())})).tolist()


def notes(chosen, texts):
    return chosen.notes(pa.table({"text": pa.array(texts, pa.string())}))


def plain_words(text):
    kept = [
        c if c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M" else " "
        for c in text.lower()
    ]
    return "".join(kept).split()


def windows(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def plainly(texts, items, n=13, least=1, shortest=8):
    """Sets of tuples, a document at a time."""
    whole, parts = set(), set()
    for item in items:
        words = plain_words(item)
        if len(words) >= n:
            parts.update(windows(words, n))
        elif len(words) >= shortest:
            whole.add(tuple(words))
    verdict = []
    for text in texts:
        words = plain_words(text)
        hits = sum(w in parts for w in windows(words, n))
        short = any(w in whole for size in {len(x) for x in whole} for w in windows(words, size))
        verdict.append(2 if hits >= least or short else 0)
    return verdict


def write_items(path, items):
    path.write_text(
        "".join(json.dumps({"text": t, "id": f"q{i}"}) + "\n" for i, t in enumerate(items))
    )
    return str(path)


@pytest.fixture(scope="module")
def items():
    rng = random.Random(5)
    found = []
    for text in documents(400, seed=9):
        words = text.split()
        if len(words) > 60:
            start = rng.randrange(len(words) - 40)
            found.append(" ".join(words[start : start + rng.randrange(3, 40)]))
    return found


def contaminated(items, seed=2):
    rng = random.Random(seed)
    texts = documents(700, seed=4)[40:]
    for i in range(0, len(texts), 3):
        quoted = rng.choice(items)
        disguised = [
            quoted.upper(),
            quoted.replace(" ", "\n\t"),
            "'".join(quoted.split(" ")),
            " ".join(quoted.split()[: rng.randrange(1, 30)]),
        ]
        texts[i] = f"{texts[i][:300]} \u201c{rng.choice(disguised)}\u201d {texts[i][300:600]}"
    return [t for t in texts if t]


@pytest.mark.parametrize(
    ("n", "least", "shortest"), [(13, 1, 8), (13, 5, 13), (8, 2, 3), (1, 40, 1)]
)
def test_as_sets_of_words_say(tmp_path, items, n, least, shortest):
    path = write_items(tmp_path / "e.jsonl", items)
    texts = contaminated(items)
    chosen = NgramDecontaminate(evaluation=path, ngram=n, min_ngrams=least, shortest=shortest)
    wanted = plainly(texts, items, n, least, shortest)
    assert judged(chosen, texts) == wanted
    assert 0.02 < np.mean(np.array(wanted) == 2) < 0.98


@given(st.lists(st.text("ab .", max_size=30), max_size=4), st.text("aB  ", min_size=8, max_size=20))
def test_on_texts_of_two_letters(tmp_path_factory, texts, item):
    if len(plain_words(item)) < 2:
        item += " a b"
    path = write_items(tmp_path_factory.mktemp("e") / "e.jsonl", [item])
    chosen = NgramDecontaminate(evaluation=path, ngram=4, shortest=2)
    assert judged(chosen, texts) == plainly(texts, [item], 4, 1, 2)


def test_notes_show_the_pair(tmp_path):
    item = "Four score and seven years ago our fathers brought forth on this continent a new nation"
    path = write_items(
        tmp_path / "e.jsonl", ["something else entirely that nobody would ever quote", item]
    )
    chosen = NgramDecontaminate(evaluation=path)
    quoting = f"He said: {item.upper()}!"
    assert judged(chosen, [quoting, "nothing", None]) == [2, 0, 1]
    said = notes(chosen, [quoting, "nothing", None])
    assert said == [
        "shares 'four score and seven years ago our fathers brought forth on this continent' with e.jsonl:2 (q1)",
        "",
        "",
    ]


def test_every_kind_of_file_and_its_hash(tmp_path):
    item = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    with gzip.open(folder / "a.jsonl.gz", "wt") as file:
        file.write(json.dumps({"text": item}) + "\n")
    (folder / "sub" / "b.txt").write_text(item.replace("one", "eins"))
    pq.write_table(pa.table({"text": [item.replace("one", "un")], "id": [7]}), folder / "c.parquet")
    (folder / "d.jsonl.zst").write_bytes(
        pa.Codec("zstd").compress(
            json.dumps({"text": item.replace("one", "uno")}).encode(), asbytes=True
        )
    )
    chosen = NgramDecontaminate(evaluation=str(folder))
    texts = [item.replace("one", word) for word in ("one", "eins", "un", "uno", "nothing")]
    assert judged(chosen, [t.rsplit(" ", 1)[0] for t in texts]) == [2, 2, 2, 2, 0]
    assert notes(chosen, texts[2:3])[0].endswith("with c.parquet:1 (7)")
    before = chosen.inputs()
    assert before["evaluation"]["files"] == 4
    (folder / "sub" / "b.txt").write_text("changed")
    assert chosen.inputs() != before


def test_second_hash_is_asked(tmp_path, monkeypatch):
    """With a first hash that is useless, the second alone still finds the truth."""
    monkeypatch.setattr(
        _evaluation_ngrams.WordWindows,
        "hashes",
        lambda self, first, size: np.full(len(first), 5, np.uint64),
    )
    item = "a b c d e f g h"
    path = write_items(tmp_path / "e.jsonl", [item])
    chosen = NgramDecontaminate(evaluation=path, ngram=8)
    assert judged(chosen, [item, "h g f e d c b a"]) == [2, 0]


def test_a_changed_set_is_read_anew(tmp_path):
    item = "one two three four five six seven eight"
    for text in (item, item[::-1]):
        chosen = NgramDecontaminate(evaluation=write_items(tmp_path / "e.jsonl", [text]))
        assert judged(chosen, [item, item[::-1]]) == [2 * (text == item), 2 * (text != item)]


def test_settings_and_sets_that_cannot_be_right(tmp_path, monkeypatch):
    def load(name, text, **fields):
        (tmp_path / name).write_text(text)
        NgramDecontaminate(evaluation=str(tmp_path / name), **fields).setup()

    with pytest.raises(BadInputError, match="no records at"):
        NgramDecontaminate(evaluation=str(tmp_path / "absent")).setup()
    with pytest.raises(BadInputError, match="record 2: not a JSON object"):
        load("a.jsonl", '{"text": "x"}\n[1]\n')
    with pytest.raises(BadInputError, match="record 1 has no text in 'text'; it has question"):
        load("b.jsonl", '{"question": "x"}\n')
    with pytest.raises(BadInputError, match="none of 1 items"):
        load("c.jsonl", '{"text": "too short"}\n')
    with pytest.raises(BadInputError, match="shortest must lie in 1 to ngram"):
        NgramDecontaminate(evaluation="x", ngram=5)
    with pytest.raises(BadInputError, match="password or signature"):
        NgramDecontaminate(evaluation="s3://key:secret@bucket/e.jsonl")
    monkeypatch.setattr(_evaluation_ngrams, "MOST_NGRAMS", 3)
    with pytest.raises(BadInputError, match="over 3 n-grams; split"):
        load("d.jsonl", json.dumps({"text": "w " * 20}) + "\n")
