"""Reshard against a plain copy of the very bytes it keeps, in turns, in one run."""

import hashlib
import io
import json
import os
import shutil
import statistics
import tarfile
import time
from functools import partial
from pathlib import Path

SHARDS, PER_SHARD, KEPT_SHARD = 8, 5000, 2510
RUNS = 5
PICTURES = 64
JOBS = (
    "reshard, whole job",
    "kept members read where they lie and written, with fsync",
    "the same without fsync",
    "copyfile of reshard's own output, with fsync",
    "the same without",
)
WORKERS = 2


def run(out, heading):
    from gristmill.execution.session import Execution, session

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    pictures = _pictures()
    kept = _write_pool(out / "pool", pictures)
    _reshard(out, "warm")  # imports in the workers, and the source in the page cache
    kept_members = _members(out / "pool")
    times = {(state, name): [] for state in ("in cache", "from disk") for name in JOBS}
    with session(Execution(workers=WORKERS)):
        _reshard(out, "first")
        for i in range(RUNS):  # in turns, so that the machine's moods fall on all
            for state in ("in cache", "from disk"):
                sources = sorted((out / "pool" / "shards").glob("*.tar"))
                _prepare(sources, state)
                times[state, JOBS[0]].append(_timed(lambda i=i: _reshard(out, f"r{i}")))
                made = sorted((out / f"r{i}" / "shards").glob("*.tar"))
                size = sum(path.stat().st_size for path in made)
                for name, sync in zip(JOBS[1:3], (True, False), strict=True):
                    _prepare(sources, state)
                    copy = partial(_copy_members, kept_members, out / "copy", sync=sync)
                    times[state, name].append(_timed(copy))
                    shutil.rmtree(out / "copy")
                for name, sync in zip(JOBS[3:], (True, False), strict=True):
                    _prepare(made, state)
                    copy = partial(_copy, made, out / "copy", sync=sync)
                    times[state, name].append(_timed(copy))
                    shutil.rmtree(out / "copy")
                shutil.rmtree(out / f"r{i}")
    mean = statistics.mean(len(p) for p in pictures)
    shutil.rmtree(out / "pool")
    lines = [heading("Pools: reshard", "make bench").rstrip(), ""]
    lines += [_setting(mean, kept, size), ""]
    lines += ["| source | job | seconds, median | least | MB/s | reshard's share of its speed |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for (state, name), found in times.items():
        share = statistics.median(found) / statistics.median(times[state, JOBS[0]])
        lines.append(
            f"| {state} | {name} | {statistics.median(found):.2f} | {min(found):.2f} "
            f"| {size / 1e6 / statistics.median(found):,.0f} | {share:.2f} |"
        )
    return "\n".join([*lines, "", _bounds(size)]) + "\n"


def _setting(mean, kept, size):
    return (
        f"{SHARDS} shards of {PER_SHARD:,} samples (JPEG of {mean / 1e3:.0f} kB on average, txt, "
        f"json), {kept:,} kept in shards of {KEPT_SHARD:,}, {size / 1e6:,.0f} MB of tars written; {WORKERS} workers; {RUNS} "
        "runs in turns; the source is in the page cache, or only on the disk. Ray's start is not counted; the search "
        "for the kept samples, the report and the manifest with every shard's sha256 are. A plain "
        "copy of the kept bytes is one process that reads every kept member where it lies in the pool, "
        "places known beforehand, and writes it; beside it stands shutil.copyfile of the tars that "
        "reshard wrote, whose bytes lie together already. Neither searches nor hashes. Reshard syncs "
        "every file to the disk, so the copies that sync too are the like of it."
    )


def _bounds(size):
    """What one core needs for the two things no reshard can leave out."""
    data = os.urandom(1 << 26)
    hashing = _timed(lambda: hashlib.sha256(data)) / len(data)
    return (
        f"What bounds it: sha256 takes {hashing * size:.2f} s of one core for these bytes, which "
        "a copy does not do; then the write into the page cache, which both do; then the search, "
        "which reads each header and json once (about 11 ms a thousand samples)."
    )


def _prepare(paths, state):
    """Have the files in the page cache, or out of it, as a pool larger than memory is."""
    for path in paths:
        with open(path, "rb") as file:
            if state == "in cache":
                while file.read(1 << 22):
                    pass
            else:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _timed(action):
    start = time.monotonic()
    action()
    return time.monotonic() - start


def _reshard(out, name):
    from gristmill.core.job import run_job
    from gristmill.execution.session import Execution
    from gristmill.pools.reshard import ReshardJob

    job = ReshardJob(
        pool=str(out / "pool"),
        subset=str(out / "pool" / "half.npy"),
        shard_size=KEPT_SHARD,
        out=str(out / name),
        execution=Execution(workers=WORKERS),
    )
    run_job(job)
    if not name.startswith("r"):
        shutil.rmtree(out / name)


def _members(pool):
    """(offset, size) of every member of the kept samples, by source tar."""
    from gristmill.pools.subset import Subset
    from gristmill.pools.tar import TarReader, read_record

    subset = Subset.load(str(pool / "half.npy"))
    found = {}
    for path in sorted((pool / "shards").glob("*.tar")):
        with TarReader(str(path)) as reader:
            found[path] = [
                (member.offset, member.size)
                for sample in reader.samples()
                if read_record(reader, sample)["uid"] in subset
                for member in sample.members.values()
            ]
    return found


def _copy_members(members, folder, *, sync):
    """One process, one file a source: no headers, no search, no hash."""
    folder.mkdir()
    for path, places in members.items():
        with open(path, "rb") as source, open(folder / path.name, "wb") as target:
            for offset, size in places:
                target.write(os.pread(source.fileno(), size, offset))
            if sync:
                target.flush()
                os.fsync(target.fileno())


def _copy(files, folder, *, sync):
    folder.mkdir()
    for path in files:
        shutil.copyfile(path, folder / path.name)
        if sync:
            with open(folder / path.name, "rb") as file:
                os.fsync(file.fileno())


def _pictures():
    """JPEGs of about 20 to 50 kB: soft shapes with grain, as photos have."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    made = []
    for _ in range(PICTURES):
        side = int(rng.integers(300, 480))
        shapes = Image.fromarray(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize((side, side), Image.Resampling.BICUBIC), float)
        grain = np.clip(smooth + rng.normal(0, 12, (side, side, 1)), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(grain).save(buffer, "JPEG", quality=50)
        made.append(buffer.getvalue())
    return made


def _write_pool(folder, pictures):
    """Shards of jpg, json, txt, metadata, and half of the uids as half.npy; returns their number."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "shards").mkdir(parents=True)
    (folder / "metadata").mkdir()
    uids = []
    for shard in range(SHARDS):
        rows = []
        with tarfile.open(folder / "shards" / f"{shard:08d}.tar", "w") as tar:
            for i in range(PER_SHARD):
                row, members = _sample(shard * PER_SHARD + i, pictures)
                for extension, data in members.items():
                    info = tarfile.TarInfo(f"{shard:05d}{i:04d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                rows.append(row)
        pq.write_table(pa.Table.from_pylist(rows), folder / "metadata" / f"{shard:08d}.parquet")
        uids += [row["uid"] for row in rows]
    half = [u for u in uids if int(u[-1], 16) % 2]
    pairs = sorted((int(u[:16], 16), int(u[16:], 16)) for u in half)
    np.save(folder / "half.npy", np.array(pairs, np.dtype("u8,u8")))
    return len(half)


def _sample(number, pictures):
    """A pair with a picture of its own: one of a few, its last bytes made different."""
    picture = pictures[number % len(pictures)]
    picture = picture[:-2] + hashlib.sha256(str(number).encode()).digest() + picture[-2:]
    text = f"a photo of a brown dog running through the park, number {number}"
    row = {
        "uid": hashlib.md5(str(number).encode()).hexdigest(),
        "url": f"http://example.invalid/pictures/{number}.jpg",
        "original_width": 640,
        "original_height": 480,
        "clip_l14_similarity_score": number * 53 % 1000 / 1000,
        "sha256": hashlib.sha256(picture).hexdigest(),
        "key": f"{number:09d}",
        "status": "success",
    }
    members = {"jpg": picture, "json": json.dumps(row).encode(), "txt": text.encode()}
    return {**row, "text": text}, members


if __name__ == "__main__":
    import argparse
    import sys

    sys.path[:0] = [str(Path(__file__).parents[2] / "platform"), str(Path(__file__).parent)]
    from run import heading

    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="runs/bench/reshard")
    print(run(Path(parser.parse_args().out), heading))
