import io
import json
import random
import tarfile

import numpy as np
import pytest
from made_up import folder_bytes, tar_members, uid, write_pool, write_tar

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.job import run_job
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice
from gristmill.pools import reshard_workers
from gristmill.pools.reshard import ReshardJob
from gristmill.pools.reshard_plan import runs
from gristmill.pools.subset import Subset
from gristmill.pools.uid import make_uids, sort_uids

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    return folder, write_pool(folder, faces=True)


def save(path, uids):
    Subset(sort_uids(make_uids(uids))).save(str(path))
    return str(path)


def shards_of(out):
    return [p for p in sorted((out / "shards").iterdir()) if p.suffix == ".tar"]


def keys_of(out):
    return [name for p in shards_of(out) for name, _ in tar_members(p) if name.endswith(".jpg")]


def test_kept_pairs_in_pool_order_dense_and_whole(made, tmp_path):
    folder, rows = made
    kept = rows[::3]
    subset = save(tmp_path / "s.npy", [r["uid"] for r in kept])
    run = run_job(
        ReshardJob(pool=str(folder), subset=subset, shard_size=7, out=str(tmp_path / "o"))
    )
    assert keys_of(tmp_path / "o") == [f"{r['uid']}-0.jpg" for r in kept]
    names = [p.name for p in shards_of(tmp_path / "o")]
    assert names == [f"{i:08d}.tar" for i in range(6)]
    first = dict(tar_members(shards_of(tmp_path / "o")[0]))
    source = dict(tar_members(folder / "shards" / "00000000.tar"))
    assert first[f"{kept[1]['uid']}-0.jpg"] == source["000000003.jpg"]
    assert first[f"{kept[1]['uid']}-0.txt"].decode() == kept[1]["text"]
    meta = json.loads((tmp_path / "o" / "shards" / "meta.json").read_text())
    assert meta["output_shard_count"] == 6 and meta["output_shard_format"].format(0) == names[0]
    assert (tmp_path / "o" / "shards" / "sample_ids.npy").read_bytes() == (
        tmp_path / "s.npy"
    ).read_bytes()
    assert json.loads((tmp_path / "o" / "shards" / "00000005_stats.json").read_text()) == {
        "successes": 5
    }
    assert run.done()["summary"]["samples"] == len(kept) == 40


def test_a_uid_listed_k_times_is_written_k_times(made, tmp_path):
    folder, rows = made
    subset = save(tmp_path / "s.npy", [rows[5]["uid"]] * 3 + [rows[50]["uid"]])
    run_job(ReshardJob(pool=str(folder), subset=subset, out=str(tmp_path / "o")))
    assert keys_of(tmp_path / "o") == [f"{rows[5]['uid']}-{j}.jpg" for j in range(3)] + [
        f"{rows[50]['uid']}-0.jpg"
    ]


@pytest.mark.parametrize("window", [0, 25])
def test_the_number_of_workers_changes_no_byte(made, tmp_path, window):
    folder, rows = made
    subset = save(tmp_path / "s.npy", [r["uid"] for r in rows[::2]] + [rows[4]["uid"]])
    made_by = []
    for workers in (1, 2, 4):
        out = tmp_path / str(workers)
        job = ReshardJob(
            pool=str(folder),
            subset=subset,
            shard_size=8,
            shuffle_buffer=window,
            out=str(out),
            execution=Execution(workers=workers),
        )
        run_job(job)
        made_by.append(folder_bytes(out / "shards"))
    assert made_by[0] == made_by[1] == made_by[2]
    order = keys_of(tmp_path / "1")
    assert len(set(order)) == len(order) == 61
    in_order = order == sorted(order, key=lambda k: [r["uid"] for r in rows].index(k[:32]))
    assert in_order is (window == 0)
    if window:  # a sample stays within its window
        plain = ReshardJob(
            pool=str(folder), subset=subset, shard_size=8, out=str(tmp_path / "plain")
        )
        run_job(plain)
        places = {k: i for i, k in enumerate(keys_of(tmp_path / "plain"))}
        assert all(places[k] // window == i // window for i, k in enumerate(order))


def test_uids_in_no_shard_are_counted_and_can_be_refused(made, tmp_path):
    folder, rows = made
    subset = save(tmp_path / "s.npy", [rows[0]["uid"], uid("nowhere"), uid("nowhere either")])
    run = run_job(ReshardJob(pool=str(folder), subset=subset, out=str(tmp_path / "o")))
    assert run.done()["summary"]["not_in_shards"] == 2
    with pytest.raises(BadInputError, match="2 entries of the subset are in no shard"):
        run_job(
            ReshardJob(pool=str(folder), subset=subset, out=str(tmp_path / "o2"), require_all=True)
        )


def test_a_foreign_subset_is_refused(made, tmp_path):
    subset = save(tmp_path / "s.npy", [uid("a"), uid("b")])
    with pytest.raises(BadInputError, match="another pool's subset"):
        run_job(ReshardJob(pool=str(made[0]), subset=subset, out=str(tmp_path / "o")))


def test_an_unsorted_subset_is_refused(made, tmp_path):
    uids = sort_uids(make_uids([r["uid"] for r in made[1][:5]]))[::-1]
    np.save(tmp_path / "s.npy", uids)
    with pytest.raises(BadInputError, match="not sorted"):
        run_job(
            ReshardJob(pool=str(made[0]), subset=str(tmp_path / "s.npy"), out=str(tmp_path / "o"))
        )


def test_a_corrupt_shard_stops_the_job_or_is_counted(tmp_path):
    rows = write_pool(tmp_path / "p", shards=2)
    shard = tmp_path / "p" / "shards" / "00000001.tar"
    shard.write_bytes(shard.read_bytes()[:40_000])
    subset = save(tmp_path / "s.npy", [r["uid"] for r in rows])
    job = ReshardJob(pool=str(tmp_path / "p"), subset=subset, out=str(tmp_path / "o"))
    with pytest.raises(CorruptDataError, match=r"00000001\.tar"):
        run_job(job)
    assert not (tmp_path / "o" / "shards" / "meta.json").exists()
    skip = ReshardJob(
        pool=str(tmp_path / "p"), subset=subset, out=str(tmp_path / "q"), skip_corrupt=True
    )
    done = run_job(skip).done()["summary"]
    assert done["corrupt_shards"] == 1 and done["samples"] == 30 and done["not_in_shards"] == 30


def test_samples_without_a_uid_are_counted(tmp_path):
    from made_up import picture, write_tar

    rows = write_pool(tmp_path / "p", shards=1, per_shard=3)
    write_tar(
        tmp_path / "p" / "shards" / "z.tar",
        [("a.jpg", picture(0)), ("a.txt", b"t"), ("b.json", b"{}")],
    )
    subset = save(tmp_path / "s.npy", [r["uid"] for r in rows])
    done = run_job(
        ReshardJob(pool=str(tmp_path / "p"), subset=subset, out=str(tmp_path / "o"))
    ).done()
    assert done["summary"]["dropped"] == {"sample without a uid": 2}


def test_faces_are_blurred_and_boxes_written(made, tmp_path):
    from PIL import Image

    folder, rows = made
    kept = rows[:20]
    subset = save(tmp_path / "s.npy", [r["uid"] for r in kept])
    job = ReshardJob(
        pool=str(folder), subset=subset, out=str(tmp_path / "o"), blur_faces=True, inject_faces=True
    )
    assert run_job(job).done()["summary"]["blurred"] == 4
    members = dict(tar_members(shards_of(tmp_path / "o")[0]))
    face, plain = kept[5]["uid"], kept[6]["uid"]
    assert f"{face}-0.webp" in members and f"{face}-0.jpg" not in members
    assert json.loads(members[f"{face}-0.json"])["face_bboxes"] == [[0.25, 0.25, 0.75, 0.75]]
    assert f"{plain}-0.jpg" in members and "face_bboxes" not in json.loads(
        members[f"{plain}-0.json"]
    )
    source = dict(tar_members(folder / "shards" / "00000000.tar"))["000000005.jpg"]
    before = np.asarray(Image.open(io.BytesIO(source)).convert("RGB"), float)
    after = np.asarray(Image.open(io.BytesIO(members[f"{face}-0.webp"])).convert("RGB"), float)
    inside = (slice(12, 28), slice(14, 34))
    assert after[inside].std() < before[inside].std()


def test_a_uid_without_known_faces_is_never_written_unblurred(tmp_path):
    import pyarrow.parquet as pq

    rows = write_pool(tmp_path / "p", shards=1, faces=True)
    file = tmp_path / "p" / "metadata" / "00000000.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    subset = save(tmp_path / "s.npy", [r["uid"] for r in rows])
    with pytest.raises(BadInputError, match="have no face_bboxes"):
        run_job(
            ReshardJob(
                pool=str(tmp_path / "p"), subset=subset, out=str(tmp_path / "o"), blur_faces=True
            )
        )


def test_on_object_storage(made, bucket, tmp_path):
    import fsspec

    folder, rows = made
    fs = fsspec.filesystem("s3")
    fs.put(str(folder), f"{bucket}/pool", recursive=True)
    local = save(tmp_path / "s.npy", [r["uid"] for r in rows[::3]])
    fs.put(local, f"{bucket}/s.npy")
    run_job(ReshardJob(pool=str(folder), subset=local, shard_size=7, out=str(tmp_path / "o")))
    run_job(
        ReshardJob(pool=f"{bucket}/pool", subset=f"{bucket}/s.npy", shard_size=7, out=f"{bucket}/o")
    )
    want = folder_bytes(tmp_path / "o" / "shards")
    got = {n.rsplit("/", 1)[-1]: fs.cat(n) for n in fs.ls(f"{bucket}/o/shards")}
    assert got == want


def test_a_uid_in_two_samples_is_written_as_often_as_it_is_listed(tmp_path):
    """DataComp's resharder writes it from each sample that bears it, with clashing keys."""
    rows = write_pool(tmp_path / "p", shards=2, per_shard=4)
    shards = tmp_path / "p" / "shards"
    (shards / "00000002.tar").write_bytes((shards / "00000000.tar").read_bytes())
    members = tar_members(shards / "00000001.tar")
    write_tar(shards / "00000001.tar", members + [(f"again{n[9:]}", d) for n, d in members[:3]])
    subset = save(tmp_path / "s.npy", [r["uid"] for r in rows] + [rows[0]["uid"]])
    done = run_job(
        ReshardJob(pool=str(tmp_path / "p"), subset=subset, out=str(tmp_path / "o"))
    ).done()
    first = [f"{rows[0]['uid']}-0.jpg", f"{rows[0]['uid']}-1.jpg"]
    assert keys_of(tmp_path / "o") == first + [f"{r['uid']}-0.jpg" for r in rows[1:]]
    assert done["summary"]["dropped"] == {"uid already in an earlier sample": 5}
    assert done["summary"]["not_in_shards"] == 0


@pytest.mark.parametrize(
    "value", [None, [[10, 10, 40, 40]], [[0.5, 0.1, 0.2, 0.4]], [[0.1, 0.2]], "[[["]
)
def test_faces_that_are_unknown_or_no_boxes_stop_the_job(tmp_path, value):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = write_pool(tmp_path / "p", shards=1, per_shard=3, faces=True)
    values = [[], json.dumps(value) if isinstance(value, str) else value, []]
    if isinstance(value, str):
        values = ["[]", value, "[]"]
    for row, boxes in zip(rows, values, strict=True):
        row["face_bboxes"] = boxes
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p" / "metadata" / "00000000.parquet")
    subset = save(tmp_path / "s.npy", [r["uid"] for r in rows])
    with pytest.raises(BadInputError, match=r"face_bboxes"):
        run_job(
            ReshardJob(
                pool=str(tmp_path / "p"), subset=subset, out=str(tmp_path / "o"), blur_faces=True
            )
        )


def plain_reshard(shards, kept):
    """The tar of the kept uids' samples in order, by the standard library, a member at a time."""
    found = {}
    for path in shards:
        for name, data in tar_members(path):
            key, _, extension = name.partition(".")
            found.setdefault((path, key), {})[extension] = data
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for members in found.values():
            if json.loads(members["json"])["uid"] not in kept:
                continue
            for extension in sorted(members, key=lambda e: (e != "jpg", e)):
                info = tarfile.TarInfo(f"{json.loads(members['json'])['uid']}-0.{extension}")
                info.size = len(members[extension])
                tar.addfile(info, io.BytesIO(members[extension]))
        end = tar.offset
    return buffer.getvalue()[:end] + bytes(1024)


def write_odd_pool(folder, shards=4, per_shard=12):
    """Samples whose members come in any order, some large, some with long extensions."""
    rng = random.Random(3)
    uids = []
    for shard in range(shards):
        members = []
        for i in range(per_shard):
            uids.append(uid(f"odd-{shard}-{i}"))
            size = rng.choice([0, 3, 512, 5000, 40_000])
            parts = [
                ("json", json.dumps({"uid": uids[-1]}).encode()),
                ("jpg", rng.randbytes(size)),
                ("txt", b"caption"),
            ]
            if i % 5 == 0:
                parts.append(("e" * rng.choice([20, 64, 65, 66, 67, 90]), b"long"))
            rng.shuffle(parts)
            members += [(f"{shard}{i:04d}.{extension}", data) for extension, data in parts]
        write_tar(folder / "shards" / f"{shard:08d}.tar", members)
    return uids


@pytest.mark.parametrize(("batch_bytes", "open_tars"), [(1 << 21, 64), (20_000, 1), (1, 2)])
@pytest.mark.parametrize("window", [0, 48])
def test_the_bytes_are_those_of_a_plain_writer(
    tmp_path, monkeypatch, batch_bytes, open_tars, window
):
    """In this process, with batches and open files of any number."""
    monkeypatch.setattr(reshard_workers, "BATCH_BYTES", batch_bytes)
    monkeypatch.setattr(reshard_workers, "OPEN_TARS", open_tars)
    uids = write_odd_pool(tmp_path)
    shards = sorted((tmp_path / "shards").iterdir())
    kept = set(uids[::2])
    subset = save(tmp_path / "s.npy", sorted(kept))
    finder = reshard_workers.FindKept(subset, str(tmp_path / "kept"))
    finder.setup()
    found = [
        finder.process(Slice(name=f"{i:06d}", payload={"uri": str(path)}))
        for i, path in enumerate(shards)
    ]
    writer = reshard_workers.WriteShard(
        inputs=[str(path) for path in shards],
        counts=[outcome["found"] for outcome in found],
        kept=str(tmp_path / "kept"),
        trimmed=frozenset(),
        placed="",
        out=str(tmp_path / "out"),
        shard_format="{:08d}.tar",
        window=window,
        seed=0,
        faces="",
        blur=False,
        inject=False,
        webp_quality=100,
    )
    writer.setup()
    piece = {"number": 0, "start": 0, "stop": len(kept)}
    done = writer.process(Slice(name="0", payload=piece))
    made = (tmp_path / "out" / "00000000.tar").read_bytes()
    want = plain_reshard(shards, kept)
    assert done["samples"] == len(kept) and done["bytes"] == len(want)
    if window:  # the same samples in another order
        (tmp_path / "want.tar").write_bytes(want)
        assert dict(tar_members(tmp_path / "out" / "00000000.tar")) == dict(
            tar_members(tmp_path / "want.tar")
        )
    else:
        assert made == want


def test_runs_cover_every_sample_once_and_keep_to_the_limit():
    rng = np.random.default_rng(0)
    for most in (1, 10, 50, 10_000):
        sizes = rng.integers(1, 40, 200)
        alone = rng.random(200) < 0.1
        found = list(runs(alone, sizes, most))
        assert [a for a, _ in found] == [0, *(b for _, b in found[:-1])] and found[-1][1] == 200
        for start, stop in found:
            if stop - start > 1:
                assert not alone[start:stop].any() and sizes[start:stop].sum() <= most
    assert list(runs(np.zeros(0, bool), np.zeros(0, np.int64), 5)) == []


def test_uids_are_read_from_any_json_that_python_reads(tmp_path):
    """NaN, UTF-16 and lone surrogates are taken; what is no object with a uid is counted."""
    bodies = [
        b'{"uid": "%s", "score": NaN}' % uid(0).encode(),
        json.dumps({"uid": uid(1)}).encode("utf-16"),
        b'{"text": "\\ud800", "uid": "%s"}' % uid(2).encode(),
        json.dumps({"uid": uid(3).upper()}).encode(),
        b'["uid"]',
        b'{"uid": 7}',
        b'{"uid": "short"}',
        b'{"uid": "%s"}' % ("\u00e9" * 16).encode(),
        b'{"uid": "%s"' % uid(4).encode(),
        b"[" * 100_000,
        b'{"uid": "%s", "more": "%s"}' % (uid(5).encode(), b"x" * (1 << 20)),
        b"",
    ]
    members = [(f"{i}.json", body) for i, body in enumerate(bodies)]
    write_tar(tmp_path / "p" / "shards" / "0.tar", [*members, ("no.txt", b"t")])
    subset = save(tmp_path / "s.npy", [uid(i) for i in range(6)])
    finder = reshard_workers.FindKept(subset, str(tmp_path / "kept"))
    finder.setup()
    uri = str(tmp_path / "p" / "shards" / "0.tar")
    assert finder.process(Slice(name="0", payload={"uri": uri})) == {
        "samples": 13,
        "found": 4,
        "dropped": {"sample without a uid": 9},
    }
