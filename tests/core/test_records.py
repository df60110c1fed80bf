import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.records import TOO_LONG, Unreadable, read_records, record_files

NAMES = ("text", "url")


def read(path, limit=1000, **words):
    found = read_records(str(path), NAMES, limit=limit, **words)
    return [r.reason if isinstance(r, Unreadable) else r.get("text") for r in found]


def test_lines_good_and_bad(tmp_path):
    data = (
        b'\xef\xbb\xbf{"text": "with a mark"}\n\n   \n{"text": "two"}\r\n'
        b'{"text": "caf\xe9"}\n[1]\n{"text": \n' + b"[" * 900 + b"\n" + b"x" * 5000 + b"\n"
        b'{"text": "' + b"y" * 990 + b'"}\n{"text": "last"}'
    )
    (tmp_path / "a.jsonl").write_bytes(data)
    assert read(tmp_path / "a.jsonl") == [
        "with a mark",
        "two",
        "not UTF-8",
        *["not a JSON object"] * 3,
        *[TOO_LONG.reason] * 2,
        "last",
    ]


@pytest.mark.parametrize("limit", [20, 64, 1000])
def test_ranges_of_bytes_make_a_whole(tmp_path, limit):
    lines = [json.dumps({"text": "t" * (i % 70)}).encode() + b"\n" for i in range(90)]
    data = b"".join(lines)
    (tmp_path / "a.jsonl").write_bytes(data)
    whole = read(tmp_path / "a.jsonl", limit)
    assert len(whole) == 90
    for step in (1, 7, 64, 100, 1000, len(data)):
        parts = [
            read(tmp_path / "a.jsonl", limit, start=i, stop=min(i + step, len(data)))
            for i in range(0, len(data), step)
        ]
        assert [r for part in parts for r in part] == whole


def zstd(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".zst", zstd)])
def test_packed_files_whole_joined_and_cut(tmp_path, suffix, pack):
    line = json.dumps({"text": "word " * 50}).encode() + b"\n"
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(line * 300) + pack(line * 2))
    assert read(path) == ["word " * 50] * 302
    data = pack(b"".join(json.dumps({"text": str(i * i)}).encode() + b"\n" for i in range(9000)))
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptDataError, match=rf"a\.jsonl\{suffix} cannot be unpacked"):
        read(path)
    path.write_bytes(b"not packed at all, whatever the name says")
    with pytest.raises(CorruptDataError, match="cannot be unpacked"):
        read(path)


def test_a_line_without_end_does_not_fill_memory(tmp_path):
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(300):
            file.write(b"x" * (1 << 20))
        file.write(b'\n{"text": "after"}\n')
    import tracemalloc

    tracemalloc.start()
    assert read(path) == [TOO_LONG.reason, "after"]
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_parquet_and_text_files(tmp_path):
    table = pa.table({"text": ["a", None, "c"], "other": [1, 2, 3]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ["a", None, "c"]
    bad = pa.array([b"ok", b"caf\xe9"], pa.binary()).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"text": bad}), tmp_path / "b.parquet")
    assert read(tmp_path / "b.parquet") == ["ok", "not UTF-8"]
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "c.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptDataError, match=r"c\.parquet is not a whole parquet file"):
        read(tmp_path / "c.parquet")
    (tmp_path / "a.txt").write_text("not UTF-8\nis its text")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "c.txt").write_text("x" * 1001)
    assert read(tmp_path / "a.txt") == ["not UTF-8\nis its text"]
    assert read(tmp_path / "b.txt") == ["not UTF-8"]
    assert read(tmp_path / "c.txt") == [TOO_LONG.reason]


def test_files_below_a_folder(tmp_path):
    for name in ("b.jsonl", "sub/a.txt", "README.md", ".hidden.jsonl", "c.json.gz", "D.PARQUET"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [name.removeprefix(str(tmp_path)) for name in record_files(str(tmp_path))]
    assert found == ["/D.PARQUET", "/b.jsonl", "/c.json.gz", "/sub/a.txt"]
    assert record_files(str(tmp_path / "b.jsonl")) == [str(tmp_path / "b.jsonl")]
    with pytest.raises(BadInputError, match="no records at"):
        record_files(str(tmp_path / "absent.jsonl"))
