"""What is checked before anything starts; numpy only, but for a start from
another model. The ground of `--plan` too."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.corpora.ledger import Ledger
from gristmill.corpora.mixture import Mixture, read_mixture
from gristmill.corpora.stream import TokenStream
from gristmill.corpora.tokenizer import FILE, content_hash
from gristmill.corpora.tokens import TokenCorpus
from gristmill.models.lm.config import ModelConfig
from gristmill.training.lm.universal import is_universal
from gristmill.training.lm.validation_domains import validated

if TYPE_CHECKING:
    from gristmill.training.lm.job import TrainLmJob

VOCABULARY = "vocabulary.json"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Inputs that go together."""

    corpus: TokenCorpus
    mixture: Mixture
    seq_len: int
    ledger: Ledger
    """Planned."""
    unvalidated: tuple[str, ...]
    """Domains with too little held-out text for a validation loss."""

    def validation_sequences(self, most: int) -> int:
        """Sequences of a whole validation, at most so many of a domain."""
        domains = [name for name in self.corpus.domains if name not in self.unvalidated]
        counts = [self.corpus.num_sequences(d, self.seq_len, "validation") for d in domains]
        return sum(min(count, most) for count in counts)


def check(job: "TrainLmJob") -> Checked:
    """Refuse what would fail, or train on the wrong ids.

    Raises:
        BadInputError: Says what does not fit, with what to do.
    """
    model = job.config
    corpus = TokenCorpus(*job.corpora)
    check_vocabulary(model, corpus)
    seq_len = job.sequence_length
    if seq_len > model.context_length and model.positions == "learned":
        raise BadInputError(
            f"seq_len {seq_len} is over the {model.context_length} learned positions of the model"
        )
    if seq_len <= model.hidden_targets:
        raise BadInputError(
            f"seq_len {seq_len} leaves nothing to learn: the first {model.hidden_targets} targets "
            f"lie in the prefix of {model.prefix} tokens; give --seq-len {model.prefix} or more"
        )
    mixture = read_mixture(job.mixture, corpus.sizes())
    stream = TokenStream(corpus, mixture, seq_len=seq_len, batch_size=job.batch_size, seed=job.seed)
    ledger = stream.require_epochs(job.num_steps, job.max_epochs)
    if job.mixture_vocabulary and job.mixture_vocabulary != corpus.vocabulary.sha256:
        raise BadInputError(
            f"the mixture was found with the tokenizer {job.mixture_vocabulary[:12]}, the corpora "
            f"have {corpus.vocabulary.sha256[:12]}; shares of tokens mean something else there"
        )
    if job.init:
        check_start(job.init, model, corpus)
    there = validated(corpus, seq_len)
    missing = tuple(domain for domain in corpus.domains if domain not in there)
    return Checked(
        corpus=corpus, mixture=mixture, seq_len=seq_len, ledger=ledger, unvalidated=missing
    )


def check_vocabulary(model: ModelConfig, corpus: TokenCorpus) -> None:
    """Refuse ids that the embedding has no row for.

    Raises:
        BadInputError: There are some.
    """
    if corpus.vocabulary.size > model.vocab_size:
        raise BadInputError(
            f"the corpora's tokenizer has {corpus.vocabulary.size:,} tokens, the model's "
            f"vocabulary {model.vocab_size:,}; take another preset or tokenizer"
        )


def check_start(folder: str, model: ModelConfig, corpus: TokenCorpus) -> None:
    """Refuse a model to start from that is another one, or speaks with another tokenizer.

    Raises:
        BadInputError: It is, or does.
    """
    from gristmill.models.lm import checkpoint, hugging_face

    if is_universal(folder):
        return  # its shapes are compared as it is read; it does not say which tokenizer it knows
    if hugging_face.is_one(folder):
        found = hugging_face.read_config_as(folder, model)
    else:
        found = checkpoint.read_config(folder)
    checkpoint.require_equal(found, model, source=folder)
    if io.exists(io.join(folder, VOCABULARY)):
        sha256 = str(io.read_json(io.join(folder, VOCABULARY))["sha256"])
    elif io.exists(io.join(folder, FILE)):
        sha256 = content_hash(io.read_bytes(io.join(folder, FILE)).decode())
    else:
        return
    if sha256 != corpus.vocabulary.sha256:
        raise BadInputError(
            f"{io.redact(folder)} was trained with the tokenizer {sha256[:12]}, the corpora have "
            f"{corpus.vocabulary.sha256[:12]}; tokenize the text with the model's own"
        )
