"""Makers of pictures, tars and shards for the tests of this folder."""

import io
import json
import random
import tarfile
from pathlib import Path

from PIL import Image


def picture(rng: random.Random) -> bytes:
    """A small JPEG of two colours."""
    image = Image.new("RGB", (40, 40), tuple(rng.randrange(256) for _ in range(3)))
    image.paste(tuple(rng.randrange(256) for _ in range(3)), (8, 8, 30, 30))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue()


def picture_bytes() -> bytes:
    """Some small JPEG."""
    return picture(random.Random(0))


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_shards(folder: Path, *, count: int = 6, samples: int = 10, seed: int = 0) -> Path:
    """Shards as the resharder writes them."""
    rng = random.Random(seed)
    for shard in range(count):
        members = {}
        for i in range(samples):
            key = f"{seed:02d}{shard:04d}{i:04d}"
            members[f"{key}.jpg"] = picture(rng)
            words = rng.sample(["red", "blue", "box", "dog", "tree", "old", "big", "sky"], 4)
            members[f"{key}.txt"] = " ".join(words).encode()
            members[f"{key}.json"] = json.dumps({"uid": key}).encode()
        write_tar(folder / f"{shard:08d}.tar", members)
    return folder
