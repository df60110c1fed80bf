"""A derived pool: the shards of another, with metadata that a job adds to.

A pool is never changed: what a job finds out about its pictures (scores, hashes) goes to metadata
of a new pool that points to the first one's shards. Its files number as the shards do, so that work
needs no join: row i of metadata/N.parquet and of N.npz is sample i of shard N.
"""

import io as bytes_io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.report import Report
from gristmill.core.run import Run
from gristmill.execution.slices import Slice
from gristmill.pools import columns
from gristmill.pools.pool import MANIFEST, Pool, open_parquet
from gristmill.pools.tar import Sample, TarReader, read_record
from gristmill.pools.uid import uid_of_hex

if TYPE_CHECKING:
    import pyarrow as pa

SHARDS_NAMED = 20
FROM_JSON = (columns.URL, columns.WIDTH, columns.HEIGHT, columns.SHA256, columns.FACES)


def pool_with_shards(uri: str) -> Pool:
    """A pool whose pictures can be read.

    Raises:
        BadInputError: It is metadata alone.
    """
    pool = Pool(uri)
    if not pool.shard_files:
        raise BadInputError(f"{io.redact(uri)} has no shards, so it has no pictures to read")
    return pool


def shard_slices(pool: Pool) -> list[Slice]:
    """A slice a shard, with the metadata file of the same stem where there is one."""
    stems = {os.path.basename(uri).removesuffix(".parquet"): uri for uri in pool.metadata_files}
    pieces = []
    for number, uri in enumerate(pool.shard_files):
        metadata = stems.get(os.path.basename(uri).removesuffix(".tar"), "")
        payload = {"number": number, "uri": uri, "metadata": metadata}
        pieces.append(Slice(name=f"{number:08d}", weight=io.size_bytes(uri), payload=payload))
    return pieces


def caption_of(reader: TarReader, sample: Sample) -> str:
    """The caption in a shard; empty when there is none."""
    member = sample.members.get("txt")
    return reader.read(member).decode("utf-8", "replace") if member else ""


def picture_bytes(reader: TarReader, sample: Sample) -> bytes:
    """The encoded picture in a shard; empty when there is none."""
    extension = sample.image_extension
    return reader.read(sample.members[extension]) if extension else b""


def row_of(reader: TarReader, sample: Sample) -> dict[str, Any]:
    """Metadata of a sample by its own json.

    Raises:
        CorruptDataError: There is no uid, so no filter could ever name the sample.
    """
    where = f"{io.redact(reader.uri)}: sample {sample.key}"
    try:
        record = read_record(reader, sample)
        uid = record.get("uid")
        uid_of_hex(uid)
    except BadInputError as error:
        raise CorruptDataError(f"{where} has no uid; take the tars in with pool ingest") from error
    row = {columns.UID: uid, columns.TEXT: caption_of(reader, sample)}
    return row | {name: record.get(name) for name in FROM_JSON}


@dataclass(frozen=True)
class ShardMetadata:
    """Metadata and features of one shard's samples, in their order."""

    table: "pa.Table"
    arrays: dict[str, npt.NDArray[Any]]
    aligned: bool
    """Taken from the source's metadata file; otherwise from the samples' json."""

    def with_column(self, name: str, values: Any) -> "ShardMetadata":
        """With a column added; one of that name is replaced."""
        table = self.table
        if name in table.column_names:
            table = table.drop_columns([name])
        return ShardMetadata(table.append_column(name, [values]), self.arrays, self.aligned)

    def save(self, out: str, stem: str) -> dict[str, dict[str, Any]]:
        """Write {stem}.parquet, and {stem}.npz for features; returns name -> hash, size."""
        import pyarrow.parquet as pq

        files = {}
        with io.open_hashed(io.join(out, stem + ".parquet")) as file:
            pq.write_table(self.table, file, compression="zstd")
        files[stem + ".parquet"] = file.entry
        if self.arrays:
            buffer = bytes_io.BytesIO()
            np.savez(buffer, **self.arrays)  # type: ignore[arg-type]
            with io.open_hashed(io.join(out, stem + ".npz")) as file:
                file.write(buffer.getvalue())
            files[stem + ".npz"] = file.entry
        return files


def metadata_of(
    piece: Slice, rows: Sequence[dict[str, Any]], *, template: str, rebuild: bool
) -> ShardMetadata:
    """A shard's metadata: the source's file of the same stem when its uids are the shard's, in
    order, with all its columns and features; else what the samples' json says.

    Args:
        piece: From `shard_slices`.
        rows: `row_of` each sample.
        template: A metadata file whose columns rebuilt rows get.
        rebuild: Take rows from the json; without it a shard that is not aligned is an error.

    Raises:
        CorruptDataError: The shard is empty, or features cannot be read.
        BadInputError: It is not aligned, and not to be rebuilt.
    """
    import pyarrow as pa

    if not rows:
        raise CorruptDataError(f"{io.redact(piece.payload['uri'])} holds no samples")
    uri = piece.payload["metadata"]
    if uri:
        with open_parquet(uri) as (file, _):
            table = file.read()
        if table[columns.UID].to_pylist() == [row[columns.UID] for row in rows]:
            features = uri.removesuffix(".parquet") + ".npz"
            return ShardMetadata(table, _load_npz(features), aligned=True)
    if not rebuild:
        raise BadInputError(
            f"{io.redact(piece.payload['uri'])} has no metadata file of the same name with the "
            "same uids in the same order; add --rebuild-metadata to take the rows from the "
            "samples' json, or ingest the shards first"
        )
    rebuilt = _in_form_of(pa.Table.from_pylist(list(rows)), template)
    return ShardMetadata(rebuilt, {}, aligned=False)


def _in_form_of(table: "pa.Table", uri: str) -> "pa.Table":
    """The table with the columns of a parquet file; what is not known is null."""
    import pyarrow as pa

    with open_parquet(uri) as (file, _):
        schema = file.schema_arrow
    filled = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(filled, names=schema.names)


def _load_npz(uri: str) -> dict[str, npt.NDArray[Any]]:
    if not io.exists(uri):
        return {}
    try:
        with np.load(bytes_io.BytesIO(io.read_bytes(uri)), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise CorruptDataError(f"{io.redact(uri)} is not a readable .npz: {error}") from error


@dataclass(frozen=True)
class Derived:
    """What became of the shards."""

    whole: list[dict[str, Any]]
    """Outcomes of those that were read, each with its `rows`, `aligned` and `files`."""
    corrupt: list[str]
    """What was wrong with the others."""

    def total(self, name: str) -> int:
        """The sum of a number over the outcomes."""
        return sum(int(outcome[name]) for outcome in self.whole)

    def warn(self, page: Report) -> None:
        """Say on the report's page which shards could not be read."""
        if self.corrupt:
            listed = "; ".join(self.corrupt[:SHARDS_NAMED])
            page.warnings.append(f"{len(self.corrupt)} shards could not be read: {listed}")


def publish(run: Run, pool: Pool, done: Sequence[dict[str, Any]]) -> Derived:
    """Write the new pool's manifest over what its workers wrote, and the run's summary of rows.

    Raises:
        CorruptDataError: No shard could be read.
    """
    found = Derived(
        whole=[d for d in done if "corrupt" not in d],
        corrupt=[d["corrupt"] for d in done if "corrupt" in d],
    )
    files = {name: entry for d in found.whole for name, entry in d["files"].items()}
    for name, entry in files.items():
        run.add_output(name, sha256=entry["sha256"], num_bytes=entry["bytes"])
    manifest = {
        "format": 1,
        "rows": found.total("rows"),
        "files": files,
        "shards_of": pool.uri,
    }
    io.write_json(run.path(MANIFEST), manifest)
    run.add_output(MANIFEST)
    if not found.total("rows"):
        why = found.corrupt[0] if found.corrupt else "empty"
        raise CorruptDataError(f"no shard could be read: {why}")
    return found


def summary(found: Derived) -> dict[str, int]:
    """The part of a run's summary that all such jobs share."""
    return {
        "rows": found.total("rows"),
        "corrupt_shards": len(found.corrupt),
        "rows_from_sample_json": sum(d["rows"] for d in found.whole if not d["aligned"]),
    }
