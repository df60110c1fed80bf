"""What score's workers do: a shard through both towers, features and metadata beside each other."""

import io as bytes_io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.execution.slices import Slice, SliceWorker
from gristmill.models.clip import ClipSpec, LoadedClip, load_clip
from gristmill.pools import columns
from gristmill.pools.image import decode_rgb
from gristmill.pools.pool import open_parquet
from gristmill.pools.tar import Sample, TarReader, read_record
from gristmill.pools.uid import uid_of_hex

if TYPE_CHECKING:
    import pyarrow as pa

FROM_JSON = (columns.URL, columns.WIDTH, columns.HEIGHT, columns.SHA256, columns.FACES)
HISTOGRAM_BINS = 80


@dataclass
class ScoreShard(SliceWorker):
    """Scores the samples of one shard. Legend: B batch, N samples, D feature size."""

    spec: ClipSpec
    column: str
    batch_size: int
    template: str
    """A metadata file of the source, whose columns every file of the result gets."""
    out: str
    rebuild: bool
    num_gpus: float = 0.0
    _clip: LoadedClip | None = field(default=None, repr=False)

    def setup(self) -> None:
        """Load the model."""
        self._clip = load_clip(self.spec)

    def process(self, piece: Slice) -> dict[str, Any]:
        """Write metadata/N.parquet and metadata/N.npz; returns counts and hashes."""
        rows, images, texts, scores = [], [], [], []
        with TarReader(piece.payload["uri"]) as reader:
            for batch in _batches(reader, self.batch_size):
                image_bd, text_bd, good_b = self._features(reader, batch)
                score_b = (image_bd.astype(np.float64) * text_bd.astype(np.float64)).sum(1)
                scores.append(np.where(good_b, score_b, np.nan))
                images.append(image_bd.astype(np.float16))
                texts.append(text_bd.astype(np.float16))
                rows += [_row(reader, sample) for sample in batch]
        if not rows:
            raise CorruptDataError(f"{io.redact(piece.payload['uri'])} holds no samples")
        score_n = np.concatenate(scores)
        table, arrays, aligned = self._metadata(piece, rows)
        name = f"clip_{self.column}_similarity_score"
        if name in table.column_names:
            table = table.drop_columns([name])
        table = table.append_column(name, [score_n])
        arrays[f"{self.column}_img"] = np.concatenate(images)
        arrays[f"{self.column}_txt"] = np.concatenate(texts)
        files = _write(self.out, f"metadata/{piece.name}", table, arrays)
        finite = score_n[np.isfinite(score_n)]
        histogram = np.histogram(finite, bins=HISTOGRAM_BINS, range=(-1, 1))[0].tolist()
        return {
            "rows": len(rows),
            "unscored": int(len(score_n) - len(finite)),
            "aligned": aligned,
            "histogram": histogram,
            "files": files,
        }

    def _features(
        self, reader: TarReader, batch: list[Sample]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Normalised features [B, D] of pictures and captions; which pictures were read [B]."""
        import torch
        from PIL import Image

        assert self._clip is not None
        clip, pictures, good = self._clip, [], []
        for sample in batch:
            extension = sample.image_extension
            try:
                data = reader.read(sample.members[extension]) if extension else b""
                picture = decode_rgb(data, where=f"{io.redact(reader.uri)}: {sample.key}")
                good.append(True)
            except CorruptDataError:
                picture = Image.new("RGB", (1, 1))
                good.append(False)
            pictures.append(clip.transform(picture))
        captions = [_caption(reader, sample) for sample in batch]
        with torch.inference_mode():
            image_bd = clip.model.encode_image(
                torch.stack(pictures).to(clip.device), normalize=True
            )
            text_bd = clip.model.encode_text(
                clip.tokenizer(captions).to(clip.device), normalize=True
            )
        return image_bd.float().cpu().numpy(), text_bd.float().cpu().numpy(), np.array(good)

    def _metadata(
        self, piece: Slice, rows: list[dict[str, Any]]
    ) -> "tuple[pa.Table, dict[str, npt.NDArray[Any]], bool]":
        """The shard's metadata: the source's file of the same stem when its uids are the shard's,
        in order, with all its columns and features; else what the samples' json says."""
        import pyarrow as pa

        uri = piece.payload["metadata"]
        if uri:
            with open_parquet(uri) as (file, _):
                table = file.read()
            if table[columns.UID].to_pylist() == [row[columns.UID] for row in rows]:
                features = uri.removesuffix(".parquet") + ".npz"
                return table, _load_npz(features), True
        if not self.rebuild:
            raise BadInputError(
                f"{io.redact(piece.payload['uri'])} has no metadata file of the same name with the "
                "same uids in the same order; add --rebuild-metadata to take the rows from the "
                "samples' json, or ingest the shards first"
            )
        return _in_form_of(pa.Table.from_pylist(rows), self.template), {}, False


def _batches(reader: TarReader, size: int) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    for sample in reader.samples():
        batch.append(sample)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _caption(reader: TarReader, sample: Sample) -> str:
    member = sample.members.get("txt")
    return reader.read(member).decode("utf-8", "replace") if member else ""


def _row(reader: TarReader, sample: Sample) -> dict[str, Any]:
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
    row = {columns.UID: uid, columns.TEXT: _caption(reader, sample)}
    return row | {name: record.get(name) for name in FROM_JSON}


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


def _write(
    out: str, stem: str, table: "pa.Table", arrays: dict[str, npt.NDArray[Any]]
) -> dict[str, dict[str, Any]]:
    import pyarrow.parquet as pq

    files = {}
    with io.open_hashed(io.join(out, stem + ".parquet")) as file:
        pq.write_table(table, file, compression="zstd")
    files[stem + ".parquet"] = file.entry
    buffer = bytes_io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    with io.open_hashed(io.join(out, stem + ".npz")) as file:
        file.write(buffer.getvalue())
    files[stem + ".npz"] = file.entry
    return files
