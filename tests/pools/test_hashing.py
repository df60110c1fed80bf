import io

import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_up import folder_bytes, picture, tar_members, write_pool, write_tar
from PIL import Image

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.job import run_job
from gristmill.execution.session import Execution
from gristmill.filters.near_duplicates import NearDuplicates
from gristmill.pools.hashing import HashJob
from gristmill.pools.phash import hash_of_pixels, phash
from gristmill.pools.pool import Pool
from gristmill.pools.subset import Subset


def metadata(pool):
    import pyarrow as pa

    files = sorted((pool / "metadata").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(f) for f in files])


def opened(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def bits_apart(a, b):
    return (int(a, 16) ^ int(b, 16)).bit_count()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(48, 40), (301, 97), (32, 32), (7, 9)])
def test_hashes_are_those_of_imagehash(kind, size):
    for seed in range(20):
        image = opened(picture(seed, size, kind))
        assert phash(image) == str(imagehash.phash(image))


@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_any_pixels_hash_as_imagehash_does(pixels):
    # Pictures with symmetries have coefficients that are 0 but for rounding, which differs.
    image = Image.fromarray(pixels)
    grey = np.asarray(image.resize((32, 32), Image.Resampling.LANCZOS)).astype(float)
    angles = np.outer(np.arange(8), 2 * np.arange(32) + 1) * np.pi / 64
    low = 2 * np.cos(angles) @ grey @ (2 * np.cos(angles)).T
    if np.abs(low - np.median(low))[low != np.median(low)].min(initial=1.0) > 1e-6:
        assert phash(image) == str(imagehash.phash(image))


def test_flat_pictures_have_next_to_no_bits():
    for shade in range(0, 256, 15):
        assert phash(Image.new("RGB", (50, 40), (shade,) * 3)) in ("0" * 16, "8" + "0" * 15)
    assert hash_of_pixels(np.zeros((32, 32), np.uint8)) == "0" * 16


def test_copies_are_near_and_other_pictures_far():
    drawn = [opened(picture(seed, (200, 160), "PNG")) for seed in range(30)]
    hashes = [phash(image) for image in drawn]
    for image, own in zip(drawn, hashes, strict=True):
        smaller = image.resize((120, 96))
        buffer = io.BytesIO()
        smaller.save(buffer, "JPEG", quality=70)
        assert bits_apart(phash(opened(buffer.getvalue())), own) <= 4
    apart = [bits_apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert np.median(apart) > 20


@pytest.fixture(scope="module")
def hashed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    rows = write_pool(folder / "p", shards=3, per_shard=8)
    run = run_job(HashJob(pool=str(folder / "p"), out=str(folder / "h")))
    return folder, rows, run


@pytest.mark.ray
def test_the_column_stands_in_a_new_pool_over_the_same_shards(hashed):
    folder, rows, run = hashed
    table = metadata(folder / "h").to_pylist()
    assert [r.pop("phash") for r in table] == [
        str(imagehash.phash(opened(picture(i)))) for i in range(24)
    ]
    assert table == rows
    assert Pool(str(folder / "h")).shard_files == Pool(str(folder / "p")).shard_files
    assert not list((folder / "h" / "metadata").glob("*.npz"))
    assert run.done()["summary"] == {
        "rows": 24,
        "corrupt_shards": 0,
        "rows_from_sample_json": 0,
        "unhashed": 0,
    }
    assert "Set bits of the hashes" in (folder / "h" / "report.html").read_text()


@pytest.mark.ray
def test_features_and_an_older_hash_are_carried_and_replaced(hashed, tmp_path):
    folder, _, _ = hashed
    rng = np.random.default_rng(0)
    source = tmp_path / "h"
    (source / "metadata").mkdir(parents=True)
    for file in (folder / "p" / "metadata").glob("*.parquet"):
        table = pq.read_table(file)
        table = table.append_column("phash", [["0" * 16] * table.num_rows])
        pq.write_table(table, source / "metadata" / file.name)
        features = rng.normal(size=(table.num_rows, 4)).astype(np.float16)
        np.savez(source / "metadata" / f"{file.stem}.npz", l14_img=features)
    (source / "shards").symlink_to(folder / "p" / "shards")
    run_job(HashJob(pool=str(source), out=str(tmp_path / "out")))
    assert metadata(tmp_path / "out").equals(metadata(folder / "h"))
    for file in sorted((source / "metadata").glob("*.npz")):
        with np.load(file) as old, np.load(tmp_path / "out" / "metadata" / file.name) as new:
            assert np.array_equal(old["l14_img"], new["l14_img"])


@pytest.mark.ray
def test_workers_change_no_byte(hashed, tmp_path):
    folder, _, _ = hashed
    job = HashJob(pool=str(folder / "p"), out=str(tmp_path / "h"), execution=Execution(workers=1))
    run_job(job)
    assert folder_bytes(tmp_path / "h" / "metadata") == folder_bytes(folder / "h" / "metadata")


@pytest.mark.ray
def test_pictures_that_cannot_be_read_get_null_and_are_counted(tmp_path):
    write_pool(tmp_path / "p", shards=2, per_shard=3)
    shard = tmp_path / "p" / "shards" / "00000000.tar"
    members = tar_members(shard)
    write_tar(shard, [(n, b"noise" if n.endswith("1.jpg") else d) for n, d in members])
    run = run_job(HashJob(pool=str(tmp_path / "p"), out=str(tmp_path / "h")))
    assert run.done()["summary"]["unhashed"] == 1
    found = metadata(tmp_path / "h")["phash"].to_pylist()
    assert [h is None for h in found] == [False, True, False, False, False, False]

    other = tmp_path / "p" / "shards" / "00000001.tar"
    other.write_bytes(other.read_bytes()[:700])
    job = HashJob(pool=str(tmp_path / "p"), out=str(tmp_path / "h2"))
    with pytest.raises(CorruptDataError, match=r"00000001\.tar"):
        run_job(job)
    done = run_job(
        HashJob(pool=str(tmp_path / "p"), out=str(tmp_path / "h3"), skip_corrupt=True)
    ).done()
    assert done["summary"]["corrupt_shards"] == 1 and done["summary"]["rows"] == 3


@pytest.mark.ray
def test_a_pool_without_shards_or_out_of_step_is_refused(tmp_path):
    from made_up import write_metadata

    write_metadata(tmp_path / "m", 20, files=1)
    with pytest.raises(BadInputError, match="has no shards"):
        run_job(HashJob(pool=str(tmp_path / "m"), out=str(tmp_path / "h0")))
    write_pool(tmp_path / "p", shards=2, per_shard=3)
    files = sorted((tmp_path / "p" / "metadata").iterdir())
    files[1].write_bytes(files[0].read_bytes())
    with pytest.raises(BadInputError, match="--rebuild-metadata"):
        run_job(HashJob(pool=str(tmp_path / "p"), out=str(tmp_path / "h")))
    done = run_job(
        HashJob(pool=str(tmp_path / "p"), out=str(tmp_path / "h2"), rebuild_metadata=True)
    ).done()
    assert done["summary"]["rows_from_sample_json"] == 3


@pytest.mark.ray
def test_hash_then_filter_drops_the_copies(tmp_path):
    from gristmill.pools.selection import FilterJob

    rows = write_pool(tmp_path / "p", shards=2, per_shard=4)
    shard = tmp_path / "p" / "shards" / "00000001.tar"
    members = tar_members(shard)
    copy = io.BytesIO()
    opened(picture(2)).save(copy, "JPEG", quality=60)
    members[0] = (members[0][0], copy.getvalue())  # row 4 becomes a worse copy of row 2
    write_tar(shard, members)
    run_job(HashJob(pool=str(tmp_path / "p"), out=str(tmp_path / "h")))
    run_job(FilterJob(pool=str(tmp_path / "h"), filter=NearDuplicates(), out=str(tmp_path / "f")))
    subset = Subset.load(str(tmp_path / "f" / "subset.npy"))
    assert len(subset) == 7 and rows[4]["uid"] not in subset and rows[2]["uid"] in subset
