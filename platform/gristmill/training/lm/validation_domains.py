"""Which domains can have a validation loss; numpy only."""

from gristmill.core.errors import BadInputError
from gristmill.corpora.tokens import TokenCorpus


def validated(corpus: TokenCorpus, seq_len: int) -> tuple[str, ...]:
    """Domains whose validation split has a sequence."""
    found = []
    for domain in corpus.domains:
        try:
            corpus.num_sequences(domain, seq_len, "validation")
        except BadInputError:
            continue
        found.append(domain)
    return tuple(found)
