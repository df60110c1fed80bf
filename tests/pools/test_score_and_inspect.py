import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_up import folder_bytes, picture, tar_members, write_metadata, write_pool, write_tar

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.job import run_job
from gristmill.execution.session import Execution
from gristmill.filters.clip_score import ClipScore
from gristmill.models.clip import ClipSpec, load_clip
from gristmill.pools.inspection import InspectJob
from gristmill.pools.pool import Pool
from gristmill.pools.reshard import ReshardJob
from gristmill.pools.score import ScoreJob
from gristmill.pools.selection import FilterJob

pytestmark = pytest.mark.ray
ARCH = "gristmill-demo"


def metadata(pool):
    import pyarrow as pa

    return pa.concat_tables(
        [pq.read_table(f) for f in sorted((pool / "metadata").glob("*.parquet"))]
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("w") / "random.pt"
    torch.save(load_clip(ClipSpec(arch=ARCH)).model.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def scored(tmp_path_factory, weights):
    folder = tmp_path_factory.mktemp("pool")
    rows = write_pool(folder / "p", shards=3, per_shard=10)
    run = run_job(
        ScoreJob(
            pool=str(folder / "p"), arch=ARCH, weights=weights, column="b32", out=str(folder / "s")
        )
    )
    return folder, rows, run


def test_scores_are_the_models_own(scored, weights):
    import io

    import torch
    from PIL import Image

    folder, rows, run = scored
    clip = load_clip(ClipSpec(arch=ARCH, weights=weights))
    table = metadata(folder / "s").to_pylist()
    assert [r["uid"] for r in table] == [r["uid"] for r in rows]
    for i in (0, 13, 29):
        image = Image.open(io.BytesIO(picture(i))).convert("RGB")
        with torch.no_grad():
            a = clip.model.encode_image(clip.transform(image)[None], normalize=True)
            b = clip.model.encode_text(clip.tokenizer([rows[i]["text"]]), normalize=True)
        assert table[i]["clip_b32_similarity_score"] == pytest.approx(
            float((a * b).sum()), abs=1e-5
        )
    features = np.load(folder / "s" / "metadata" / "00000001.npz", allow_pickle=False)
    assert features["b32_img"].shape[0] == 10 and features["b32_img"].dtype == np.float16
    assert run.done()["summary"] == {
        "rows": 30,
        "unscored": 0,
        "corrupt_shards": 0,
        "rows_from_sample_json": 0,
    }


def test_columns_and_features_of_the_source_are_carried(scored, weights, tmp_path):
    folder, _, _ = scored
    run_job(
        ScoreJob(
            pool=str(folder / "s"),
            arch=ARCH,
            weights=weights,
            column="l14",
            out=str(tmp_path / "s2"),
        )
    )
    table = metadata(tmp_path / "s2")
    assert {"clip_b32_similarity_score", "clip_l14_similarity_score", "url"} <= set(
        table.column_names
    )
    with np.load(tmp_path / "s2" / "metadata" / "00000000.npz", allow_pickle=False) as arrays:
        assert {"b32_img", "b32_txt", "l14_img", "l14_txt"} == set(arrays.files)


def test_a_scored_pool_filters_and_reshards_from_the_first_ones_shards(scored, tmp_path):
    folder, _, _ = scored
    pool = str(folder / "s")
    assert Pool(pool).shard_files == Pool(str(folder / "p")).shard_files
    run_job(
        FilterJob(pool=pool, filter=ClipScore(arch="b32", fraction=0.3), out=str(tmp_path / "f"))
    )
    done = run_job(
        ReshardJob(pool=pool, subset=str(tmp_path / "f" / "subset.npy"), out=str(tmp_path / "r"))
    ).done()
    assert done["summary"]["samples"] == 10


def test_metadata_cut_otherwise_is_rebuilt_from_the_samples(scored, weights, tmp_path):
    rows = write_pool(tmp_path / "p", shards=2, per_shard=6)
    files = sorted((tmp_path / "p" / "metadata").iterdir())
    files[1].write_bytes(files[0].read_bytes())  # another shard's rows under this shard's stem
    job = ScoreJob(pool=str(tmp_path / "p"), arch=ARCH, weights=weights, out=str(tmp_path / "s"))
    with pytest.raises(BadInputError, match="--rebuild-metadata"):
        run_job(job)
    run = run_job(
        dataclasses.replace(job, rebuild_metadata=True, out=str(tmp_path / "s")), overwrite=True
    )
    assert run.done()["summary"]["rows_from_sample_json"] == 6
    table = metadata(tmp_path / "s")
    assert table["uid"].to_pylist() == [r["uid"] for r in rows]
    assert table["text"].to_pylist() == [r["text"] for r in rows]


def test_workers_and_batches_change_no_byte(scored, weights, tmp_path):
    folder, _, _ = scored
    job = ScoreJob(
        pool=str(folder / "p"),
        arch=ARCH,
        weights=weights,
        column="b32",
        out=str(tmp_path / "s"),
        execution=Execution(workers=1),
    )
    run_job(job)
    assert folder_bytes(tmp_path / "s" / "metadata") == folder_bytes(folder / "s" / "metadata")


def test_pictures_that_cannot_be_read_get_no_score_and_are_counted(weights, tmp_path):
    rows = write_pool(tmp_path / "p", shards=1, per_shard=3)
    shard = tmp_path / "p" / "shards" / "00000000.tar"
    members = tar_members(shard)
    write_tar(shard, [(n, b"noise" if n.endswith("1.jpg") else d) for n, d in members])
    out = str(tmp_path / "s")
    run = run_job(ScoreJob(pool=str(tmp_path / "p"), arch=ARCH, weights=weights, out=out))
    assert run.done()["summary"]["unscored"] == 1 and run.done()["summary"]["rows"] == len(rows)
    write_tar(tmp_path / "p" / "shards" / "y.tar", [("a.jpg", picture(1)), ("a.txt", b"t")])
    with pytest.raises(CorruptDataError, match=r"y\.tar: sample a has no uid"):
        run_job(ScoreJob(pool=str(tmp_path / "p"), arch=ARCH, weights=weights, out=out + "2"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"arch": "ViT-B-33"}, "perhaps ViT-B-32"),
        ({"column": "L 14"}, "short lower-case name"),
        ({"weights": "/nowhere.pt"}, "no weights at"),
        ({"arch": "RN50"}, "does not fit RN50"),
    ],
)
def test_wrong_settings_are_named(scored, weights, tmp_path, fields, words):
    given = {
        "pool": str(scored[0] / "p"),
        "arch": ARCH,
        "weights": weights,
        "out": str(tmp_path / "s"),
    }
    with pytest.raises((BadInputError, Exception), match=words):
        run_job(ScoreJob(**{**given, **fields}))


def test_inspect_counts_what_is_there(tmp_path, capsys):
    table = write_metadata(tmp_path / "p", 6000, repeat=0.05)
    run = run_job(InspectJob(pool=str(tmp_path / "p"), out=str(tmp_path / "i")))
    stats = json.loads((tmp_path / "i" / "stats.json").read_text())
    rows = table.to_pylist()
    assert stats["rows"] == 6000 and stats["caption_missing"] == sum(
        r["text"] is None for r in rows
    )
    assert stats["duplicate_uid"] == 6000 - len({r["uid"] for r in rows}) > 0
    small = sum(min(r["original_width"], r["original_height"]) < 200 for r in rows)
    assert stats["side_under_200"] == small
    assert stats["languages"]["en"] > stats["languages"]["ja"] > 0
    assert sum(stats["histograms"]["clip_b32_similarity_score"]) == 6000
    assert "language en" in capsys.readouterr().out
    assert run.done()["summary"]["rows"] == 6000


def test_inspect_counts_broken_uids_and_row_groups(tmp_path):
    import pyarrow as pa

    write_pool(tmp_path / "p", shards=2)
    broken = pa.table(
        {
            "uid": ["z" * 32, "0" * 32],
            "text": ["a", "b"],
            "original_width": [0, 5],
            "original_height": [1, 5],
            "sha256": ["", "1" * 64],
        }
    )
    pq.write_table(broken, tmp_path / "p" / "metadata" / "x.parquet")
    file = tmp_path / "p" / "metadata" / "00000001.parquet"
    data = bytearray(file.read_bytes())
    data[100:500] = b"\xff" * 400
    file.write_bytes(data)
    run_job(InspectJob(pool=str(tmp_path / "p"), out=str(tmp_path / "i")))
    stats = json.loads((tmp_path / "i" / "stats.json").read_text())
    assert stats["broken_uid"] == 1 and stats["broken_sha256"] == 1 and stats["size_broken"] == 1
    assert stats["rows_in_corrupt_row_groups"] == 30
    page = (tmp_path / "i" / "report.html").read_text()
    assert "row groups that cannot be read" in page and "data:image/webp" in page


def test_ingest_score_and_inspect_on_object_storage(weights, bucket, tmp_path):
    import fsspec

    from gristmill.pools.ingest import IngestJob, Tars

    write_pool(tmp_path / "raw", shards=2, per_shard=5)
    fs = fsspec.filesystem("s3")
    fs.put(str(tmp_path / "raw" / "shards"), f"{bucket}/raw", recursive=True)
    fs.put(weights, f"{bucket}/w.pt")
    run_job(IngestJob(source=Tars(source=f"{bucket}/raw"), out=f"{bucket}/pool"))
    job = ScoreJob(
        pool=f"{bucket}/pool", arch=ARCH, weights=f"{bucket}/w.pt", out=f"{bucket}/scored"
    )
    assert run_job(job).done()["summary"]["rows"] == 10
    assert (
        run_job(InspectJob(pool=f"{bucket}/scored", out=f"{bucket}/i")).done()["summary"]["rows"]
        == 10
    )
    local = IngestJob(
        source=Tars(source=str(tmp_path / "raw" / "shards")), out=str(tmp_path / "pool")
    )
    run_job(local)
    name = "shards/00000001.tar"
    assert fs.cat(f"{bucket}/pool/{name}") == (tmp_path / "pool" / name).read_bytes()
