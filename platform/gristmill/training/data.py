"""The stream of training batches: open_clip's webdataset pipeline, made repeatable and bounded.

Stages and order are those of `get_wds_dataset` in open_clip_train/data.py with
`--dataset-resampled`. Departures, none of which changes what is learnt from a clean pool:

1. open_clip seeds the sample shuffle from process id and clock; here it follows from the loader
   process's seed and the epoch, as the draw of shards does there. So runs repeat.
2. From the second epoch on, a loader process reseeds its generators (crops use torch's) from the
   same two. So a run resumed at an epoch's start goes on as the undisturbed one.
3. Without loader processes open_clip draws the same shards in every epoch; here the epoch counts.
4. Any URI that fsspec reads is a shard; open_clip pipes s3:// through the AWS command.
5. Drops are counted by reason and bounded (`drops.py`); broken pictures found only while cropping
   are dropped too, where open_clip ends.
6. Only captions and images are decoded. open_clip decodes every member, and webdataset unpickles
   `.pyd`, `.pickle` and `.pth`: code execution for whoever made the tar.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
import webdataset as wds
from open_clip_train.data import (
    ResampledShards2,
    SharedEpoch,
    pytorch_worker_seed,
    tarfile_to_samples_nothrow,
)
from PIL import Image
from webdataset.filters import _shuffle as shuffle_samples
from webdataset.gopen import gopen_schemes

from gristmill.core import io
from gristmill.training.drops import Drops
from gristmill.training.shards import IMAGE_MEMBERS, TEXT_MEMBER

SHUFFLE_SIZE, SHUFFLE_INITIAL = 5000, 1000
"""Samples in the shuffle buffer, and how many it holds before the first comes out (open_clip's)."""
MAX_IMAGE_PIXELS = 89_478_485
"""Pillow's own default. It refuses pictures of more than twice this, 179 Mpixels."""


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """What one rank reads."""

    shards: tuple[str, ...]
    weights: tuple[float, ...] | None
    """One a shard, or None for uniform."""
    micro_batch_size: int
    loader_batches: int
    """Batches that each loader process makes in an epoch."""
    loader_workers: int
    """Loader processes; 0 loads in the rank itself."""


def stream_seed(epoch: int) -> int:
    """Seed of this process's draws in an epoch, distinct over ranks, processes and epochs."""
    if torch.utils.data.get_worker_info() is not None:
        return int(pytorch_worker_seed(epoch))
    return int(wds.utils.pytorch_worker_seed()) + epoch


def reseed(seed: int) -> None:
    """Set every generator that a transform may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


class _Shards(ResampledShards2):  # type: ignore[misc]
    """Shards drawn with replacement; also the place where a loader process begins an epoch."""

    def __init__(self, spec: StreamSpec, epoch: SharedEpoch, drops: Drops) -> None:
        super().__init__(
            list(spec.shards),
            weights=list(spec.weights) if spec.weights is not None else None,
            deterministic=True,
            worker_seed=None if spec.loader_workers else wds.utils.pytorch_worker_seed,
            epoch=epoch,
        )
        self._drops = drops

    def __iter__(self) -> Iterator[dict[str, str]]:
        Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS
        for scheme in {urlparse(url).scheme for url in self.urls} - {""}:
            gopen_schemes[scheme] = _open_remote
        epoch = self.epoch.get_value()
        if epoch:
            reseed(stream_seed(epoch))
        for shard in super().__iter__():
            self._drops.shard()
            yield shard


def _open_remote(url: str, _mode: str, _bufsize: int) -> Any:
    return io.open_read(url)


class _Shuffle:
    """open_clip's sample shuffle with a seed of its own."""

    def __init__(self, epoch: SharedEpoch) -> None:
        self._epoch = epoch

    def __call__(self, samples: Iterator[Any]) -> Iterator[Any]:
        rng = random.Random(stream_seed(self._epoch.get_value()))
        return shuffle_samples(samples, SHUFFLE_SIZE, SHUFFLE_INITIAL, rng)


class _Tokenize:
    """A caption -> long tensor [T]; a class, so that loader processes may also be spawned."""

    def __init__(self, tokenizer: Callable[[str], Any]) -> None:
        self._tokenizer = tokenizer

    def __call__(self, caption: str) -> Any:
        return self._tokenizer(caption)[0]


def make_loader(
    spec: StreamSpec,
    *,
    transform: Callable[[Any], Any],
    tokenizer: Callable[[str], Any],
    epoch: SharedEpoch,
    drops: Drops,
) -> torch.utils.data.DataLoader[Any]:
    """Batches (images [B, 3, H, W] float, captions [B, T] long); one `iter` is one epoch.

    Args:
        spec: Shards and sizes.
        transform: PIL image -> tensor; open_clip's training transform.
        tokenizer: open_clip's tokenizer of the model.
        epoch: Set it before each `iter`.
        drops: Counts what is left out.
    """
    stages = [
        _Shards(spec, epoch, drops),
        partial(tarfile_to_samples_nothrow, handler=drops.unreadable),
        wds.map(drops.read),
        _Shuffle(epoch),
        wds.select(drops.usable),
        wds.decode("pilrgb", only=[TEXT_MEMBER, *IMAGE_MEMBERS], handler=drops.undecodable),
        wds.rename(image="jpg;png;jpeg;webp", text=TEXT_MEMBER),
        wds.map_dict(image=transform, text=_Tokenize(tokenizer), handler=drops.undecodable),
        wds.to_tuple("image", "text"),
        wds.map(drops.good),
        wds.batched(spec.micro_batch_size, partial=False),
    ]
    dataset = wds.DataPipeline(*stages).with_epoch(spec.loader_batches)
    # A plain DataLoader: wds.WebLoader would wrap it in a pipeline that starts it late, and the
    # loop needs to know when the seed of the loader processes is drawn.
    return torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        shuffle=False,
        num_workers=spec.loader_workers,
        persistent_workers=spec.loader_workers > 0,
    )
