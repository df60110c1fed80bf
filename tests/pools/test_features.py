"""Features beside the metadata become columns, read where they lie, checked before a job starts."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up import made_features, write_features, write_metadata

from gristmill.core import arrays
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.pools import features
from gristmill.pools.pool import Pool, read_slice

NAMES = ["uid", "l14_img", "b32_txt"]


def read(pool, names=NAMES, rows_per_slice=1000):
    tables = []
    for piece in Pool(str(pool)).slices(rows_per_slice):
        for row, table in read_slice(piece, names):
            tables.append((piece.payload["uri"], row, table))
    return tables


def column(tables, name):
    return np.concatenate([arrays.from_column(t[name], name) for _, _, t in tables])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_of_the_npz_join_the_rows_of_the_parquet(tmp_path, monkeypatch, save, dtype):
    monkeypatch.setattr(features, "ROWS_AT_ONCE", 37)
    made = write_metadata(tmp_path, 1000, files=3, row_group=90)
    wrote = write_features(tmp_path, names=("l14_img", "b32_txt"), save=save, dtype=dtype)
    pool = Pool(str(tmp_path))
    pool.require(NAMES)
    tables = read(tmp_path, rows_per_slice=200)
    assert max(t.num_rows for _, _, t in tables) == 37
    uids = [u for _, _, t in tables for u in t["uid"].to_pylist()]
    assert uids == made["uid"].to_pylist()
    for name in ("l14_img", "b32_txt"):
        assert tables[0][2][name].type == pa.list_(pa.from_numpy_dtype(dtype), 16)
        assert np.array_equal(column(tables, name), wrote[name])
    firsts = {(uri, row) for uri, row, _ in tables}
    assert len(firsts) == len(tables)


def test_the_file_is_read_by_ranges_not_whole(tmp_path, monkeypatch):
    """The last slice reads its own rows and the directory, however long the array is."""
    write_metadata(tmp_path, 2000, files=1, row_group=100)
    write_features(tmp_path, size=256)
    read_bytes = []
    fill = arrays._fill
    monkeypatch.setattr(arrays, "_fill", lambda f, t: read_bytes.append(t.nbytes) or fill(f, t))
    piece = Pool(str(tmp_path)).slices(100)[-1]
    assert sum(t.num_rows for _, t in read_slice(piece, NAMES)) == 100
    assert sum(read_bytes) == 100 * 256 * 2


def test_on_object_storage(tmp_path, bucket):
    import s3fs

    write_metadata(tmp_path, 500, files=2, row_group=60)
    wrote = write_features(tmp_path, names=("l14_img", "b32_txt"))
    s3fs.S3FileSystem().put(str(tmp_path / "metadata"), f"{bucket}/metadata", recursive=True)
    Pool(bucket).require(NAMES)
    assert np.array_equal(column(read(bucket), "b32_txt"), wrote["b32_txt"])


def test_a_column_of_the_parquet_itself_goes_first(tmp_path):
    table = write_metadata(tmp_path, 50, files=1)
    inside = made_features(50, seed=8)
    table = table.append_column("l14_img", arrays.to_column(inside))
    pq.write_table(table, tmp_path / "metadata" / "0000.parquet")
    write_features(tmp_path)
    assert np.array_equal(column(read(tmp_path), "l14_img"), inside)


def test_an_array_that_nobody_asked_for_or_that_is_nowhere_is_left_out(tmp_path):
    write_metadata(tmp_path, 50, files=1)
    write_features(tmp_path)
    assert read(tmp_path, ["uid", "b32_img"])[0][2].column_names == ["uid"]
    assert read(tmp_path, ["uid"])[0][2].column_names == ["uid"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, "no .*0001.npz stands beside it; gristmill pool score adds features"),
        ({"b32_img": np.zeros((50, 4), np.float16)}, "has no array l14_img; it has b32_img"),
        ({"l14_img": np.zeros((49, 16), np.float16)}, "has 49 rows and its parquet file 50"),
        ({"l14_img": np.zeros(50, np.float16)}, "two-dimensional"),
        ({"l14_img": np.zeros((50, 16))}, "type float64; features are"),
        ({"l14_img": np.zeros((50, 16), np.int64)}, "type int64; features are"),
        ({"l14_img": np.zeros((50, 8), np.float16)}, "8 numbers a row in .* and 16 in"),
        ({"l14_img": np.asfortranarray(np.zeros((50, 16), np.float16))}, "Fortran order"),
    ],
)
def test_what_is_wrong_is_said_before_the_job(tmp_path, change, words):
    write_metadata(tmp_path, 100, files=2)
    write_features(tmp_path)
    (tmp_path / "metadata" / "0001.npz").unlink()
    if change is not None:
        np.savez(tmp_path / "metadata" / "0001.npz", **change)
    with pytest.raises(BadInputError, match=words):
        Pool(str(tmp_path)).require(["uid", "l14_img"])


def test_pickled_objects_are_refused(tmp_path):
    write_metadata(tmp_path, 50, files=1)
    np.savez(tmp_path / "metadata" / "0000.npz", l14_img=np.array([{}] * 50, object))
    with pytest.raises(BadInputError, match="never unpickled"):
        Pool(str(tmp_path)).require(["uid", "l14_img"])


def test_damaged_files_are_named(tmp_path):
    write_metadata(tmp_path, 50, files=1)
    file = tmp_path / "metadata" / "0000.npz"
    file.write_bytes(b"no zip at all")
    with pytest.raises(CorruptDataError, match="0000.npz is not a readable array file"):
        Pool(str(tmp_path)).require(["uid", "l14_img"])
    np.save(tmp_path / "cut.npy", made_features(50))
    data = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(data[:-100])
    with arrays.RowReader(str(tmp_path / "cut.npy")) as reader:
        assert len(reader.read(0, 46)) == 46
        with pytest.raises(CorruptDataError, match="cut short at row 46"):
            reader.read(0, 50)


def test_identity_follows_every_number_without_reading_them(tmp_path):
    write_metadata(tmp_path, 100, files=2)
    made = write_features(tmp_path)["l14_img"]
    pool = Pool(str(tmp_path))
    before = pool.features_identity(["uid", "l14_img"])
    assert pool.features_identity(["uid", "text"]) == {}
    made[99, 15] += 0.5
    np.savez(tmp_path / "metadata" / "0001.npz", l14_img=made[50:])
    assert pool.features_identity(["uid", "l14_img"]) != before


def test_a_column_and_its_array_share_memory():
    rows = made_features(20)
    table = pa.table({"l14_img": arrays.to_column(rows)})
    assert np.shares_memory(rows, arrays.from_column(table["l14_img"], "l14_img"))
    part = arrays.from_column(table.slice(5, 7)["l14_img"], "l14_img")
    assert np.array_equal(part, rows[5:12]) and np.shares_memory(rows, part)
    assert arrays.from_column(table.slice(0, 0)["l14_img"], "x").shape == (0, 16)
    gaps = table["l14_img"].take(pa.array([3, None, 4]))
    assert np.array_equal(
        arrays.from_column(gaps, "x"), rows[[3, 3, 4]] + [[0], [np.nan], [0]], equal_nan=True
    )
    with pytest.raises(BadInputError, match="column text is string"):
        arrays.from_column(pa.chunked_array([["a"]]), "text")
