"""The bundled drawings and the shards written from them: public-domain pictures with captions.

`drawings/README.md` says where they come from. Every drawing belongs to one split, and look-alikes
share theirs, so what the scorer learns from, what the pool holds and what is evaluated are apart.
"""

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

DRAWINGS = Path(__file__).parent / "drawings"

Split = Literal["scorer", "pool", "eval"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """One public-domain drawing."""

    key: str
    """Five digits, its place in the bundle."""
    image: bytes
    """WebP, longest side 64 pixels, on white."""
    caption: str
    """English phrase made of the title, the noun and at times keywords."""
    short_caption: str
    """The same without the title: what it is a drawing of."""
    noun: str
    """What the drawing's folder holds, as a word: `flag`, `fruit`."""
    category: str
    """Folder in the package, at most two levels: `food/fruit`."""


def load_drawings(split: Split) -> list[Drawing]:
    """Every drawing of a split, in order of key."""
    columns = ["key", "image", "caption", "short_caption", "noun", "category"]
    drawings: list[Drawing] = []
    for part in sorted(DRAWINGS.glob("drawings-*.parquet")):
        table = pq.read_table(part, columns=columns, filters=[("split", "=", split)])
        drawings.extend(Drawing(**row) for row in table.to_pylist())
    return drawings


def write_tar(path: Path, samples: Sequence[tuple[str, Mapping[str, bytes]]]) -> None:
    """Write samples (key, extension -> bytes) as one webdataset shard; same samples, same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            for extension, data in members.items():
                member = tarfile.TarInfo(f"{key}.{extension}")
                member.size = len(data)
                member.mode = 0o644
                tar.addfile(member, io.BytesIO(data))
