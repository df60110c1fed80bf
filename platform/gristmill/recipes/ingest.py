"""Sources for `gristmill pool ingest`: pairs, or documents."""

from tyro import MISSING

from gristmill.pools.documents import DocumentsJob
from gristmill.pools.ingest import Folder, IngestJob, Source, Tars
from gristmill.pools.urls import Urls


def _job(source: Source) -> IngestJob:
    return IngestJob(source=source, out=MISSING)


def tars() -> IngestJob:
    """Webdataset tars: --source FOLDER."""
    return _job(Tars(source=MISSING))


def folder() -> IngestJob:
    """Images with captions in .txt files beside them: --source FOLDER."""
    return _job(Folder(source=MISSING))


def urls() -> IngestJob:
    """A parquet of urls and captions, fetched by img2dataset (extra: fetch): --table FILE."""
    return _job(Urls(table=MISSING))


def documents() -> DocumentsJob:
    """Texts from .jsonl(.gz|.zst), .parquet or .txt files: --source FILE_OR_FOLDER."""
    return DocumentsJob(source=MISSING, out=MISSING)
