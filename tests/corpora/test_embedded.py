import zlib

import pytest

from gristmill.core.errors import BadInputError
from gristmill.core.job import run_job
from gristmill.corpora import embedded
from gristmill.corpora.corpus import Corpus
from gristmill.recipes import corpus as recipes

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def made(ray_cluster, tmp_path_factory):
    import dataclasses

    out = tmp_path_factory.mktemp("embedded") / "c"
    job = dataclasses.replace(recipes.embedded(), out=str(out))
    return out, run_job(job).done()["summary"]


def test_seven_domains_or_more_of_balanced_size(made):
    out, summary = made
    assert len(summary["domains"]) >= 7
    corpus = Corpus(str(out), "documents")
    assert set(corpus.domains) == set(embedded.names())
    for name, counts in summary["domains"].items():
        assert 600_000 <= counts["bytes"] <= embedded.MAX_BYTES, name
        assert counts["documents"] >= 50, name
        share = counts["validation"]["bytes"] / counts["bytes"]
        assert 0.1 <= share < 0.14, name


def test_the_domains_differ_and_the_splits_do_not(made):
    """Compression tells: a domain's own text helps to pack its validation split, others' do not."""
    from gristmill.corpora.document_reader import read_texts

    corpus = Corpus(str(made[0]), "documents")

    def sample(domain, split, size):
        return "".join(read_texts(corpus, domain, split, size)).encode()[:size]

    train = {d: sample(d, "train", 30_000) for d in corpus.domains}
    held = {d: sample(d, "validation", 20_000) for d in corpus.domains}

    def extra(domain, other):
        both = len(zlib.compress(train[other] + held[domain], 9))
        return both - len(zlib.compress(train[other], 9))

    for domain in corpus.domains:
        costs = {other: extra(domain, other) for other in corpus.domains}
        assert min(costs, key=costs.get) == domain, costs


def test_always_the_same_documents():
    for name in ("characters", "font_metrics", "type_stubs"):
        first = embedded.documents(name)
        assert first == embedded.documents(name) and len(first) == len(set(first))


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(BadInputError, match="no embedded domain 'klingon' here; there are: char"):
        embedded.write("embedded:klingon", str(tmp_path))


def test_without_timm_seven_are_left(monkeypatch):
    found = embedded.importlib.util.find_spec
    monkeypatch.setattr(
        embedded.importlib.util, "find_spec", lambda name: None if name == "timm" else found(name)
    )
    assert len(embedded.names()) >= 7 and "dictionary" not in embedded.names()
