"""A pool: a folder of `metadata/*.parquet` (features in an .npz beside each) and `shards/*.tar`."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.run import CONFIG, DONE
from gristmill.execution.work import Slice
from gristmill.pools import columns, features

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

LEAST_ROWS_PER_SLICE, MOST_ROWS_PER_SLICE = 250_000, 4_000_000
SLICES = 2048
"""Row groups are joined up to a share of the pool, so that the workers of a small pool end together
and a huge one leaves thousands of markers, not hundreds of thousands. A worker holds one row group
at a time, whatever the slice."""
FOOTERS_AT_ONCE = 16
MANIFEST = "pool.json"


@dataclass(frozen=True)
class Footer:
    """What a parquet file's footer says: enough to cut it, check it and recognise it later."""

    uri: str
    row_groups: tuple[int, ...]
    """Rows in each."""
    names: tuple[str, ...]
    types: tuple[str, ...]
    digest: str
    """SHA-256 of the footer, which holds the offsets and statistics of every column chunk."""
    num_bytes: int

    @property
    def num_rows(self) -> int:
        """Rows in the file."""
        return sum(self.row_groups)


@dataclass(frozen=True)
class Pool:
    """A pool at a URI; never changed by reading."""

    uri: str

    @cached_property
    def metadata_files(self) -> list[str]:
        """The parquet files, sorted; in `metadata/`, else in the folder itself.

        Raises:
            BadInputError: There are none.
        """
        self._refuse_half_made()
        for folder in (io.join(self.uri, "metadata"), self.uri):
            found = io.list_files(folder, ".parquet")
            if found:
                return found
        raise BadInputError(
            f"no pool at {io.redact(self.uri)}: it has no metadata/*.parquet; "
            "make one with gristmill pool ingest"
        )

    def _refuse_half_made(self) -> None:
        """A pool of ours is whole only when its run is."""
        if not io.exists(io.join(self.uri, CONFIG)) or io.exists(io.join(self.uri, DONE)):
            return
        if "hash" in io.read_json(io.join(self.uri, CONFIG)):
            raise BadInputError(
                f"the pool {io.redact(self.uri)} is not finished; run what makes it again"
            )

    @cached_property
    def shard_files(self) -> list[str]:
        """The tars, sorted: in `shards/`, in the folder itself, or in the pool this one was scored
        from; empty for metadata alone."""
        found = io.list_files(io.join(self.uri, "shards"), ".tar")
        found = found or io.list_files(self.uri, ".tar")
        source = "" if found else str(self.manifest.get("shards_of", ""))
        return Pool(source).shard_files if source else found

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What `pool ingest` or `pool score` wrote of it; empty for a pool from elsewhere."""
        uri = io.join(self.uri, MANIFEST)
        return dict(io.read_json(uri)) if io.exists(uri) else {}

    @cached_property
    def footers(self) -> list[Footer]:
        """The footer of each metadata file.

        Raises:
            CorruptDataError: A file is not parquet, or is cut short.
        """
        with ThreadPoolExecutor(FOOTERS_AT_ONCE) as threads:
            return list(threads.map(read_footer, self.metadata_files))

    @property
    def num_rows(self) -> int:
        """Rows of metadata."""
        return sum(f.num_rows for f in self.footers)

    def require(self, wanted: Sequence[str]) -> None:
        """Check that every file has the columns, with usable types.

        Features (`l14_img`, `b32_txt`) may stand in the .npz beside a file instead.

        Raises:
            BadInputError: A column is missing or of a wrong type; names file and column. Or the
                features have another number of rows than the file, or differ in size between files.
        """
        beside: list[features.Wanted] = []
        for footer in self.footers:
            types = dict(zip(footer.names, footer.types, strict=True))
            for name in wanted:
                if name in types:
                    _check_type(footer.uri, name, types[name])
                elif features.is_feature(name):
                    beside.append(features.Wanted(footer.uri, name, footer.num_rows))
                else:
                    raise BadInputError(
                        f"{io.redact(footer.uri)} has no column {name}; it has "
                        f"{', '.join(footer.names)}{_how_to_add(name)}"
                    )
        features.check(beside)

    def slices(self, rows_per_slice: int = 0) -> list[Slice]:
        """The metadata cut at row groups: the source offsets that checkpoints are kept by.

        Args:
            rows_per_slice: Most rows of a slice of several row groups. 0: by the pool's size.
        """
        if not rows_per_slice:
            share = self.num_rows // SLICES
            rows_per_slice = min(max(share, LEAST_ROWS_PER_SLICE), MOST_ROWS_PER_SLICE)
        pieces = []
        for number, footer in enumerate(self.footers):
            first, count = 0, 0
            for group, rows in enumerate(footer.row_groups):
                if count and count + rows > rows_per_slice:
                    pieces.append(_slice(number, footer, first, group, count))
                    first, count = group, 0
                count += rows
            if count:
                pieces.append(_slice(number, footer, first, len(footer.row_groups), count))
        return pieces

    def features_identity(self, wanted: Sequence[str]) -> dict[str, Any]:
        """What pins those of the columns that stand in the .npz files; empty when none does."""
        beside = [f.uri for f in self.footers if features.missing(wanted, f.names)]
        return features.identity(beside) if beside else {}

    def identity(self) -> dict[str, Any]:
        """Hashes that pin the metadata: one digest over names, sizes and footers of all files."""
        digest = hashlib.sha256()
        for footer in self.footers:
            name = footer.uri.rsplit("/", 1)[-1]
            digest.update(json.dumps([name, footer.num_bytes, footer.digest]).encode())
        identity: dict[str, Any] = {
            "uri": io.redact(self.uri),
            "rows": self.num_rows,
            "files": len(self.footers),
            "footers_sha256": digest.hexdigest(),
        }
        if io.exists(io.join(self.uri, MANIFEST)):
            identity["manifest_sha256"] = io.sha256(io.join(self.uri, MANIFEST))
        return identity


def _how_to_add(name: str) -> str:
    return "; gristmill pool score adds it" if name in columns.CLIP_SCORES.values() else ""


def _check_type(uri: str, name: str, kind: str) -> None:
    number = kind.startswith(("int", "uint", "float", "double", "halffloat"))
    string = kind in ("string", "large_string")
    if name in columns.NUMBERS and not number:
        raise BadInputError(f"{io.redact(uri)}: column {name} is {kind}, not a number")
    if name in columns.STRINGS and not string:
        raise BadInputError(f"{io.redact(uri)}: column {name} is {kind}, not a string")


def _slice(number: int, footer: Footer, first: int, stop: int, rows: int) -> Slice:
    before = sum(footer.row_groups[:first])
    return Slice(
        name=f"{number:06d}-{first:05d}",
        weight=rows,
        payload={"uri": footer.uri, "first": first, "stop": stop, "row": before},
    )


def read_footer(uri: str) -> Footer:
    """Read a parquet file's footer.

    Raises:
        CorruptDataError: The file is not parquet, or is cut short.
    """
    import pyarrow as pa

    with open_parquet(uri) as (file, size):
        metadata, schema = file.metadata, file.schema_arrow
        groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        buffer = pa.BufferOutputStream()
        metadata.write_metadata_file(buffer)
    return Footer(
        uri=uri,
        row_groups=groups,
        names=tuple(schema.names),
        types=tuple(str(t) for t in schema.types),
        digest=hashlib.sha256(buffer.getvalue()).hexdigest(),
        num_bytes=size,
    )


class open_parquet:  # noqa: N801 - used like the function `open`
    """Open a parquet file of any storage: gives (file, its size in bytes)."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> "tuple[pq.ParquetFile, int]":
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._handle = io.open_read(self._uri)
        try:
            size = self._handle.seek(0, 2)
            self._handle.seek(0)
            return pq.ParquetFile(self._handle, pre_buffer=True), size
        except (pa.ArrowException, OSError) as error:
            self._handle.close()
            raise CorruptDataError(
                f"{io.redact(self._uri)} is not a readable parquet file: {error}"
            ) from error

    def __exit__(self, *_: object) -> None:
        self._handle.close()


def read_slice(piece: Slice, names: Sequence[str]) -> "Iterator[tuple[int, pa.Table]]":
    """The rows of a metadata slice: (row number in the file of the first row, table).

    A table is a row group, or a part of a large one; features among `names` are taken from the .npz
    beside the file. Columns that are nowhere are left out.

    Raises:
        CorruptDataError: A row group cannot be read; names file and row group.
    """
    import pyarrow as pa

    uri, row = piece.payload["uri"], int(piece.payload["row"])
    with open_parquet(uri) as (file, _):
        beside = features.missing(names, file.schema_arrow.names)
        plain = [name for name in names if name not in beside]
        with features.FeatureColumns(uri, beside) as extra:
            for group in range(piece.payload["first"], piece.payload["stop"]):
                try:
                    table = file.read_row_group(group, columns=plain, use_threads=False)
                except (pa.ArrowException, OSError) as error:
                    raise CorruptDataError(
                        f"{io.redact(uri)}, row group {group} cannot be read: {error}"
                    ) from error
                for part in extra.added_to(table, row):
                    yield row, part
                    row += part.num_rows
