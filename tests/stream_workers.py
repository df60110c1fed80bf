"""What a worker of the tests of the stream's order does; here, at the root, for Ray's workers."""

import hashlib

from gristmill.corpora.mixture import Mixture
from gristmill.corpora.stream import TokenStream
from gristmill.corpora.tokens import TokenCorpus


def hash_share(folder, weights, first, last, rank, world):
    """Of each step and slot of a worker: a hash of what it is and of its tokens."""
    corpus = TokenCorpus(folder)
    stream = TokenStream(corpus, Mixture(weights=weights), seq_len=16, batch_size=12, seed=9)
    found = []
    for step in range(first, last):
        picks, batch = stream.picks(step, rank, world), stream.batch(step, rank, world)
        names = [picks.domains[d] for d in picks.domain.tolist()]
        what = zip(names, picks.epoch.tolist(), picks.sequence.tolist(), strict=True)
        found.append(
            [
                hashlib.sha256(f"{one}".encode() + row.tobytes()).digest()
                for one, row in zip(what, batch, strict=True)
            ]
        )
    return found
