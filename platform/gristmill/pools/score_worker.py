"""What score's workers do: a shard through both towers, features and metadata beside each other."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import CorruptDataError
from gristmill.execution.slices import Slice, SliceWorker
from gristmill.models.clip import ClipSpec, LoadedClip, load_clip
from gristmill.pools import derived
from gristmill.pools.image import decode_rgb
from gristmill.pools.tar import Sample, TarReader

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
                rows += [derived.row_of(reader, sample) for sample in batch]
        made = derived.metadata_of(piece, rows, template=self.template, rebuild=self.rebuild)
        score_n = np.concatenate(scores)
        made = made.with_column(f"clip_{self.column}_similarity_score", score_n)
        made.arrays[f"{self.column}_img"] = np.concatenate(images)
        made.arrays[f"{self.column}_txt"] = np.concatenate(texts)
        finite = score_n[np.isfinite(score_n)]
        histogram = np.histogram(finite, bins=HISTOGRAM_BINS, range=(-1, 1))[0].tolist()
        return {
            "rows": len(rows),
            "unscored": int(len(score_n) - len(finite)),
            "aligned": made.aligned,
            "histogram": histogram,
            "files": made.save(self.out, f"metadata/{piece.name}"),
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
            try:
                data = derived.picture_bytes(reader, sample)
                picture = decode_rgb(data, where=f"{io.redact(reader.uri)}: {sample.key}")
                good.append(True)
            except CorruptDataError:
                picture = Image.new("RGB", (1, 1))
                good.append(False)
            pictures.append(clip.transform(picture))
        captions = [derived.caption_of(reader, sample) for sample in batch]
        with torch.inference_mode():
            image_bd = clip.model.encode_image(
                torch.stack(pictures).to(clip.device), normalize=True
            )
            text_bd = clip.model.encode_text(
                clip.tokenizer(captions).to(clip.device), normalize=True
            )
        return image_bd.float().cpu().numpy(), text_bd.float().cpu().numpy(), np.array(good)


def _batches(reader: TarReader, size: int) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    for sample in reader.samples():
        batch.append(sample)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
