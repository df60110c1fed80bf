"""Pictures to compare a pool with: their features or perceptual hashes, and what each is called.

A set is an .npy, an .npz, or the folder of a pool that was ingested and scored like the one at hand
(metadata/*.parquet with an .npz beside each, or .npz files alone).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.arrays import RowReader
from gristmill.core.arrays import identity as array_identity
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.run import CONFIG, DONE

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 1 << 13
MANIFEST = "pool.json"
UID = "uid"
Rows = npt.NDArray[Any]


def settled_uri(name: str, uri: str) -> str:
    """A field's URI as every worker and every rerun can use it; as it is while a recipe leaves it
    to the caller.

    Raises:
        BadInputError: It carries credentials, which would be stored with the run.
    """
    if not isinstance(uri, str):
        return uri
    if io.has_credentials(uri):
        raise BadInputError(f"{name} carries a password or signature; use the environment instead")
    return io.absolute(uri) if uri else ""


def refuse_half_made(folder: str) -> None:
    """A folder that one of our jobs makes is to be read only once it is done.

    Raises:
        BadInputError: It is not.
    """
    config = io.join(folder, CONFIG)
    unfinished = io.exists(config) and not io.exists(io.join(folder, DONE))
    if unfinished and "hash" in io.read_json(config):
        raise BadInputError(f"{io.redact(folder)} is not finished; run what makes it again")


@dataclass(frozen=True)
class ReferenceSet:
    """A set of pictures at a URI."""

    uri: str

    @property
    def is_file(self) -> bool:
        """An array file, not a folder."""
        return self.uri.endswith((".npy", ".npz"))

    def array_files(self) -> list[str]:
        """The array files, sorted.

        Raises:
            BadInputError: There are none.
        """
        found = [self.uri] if self.is_file else self._listed(".npz")
        if not found:
            raise BadInputError(
                f"no features at {io.redact(self.uri)}: it is no .npy or .npz and has no "
                "metadata/*.npz; gristmill pool ingest and gristmill pool score make a set of them"
            )
        return found

    def _listed(self, ending: str) -> list[str]:
        refuse_half_made(self.uri)
        return io.list_files(io.join(self.uri, "metadata"), ending) or io.list_files(
            self.uri, ending
        )

    def blocks(self, column: str) -> Iterator[Rows]:
        """Features [n, d] in order, a bounded number of rows at once."""
        for uri in self.array_files():
            with RowReader(uri, column if uri.endswith(".npz") else "") as reader:
                yield from reader.require_features().blocks(ROWS_AT_ONCE)

    def num_bytes(self, column: str) -> int:
        """Bytes of all the features."""
        total = 0
        for uri in self.array_files():
            with RowReader(uri, column if uri.endswith(".npz") else "") as reader:
                header = reader.require_features().header
                total += header.shape[0] * header.shape[1] * header.dtype.itemsize
        return total

    def column(self, name: str) -> "list[pa.ChunkedArray]":
        """A metadata column, a file each.

        Raises:
            BadInputError: A file lacks it.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        found = []
        for uri in self._listed(".parquet"):
            with io.open_read(uri) as handle:
                try:
                    file = pq.ParquetFile(handle)
                    if name not in file.schema_arrow.names:
                        names = ", ".join(file.schema_arrow.names)
                        raise BadInputError(
                            f"{io.redact(uri)} has no column {name}; it has {names}"
                        )
                    found.append(file.read(columns=[name])[name])
                except (pa.ArrowException, OSError) as error:
                    raise CorruptDataError(f"{io.redact(uri)} cannot be read: {error}") from error
        if not found:
            raise BadInputError(f"no metadata/*.parquet at {io.redact(self.uri)}")
        return found

    def names(self) -> npt.NDArray[np.bytes_]:
        """What each picture is called: its uid; of an array file without names, nothing."""
        if self.is_file or not self._listed(".parquet"):
            return np.zeros(0, "S32")
        columns = [np.array(c.to_pylist(), "S32") for c in self.column(UID)]
        return np.concatenate(columns)

    def identity(self) -> dict[str, Any]:
        """What pins the set in a run: hashes over all its files, features by their checksums."""
        digest = hashlib.sha256()
        files = [self.uri] if self.is_file else self._listed(".npz") + self._listed(".parquet")
        for uri in files:
            whole = uri.endswith(".parquet")
            entry = {"sha256": io.sha256(uri)} if whole else array_identity(uri)
            digest.update(json.dumps([uri.rsplit("/", 1)[-1], entry]).encode())
        manifest = io.join(self.uri, MANIFEST)
        extra = {}
        if not self.is_file and io.exists(manifest):
            extra["manifest_sha256"] = io.sha256(manifest)
        name = io.redact(self.uri)
        return {"uri": name, "files": len(files), "files_sha256": digest.hexdigest(), **extra}
