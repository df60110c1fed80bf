"""A few right and a few wrong predictions with pictures, chosen by key so that reruns agree."""

import base64
import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.evaluation.evalset import EvalSample

EACH = 6
SIDE = 96
QUALITY = 70


def place(key: str) -> int:
    """A sample's place in a shuffled order that depends on nothing but its key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


@dataclass
class Gallery:
    """Keeps `EACH` right and `EACH` wrong samples, whatever the order or the batch size."""

    _heaps: "dict[bool, list[tuple[int, str, int, EvalSample, str]]]" = field(
        default_factory=lambda: {True: [], False: []}
    )
    _ties: Iterator[int] = field(default_factory=count)
    """Samples cannot be compared, and a set may hold a key twice."""

    def offer(self, sample: "EvalSample", *, right: bool, text: str) -> None:
        """Show one sample; kept if its key's place is among the first."""
        order = -place(sample.key)
        heap = self._heaps[right]
        entry = (order, sample.key, next(self._ties), sample, text)
        if len(heap) < EACH:
            heapq.heappush(heap, entry)
        elif order > heap[0][0]:
            heapq.heapreplace(heap, entry)

    def pictures(self) -> list[dict[str, Any]]:
        """The chosen as JSON: key, right, text, image (base64 WebP of at most 96 px)."""
        from gristmill.pools.image import encode_webp

        found = []
        for right, heap in self._heaps.items():
            for _, key, _, sample, text in sorted(heap, key=lambda item: (-item[0], item[1])):
                image = sample.image()
                image.thumbnail((SIDE, SIDE))
                data = base64.b64encode(encode_webp(image, quality=QUALITY)).decode()
                found.append({"key": key, "right": right, "text": text, "image": data})
        return found
