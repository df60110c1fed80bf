"""The stream that training reads: (seed, step, slot) -> (domain, epoch, sequence), a pure function.

Slot i of step t is number n = t * batch_size + i of one global order. `apportionment.py` says which
domain number n belongs to and which draw of that domain it is, k; epoch = k // N and place = k % N,
with N its sequences; `permutation.py` says which sequence stands at that place of that epoch, by
seed, domain name and epoch. Nothing is remembered between calls. So the order is the same on any
number of workers and after any resume, every epoch has its own order, and there is no state to
save but the step.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import BadInputError
from gristmill.corpora.apportionment import Apportionment
from gristmill.corpora.ledger import Ledger, make_ledger
from gristmill.corpora.mixture import Mixture
from gristmill.corpora.permutation import Permutation
from gristmill.corpora.tokens import TokenArray, TokenCorpus

IntArray = npt.NDArray[np.int64]
PERMUTATIONS_KEPT = 256


@dataclass(frozen=True, kw_only=True)
class Picks:
    """What some slots hold; three arrays of one length."""

    domains: tuple[str, ...]
    """Names that `domain` points into."""
    domain: IntArray
    epoch: IntArray
    sequence: IntArray
    """Number of the sequence in its domain's training split."""

    def digest(self) -> bytes:
        """SHA-256 over (domain name, epoch, sequence) of each slot, in order."""
        lines = zip(self.domain.tolist(), self.epoch.tolist(), self.sequence.tolist(), strict=True)
        text = "".join(f"{self.domains[d]} {e} {s}\n" for d, e, s in lines)
        return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Boundaries:
    """Where documents begin in packed sequences, for attention masks and positions."""

    document: IntArray
    """[n, seq_len + 1]: 0 for the first document in the sequence, 1 for the next, and so on. Two
    tokens may see each other when theirs are equal."""
    position: IntArray
    """[n, seq_len + 1]: place of the token in its document, counted from where that (or the
    sequence) begins."""


class TokenStream:
    """Batches of a mixture of token shards, by step. Holds open files, and no position."""

    def __init__(
        self,
        corpus: TokenCorpus,
        mixture: Mixture,
        *,
        seq_len: int,
        batch_size: int,
        seed: int = 0,
    ) -> None:
        """Lay down the order.

        Args:
            corpus: Where the tokens are.
            mixture: Token shares; domains of weight 0 are never read.
            seq_len: Tokens of a sequence that the model sees; one more is read, for the labels.
            batch_size: Sequences of a step, over all workers.
            seed: Chooses the order within each domain and epoch.

        Raises:
            BadInputError: An unknown domain, or one with less than a sequence of text.
        """
        if seq_len < 1 or batch_size < 1:
            raise BadInputError(
                f"seq_len and batch_size must be at least 1, not {seq_len} and {batch_size}"
            )
        mixture.require_domains(corpus.domains, "the token corpus")
        self.corpus, self.mixture = corpus, mixture
        self.seq_len, self.batch_size, self.seed = seq_len, batch_size, seed
        self._apportionment = Apportionment(mixture.parts)
        self.domains = self._apportionment.domains
        self.available = {d: corpus.num_sequences(d, seq_len) for d in self.domains}
        self._sizes = np.array([self.available[d] for d in self.domains], np.int64)
        self._permutation: Callable[[str, int], Permutation] = lru_cache(PERMUTATIONS_KEPT)(
            lambda domain, epoch: Permutation(self.available[domain], seed, domain, epoch)
        )

    # -- the order -----------------------------------------------------------------------------

    def picks(self, step: int, rank: int = 0, world: int = 1) -> Picks:
        """What the slots of a worker hold: all of them over the workers make the step's batch."""
        slots = self._slots(rank, world)
        return self.at(step * self.batch_size + slots)

    def at(self, numbers: IntArray) -> Picks:
        """What stands at these numbers of the global order."""
        domain, draw = self._apportionment.at(numbers)
        epoch, place = np.divmod(draw, self._sizes[domain])
        sequence = np.empty(len(numbers), np.int64)
        for one, turn in sorted(set(zip(domain.tolist(), epoch.tolist(), strict=True))):
            mine = np.flatnonzero((domain == one) & (epoch == turn))
            sequence[mine] = self._permutation(self.domains[one], turn)(place[mine])
        return Picks(domains=self.domains, domain=domain, epoch=epoch, sequence=sequence)

    def _slots(self, rank: int, world: int) -> IntArray:
        """A contiguous share: strided ones could give a worker the same domain at every step."""
        if not 0 <= rank < world:
            raise BadInputError(f"rank must be in [0, {world}), not {rank}")
        first, last = (self.batch_size * i // world for i in (rank, rank + 1))
        return np.arange(first, last, dtype=np.int64)

    # -- tokens --------------------------------------------------------------------------------

    def batch(self, step: int, rank: int = 0, world: int = 1) -> TokenArray:
        """Token ids of a worker's slots: int64 [n, seq_len + 1].

        Inputs are [:, :-1] and labels [:, 1:].
        """
        return self._gather(self.picks(step, rank, world), self.corpus.sequences)

    def read(self, numbers: IntArray) -> TokenArray:
        """Token ids of what stands at these numbers of the global order."""
        return self._gather(self.at(numbers), self.corpus.sequences)

    def boundaries(self, step: int, rank: int = 0, world: int = 1) -> Boundaries:
        """Where documents begin in the same slots."""
        numbers = self._gather(self.picks(step, rank, world), self.corpus.document_numbers)
        begins = np.diff(numbers, axis=1, prepend=numbers[:, :1] - 1) != 0
        places = np.broadcast_to(np.arange(self.seq_len + 1), numbers.shape)
        first = np.maximum.accumulate(np.where(begins, places, 0), axis=1)
        return Boundaries(document=np.cumsum(begins, axis=1) - 1, position=places - first)

    def _gather(self, picks: Picks, read: Callable[[str, IntArray, int], IntArray]) -> IntArray:
        out = np.empty((len(picks.domain), self.seq_len + 1), np.int64)
        for one in np.unique(picks.domain).tolist():
            mine = np.flatnonzero(picks.domain == one)
            out[mine] = read(self.domains[one], picks.sequence[mine], self.seq_len)
        return out

    # -- the ledger ----------------------------------------------------------------------------

    def ledger(self, steps: int) -> Ledger:
        """What the first `steps` steps draw from each domain."""
        counts = self._apportionment.counts(steps * self.batch_size)
        return make_ledger(self.mixture.weights, counts, self.available, self.seq_len)

    def require_epochs(self, steps: int, most: float) -> Ledger:
        """The ledger, when no domain is repeated more than `most` times; call it before the start.

        Raises:
            BadInputError: One would be; says which, how often, and what would fit.
        """
        ledger = self.ledger(steps)
        ledger.require_epochs(most)
        return ledger


def validation_batch(
    corpus: TokenCorpus, domain: str, *, seq_len: int, first: int = 0, count: int = 0
) -> TokenArray:
    """Sequences of a domain's validation split, in order: int64 [n, seq_len + 1].

    Args:
        corpus: Where the tokens are.
        domain: Whose.
        seq_len: Tokens of a sequence.
        first: Number of the first sequence.
        count: How many at most. 0: all that are left.

    Raises:
        BadInputError: The split has less than one sequence.
    """
    there = corpus.num_sequences(domain, seq_len, "validation")
    last = min(first + count, there) if count else there
    numbers = np.arange(first, max(first, last), dtype=np.int64)
    return corpus.sequences(domain, numbers, seq_len, "validation")
