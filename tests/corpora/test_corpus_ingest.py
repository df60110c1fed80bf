import gzip
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from killing import markers
from made_corpora import finish_job, kill_job_when, texts, write_lines
from made_up import folder_bytes

from gristmill.core import source_files
from gristmill.core.errors import BadInputError, CorruptDataError, RunError
from gristmill.core.job import run_job
from gristmill.core.records import record_files
from gristmill.corpora import ingest, ingest_worker
from gristmill.corpora.corpus import Corpus
from gristmill.corpora.document_reader import read_texts
from gristmill.corpora.ingest import IngestCorpusJob
from gristmill.corpora.ingest_worker import ReadSlice, document_key, range_of
from gristmill.execution.session import Execution
from gristmill.execution.slices import Slice

pytestmark = pytest.mark.ray
ALL = 1 << 60


def job(out, *domains, **fields):
    return IngestCorpusJob(
        domains=tuple(f"{n}={uri}" for n, uri in domains), out=str(out), **fields
    )


def documents(out, domain, split):
    return list(read_texts(Corpus(str(out), "documents"), domain, split, ALL))


def both(out, domain):
    return documents(out, domain, "validation") + documents(out, domain, "train")


def plain(sources, seed, share, across=True):
    """Row at a time: {domain: (validation, train)}."""
    seen, kept = set(), {}
    for domain in sorted(sources):
        here = set()
        for text in sources[domain]:
            if text.strip() and text not in (seen if across else here) and text not in here:
                here.add(text)
        seen |= here
        kept[domain] = sorted(here, key=lambda text: document_key(text.encode(), seed))
    split = {}
    for domain, rows in kept.items():
        want, filled, cut = share * sum(len(t.encode()) for t in rows), 0, 0
        while cut < len(rows) - 1 and filled < want:
            filled += len(rows[cut].encode())
            cut += 1
        split[domain] = (rows[:cut], rows[cut:])
    return split


def write_domains(folder, web, books):
    """`web` in every kind of file, `books` in a text folder."""
    write_lines(folder / "web" / "a.jsonl", web[0::4])
    data = "".join(json.dumps({"text": t}) + "\n" for t in web[1::4]).encode()
    (folder / "web" / "b.jsonl.gz").write_bytes(gzip.compress(data))
    data = "".join(json.dumps({"text": t}) + "\n" for t in web[2::4]).encode()
    (folder / "web" / "sub").mkdir()
    (folder / "web" / "sub" / "c.jsonl.zst").write_bytes(
        pa.Codec("zstd").compress(data, asbytes=True)
    )
    pq.write_table(pa.table({"text": web[3::4]}), folder / "web" / "d.parquet")
    (folder / "books").mkdir()
    for i, text in enumerate(books):
        (folder / "books" / f"{i}.txt").write_text(text)


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("ranges", [1, 7])
def test_agrees_with_the_plain_way(tmp_path, monkeypatch, across, ranges):
    web, books = texts(300, seed=1), texts(40, seed=2)
    web += web[:30] + books[:5] + ["  \n"]  # repeats within, across, and one without text
    books += books[10:14]
    write_domains(tmp_path / "raw", web, books)
    if ranges > 1:
        monkeypatch.setattr(ingest, "TEXT_PER_RANGE", 20_000)
    made = job(
        tmp_path / "c",
        ("web", tmp_path / "raw" / "web"),
        ("books", tmp_path / "raw" / "books"),
        validation=0.1,
        seed=3,
        duplicates="corpus" if across else "domain",
    )
    summary = run_job(made).done()["summary"]
    for domain, (held, train) in plain({"web": web, "books": books}, 3, 0.1, across).items():
        assert documents(tmp_path / "c", domain, "validation") == held
        assert documents(tmp_path / "c", domain, "train") == train
        counts = summary["domains"][domain]
        assert counts["train"] == {
            "documents": len(train),
            "bytes": sum(len(t.encode()) for t in train),
        }
        assert counts["documents"] == len(held) + len(train)
    counts = summary["domains"]["web"]
    assert counts["records"] == 336 and counts["dropped"] == {"no text": 1}
    assert counts["duplicates"] == (35 if across else 30)
    assert summary["domains"]["books"]["duplicates"] == 4
    page = (tmp_path / "c" / "report.html").read_text()
    assert "dropped: no text" in page and "books" in page
    files = len(list((tmp_path / "c" / "documents" / "web" / "train").iterdir()))
    assert files == 1 if ranges == 1 else files > 3


def test_files_workers_and_names_do_not_matter(tmp_path):
    web = texts(200)
    write_lines(tmp_path / "one" / "a.jsonl", web)
    write_lines(tmp_path / "two" / "z.jsonl", web[:50])
    write_lines(tmp_path / "two" / "b" / "y.jsonl", web[120:])
    (tmp_path / "two" / "c.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps({"text": t}) + "\n" for t in web[50:120][::-1]).encode())
    )
    bytes_of = []
    for name, workers in (("one", 1), ("two", 1), ("two", 2)):
        out = tmp_path / f"{name}{workers}"
        run_job(job(out, ("web", tmp_path / name), execution=Execution(workers=workers)))
        bytes_of.append((folder_bytes(out / "documents"), (out / "corpus.json").read_bytes()))
    assert bytes_of[0] == bytes_of[1] == bytes_of[2]
    run_job(job(tmp_path / "seed", ("web", tmp_path / "one"), seed=1))
    assert both(tmp_path / "seed", "web") != both(tmp_path / "one1", "web")
    assert sorted(both(tmp_path / "seed", "web")) == sorted(web)


def test_the_cut_of_large_files_does_not_matter(tmp_path, monkeypatch):
    """Parts of some 4 kB of what a packed file holds, and one row group of parquet a slice."""
    web = texts(300, seed=1)
    web += web[:40]
    write_domains(tmp_path / "raw", web, texts(10, seed=2))
    table = pa.table({"text": web[3::4]})
    pq.write_table(table, tmp_path / "raw" / "web" / "d.parquet", row_group_size=9)
    words = [(name, tmp_path / "raw" / name) for name in ("web", "books")]
    run_job(job(tmp_path / "whole", *words))
    monkeypatch.setattr(ingest, "HELD_BYTES", 4000)
    monkeypatch.setattr(source_files, "RANGE_BYTES", 2000)
    files = record_files(str(tmp_path / "raw" / "web"))
    cuts = [p.get("row_groups") for p, _ in source_files.cut(files, source_files.sizes_of(files))]
    assert sum(cut is not None for cut in cuts) > 1
    assert [n for cut in cuts for n in cut or ()] == list(range(len(web[3::4]) // 9 + 1))
    summary = run_job(job(tmp_path / "cut", *words)).done()["summary"]
    assert summary["duplicates"] == 40
    for name in ("documents", "corpus.json"):
        whole, cut = tmp_path / "whole" / name, tmp_path / "cut" / name
        if whole.is_dir():
            assert folder_bytes(whole) == folder_bytes(cut)
        else:
            assert whole.read_bytes() == cut.read_bytes()


@pytest.mark.parametrize("kind", ["gz", "parquet"])
def test_a_reader_holds_no_more_of_a_long_file_than_of_a_short_one(tmp_path, monkeypatch, kind):
    """24 MB of text, of which 1 MB is held: by what Python allocates and by what each part has."""
    rows = [f"{i} " + "meal grain " * 540 for i in range(4000)]
    path = tmp_path / f"a.{kind}" if kind == "parquet" else tmp_path / "a.jsonl.gz"
    if kind == "parquet":
        pq.write_table(pa.table({"text": rows}), path)
    else:
        lines = "".join(json.dumps({"text": row}) + "\n" for row in rows)
        path.write_bytes(gzip.compress(lines.encode(), 1))
        del lines
    held, save = [], ingest_worker.save_segments

    def note(uri, segments):
        held.append(sum(map(len, segments)))
        save(uri, segments)

    monkeypatch.setattr(ingest_worker, "save_segments", note)
    reader = ReadSlice(str(tmp_path / "parts"), ["web"], "text", 10**6, 0, 3, 1 << 20)
    total = sum(len(row) for row in rows)
    del rows
    tracemalloc.start()
    piece = Slice(name="0", weight=1, payload={"domain": "web", "files": [str(path)]})
    found = reader.process(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found["documents"] == 4000 and len(found["parts"]) == len(held) > 20
    assert total < sum(held) < 1.1 * total and max(held) < 1.2 * (1 << 20)
    # Beside the parts a megabyte of the file, and of parquet 8 MB of rows, twice.
    assert peak < (24 << 20 if kind == "parquet" else 6 << 20)


def test_what_counts_as_text_and_what_is_left_out(tmp_path):
    web = tmp_path / "web"
    web.mkdir()
    for i, suffix in enumerate((".txt", ".md", ".RST", ".html", ".html", ".tex", "")):
        (web / f"{i}{suffix}").write_text(f"document {i}")
    (web / "7.md.gz").write_bytes(gzip.compress(b"document 7"))
    run = run_job(job(tmp_path / "c", ("web", web)))
    assert sorted(both(tmp_path / "c", "web")) == [f"document {i}" for i in (0, 1, 2, 7)]
    summary = run.done()["summary"]
    assert summary["files_not_read"] == 4
    left = {".html": 2, ".tex": 1, "no suffix": 1}
    assert summary["domains"]["web"]["files_not_read"] == left
    page = (tmp_path / "c" / "report.html").read_text()
    assert "4 files were not read" in page and "--text-suffixes" in page and ".html" in page
    run_job(job(tmp_path / "d", ("web", web), text_suffixes=(".html", ".tex")))
    assert sorted(both(tmp_path / "d", "web")) == [f"document {i}" for i in (0, 3, 4, 5)]
    for i in range(3):
        (web / f"{i}{('.txt', '.md', '.RST')[i]}").unlink()
    (web / "7.md.gz").unlink()
    with pytest.raises(BadInputError, match=r"web: no records at .*2 of \.html.*--text-suffixes"):
        run_job(job(tmp_path / "e", ("web", web)))
    with pytest.raises(BadInputError, match="text_suffixes has 'html'"):
        job(tmp_path / "e", ("web", web), text_suffixes=("html",))
    with pytest.raises(BadInputError, match=r"text_suffixes has '\.jsonl'"):
        job(tmp_path / "e", ("web", web), text_suffixes=(".jsonl",))


def test_documents_are_shuffled_before_the_split(tmp_path):
    """Sources in an order of topics: both splits still hold all topics alike."""
    ordered = [f"topic {i // 100} number {i} " + "word " * 20 for i in range(1000)]
    write_lines(tmp_path / "raw.jsonl", ordered)
    run_job(job(tmp_path / "c", ("web", tmp_path / "raw.jsonl"), validation=0.2))
    held = documents(tmp_path / "c", "web", "validation")
    assert 190 <= len(held) <= 210
    topics = [sum(t.startswith(f"topic {i} ") for t in held) for i in range(10)]
    assert min(topics) >= 8
    size = Corpus(str(tmp_path / "c"), "documents").sizes("validation")["web"]
    assert 0.2 <= size / sum(len(t.encode()) for t in ordered) < 0.202


def test_validation_sizes(tmp_path):
    write_lines(tmp_path / "raw.jsonl", ["aaaaa", "bbbbb", "ccccc"])
    run_job(job(tmp_path / "all", ("web", tmp_path / "raw.jsonl"), validation=0.99))
    assert len(documents(tmp_path / "all", "web", "train")) == 1
    run_job(job(tmp_path / "none", ("web", tmp_path / "raw.jsonl"), validation=0.0))
    assert documents(tmp_path / "none", "web", "validation") == []
    write_lines(tmp_path / "more.jsonl", texts(100))
    run_job(
        job(
            tmp_path / "cap",
            ("web", tmp_path / "more.jsonl"),
            validation=0.5,
            max_validation_bytes=500,
        )
    )
    assert 500 <= Corpus(str(tmp_path / "cap"), "documents").size("web", "validation") < 3000


@pytest.mark.slow
def test_killed_and_resumed(tmp_path):
    for i in range(60):
        write_lines(tmp_path / "web" / f"{i}.jsonl", texts(40, seed=i))
    write_lines(tmp_path / "books.jsonl", texts(50, seed=99))
    words = (("web", tmp_path / "web"), ("books", tmp_path / "books.jsonl"))
    run_job(job(tmp_path / "calm", *words))
    out, log = tmp_path / "o", tmp_path / "log"
    kill_job_when(lambda: markers(out / ".work" / "read") >= 10, job(out, *words), log)
    before = markers(out / ".work" / "read")
    assert 10 <= before < 61 and not (out / "DONE").exists()
    status, said = finish_job(job(out, *words), log)
    assert status == 0, said
    assert "were done before" in said
    assert folder_bytes(out / "documents") == folder_bytes(tmp_path / "calm" / "documents")
    assert (out / "corpus.json").read_bytes() == (tmp_path / "calm" / "corpus.json").read_bytes()
    assert not (out / ".work").exists()


def test_on_object_storage(bucket, tmp_path):
    import s3fs

    write_lines(tmp_path / "a.jsonl", texts(50))
    s3fs.S3FileSystem().put(str(tmp_path / "a.jsonl"), f"{bucket}/raw/a.jsonl")
    far = IngestCorpusJob(domains=(f"web={bucket}/raw",), out=f"{bucket}/c")
    run_job(far)
    run_job(job(tmp_path / "c", ("web", tmp_path / "a.jsonl")))
    assert both(f"{bucket}/c", "web") == both(tmp_path / "c", "web")


def test_bad_input_by_name(tmp_path):
    write_lines(tmp_path / "good.jsonl", texts(10))
    write_lines(tmp_path / "empty.jsonl", ["", "  "])
    write_lines(tmp_path / "other.jsonl", texts(10), field="body")
    write_lines(tmp_path / "same.jsonl", texts(10))
    good = ("good", tmp_path / "good.jsonl")
    for name, said in (
        ("empty", r"domain empty is empty: none of its 2 records .*'no text': 2"),
        ("other", r"domain other is empty.*looked for in 'text'"),
        (
            "same",
            r"domain same has 0 documents left of 10, after exact repeats \(in domains before",
        ),
        ("nowhere", r"domain nowhere: no records at"),
    ):
        with pytest.raises(BadInputError, match=said):
            run_job(job(tmp_path / name, good, (name, tmp_path / f"{name}.jsonl")))
    with pytest.raises(BadInputError, match="validation must be in"):
        job(tmp_path / "v", good, validation=1.0)
    with pytest.raises(BadInputError, match="no domains"):
        job(tmp_path / "v")
    with pytest.raises(BadInputError, match="is not name=URI"):
        IngestCorpusJob(domains=("/data",), out="x")
    with pytest.raises(BadInputError, match="no corpus at .*make one with gristmill corpus ingest"):
        Corpus(str(tmp_path / "none"), "documents")


def test_files_cut_short(tmp_path):
    write_lines(tmp_path / "web" / "a.jsonl", texts(50))
    packed = gzip.compress("".join(json.dumps({"text": t}) + "\n" for t in texts(500, 5)).encode())
    (tmp_path / "web" / "b.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(CorruptDataError, match=r"b.jsonl.gz cannot be unpacked"):
        run_job(job(tmp_path / "c", ("web", tmp_path / "web")))
    run = run_job(job(tmp_path / "d", ("web", tmp_path / "web"), skip_corrupt=True))
    assert run.done()["summary"]["corrupt_slices"] == 1
    assert sorted(both(tmp_path / "d", "web")) == sorted(texts(50))
    assert "b.jsonl.gz" in (tmp_path / "d" / "report.html").read_text()


def test_a_source_that_changed_is_not_resumed(tmp_path, monkeypatch):
    write_lines(tmp_path / "a.jsonl", texts(20))
    made = job(tmp_path / "c", ("web", tmp_path / "a.jsonl"))

    def fail(*_):
        raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "_cut", fail)
        with pytest.raises(RuntimeError):
            run_job(made)
    write_lines(tmp_path / "a.jsonl", texts(21))
    with pytest.raises(RunError, match="the domain-web changed since this run began"):
        run_job(made)


def test_plan_says_the_sizes(tmp_path):
    write_lines(tmp_path / "a.jsonl", texts(20))
    text = job(tmp_path / "c", ("web", tmp_path / "a.jsonl")).plan().text()
    assert "web: " in text and "a.jsonl" in text and "1 domains" in text
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("ranges", [1, 2, 3, 7, 1000])
def test_ranges_of_keys_and_of_parts_are_the_same(ranges):
    for i in range(ranges):
        low = (i << 64) // ranges
        assert range_of(low.to_bytes(8, "big") + bytes(8), ranges) == i
        if low:
            assert range_of((low - 1).to_bytes(8, "big") + b"\xff" * 8, ranges) == i - 1
    assert range_of(b"\xff" * 16, ranges) == ranges - 1
