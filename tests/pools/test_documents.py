import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from killing import finish, kill_driver_when, markers
from made_up import folder_bytes, uid
from real_texts import documents

from gristmill.core import source_files
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.job import run_job
from gristmill.execution.session import Execution
from gristmill.filters.gopher_quality import GopherQuality
from gristmill.pools.documents import DocumentsJob, document_slices
from gristmill.pools.documents_worker import document_uid
from gristmill.pools.pool import Pool
from gristmill.pools.selection import FilterJob
from gristmill.pools.subset import Subset

pytestmark = pytest.mark.ray


def lines(records):
    return b"".join(json.dumps(r).encode() + b"\n" for r in records)


def zstd(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


def write_source(folder, texts):
    """The same kinds of records in every kind of file, a few bad ones among them."""
    folder.mkdir(parents=True)
    (folder / "sub").mkdir()
    parts = [[{"text": t, "url": f"http://x.invalid/{i}"} for t in texts[i::4]] for i in range(4)]
    bad = b"[1]\n\xff\xfe\n" + lines([{"text": " "}, {"body": "x"}, {"text": "\ud800"}])
    (folder / "a.jsonl").write_bytes(lines(parts[0]) + bad)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines(parts[1])))
    (folder / "sub" / "c.json.zst").write_bytes(zstd(lines(parts[2])))
    pq.write_table(pa.Table.from_pylist(parts[3]), folder / "d.parquet")
    for i in range(3):
        (folder / "sub" / f"{i}.txt").write_text(f"A text file of its own, number {i}.")
    (folder / "README.md").write_text("not a record")
    return parts


BAD = {"not UTF-8": 1, "not a JSON object": 1, "no text": 2, "half a surrogate pair": 1}


def rows_of(pool):
    table = pa.concat_tables([pq.read_table(f) for f in Pool(str(pool)).metadata_files])
    return table.to_pylist()


def ingest(source, out, **fields):
    return run_job(DocumentsJob(source=str(source), out=str(out), **fields))


def test_every_record_becomes_a_document_or_a_counted_drop(tmp_path):
    texts = [t for t in documents(400) if t.strip()]
    parts = write_source(tmp_path / "raw", texts)
    summary = ingest(tmp_path / "raw", tmp_path / "pool").done()["summary"]
    assert summary["dropped"] == BAD
    assert summary["asked"] == summary["kept"] + summary["dropped_total"]
    rows = rows_of(tmp_path / "pool")
    assert len(rows) == len(texts) + 3 == summary["kept"] == Pool(str(tmp_path / "pool")).num_rows
    wanted = [(r["text"], r["url"], "a.jsonl") for r in parts[0]]
    assert [(r["text"], r["url"], r["source"]) for r in rows if r["source"] == "a.jsonl"] == wanted
    assert {r["source"] for r in rows} == {
        *("a.jsonl", "b.jsonl.gz", "d.parquet", "sub/c.json.zst"),
        *(f"sub/{i}.txt" for i in range(3)),
    }
    assert all(r["uid"] == document_uid(r["text"], r["url"]) for r in rows)
    assert summary["text_bytes"] == sum(len(r["text"].encode()) for r in rows)
    assert "dropped: half a surrogate pair" in (tmp_path / "pool" / "report.html").read_text()
    manifest = json.loads((tmp_path / "pool" / "pool.json").read_text())
    assert manifest["rows"] == len(rows) and len(manifest["files"]) == 5


def test_fields_uids_and_the_bound(tmp_path):
    records = [
        {"body": "one", "link": "http://a.invalid", "id": uid("x").upper()},
        {"body": "two", "uid": uid("y"), "id": uid("z")},
        {"body": "three", "uid": "not a uid", "link": 5},
        {"body": "é" * 51},
        {"body": "é" * 50},
    ]
    (tmp_path / "a.jsonl").write_bytes(lines(records))
    fields = {"text_field": "body", "url_field": "link", "max_bytes": 100}
    run = ingest(tmp_path / "a.jsonl", tmp_path / "p", **fields)
    assert run.done()["summary"]["dropped"] == {"text over 100 bytes": 1}
    rows = rows_of(tmp_path / "p")
    assert [r["uid"] for r in rows[:3]] == [uid("x"), uid("y"), document_uid("three")]
    assert [r["url"] for r in rows[:3]] == ["http://a.invalid", "", ""]
    assert {r["source"] for r in rows} == {"a.jsonl"}
    ingest(tmp_path / "a.jsonl", tmp_path / "q", keep_uids=False, **fields)
    assert rows_of(tmp_path / "q")[1]["uid"] == document_uid("two")


def test_same_bytes_whatever_the_workers(tmp_path):
    write_source(tmp_path / "raw", [t for t in documents(200) if t.strip()])
    made = []
    for workers in (1, 2):
        out = tmp_path / f"p{workers}"
        ingest(tmp_path / "raw", out, execution=Execution(workers=workers))
        made.append(folder_bytes(out / "metadata"))
    assert made[0] == made[1]


def test_large_files_of_lines_are_cut_by_bytes(tmp_path, monkeypatch):
    texts = [t for t in documents(300) if t.strip()]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_bytes(lines([{"text": t} for t in texts]))
    monkeypatch.setattr(source_files, "RANGE_BYTES", 50_000)
    ingest(tmp_path / "raw", tmp_path / "p")
    assert len(Pool(str(tmp_path / "p")).metadata_files) > 5
    assert [r["text"] for r in rows_of(tmp_path / "p")] == texts


def test_slices_cover_the_source(monkeypatch):
    monkeypatch.setattr(source_files, "RANGE_BYTES", 10)
    monkeypatch.setattr(source_files, "FILES_PER_SLICE", 2)
    monkeypatch.setattr(source_files, "row_group_bytes", lambda _: [6, 3, 20, 4])
    files = ["a.txt", "b.jsonl", "c.txt", "d.jsonl.gz", "e.txt", "f.parquet", "g.jsonl"]
    pieces = list(document_slices(files, [1, 25, 2, 30, 3, 40, 0]))
    assert [p.weight for p in pieces] == [3, 3, 10, 10, 5, 30, 9, 20, 4]
    assert [p.payload["row_groups"] for p in pieces[-3:]] == [[0, 1], [2], [3]]
    assert [p.name for p in pieces] == [f"{i:08d}" for i in range(9)]


def test_row_groups_are_bounded(tmp_path, monkeypatch):
    from gristmill.execution.slices import Slice
    from gristmill.pools import documents_worker

    monkeypatch.setattr(documents_worker, "ROWS_PER_GROUP", 7)
    monkeypatch.setattr(documents_worker, "BYTES_PER_GROUP", 1000)
    (tmp_path / "a.jsonl").write_bytes(
        lines([{"text": f"{i} " * (600 if i % 9 == 0 else 1)} for i in range(40)])
    )
    worker = documents_worker.DocumentSlice(
        out=str(tmp_path),
        source=str(tmp_path),
        text_field="text",
        url_field="url",
        max_bytes=9999,
        keep_uids=True,
    )
    worker.process(Slice(name="0", payload={"number": 0, "files": [str(tmp_path / "a.jsonl")]}))
    footer = pq.ParquetFile(tmp_path / "metadata" / "00000000.parquet").metadata
    sizes = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    assert sum(sizes) == 40 and max(sizes) == 7 and len(sizes) > 6


def test_a_file_cut_short_stops_the_job_or_is_counted(tmp_path):
    write_source(tmp_path / "raw", [t for t in documents(200) if t.strip()])
    data = (tmp_path / "raw" / "b.jsonl.gz").read_bytes()
    (tmp_path / "raw" / "b.jsonl.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptDataError, match=r"b\.jsonl\.gz cannot be unpacked to its end"):
        ingest(tmp_path / "raw", tmp_path / "p")
    assert not (tmp_path / "p" / "DONE").exists() and not (tmp_path / "p" / "pool.json").exists()
    run = ingest(tmp_path / "raw", tmp_path / "q", skip_corrupt=True)
    assert run.done()["summary"]["corrupt_slices"] == 1
    assert "b.jsonl.gz" not in {r["source"] for r in rows_of(tmp_path / "q")}
    assert len(folder_bytes(tmp_path / "q" / "metadata")) == 4
    assert "1 files could not be read" in (tmp_path / "q" / "report.html").read_text()


def test_nothing_to_take_in(tmp_path):
    with pytest.raises(BadInputError, match="no records at"):
        ingest(tmp_path / "absent", tmp_path / "p")
    (tmp_path / "a.jsonl").write_bytes(lines([{"content": "x"}]))
    with pytest.raises(BadInputError, match="none of 1 records became a document.*'text'"):
        ingest(tmp_path / "a.jsonl", tmp_path / "p2")
    with pytest.raises(BadInputError, match="max_bytes must be at least 1"):
        DocumentsJob(source="x", out="y", max_bytes=0)


def test_object_storage(bucket, tmp_path):
    import fsspec

    with fsspec.open(f"{bucket}/raw/a.jsonl.gz", "wb") as file:
        file.write(gzip.compress(lines([{"text": f"number {i}"} for i in range(50)])))
    ingest(f"{bucket}/raw", f"{bucket}/pool")
    assert Pool(f"{bucket}/pool").num_rows == 50


def test_a_text_pool_is_filtered(tmp_path):
    texts = [t for t in documents(300) if t.strip()]
    (tmp_path / "a.jsonl").write_bytes(lines([{"text": t} for t in texts]))
    ingest(tmp_path / "a.jsonl", tmp_path / "p")
    run_job(FilterJob(pool=str(tmp_path / "p"), filter=GopherQuality(), out=str(tmp_path / "f")))
    kept = Subset.load(str(tmp_path / "f" / "subset.npy"))
    chosen = GopherQuality()
    chosen.setup()
    verdict = chosen.judge(pa.table({"text": texts}))
    wanted = sorted(document_uid(t) for t, v in zip(texts, verdict, strict=True) if v == 0)
    assert [f"{a:016x}{b:016x}" for a, b in kept.uids.tolist()] == wanted


@pytest.mark.long
def test_driver_killed_in_mid_ingest(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for i in range(40):
        (raw / f"{i:02d}.jsonl").write_bytes(
            lines([{"text": t} for t in documents(60, seed=i % 3)])
        )
    ingest(raw, tmp_path / "calm")
    out, log = tmp_path / "o", tmp_path / "log"
    words = ["pool", "ingest", "documents", "--source", raw, "--out", out]
    kill_driver_when(lambda: markers(out / ".work" / "taken") >= 3, *words, log=log)
    assert not (out / "pool.json").exists()
    status, text = finish(*words, log=log)
    assert status == 0, text
    assert "bytes were done before" in text
    assert folder_bytes(out / "metadata") == folder_bytes(tmp_path / "calm" / "metadata")
    assert (out / "pool.json").read_bytes() == (tmp_path / "calm" / "pool.json").read_bytes()
