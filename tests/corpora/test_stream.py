import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_corpora import vocabulary, write_tokens

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.corpora.corpus import MANIFEST
from gristmill.corpora.mixture import Mixture
from gristmill.corpora.stream import TokenStream, validation_batch
from gristmill.corpora.tokens import TokenCorpus

SIZES = {"web": 5003, "books": 1711, "code": 907, "unused": 400}
MIXTURE = Mixture(weights={"web": 0.5, "books": 0.3, "code": 0.2, "unused": 0.0})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    return folder, write_tokens(folder, SIZES)


@pytest.fixture
def stream(made):
    return TokenStream(TokenCorpus(str(made[0])), MIXTURE, seq_len=16, batch_size=30, seed=5)


def all_picks(stream, steps):
    picks = stream.at(np.arange(steps * stream.batch_size))
    names = [picks.domains[d] for d in picks.domain.tolist()]
    return list(zip(names, picks.epoch.tolist(), picks.sequence.tolist(), strict=True))


def test_a_batch_holds_the_tokens_it_says(stream, made):
    rows = made[1]
    for step in (0, 3, 40):
        picks, batch = stream.picks(step), stream.batch(step)
        assert batch.shape == (30, 17) and batch.dtype == np.int64
        for i in range(30):
            first = int(picks.sequence[i]) * 16
            wanted = rows[picks.domains[picks.domain[i]]][first : first + 17]
            assert np.array_equal(batch[i], wanted)


def test_every_epoch_holds_every_sequence_once_in_an_order_of_its_own(stream):
    drawn = all_picks(stream, 60)
    for domain in ("web", "books", "code"):
        size = (SIZES[domain] - 1) // 16
        orders = {}
        for name, epoch, sequence in drawn:
            if name == domain:
                orders.setdefault(epoch, []).append(sequence)
        whole = [order for order in orders.values() if len(order) == size]
        assert len(whole) >= len(orders) - 1 >= 1
        assert all(sorted(order) == list(range(size)) for order in whole)
        assert len({tuple(order) for order in whole}) == len(whole)
        assert list(range(size)) not in whole
    assert "unused" not in {name for name, _, _ in drawn}


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7, 30])
def test_workers_share_each_step(stream, world):
    for step in (0, 11):
        parts = [stream.batch(step, rank, world) for rank in range(world)]
        assert np.array_equal(np.concatenate(parts), stream.batch(step))


def test_realised_shares_follow_at_every_prefix(stream):
    drawn = np.array([name for name, _, _ in all_picks(stream, 100)])
    for domain, weight in MIXTURE.weights.items():
        counts = np.cumsum(drawn == domain)
        assert np.abs(counts - weight * np.arange(1, len(drawn) + 1)).max() < 1


def test_seed_and_names_decide_the_order(made):
    corpus = TokenCorpus(str(made[0]))

    def order(seed, **weights):
        mixture = Mixture(weights=weights)
        return all_picks(TokenStream(corpus, mixture, seq_len=16, batch_size=30, seed=seed), 20)

    assert order(1, web=0.5, code=0.5) == order(1, code=0.5, web=0.5)
    assert order(1, web=0.5, code=0.5) != order(2, web=0.5, code=0.5)
    # A domain's own order does not depend on what it is mixed with.
    alone = [s for _, e, s in order(1, web=1.0) if e == 0]
    mixed = [s for n, e, s in order(1, web=0.5, code=0.5) if n == "web" and e == 0]
    assert mixed == alone[: len(mixed)]


def test_boundaries(stream, made):
    batch, found = stream.batch(2), stream.boundaries(2)
    for tokens, document, position in zip(batch, found.document, found.position, strict=True):
        number = place = 0
        for i, token in enumerate(tokens.tolist()):
            assert (document[i], position[i]) == (number, place)
            number, place = (number + 1, 0) if token == 0 else (number, place + 1)


@settings(max_examples=40)
@given(
    seq_len=st.integers(1, 300),
    batch_size=st.integers(1, 40),
    seed=st.integers(-(2**40), 2**40),
    step=st.integers(0, 10**6),
    world=st.integers(1, 9),
)
def test_nothing_is_remembered(made, seq_len, batch_size, seed, step, world):
    """Any step at once, from a stream that has seen others or none, shared out in any way."""

    def fresh():
        corpus = TokenCorpus(str(made[0]))
        return TokenStream(corpus, MIXTURE, seq_len=seq_len, batch_size=batch_size, seed=seed)

    used = fresh()
    used.batch(0)
    used.batch(step + 1)
    again = np.concatenate([fresh().batch(step, r, world) for r in range(world)])
    assert np.array_equal(used.batch(step), again)


def test_ledger(stream):
    ledger, drawn = stream.ledger(50), all_picks(stream, 50)
    assert ledger.tokens == 50 * 30 * 16
    for domain, weight in (("web", 0.5), ("books", 0.3), ("code", 0.2)):
        count = sum(name == domain for name, _, _ in drawn)
        entry = ledger[domain]
        assert entry.sequences == count and entry.tokens == 16 * count
        assert entry.target_tokens == pytest.approx(weight * ledger.tokens)
        assert abs(entry.tokens - entry.target_tokens) < 16
        assert entry.epochs == count / ((SIZES[domain] - 1) // 16)
    assert [e.domain for e in ledger.entries] == ["books", "code", "web"]
    assert set(ledger.to_json()["domains"]) == {"books", "code", "web"}


def test_a_plan_over_the_cap_is_refused_before_the_start(stream):
    most = stream.ledger(100)["code"].epochs
    assert stream.require_epochs(100, most).tokens == 48_000
    with pytest.raises(BadInputError) as refused:
        stream.require_epochs(100, 4.0)
    said = str(refused.value)
    assert "code 10.71 times (weight 0.2" in said and "over the cap of 4" in said
    assert "books 8.49 times" in said and "web" in said
    fits = int(said.split("at most about ")[1].split(" ")[0].replace(",", ""))
    stream.require_epochs(fits // 16 // 30, 4.0)


def test_validation_is_another_split(made):
    corpus = TokenCorpus(str(made[0]))
    whole = validation_batch(corpus, "web", seq_len=16)
    assert whole.shape == (6, 17)
    assert np.array_equal(validation_batch(corpus, "web", seq_len=16, first=2, count=3), whole[2:5])
    assert len(validation_batch(corpus, "web", seq_len=16, first=6)) == 0
    with pytest.raises(BadInputError, match="100 tokens in its validation split, less than one"):
        validation_batch(corpus, "web", seq_len=100)


def test_what_cannot_be_is_said_by_name(made, tmp_path):
    corpus = TokenCorpus(str(made[0]))
    words = {"seq_len": 16, "batch_size": 4}
    with pytest.raises(BadInputError, match="no domain 'wbe' in the token corpus; perhaps you"):
        TokenStream(corpus, Mixture(weights={"wbe": 0.0, "web": 1.0}), **words)
    with pytest.raises(BadInputError, match="domain code has 907 tokens in its train split"):
        TokenStream(corpus, Mixture(weights={"code": 1.0}), seq_len=907, batch_size=1)
    with pytest.raises(BadInputError, match="no domain 'cod'.*perhaps you meant code"):
        corpus.tokens("cod")
    with pytest.raises(BadInputError, match="rank must be in"):
        TokenStream(corpus, MIXTURE, **words).batch(0, 2, 2)
    with pytest.raises(BadInputError, match="batch_size must be at least 1"):
        TokenStream(corpus, MIXTURE, seq_len=4, batch_size=0)
    other = tmp_path / "other"
    other.mkdir()
    write_tokens(other, {"more": 500}, vocab=vocabulary("b" * 64, 70_000))
    with pytest.raises(BadInputError, match=r"has the tokenizer bbbbbbbbbbbb \(70,000 tokens\)"):
        TokenCorpus(str(made[0]), str(other))
    with pytest.raises(BadInputError, match="domain books is in .* give each domain once"):
        TokenCorpus(str(made[0]), str(made[0]))
    with pytest.raises(BadInputError, match="no corpus at"):
        TokenCorpus(str(tmp_path))


def test_several_folders_are_one_corpus(made, tmp_path):
    rows = write_tokens(tmp_path, {"more": 500})
    corpus = TokenCorpus(str(made[0]), str(tmp_path))
    assert corpus.domains == ("books", "code", "more", "unused", "web")
    stream = TokenStream(
        corpus, Mixture(weights={"more": 0.5, "web": 0.5}), seq_len=10, batch_size=8
    )
    picks, batch = stream.picks(0), stream.batch(0)
    mine = np.flatnonzero(picks.domain == 0)
    firsts = picks.sequence[mine] * 10
    assert np.array_equal(batch[mine], [rows["more"][f : f + 11] for f in firsts.tolist()])


def test_wide_vocabularies_take_four_bytes(tmp_path):
    rows = write_tokens(tmp_path, {"a": 900}, vocab=vocabulary(size=100_000))
    assert next((tmp_path / "tokens/a/train").glob("*.bin")).stat().st_size % 4 == 0
    corpus = TokenCorpus(str(tmp_path))
    assert np.array_equal(corpus.sequences("a", np.array([3]), 100)[0], rows["a"][300:401])


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_shard_cut_short_is_named(tmp_path, suffix):
    write_tokens(tmp_path, {"a": 900})
    victim = sorted((tmp_path / "tokens/a/train").glob("*" + suffix))[1]
    victim.write_bytes(victim.read_bytes()[:-2])
    corpus = TokenCorpus(str(tmp_path))
    with pytest.raises(CorruptDataError, match=rf"000001\{suffix} should have"):
        corpus.sequences("a", np.array([0]), 10)


def test_damaged_manifests_are_named(tmp_path):
    write_tokens(tmp_path, {"a": 900})
    text = (tmp_path / MANIFEST).read_text()
    (tmp_path / MANIFEST).write_text(text.replace('"vocabulary"', '"vocab"'))
    with pytest.raises(CorruptDataError, match="does not say which tokenizer"):
        TokenCorpus(str(tmp_path))
    (tmp_path / MANIFEST).write_text(
        text.replace('"size": 900', '"sizes": 900').replace('"train"', '"t"')
    )
    with pytest.raises(CorruptDataError, match="is damaged"):
        TokenCorpus(str(tmp_path))


def test_reads_from_object_storage(bucket, tmp_path):
    import s3fs

    rows = write_tokens(tmp_path, {"a": 900})
    s3fs.S3FileSystem().put(str(tmp_path) + "/", bucket + "/c/", recursive=True)
    near, far = TokenCorpus(str(tmp_path)), TokenCorpus(f"{bucket}/c")
    numbers = np.array([0, 5, 40])
    found = far.sequences("a", numbers, 20)
    assert np.array_equal(found, near.sequences("a", numbers, 20))
    assert np.array_equal(found[1], rows["a"][100:121])
