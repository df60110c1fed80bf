"""The global order over 1, 2 and 3 workers and over a resume in mid epoch: the same hashes."""

import hashlib

import pytest
from made_corpora import write_tokens
from stream_workers import hash_share

from gristmill.corpora.mixture import Mixture
from gristmill.corpora.stream import TokenStream
from gristmill.corpora.tokens import TokenCorpus

pytestmark = pytest.mark.ray
WEIGHTS = {"web": 0.57, "books": 0.31, "code": 0.12}
STEPS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    write_tokens(folder, {"web": 7001, "books": 900, "code": 500})
    return str(folder)


def order(folder, world, spans):
    """Hashes of picks and tokens of each step, put together from worker processes of their own."""
    import ray

    task = ray.remote(hash_share).options(num_cpus=0.1)
    found = []
    for first, last in spans:  # every span begins in new processes with nothing but the step
        shares = ray.get(
            [task.remote(folder, WEIGHTS, first, last, r, world) for r in range(world)]
        )
        for step in zip(*shares, strict=True):
            found.append(b"".join(line for share in step for line in share))
    return [hashlib.sha256(lines).hexdigest() for lines in found]


def test_same_order_on_any_number_of_workers_and_after_a_resume(folder):
    corpus = TokenCorpus(folder)
    stream = TokenStream(corpus, Mixture(weights=WEIGHTS), seq_len=16, batch_size=12, seed=9)
    ledger = stream.ledger(10)
    # Step 10 is in the middle of an epoch of every domain, and past the first of two.
    assert all(e.epochs % 1 not in (0.0,) for e in ledger.entries)
    assert stream.ledger(STEPS)["books"].epochs > 1
    whole = order(folder, 1, [(0, STEPS)])
    assert len(set(whole)) == STEPS
    assert order(folder, 2, [(0, STEPS)]) == whole
    assert order(folder, 3, [(0, STEPS)]) == whole
    assert order(folder, 3, [(0, 10), (10, STEPS)]) == whole
    # Begun on two workers, gone on with three, ended on one.
    begun, gone, ended = (
        order(folder, 2, [(0, 7)]),
        order(folder, 3, [(7, 10)]),
        order(folder, 1, [(10, STEPS)]),
    )
    assert begun + gone + ended == whole
