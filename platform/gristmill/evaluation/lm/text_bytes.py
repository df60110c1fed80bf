"""Bytes of text behind a run of tokens, for bits a byte."""

from gristmill.core import io
from gristmill.corpora.tokenizer import FILE, DocumentTokenizer, read_tokenizer
from gristmill.corpora.tokens import TokenCorpus

DOCUMENTS_AT_ONCE = 256


def tokenizer_of(corpus: TokenCorpus, domain: str) -> DocumentTokenizer | None:
    """The tokenizer beside a domain's tokens, if there is one."""
    uri = corpus.corpora[domain].uri
    if not io.exists(io.join(uri, FILE)):
        return None
    return DocumentTokenizer(read_tokenizer(uri), corpus.vocabulary.end_token)


def text_bytes(corpus: TokenCorpus, domain: str, tokens: int) -> int | None:
    """UTF-8 bytes of the text that tokens 1 .. `tokens` of a validation split stand for.

    Token 0 is never predicted. End tokens stand for no byte. Documents are decoded one by one, so
    a tokenizer that loses nothing gives the text's own bytes; a last document that is cut within a
    letter may count two bytes too many. None when the corpus has no tokenizer beside it.
    """
    tokenizer = tokenizer_of(corpus, domain)
    if tokenizer is None:
        return None
    total, first = 0, 0
    for number, shard in enumerate(corpus.corpora[domain].shards(domain, "validation")):
        starts = [first + int(start) for start in corpus.starts(domain, "validation", number)]
        first += shard.size
        for i in range(0, len(starts), DOCUMENTS_AT_ONCE):
            some = starts[i : i + DOCUMENTS_AT_ONCE]
            if some[0] > tokens:
                return total
            after = starts[i + len(some)] if i + len(some) < len(starts) else first
            total += _bytes_of(corpus, domain, tokenizer, some, min(after, tokens + 1))
    return total


def _bytes_of(
    corpus: TokenCorpus, domain: str, tokenizer: DocumentTokenizer, starts: list[int], stop: int
) -> int:
    """Of documents that begin at these tokens, up to a token."""
    ids = corpus.between(domain, starts[0], stop, "validation").tolist()
    total = 0
    for start, after in zip(starts, [*starts[1:], stop], strict=True):
        document = ids[max(start, 1) - starts[0] : max(min(after, stop) - starts[0], 0)]
        if document and document[-1] == corpus.vocabulary.end_id:
            document.pop()
        if document:
            total += len(tokenizer.decode(document).encode("utf-8", "replace"))
    return total
