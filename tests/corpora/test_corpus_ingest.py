import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from killing import markers
from made_corpora import finish_job, kill_job_when, texts, write_lines
from made_up import folder_bytes

from gristmill.core.errors import BadInputError, CorruptDataError, RunError
from gristmill.core.job import run_job
from gristmill.corpora import ingest
from gristmill.corpora.corpus import Corpus
from gristmill.corpora.document_reader import read_texts
from gristmill.corpora.ingest import IngestCorpusJob
from gristmill.corpora.ingest_worker import document_key, range_of
from gristmill.execution.session import Execution

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
        kept[domain] = sorted(here, key=lambda text: document_key(text, seed))
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
