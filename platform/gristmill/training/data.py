"""The stream of training batches: open_clip's webdataset pipeline, made repeatable and bounded.

Stages and order are those of `get_wds_dataset` in open_clip_train/data.py with
`--dataset-resampled`. Departures, none of which changes what is learnt from a clean pool:

1. open_clip seeds the sample shuffle from process id and clock; here it follows from the loader
   process's seed and the epoch, as the draw of shards does there. So runs repeat.
2. From the second epoch on, a loader process reseeds its generators (crops use torch's) from the
   same two. So a run resumed at an epoch's start goes on as the undisturbed one.
3. Without loader processes open_clip draws the same shards in every epoch, whatever the seed; here
   epoch and seed count.
4. Any URI that fsspec reads is a shard; open_clip pipes s3:// through the AWS command.
5. Drops are counted by reason and bounded (`drops.py`); broken pictures found only while cropping
   are dropped too, where open_clip ends. A tar cut off between two members is noticed.
6. Only captions and images are decoded. open_clip decodes every member, and webdataset unpickles
   `.pyd`, `.pickle` and `.pth`: code execution for whoever made the tar.
7. Captions of more than 64 KiB are dropped, and endless words cut where the tokens end
   (`models/clip.py`): open_clip's tokenizer takes minutes over a long one.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import numpy as np
import torch
import webdataset as wds
from open_clip_train.data import (
    ResampledShards2,
    SharedEpoch,
    group_by_keys_nothrow,
    pytorch_worker_seed,
)
from PIL import Image
from webdataset.filters import _shuffle as shuffle_samples
from webdataset.tariterators import tar_file_expander

from gristmill.core import io
from gristmill.training.drops import Drops
from gristmill.training.shards import IMAGE_MEMBERS, TEXT_MEMBER

SHUFFLE_SIZE, SHUFFLE_INITIAL = 5000, 1000
"""Samples in the shuffle buffer, and how many it holds before the first comes out (open_clip's)."""
SEED_STRIDE = 1_000_000
"""Apart from seed to seed, without loader processes; webdataset's ranks are 1,000 apart."""
END_BYTES = 1024
"""Zeros at the end of a tar."""
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
    seed: int
    """Of the training. Loader processes have it from the rank's generators; the rank has not."""


def rank_seed(seed: int) -> int:
    """Seed of a rank that loads by itself; open_clip's at seed 0."""
    return int(wds.utils.pytorch_worker_seed()) + seed * SEED_STRIDE


def stream_seed(seed: int, epoch: int) -> int:
    """Seed of this process's draws in an epoch, distinct over ranks, processes and epochs."""
    if torch.utils.data.get_worker_info() is not None:
        return int(pytorch_worker_seed(epoch))
    return rank_seed(seed) + epoch


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
            worker_seed=None if spec.loader_workers else partial(rank_seed, spec.seed),
            epoch=epoch,
        )
        self._seed, self._drops = spec.seed, drops

    def __iter__(self) -> Iterator[dict[str, str]]:
        Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS
        epoch = self.epoch.get_value()
        if epoch:
            reseed(stream_seed(self._seed, epoch))
        yield from super().__iter__()


class _Tar:
    """A tar's bytes on their way to tarfile, with an eye on where they end.

    tarfile takes a file cut off between two members for a whole one. A whole one ends in two blocks
    of zeros, so tarfile stops before the file does.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._plain: bool | None = None
        self._tail = b""
        self.truncated = False

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data = self._file.read(size)
        if self._plain is None:
            self._plain = data[257:262] == b"ustar"  # a compressed tar ends in anything
        self._tail = (self._tail + data[-END_BYTES:])[-END_BYTES:]
        if not data and self._plain and self._tail.strip(b"\0"):
            self.truncated = True
        return data


def open_tars(shards: Iterator[dict[str, str]], *, drops: Drops) -> Iterator[dict[str, Any]]:
    """Open each shard for `tar_file_expander`, close it afterwards, and count the broken."""
    for shard in shards:
        drops.shard()
        try:
            file = io.open_read(shard["url"])
        except Exception as error:  # a store has its own errors, and one shard may be missing
            drops.unreadable(error)
            drops.shard_end(truncated=False)
            continue
        with file:
            tar = _Tar(file)
            yield {"url": shard["url"], "stream": tar}
            drops.shard_end(truncated=tar.truncated)


class _Shuffle:
    """open_clip's sample shuffle with a seed of its own."""

    def __init__(self, seed: int, epoch: SharedEpoch) -> None:
        self._seed, self._epoch = seed, epoch

    def __call__(self, samples: Iterator[Any]) -> Iterator[Any]:
        rng = random.Random(stream_seed(self._seed, self._epoch.get_value()))
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
        partial(open_tars, drops=drops),
        partial(tar_file_expander, handler=drops.unreadable),
        group_by_keys_nothrow,
        wds.map(drops.read),
        _Shuffle(spec.seed, epoch),
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
