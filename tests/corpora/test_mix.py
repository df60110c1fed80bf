import itertools
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from killing import markers
from made_corpora import finish_job, kill_job_when, texts, write_lines, write_tokens
from made_up import folder_bytes

from gristmill.core.errors import BadInputError, RunError
from gristmill.core.job import run_job
from gristmill.corpora import ingest
from gristmill.corpora.corpus import Corpus
from gristmill.corpora.document_reader import read_texts
from gristmill.corpora.ingest import IngestCorpusJob
from gristmill.corpora.mix import MixCorpusJob
from gristmill.corpora.mix_worker import ROW
from gristmill.corpora.mixture import Mixture
from gristmill.corpora.stream import TokenStream
from gristmill.corpora.tokens import TokenCorpus
from gristmill.execution.session import Execution

pytestmark = pytest.mark.ray
WEIGHTS = "web=0.6,books=0.4"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    write_tokens(folder, {"web": 9000, "books": 3000, "rest": 500})
    return folder


@pytest.fixture(scope="module")
def documents(ray_cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("documents")
    for name, count in (("web", 400), ("books", 150)):
        write_lines(folder / f"{name}.jsonl", texts(count, seed=count))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "TEXT_PER_RANGE", 30_000)
        domains = tuple(f"{name}={folder}/{name}.jsonl" for name in ("web", "books"))
        run_job(IngestCorpusJob(domains=domains, out=str(folder / "c")))
    return folder / "c"


def job(out, corpus, **fields):
    return MixCorpusJob(corpus=(str(corpus),), out=str(out), mixture=WEIGHTS, **fields)


def test_token_shards_are_the_stream(tokens, tmp_path):
    fields = {"size": 20_000, "seq_len": 16, "shard_bytes": 5_000, "seed": 4}
    run_job(job(tmp_path / "o", tokens, **fields))
    corpus = TokenCorpus(str(tokens))
    mixture = Mixture(weights={"web": 0.6, "books": 0.4})
    stream = TokenStream(corpus, mixture, seq_len=16, batch_size=1250, seed=4)
    files = sorted((tmp_path / "o" / "mixed").glob("*.bin"))
    assert len(files) == 9
    found = np.concatenate([np.fromfile(f, "<u2").reshape(-1, 17) for f in files])
    assert np.array_equal(found, stream.batch(0))
    rows = np.concatenate([np.fromfile(f.with_suffix(".rows"), ROW) for f in files])
    manifest = json.loads((tmp_path / "o" / "mixed.json").read_text())
    picks = stream.picks(0)
    assert [manifest["domains"][d] for d in rows["domain"]] == [
        picks.domains[d] for d in picks.domain
    ]
    assert np.array_equal(rows["sequence"], picks.sequence)
    assert manifest["ledger"]["domains"]["web"]["tokens"] == 12_000
    assert manifest["dtype"] == "<u2" and manifest["weights"] == {"books": 0.4, "web": 0.6}
    assert Mixture.load(str(tmp_path / "o" / "mixture.json")) == mixture
    assert "Ledger" in (tmp_path / "o" / "report.html").read_text()


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_documents_follow_the_weights(documents, tmp_path, kind):
    corpus = Corpus(str(documents), "documents")
    size = 2 * corpus.size("books")
    run_job(job(tmp_path / "o", documents, size=size, format=kind, shard_bytes=10_000))
    files = sorted((tmp_path / "o" / "mixed").iterdir())
    assert len(files) == -(-size // 10_000)
    per_file = [
        pq.read_table(f).to_pylist() if kind == "parquet" else list(map(json.loads, f.open()))
        for f in files
    ]
    rows = [row for part in per_file for row in part]
    longest = max(len(row["text"].encode()) for row in rows)
    for domain, weight in (("web", 0.6), ("books", 0.4)):
        own = [row for row in rows if row["domain"] == domain]
        there = list(read_texts(corpus, domain, "train", 1 << 60))
        assert abs(sum(len(r["text"].encode()) for r in own) - weight * size) < longest
        # The documents of the domain's order, from the front, none twice in an epoch.
        epochs = {e: [r["text"] for r in own if r["epoch"] == e] for e in {r["epoch"] for r in own}}
        for epoch, got in epochs.items():
            last = epoch == max(epochs)
            assert sorted(got) == sorted(there[: len(got)]) and (last or len(got) == len(there))
    # Each file is a mixture by itself, and its domains do not come one after another.
    for part in per_file:
        names = [row["domain"] for row in part]
        assert set(names) == {"web", "books"}
        assert sum(a != b for a, b in itertools.pairwise(names)) > 3


def test_repeats_within_the_cap(documents, tmp_path):
    corpus = Corpus(str(documents), "documents")
    size = int(2.5 * corpus.size("books"))
    only = {"corpus": (str(documents),), "mixture": "books=1.0", "format": "jsonl", "size": size}
    run_job(MixCorpusJob(**only, shard_bytes=7_000, out=str(tmp_path / "o")))
    rows = [json.loads(x) for f in (tmp_path / "o" / "mixed").iterdir() for x in f.open()]
    counts = [sum(row["epoch"] == epoch for row in rows) for epoch in range(3)]
    assert counts[0] == counts[1] == corpus.documents("books") and 0 < counts[2] < counts[0]
    with pytest.raises(BadInputError, match=r"would repeat books 2.50 times .* over the cap of 2"):
        run_job(MixCorpusJob(**only, max_epochs=2.0, out=str(tmp_path / "p")))
    assert not (tmp_path / "p" / "mixed").exists()


def test_same_bytes_whatever_the_workers(tokens, documents, tmp_path):
    for corpus, kind in ((tokens, "tokens"), (documents, "parquet")):
        found = []
        for workers in (1, 2):
            out = tmp_path / f"{kind}{workers}"
            fields = {"size": 15_000, "seq_len": 16, "format": kind, "shard_bytes": 3000}
            run_job(job(out, corpus, **fields, execution=Execution(workers=workers)))
            found.append((folder_bytes(out / "mixed"), (out / "mixed.json").read_bytes()))
        assert found[0] == found[1]


@pytest.mark.slow
def test_killed_and_resumed(tokens, tmp_path):
    fields = {"size": 29_000, "seq_len": 16, "shard_bytes": 400}
    run_job(job(tmp_path / "calm", tokens, **fields))
    out, log = tmp_path / "o", tmp_path / "log"
    kill_job_when(lambda: markers(out / ".work" / "mixed") >= 10, job(out, tokens, **fields), log)
    assert 10 <= markers(out / ".work" / "mixed") < 165 and not (out / "DONE").exists()
    status, said = finish_job(job(out, tokens, **fields), log)
    assert status == 0, said
    assert "were done before" in said
    assert folder_bytes(out / "mixed") == folder_bytes(tmp_path / "calm" / "mixed")


def test_bad_input_by_name(tokens, documents, tmp_path):
    def refused(corpus, said, **fields):
        with pytest.raises(BadInputError, match=said):
            fields = {"size": 10_000, "seq_len": 16, "mixture": WEIGHTS, **fields}
            out = tmp_path / str(len(list(tmp_path.iterdir())))
            run_job(MixCorpusJob(corpus=(str(corpus),), out=str(out), **fields))

    refused(tokens, "no domain 'wbe' in the corpus; perhaps you meant web", mixture="wbe=1")
    refused(tokens, "weights sum to 0.9, not 1", mixture="web=0.5,books=0.4")
    refused(tokens, r"would repeat rest \d+\.\d\d times", mixture="web=0.1,rest=0.9")
    refused(tokens, "is a corpus of tokens; format jsonl takes documents", format="jsonl")
    refused(documents, "is a corpus of documents; format tokens takes tokens")
    refused(tmp_path / "none", "no corpus at .*has no corpus.json")
    refused(tokens, "size must be at least 1", size=0)
    refused(tokens, "max_epochs must be above 0", max_epochs=0.0)


def test_a_mixture_file_counts_by_its_content(tokens, tmp_path):
    words = {"corpus": (str(tokens),), "size": 4000, "seq_len": 16, "out": str(tmp_path / "o")}
    Mixture(weights={"web": 0.6, "books": 0.4}).save(str(tmp_path / "m.json"))
    first = MixCorpusJob(**words, mixture=str(tmp_path / "m.json"))
    assert first.mixture == "books=0.4,web=0.6"
    assert first == MixCorpusJob(**words, mixture=WEIGHTS)
    run_job(first)
    Mixture(weights={"web": 0.7, "books": 0.3}).save(str(tmp_path / "m.json"))
    with pytest.raises(RunError, match="holds another job's run"):
        run_job(MixCorpusJob(**words, mixture=str(tmp_path / "m.json")))


def test_plan_is_the_ledger(tokens, tmp_path):
    text = job(tmp_path / "o", tokens, size=20_000, seq_len=16).plan().text()
    assert "web" in text and "12,000 tokens, 1.33 epochs" in text
    with pytest.raises(BadInputError, match="over the cap of 1"):
        job(tmp_path / "o", tokens, size=20_000, seq_len=16, max_epochs=1.0).plan()
    assert not (tmp_path / "o").exists()
