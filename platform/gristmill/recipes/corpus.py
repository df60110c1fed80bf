"""Sources for `gristmill corpus ingest`: domains of your own, or those that are on any machine."""

from tyro import MISSING

from gristmill.corpora.embedded import sources
from gristmill.corpora.ingest import IngestCorpusJob


def domains() -> IngestCorpusJob:
    """Domains of your own: --domains name=URI name=URI ... (.jsonl(.gz|.zst), .parquet, .txt)."""
    return IngestCorpusJob(domains=MISSING, out=MISSING)


def embedded() -> IngestCorpusJob:
    """Seven or more distinct domains from Python and the installed packages, no download."""
    return IngestCorpusJob(domains=sources(), validation=0.1, out=MISSING)


_default = domains
"""What `gristmill corpus ingest --domains ...` means, without a word for the source."""
