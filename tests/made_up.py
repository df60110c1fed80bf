"""Made-up pools: metadata of any size, and small ones with pictures and shards."""

import hashlib
import io
import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

CAPTIONS = {
    "en": [
        "a photo of a brown dog running through the park",
        "vintage red bicycle leaning against a brick wall",
        "how to bake sourdough bread at home",
        "the old harbour at sunset, with fishing boats",
    ],
    "fr": ["un chien brun qui court dans le parc", "le vieux port au coucher du soleil"],
    "de": ["ein brauner Hund läuft durch den Park", "das alte Fahrrad lehnt an der Mauer"],
    "ru": ["коричневая собака бежит по парку", "старый велосипед у кирпичной стены"],
    "ja": ["公園を走る茶色の犬の写真", "レンガの壁に立てかけた赤い自転車"],
}
ODD = [
    "",
    "x",
    "IMG_2034.jpg",
    "two words",
    "a b c",
    "  spaced   out   words  ",
    "line\nbreak here now",
]


def uid(word):
    return hashlib.md5(str(word).encode()).hexdigest()


def write_metadata(
    folder, rows, *, seed=0, files=3, row_group=5000, nan=0.01, null=0.01, repeat=0.01
):
    """Metadata with several languages, ties, NaN and null scores, null captions and repeated uids."""
    rng = random.Random(seed)
    numbers = np.random.default_rng(seed)
    texts = [t for group in CAPTIONS.values() for t in group] + ODD
    uids, captions = [], []
    for i in range(rows):
        uids.append(rng.choice(uids) if uids and rng.random() < repeat else uid(f"{seed}-{i}"))
        text = rng.choice(texts)
        if rng.random() < 0.3:
            text += f" {rng.randrange(1000)}"
        captions.append(None if rng.random() < null else text)
    scores = np.round(numbers.normal(0.2, 0.05, rows), 3)  # three digits: many ties
    scores[numbers.random(rows) < nan] = np.nan
    table = pa.table(
        {
            "uid": uids,
            "url": [f"http://example.invalid/{i}" for i in range(rows)],
            "text": captions,
            "original_width": numbers.integers(20, 1500, rows),
            "original_height": numbers.integers(20, 1500, rows),
            "clip_b32_similarity_score": np.round(numbers.normal(0.25, 0.05, rows), 6),
            "clip_l14_similarity_score": pa.array(scores, mask=numbers.random(rows) < null),
            **_later_columns(rows, seed, null),
        }
    )
    target = Path(folder) / "metadata"
    target.mkdir(parents=True, exist_ok=True)
    step = -(-rows // files) if rows else 1
    for number in range(files):
        part = table.slice(number * step, step)
        pq.write_table(part, target / f"{number:04d}.parquet", row_group_size=row_group)
    return table


def _later_columns(rows, seed, null):
    """Columns that came later, from a generator of their own so that the others stay as they are."""
    rng = np.random.default_rng([seed, 1])

    def numbers(values):
        values[rng.random(rows) < null] = np.nan
        return pa.array(values, mask=rng.random(rows) < null)

    pictures = rng.integers(0, max(rows // 2, 1), rows)  # each in two rows or so
    hashes = rng.integers(0, 1 << 64, max(rows // 2, 1), np.uint64)[pictures]
    flips = rng.integers(0, 64, rows).astype(np.uint64)
    hashes ^= np.where(rng.random(rows) < 0.3, np.uint64(1) << flips, np.uint64(0))
    return {
        "sha256": [hashlib.sha256(str(p).encode()).hexdigest() for p in pictures],
        "phash": pa.array([f"{h:016x}" for h in hashes], mask=rng.random(rows) < null),
        "aesthetic_score": numbers(np.round(rng.normal(5, 1, rows), 2)),
        "nsfw_score": numbers(np.round(rng.random(rows) ** 4, 3)),
        "weight": numbers(np.round(rng.exponential(1.0, rows), 3)),
    }


def made_features(rows, *, size=16, kinds=5, seed=0, dtype=np.float16):
    """Unit vectors [rows, size] around a few directions, which the seed does not change."""
    centres = np.random.default_rng(99).normal(size=(kinds, size))
    rng = np.random.default_rng(seed)
    found = centres[rng.integers(0, kinds, rows)] + 0.4 * rng.normal(size=(rows, size))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(dtype)


def write_features(folder, *, names=("l14_img",), save=np.savez, seed=0, **fields):
    """An .npz beside each metadata file of a pool; returns name -> features of all rows in order."""
    files = sorted((Path(folder) / "metadata").glob("*.parquet"))
    rows = [pq.read_metadata(file).num_rows for file in files]
    made = {name: made_features(sum(rows), seed=seed + i, **fields) for i, name in enumerate(names)}
    first = 0
    for file, count in zip(files, rows, strict=True):
        save(file.with_suffix(".npz"), **{k: v[first : first + count] for k, v in made.items()})
        first += count
    return made


def picture(seed, size=(48, 40), kind="JPEG"):
    """A drawn picture as bytes, different for every seed."""
    rng = random.Random(seed)
    image = Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        draw.ellipse([x - 9, y - 9, x + 9, y + 9], tuple(rng.randrange(256) for _ in range(3)))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_tar(path, members, *, mark=True):
    """A tar from (name, bytes) pairs; without `mark` it lacks the end-of-archive blocks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = buffer.getvalue()
    if not mark:
        end = sum(512 + -(-len(d) // 512) * 512 for _, d in members)
        data = data[:end]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(data)


def write_pool(folder, *, shards=4, per_shard=30, seed=0, faces=False):
    """A whole pool with pictures; returns its metadata rows in shard order."""
    rows = []
    for shard in range(shards):
        members, part = [], []
        for i in range(per_shard):
            n = shard * per_shard + i
            text = CAPTIONS["en" if n % 3 else "fr"][n % 2] + f" {n}"
            row = {
                "uid": uid(f"pool-{seed}-{n}"),
                "url": f"http://example.invalid/{n}",
                "text": text,
                "original_width": 100 + 10 * (n % 50),
                "original_height": 300,
                "clip_l14_similarity_score": (n * 37 % 100) / 100,
                "sha256": hashlib.sha256(picture(n)).hexdigest(),
            }
            if faces:
                row["face_bboxes"] = [[0.25, 0.25, 0.75, 0.75]] if n % 5 == 0 else []
            key = f"{shard:05d}{i:04d}"
            record = {k: v for k, v in row.items() if k not in ("text", "face_bboxes")}
            members += [
                (f"{key}.jpg", picture(n)),
                (f"{key}.json", json.dumps(record).encode()),
                (f"{key}.txt", text.encode()),
            ]
            part.append(row)
        write_tar(Path(folder) / "shards" / f"{shard:08d}.tar", members)
        target = Path(folder) / "metadata"
        target.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(part), target / f"{shard:08d}.parquet")
        rows += part
    return rows


def tar_members(path):
    with tarfile.open(path) as tar:
        return [(m.name, tar.extractfile(m).read()) for m in tar.getmembers()]


def folder_bytes(folder):
    """Every file below a folder, by relative name."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(Path(folder).rglob("*"))
        if p.is_file()
    }


def write_numbered(folder, files):
    """Metadata with a number and a score, a slice a file, since a slice does not cross files."""
    write_metadata(folder, 100 * files, files=files, row_group=100, null=0, nan=0)
    for path in sorted((folder / "metadata").iterdir()):
        table = pq.read_table(path)
        number = np.arange(len(table)) + int(path.stem)
        table = table.append_column("number", [number])
        table = table.append_column("score", [number % 7 / 7])
        pq.write_table(table, path, row_group_size=100)
    return folder
