"""Reading the documents of a corpus in their order."""

from collections.abc import Iterator
from typing import Any

from gristmill.core import io
from gristmill.core.errors import CorruptDataError
from gristmill.corpora.corpus import Corpus

DOCUMENTS_AT_ONCE = 500


def read_documents(uri: str, columns: tuple[str, ...] = ("id", "text")) -> Iterator[list[Any]]:
    """The documents of one file, in batches of {column: value}.

    Raises:
        CorruptDataError: The file cannot be read; names it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with io.open_read(uri) as handle:
        try:
            file = pq.ParquetFile(handle)
            for batch in file.iter_batches(
                DOCUMENTS_AT_ONCE, columns=list(columns), use_threads=False
            ):
                yield batch.to_pylist()
        except (pa.ArrowException, OSError, KeyError) as error:
            raise CorruptDataError(f"{io.redact(uri)} cannot be read: {error}") from error


def read_texts(corpus: Corpus, domain: str, split: str, size: int) -> Iterator[str]:
    """The first texts of a domain's split, until they hold `size` bytes; at least one."""
    read = 0
    for shard in corpus.shards(domain, split):
        for batch in read_documents(io.join(corpus.uri, shard.name), ("text",)):
            for row in batch:
                yield row["text"]
                read += len(row["text"].encode())
                if read >= size:
                    return
