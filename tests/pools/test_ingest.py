import hashlib
import json

import pyarrow.parquet as pq
import pytest
from made_up import folder_bytes, picture, tar_members, uid, write_tar

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.job import run_job
from gristmill.execution.session import Execution
from gristmill.pools.ingest import Folder, IngestJob, Tars
from gristmill.pools.pool import Pool

pytestmark = pytest.mark.ray


def bomb():
    """A PNG of a few hundred bytes that claims 20,000 x 20,000 pixels."""
    import struct
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def raw_samples():
    good = [(f"s{i}", {"jpg": picture(i), "txt": f"picture number {i}".encode()}) for i in range(6)]
    stated = {
        "url": "http://x.invalid/a",
        "original_width": 640,
        "original_height": 480,
        "uid": uid("own"),
    }
    return [
        *good,
        (
            "own",
            {
                "webp": picture(20, kind="WEBP"),
                "txt": b"has a record",
                "json": json.dumps(stated).encode(),
            },
        ),
        ("nocap", {"jpg": picture(21)}),
        ("noimg", {"txt": b"alone"}),
        ("empty", {"jpg": picture(22), "txt": b""}),
        ("huge", {"jpg": picture(23), "txt": b"x" * (1 << 20)}),
        ("latin", {"jpg": picture(24), "txt": "caf\xe9".encode("latin-1")}),
        ("zero", {"jpg": b"", "txt": b"zero bytes"}),
        ("noise", {"jpg": b"not a picture at all", "txt": b"noise"}),
        ("cut", {"jpg": picture(25)[:300], "txt": b"cut short"}),
        ("bomb", {"png": bomb(), "txt": b"a bomb"}),
        ("thin", {"png": picture(27, size=(4000, 2), kind="PNG"), "txt": b"a thread"}),
        (
            "eps",
            {"jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "txt": b"postscript"},
        ),
        ("deep", {"jpg": picture(28), "txt": b"t", "json": b"[" * 200_000}),
        ("halfpair", {"jpg": picture(29), "txt": b"t", "json": b'{"url": "\\ud800"}'}),
        ("badjson", {"jpg": picture(26), "txt": b"t", "json": b"[1, 2]"}),
    ]


DROPPED = {
    "no caption": 1,
    "no image": 1,
    "caption over 65536 bytes": 1,
    "caption is not UTF-8": 1,
    "image has no bytes": 1,
    "image cannot be decoded": 3,
    "image over the size bounds": 2,
    "json is not an object": 2,
    "url is not text": 1,
}


def write_raw(folder):
    for number, part in enumerate((raw_samples()[:8], raw_samples()[8:])):
        members = [(f"{key}.{ext}", data) for key, parts in part for ext, data in parts.items()]
        write_tar(folder / f"{number:03d}.tar", members)


def test_every_sample_becomes_a_pair_or_a_counted_drop(tmp_path):
    write_raw(tmp_path / "raw")
    run = run_job(IngestJob(source=Tars(source=str(tmp_path / "raw")), out=str(tmp_path / "pool")))
    summary = run.done()["summary"]
    assert summary["dropped"] == DROPPED
    assert summary["asked"] == len(raw_samples()) == summary["kept"] + summary["dropped_total"]
    table = pq.read_table(tmp_path / "pool" / "metadata" / "00000000.parquet").to_pylist()
    assert table[6]["uid"] == uid("own") and table[6]["original_width"] == 640
    assert (
        table[0]["sha256"] == hashlib.sha256(picture(0)).hexdigest()
        and table[0]["original_width"] == 48
    )
    members = tar_members(tmp_path / "pool" / "shards" / "00000000.tar")
    assert members[0] == ("0000000000000.jpg", picture(0))
    assert json.loads(dict(members)["0000000000000.json"])["uid"] == table[0]["uid"]
    pool = Pool(str(tmp_path / "pool"))
    assert pool.num_rows == summary["kept"] and len(pool.shard_files) == 2
    page = (tmp_path / "pool" / "report.html").read_text()
    assert "dropped: image over the size bounds" in page


def test_uids_come_from_content_not_from_place_or_workers(tmp_path):
    write_raw(tmp_path / "raw")
    made = []
    for workers in (1, 2):
        out = tmp_path / f"pool{workers}"
        job = IngestJob(
            source=Tars(source=str(tmp_path / "raw")),
            out=str(out),
            execution=Execution(workers=workers),
        )
        run_job(job)
        made.append(
            {k: v for k, v in folder_bytes(out).items() if k.startswith(("shards/", "metadata/"))}
        )
    assert made[0] == made[1]
    (tmp_path / "other").mkdir()
    (tmp_path / "raw" / "000.tar").rename(tmp_path / "other" / "zzz.tar")
    run_job(IngestJob(source=Tars(source=str(tmp_path / "other")), out=str(tmp_path / "pool3")))
    again = pq.read_table(tmp_path / "pool3" / "metadata" / "00000000.parquet")["uid"].to_pylist()
    assert (
        again
        == pq.read_table(tmp_path / "pool1" / "metadata" / "00000000.parquet")["uid"].to_pylist()
    )


def test_a_folder_of_pictures_with_captions(tmp_path):
    for i in range(7):
        (tmp_path / "pics" / "sub").mkdir(parents=True, exist_ok=True)
        (tmp_path / "pics" / "sub" / f"{i}.jpg").write_bytes(picture(i))
        if i:
            (tmp_path / "pics" / "sub" / f"{i}.txt").write_text(f"picture {i}")
    job = IngestJob(
        source=Folder(source=str(tmp_path / "pics")), out=str(tmp_path / "pool"), shard_size=3
    )
    assert run_job(job).done()["summary"]["dropped"] == {"no caption": 1}
    assert len(Pool(str(tmp_path / "pool")).shard_files) == 3


def test_a_truncated_tar_stops_the_job_or_is_counted(tmp_path):
    write_raw(tmp_path / "raw")
    data = (tmp_path / "raw" / "001.tar").read_bytes()
    (tmp_path / "raw" / "001.tar").write_bytes(data[:2000])
    source = Tars(source=str(tmp_path / "raw"))
    with pytest.raises(CorruptDataError, match=r"001\.tar"):
        run_job(IngestJob(source=source, out=str(tmp_path / "p")))
    assert not (tmp_path / "p" / "DONE").exists() and not (tmp_path / "p" / "pool.json").exists()
    run = run_job(IngestJob(source=source, out=str(tmp_path / "q"), skip_corrupt=True))
    assert run.done()["summary"]["corrupt_tars"] == 1
    assert not (tmp_path / "q" / "shards" / "00000001.tar").exists()


def test_a_tar_that_climbs_out_is_refused_even_when_skipping(tmp_path):
    write_tar(tmp_path / "raw" / "a.tar", [("../../x.jpg", picture(1)), ("../../x.txt", b"t")])
    job = IngestJob(
        source=Tars(source=str(tmp_path / "raw")), out=str(tmp_path / "p"), skip_corrupt=True
    )
    with pytest.raises(BadInputError, match="would leave the folder"):
        run_job(job)


def test_nothing_to_take_in(tmp_path):
    with pytest.raises(BadInputError, match=r"no \*\.tar"):
        run_job(IngestJob(source=Tars(source=str(tmp_path / "absent")), out=str(tmp_path / "p")))
    write_tar(tmp_path / "raw" / "a.tar", [("x.txt", b"t")])
    with pytest.raises(BadInputError, match="none of 1 samples"):
        run_job(IngestJob(source=Tars(source=str(tmp_path / "raw")), out=str(tmp_path / "p2")))
