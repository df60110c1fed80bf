"""Pairs from a table of urls, fetched by img2dataset (an extra) into tars for ingest."""

import os
from collections import Counter
from dataclasses import dataclass

from gristmill.core import io
from gristmill.core.errors import BadInputError, MissingExtraError
from gristmill.execution.slices import Slice
from gristmill.pools import columns
from gristmill.pools.ingest import Source, tar_slices
from gristmill.pools.pool import open_parquet, read_footer


@dataclass(frozen=True, kw_only=True)
class Urls(Source):
    """A parquet of urls and captions, or a folder of them, as DataComp publishes its pools."""

    table: str
    """Parquet file or folder of them with the columns below."""
    url_column: str = columns.URL
    """Column of the urls."""
    caption_column: str = columns.TEXT
    """Column of the captions."""
    image_size: int = 512
    """Longest side in pixels to which larger pictures are reduced (DataComp: 512)."""
    verify_hash: bool = False
    """Drop a picture whose bytes no longer have the table's sha256; 14 % of DataComp's do not."""
    processes: int = 1
    """img2dataset's processes on this machine."""
    threads: int = 32
    """Downloads at once in each."""
    timeout_seconds: int = 10
    """Longest wait for a picture."""

    def sizes(self) -> tuple[str, int]:
        """Rows in the table."""
        rows = sum(read_footer(uri).num_rows for uri in self._files())
        return f"{rows:,} urls of {io.redact(self.table)}", 0

    def _files(self) -> list[str]:
        uri = io.absolute(self.table)
        files = io.list_files(uri, ".parquet") or ([uri] if io.exists(uri) else [])
        if not files:
            raise BadInputError(f"no parquet table of urls at {io.redact(self.table)}")
        for name in files:
            footer = read_footer(name)
            for column in (self.url_column, self.caption_column):
                if column not in footer.names:
                    raise BadInputError(f"{io.redact(name)} has no column {column}")
        return files

    def pieces(self, shard_size: int, scratch: str) -> list[Slice]:
        """Fetch (going on where an earlier run stopped), then a slice a fetched tar."""
        names = read_footer(self._files()[0]).names
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network at import
        try:
            import img2dataset
        except ImportError as error:
            raise MissingExtraError("img2dataset", "fetch") from error
        known = [c for c in (columns.UID, columns.FACES, columns.SHA256) if c in names]
        img2dataset.download(
            url_list=io.absolute(self.table),
            input_format="parquet",
            url_col=self.url_column,
            caption_col=self.caption_column,
            save_additional_columns=[c for c in known if c != columns.SHA256],
            verify_hash=[columns.SHA256, "sha256"] if self.verify_hash else None,
            output_folder=io.absolute(scratch),
            output_format="webdataset",
            number_sample_per_shard=shard_size,
            image_size=self.image_size,
            resize_mode="keep_ratio_largest",
            resize_only_if_bigger=True,
            processes_count=self.processes,
            thread_count=self.threads,
            timeout=self.timeout_seconds,
            incremental_mode="incremental",
            enable_wandb=False,
        )
        return tar_slices(scratch)

    def availability(self, scratch: str) -> dict[str, int]:
        """Counts of img2dataset's own per-row status."""
        status: Counter[str] = Counter()
        mismatches = 0
        for uri in io.list_files(scratch, ".parquet"):
            with open_parquet(uri) as (file, _):
                table = file.read(columns=["status", "error_message"]).to_pydict()
            status.update(table["status"])
            mismatches += sum("hash mismatch" in (e or "") for e in table["error_message"])
        asked = status.total()
        failed = asked - status["success"] - mismatches
        return {"asked": asked, "failed": failed, "hash_mismatches": mismatches}
