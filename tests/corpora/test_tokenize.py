import json
import re

import numpy as np
import pytest
from killing import markers
from made_corpora import WORDS, finish_job, kill_job_when, texts, word_tokenizer, write_lines
from made_up import folder_bytes

from gristmill.core import progress
from gristmill.core.errors import BadInputError, CorruptDataError, RunError
from gristmill.core.job import run_job
from gristmill.corpora import ingest, token_shards
from gristmill.corpora.corpus import Corpus
from gristmill.corpora.document_reader import read_texts
from gristmill.corpora.ingest import IngestCorpusJob
from gristmill.corpora.mixture import Mixture
from gristmill.corpora.stream import TokenStream, validation_batch
from gristmill.corpora.token_shards import TokenizeJob
from gristmill.corpora.tokenizer import DocumentTokenizer, content_hash
from gristmill.corpora.tokens import TokenCorpus
from gristmill.corpora.train_tokenizer import TrainTokenizerJob
from gristmill.execution.session import Execution

pytestmark = pytest.mark.ray
ALL = 1 << 60


@pytest.fixture(scope="module")
def made(ray_cluster, tmp_path_factory):
    """A corpus of two domains in several files each, and a BPE of it."""
    folder = tmp_path_factory.mktemp("corpus")
    write_lines(folder / "web.jsonl", [*texts(300, 1), "It says <|endoftext|> in the middle."])
    write_lines(folder / "books.jsonl", texts(120, 2, words=60))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "TEXT_PER_RANGE", 20_000)
        domains = (f"web={folder}/web.jsonl", f"books={folder}/books.jsonl")
        run_job(IngestCorpusJob(domains=domains, validation=0.1, out=str(folder / "c")))
    run_job(TrainTokenizerJob(corpus=str(folder / "c"), vocab_size=400, out=str(folder / "bpe")))
    return folder


def tokenize(made, out, **fields):
    fields = {"corpus": str(made / "c"), "tokenizer": str(made / "bpe"), **fields}
    return run_job(TokenizeJob(out=str(out), **fields))


def test_ids_are_the_library_s_own(made, tmp_path):
    from tokenizers import Tokenizer

    run = tokenize(made, tmp_path / "t")
    library = Tokenizer.from_file(str(made / "bpe" / "tokenizer.json"))
    library.encode_special_tokens = True
    corpus, tokens = Corpus(str(made / "c"), "documents"), TokenCorpus(str(tmp_path / "t"))
    end = library.token_to_id("<|endoftext|>")
    for domain in ("web", "books"):
        for split in ("train", "validation"):
            wanted = []
            for text in read_texts(corpus, domain, split, ALL):
                ids = library.encode(text, add_special_tokens=False).ids
                assert end not in ids and library.decode(ids) == text
                wanted += [*ids, end]
            there = tokens.tokens(domain, split)
            assert there == len(wanted)
            row = tokens.sequences(domain, np.array([0]), there - 1, split)[0]
            assert row.tolist() == wanted
    assert tokens.vocabulary.dtype == np.uint16 and tokens.vocabulary.size == 400
    summary = run.done()["summary"]
    assert summary["tokens"] == sum(tokens.sizes().values()) + sum(
        tokens.sizes("validation").values()
    )
    assert summary["tokens_per_second_per_worker"] > 0
    assert "tokens/s" in (tmp_path / "t" / "report.html").read_text()


def test_the_index_has_offsets_and_hashes(made, tmp_path):
    import pyarrow.parquet as pq

    tokenize(made, tmp_path / "t")
    tokens, corpus = TokenCorpus(str(tmp_path / "t")), Corpus(str(made / "c"), "documents")
    for number, (shard, source) in enumerate(
        zip(Corpus(str(tmp_path / "t"), "tokens").shards("web"), corpus.shards("web"), strict=True)
    ):
        ids = pq.read_table(made / "c" / source.name)["id"].to_pylist()
        assert tokens.ids("web", "train", number) == ids
        data = np.fromfile(tmp_path / "t" / (shard.name + ".bin"), "<u2")
        ends = np.flatnonzero(data == tokens.vocabulary.end_id)
        assert tokens.starts("web", "train", number).tolist() == [0, *(ends[:-1] + 1).tolist()]
    assert number > 1


def test_same_bytes_whatever_the_workers(made, tmp_path):
    bytes_of = []
    for workers in (1, 2):
        out = tmp_path / f"t{workers}"
        tokenize(made, out, execution=Execution(workers=workers))
        bytes_of.append((folder_bytes(out / "tokens"), (out / "corpus.json").read_bytes()))
    assert bytes_of[0] == bytes_of[1]


@pytest.mark.slow
def test_killed_and_resumed(made, tmp_path):
    domains = []
    for i in range(30):
        write_lines(tmp_path / f"d{i}.jsonl", texts(60, seed=i))
        domains.append(f"d{i}={tmp_path}/d{i}.jsonl")
    run_job(IngestCorpusJob(domains=tuple(domains), out=str(tmp_path / "c")))
    words = {"corpus": str(tmp_path / "c"), "tokenizer": str(made / "bpe")}
    run_job(TokenizeJob(**words, out=str(tmp_path / "calm")))
    out, log = tmp_path / "o", tmp_path / "log"
    job = TokenizeJob(**words, out=str(out))
    kill_job_when(lambda: markers(out / ".work" / "tokenized") >= 5, job, log)
    assert 5 <= markers(out / ".work" / "tokenized") < 60 and not (out / "DONE").exists()
    status, said = finish_job(job, log)
    assert status == 0, said
    assert "were done before" in said
    assert folder_bytes(out / "tokens") == folder_bytes(tmp_path / "calm" / "tokens")
    assert (out / "corpus.json").read_bytes() == (tmp_path / "calm" / "corpus.json").read_bytes()


def test_a_tokenizer_of_another_kind(made, tmp_path):
    """Its own truncation is off, its special token ends documents, unknown words stay."""
    (tmp_path / "other.json").write_text(word_tokenizer())
    tokenize(made, tmp_path / "t", tokenizer=str(tmp_path / "other.json"))
    tokens = TokenCorpus(str(tmp_path / "t"))
    assert tokens.vocabulary.end_token == "</s>"
    assert tokens.vocabulary.end_id == len(WORDS) + 1 == tokens.vocabulary.size - 1
    first = next(read_texts(Corpus(str(made / "c"), "documents"), "web", "train", 1))
    known = {word: i + 1 for i, word in enumerate(WORDS)}
    words = [known[w] for w in first.split() if w in known]
    assert len(words) > 5
    row = tokens.sequences("web", np.array([0]), 200)[0][: len(words)]
    assert row.tolist() == words
    with pytest.raises(BadInputError, match="tokenize both with the same one"):
        tokenize(made, tmp_path / "bpe")
        TokenCorpus(str(tmp_path / "t")).require(
            TokenCorpus(str(tmp_path / "bpe")).vocabulary, "the model"
        )


def test_training_a_tokenizer_is_deterministic(made, tmp_path):
    job = TrainTokenizerJob(corpus=str(made / "c"), vocab_size=400, out=str(tmp_path / "again"))
    summary = run_job(job).done()["summary"]
    again = (tmp_path / "again" / "tokenizer.json").read_bytes()
    assert again == (made / "bpe" / "tokenizer.json").read_bytes()
    assert summary["vocab_size"] == 400 and summary["bytes_per_token"]["web"] > 2
    for text in ("\x00\x7f", "日本 \U0001f33e", "  two  spaces\n\n\ttab", "<|endoftext|>"):
        tokenizer = DocumentTokenizer(again.decode())
        ids = tokenizer.encode([text])[0]
        assert ids[-1] == tokenizer.vocabulary.end_id and (ids[:-1] != ids[-1]).all()
        assert tokenizer.decode(ids[:-1].tolist()) == text
    with pytest.raises(BadInputError, match="vocab_size must be over 256"):
        TrainTokenizerJob(corpus="x", vocab_size=256, out="y")


def test_the_hash_is_of_the_meaning():
    text = word_tokenizer()
    data = json.loads(text)
    assert content_hash(json.dumps(data, indent=4)) == content_hash(text)
    assert content_hash(json.dumps({**data, "truncation": None})) == content_hash(text)
    data["model"]["vocab"]["meal"] = 77
    assert content_hash(json.dumps(data)) != content_hash(text)


def test_bad_tokenizers_say_why(made, tmp_path):
    (tmp_path / "endless.json").write_text(word_tokenizer(end=""))
    (tmp_path / "broken.json").write_text('{"model": {}}')
    (tmp_path / "no.json").write_text("not JSON")
    for name, said in (
        ("endless.json", r"endless.json has none of <\|endoftext\|>.*--end-token"),
        ("broken.json", "broken.json is not a tokenizer.json"),
        ("no.json", "no.json is not a tokenizer.json"),
        ("missing", "no tokenizer.json at .*train-tokenizer"),
    ):
        with pytest.raises(BadInputError, match=said):
            tokenize(made, tmp_path / f"o-{name}", tokenizer=str(tmp_path / name))
    with pytest.raises(BadInputError, match="has no token '<stop>'"):
        tokenize(made, tmp_path / "w", end_token="<stop>")
    tokenize(made, tmp_path / "u")
    with pytest.raises(BadInputError, match="is a corpus of tokens, where one of documents"):
        tokenize(made, tmp_path / "v", corpus=str(tmp_path / "u"))
    with pytest.raises(BadInputError, match="is a corpus of documents, where one of tokens"):
        TokenCorpus(str(made / "c"))


def test_another_tokenizer_is_no_resume(made, tmp_path, monkeypatch):
    (tmp_path / "t.json").write_text(word_tokenizer())
    job = {"tokenizer": str(tmp_path / "t.json")}

    def fail(*_):
        raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(token_shards.TokenizeJob, "_publish", fail)
        with pytest.raises(RuntimeError):
            tokenize(made, tmp_path / "o", **job)
    (tmp_path / "t.json").write_text(word_tokenizer(end="<eos>"))
    with pytest.raises(RunError, match="the tokenizer changed since this run began"):
        tokenize(made, tmp_path / "o", **job)


def test_tokens_a_second_are_shown_and_are_this_run_s(made, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(progress.logger, "info", lambda text, *args: said.append(text % args))

    def fail(*_):
        raise RuntimeError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(token_shards.TokenizeJob, "_publish", fail)
        with pytest.raises(RuntimeError):
            tokenize(made, tmp_path / "o")
    rates = [int(r.replace(",", "")) for r in re.findall(r"([\d,]+) tokens/s", "\n".join(said))]
    assert len(rates) >= 3 and min(rates) > 0
    summary = tokenize(made, tmp_path / "o").done()["summary"]
    assert summary["tokens"] > 0 and summary["tokens_per_second"] == 0  # all was done before
    assert summary["tokens_per_second_per_worker"] > 0


def test_damaged_shards_are_named(made, tmp_path):
    tokenize(made, tmp_path / "t")
    TokenCorpus(str(tmp_path / "t")).require_whole()
    path = next((tmp_path / "t" / "tokens" / "web" / "train").glob("*.bin"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + b"\x03\x00")
    with pytest.raises(CorruptDataError, match=rf"{path} has other bytes than its manifest says"):
        TokenCorpus(str(tmp_path / "t")).require_whole()
    TokenCorpus(str(tmp_path / "t")).require_whole(most_bytes=100)  # too large to be hashed
    path.write_bytes(b"\xff\xff" + whole[2:])
    for numbers in ([0], [0, 1]):
        with pytest.raises(CorruptDataError, match=rf"{path} holds the id 65535, and .* 400 end"):
            TokenCorpus(str(tmp_path / "t")).sequences("web", np.array(numbers), 16)
    assert TokenCorpus(str(tmp_path / "t")).sequences("web", np.array([1]), 16).max() < 400


def test_documents_to_batches(made, tmp_path):
    """End to end: what a step holds decodes to the documents' own text."""
    tokenize(made, tmp_path / "t")
    corpus = TokenCorpus(str(tmp_path / "t"))
    mixture = Mixture(weights={"web": 0.25, "books": 0.75})
    stream = TokenStream(corpus, mixture, seq_len=32, batch_size=8)
    tokenizer = DocumentTokenizer((tmp_path / "t" / "tokenizer.json").read_text())
    whole = {
        domain: "<|endoftext|>".join(
            read_texts(Corpus(str(made / "c"), "documents"), domain, "train", ALL)
        )
        for domain in corpus.domains
    }
    picks = stream.picks(3)
    assert np.bincount(picks.domain).tolist() == [6, 2]
    for domain, row in zip(picks.domain.tolist(), stream.batch(3), strict=True):
        text = tokenizer.decode(row.tolist()).strip("\ufffd")
        assert text in whole[stream.domains[domain]]
    assert len(validation_batch(corpus, "web", seq_len=32)) > 3
