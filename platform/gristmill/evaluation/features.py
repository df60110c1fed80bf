"""From pictures and words to normalised features, fp32, in batches. B batch, D feature size."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.core.errors import BadInputError

if TYPE_CHECKING:
    from gristmill.evaluation.evalset import EvalSample
    from gristmill.models.clip import LoadedClip

GPU_DECODE_THREADS = 8
"""A GPU outruns one decoding thread by far; on a CPU the model is the slow part."""


def image_batches(
    model: "LoadedClip", samples: "Iterable[EvalSample]", batch_size: int
) -> "Iterator[tuple[list[EvalSample], Any]]":
    """Samples with their image features, float32 [B, D], rows of length 1.

    Raises:
        CorruptDataError: A picture cannot be decoded.
        BadInputError: The model gives a feature that is not finite.
    """
    import torch

    threads = GPU_DECODE_THREADS if model.device.type == "cuda" else 1
    source = iter(samples)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(source, batch_size)):
            pixels = torch.stack(list(pool.map(lambda s: model.transform(s.image()), batch)))
            with torch.inference_mode():
                features = model.model.encode_image(pixels.to(model.device), normalize=True)
            yield batch, _checked(features, "image")


def text_features(model: "LoadedClip", texts: Sequence[str], batch_size: int) -> Any:
    """Text features, float32 [len(texts), D], rows of length 1."""
    return np.concatenate(list(text_batches(model, texts, batch_size)))


def text_batches(model: "LoadedClip", texts: Sequence[str], batch_size: int) -> Iterator[Any]:
    """Text features batch by batch, float32 [B, D].

    Raises:
        BadInputError: The model gives a feature that is not finite.
    """
    import torch

    for start in range(0, len(texts), batch_size):
        tokens = model.tokenizer(list(texts[start : start + batch_size])).to(model.device)
        with torch.inference_mode():
            features = model.model.encode_text(tokens, normalize=True)
        yield _checked(features, "text")


def _checked(features: Any, kind: str) -> Any:
    values = features.float().cpu().numpy()
    if not np.isfinite(values).all():  # else a diverged model scores like a guesser
        raise BadInputError(f"the model's {kind} features are not finite; its training diverged")
    return values
