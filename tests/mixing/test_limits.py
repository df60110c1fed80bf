"""Caps: a mixture that stands at one is never refused by the ledger of its training."""

import json
import math

import numpy as np
import pytest
from made_proxies import DOMAINS, training, write_corpus
from mix_world import DOMAINS as FIVE
from mix_world import TARGETS, write, write_surface

from gristmill.core.errors import BadInputError
from gristmill.core.job import run_job
from gristmill.core.run import Run
from gristmill.corpora.apportionment import Apportionment
from gristmill.corpora.ledger import make_ledger
from gristmill.corpora.mixture import Mixture
from gristmill.mixing import simplex
from gristmill.mixing.design import DesignJob
from gristmill.mixing.propose import ProposeJob
from gristmill.mixing.proxies import ProxiesJob
from gristmill.mixing.search import LIMITS, SIZES, SearchJob
from gristmill.mixing.sizes import read_caps, weight_caps
from gristmill.mixing.tables import read_mixtures


@pytest.mark.parametrize(
    "seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 40))]
)
def test_mixtures_at_their_caps_pass_the_ledger(seed):
    """The stream's own counts, for caps of sequences that do not divide anything."""
    random = np.random.default_rng(seed)
    names = tuple("abcdef"[: random.integers(2, 7)])
    seq_len = int(random.integers(1, 40))
    sizes = {n: int(random.integers(seq_len + 1, 4000)) for n in names}
    epochs = float(random.uniform(0.3, 5))
    tokens = float(random.uniform(0.5, 0.97) * epochs * sum(sizes.values()))
    caps = weight_caps(sizes, names, tokens=tokens, epochs=epochs, seq_len=seq_len)
    if caps.sum() < 1:
        pytest.skip("no mixture keeps these")
    drawn = random.dirichlet(np.full(len(names), 0.3), 20)
    available = {n: (sizes[n] - 1) // seq_len for n in names}
    for row in simplex.cap(drawn, caps):
        mixture = Mixture.normalized(dict(zip(names, row.tolist(), strict=True)))
        for total in (int(tokens) // seq_len, math.ceil(tokens / seq_len)):
            counts = Apportionment(mixture.parts).counts(total)
            make_ledger(mixture.weights, counts, available, seq_len).require_epochs(epochs)


def test_a_domain_of_two_sequences_is_designed_for(tmp_path):
    """Of 47 tokens two sequences of 16 can be made: token counts alone would allow more."""
    (tmp_path / "t").mkdir()
    corpus = write_corpus(tmp_path / "t", sizes=(3000, 47, 3000))
    asked = SearchJob(
        corpora=(corpus,),
        training=training(tmp_path, steps=200),
        planned_tokens=8000,
        planned_seq_len=16,
        planned_epochs=2.0,
        out=str(tmp_path / "o"),
    )
    limits = asked._limits(asked._corpus())
    limits.write(str(tmp_path / SIZES), str(tmp_path / LIMITS))
    assert read_caps(str(tmp_path / SIZES), DOMAINS)[1] == 8 / 800
    assert read_caps(str(tmp_path / LIMITS), DOMAINS)[1] == 4 / 500
    drawn = DesignJob(domains=str(tmp_path / SIZES), count=40, out=str(tmp_path / "d.csv"))
    run_job(drawn)
    rows = read_mixtures(str(tmp_path / "d.csv"))
    assert (rows.values <= limits.proxy).all() and rows.values[:, 1].max() > 0.005
    plan = ProxiesJob(
        design=str(tmp_path / "d.csv"),
        corpora=(corpus,),
        training=asked.training,
        out=str(tmp_path / "p"),
    ).plan()
    assert "train 40 proxies" in plan.title
    with pytest.raises(BadInputError, match="domain prose has 47 tokens"):
        SearchJob(corpora=(corpus,), planned_tokens=10, training=asked.training, out="o").plan()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_surface(tmp_path_factory.mktemp("model"), 60)


def test_proposals_count_whole_sequences(model, tmp_path):
    rows = [["arts", 300], ["books", 57], ["code", 250], ["diary", 200], ["essays", 200]]
    sizes = write(tmp_path / "s.csv", ["domain", "tokens"], rows)
    asked = {"model": model, "domains": sizes, "tokens": 1000, "targets": ("books",), "draws": 400}
    run_job(ProposeJob(**asked, seq_len=10, out=str(tmp_path / "a")))
    figures = json.loads((tmp_path / "a" / "proposal.json").read_text())
    assert figures["caps"]["books"] == 4 * 5 / 100
    assert figures["mixtures"]["optimum"]["weights"]["books"] == pytest.approx(0.2, abs=1e-6)
    shares = write(tmp_path / "h.csv", ["domain", "tokens"], [[name, 0.2] for name, _ in rows])
    with pytest.raises(BadInputError, match="these are shares"):
        ProposeJob(**{**asked, "domains": shares}, out=str(tmp_path / "b")).plan()
    for bad in (math.nan, math.inf):
        for field in ("tokens", "max_repetition"):
            with pytest.raises(BadInputError, match=field):
                ProposeJob(**{**asked, field: bad}, out=str(tmp_path / "b"))


def test_a_sequential_design_is_for_what_may_be_proposed(model, tmp_path):
    """Half of it is where the optimum may lie: under the caps, and within the rails."""
    plain = write(tmp_path / "s.csv", ["domain", "tokens"], [[d, 100] for d in FIVE])
    caps = [[d, 100, 0.3 if d == "books" else 1] for d in FIVE]
    limits = write(tmp_path / "l.csv", ["domain", "tokens", "cap"], caps)
    asked = {"domains": plain, "model": model, "method": "sequential", "count": 12}
    asked |= {"targets": ("books=3", "code=1"), "seed": 1}
    run_job(DesignJob(**asked, limits=limits, guard=("code",), out=str(tmp_path / "a")))
    run_job(DesignJob(**asked, out=str(tmp_path / "b")))
    found = {n: read_mixtures(str(tmp_path / n / "mixtures.csv")).values for n in "ab"}
    assert (found["a"][1::2, 1] <= 0.3).all() and found["b"][1::2, 1].max() > 0.6
    assert Run(str(tmp_path / "a")).done()["summary"]["mixtures"] == 12
    assert sorted(TARGETS) == ["books_loss", "code_loss"]
    with pytest.raises(BadInputError, match="may mean any"):
        DesignJob(**{**asked, "targets": ("loss",)}, out=str(tmp_path / "c")).plan()
    with pytest.raises(BadInputError, match="are of sequential designs"):
        DesignJob(domains=plain, guard=("code",), out=str(tmp_path / "c"))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["", 5], ["b", 20]], "line 2: '' cannot name a domain"),
        ([["index", 5], ["b", 20]], "'index' cannot name a domain"),
        ([["a", -3], ["b", 20]], "the tokens of domain 'a' are -3; give a number above 0"),
        ([["a", "inf"], ["b", 20]], "the tokens of domain 'a' are inf"),
        ([["a", "many"], ["b", 20]], "the tokens of domain 'a' are 'many', not a number"),
        ([["a", 0], ["b", 20]], "domain 'a' is empty"),
    ],
)
def test_sizes_that_cannot_be(tmp_path, rows, said):
    sizes = write(tmp_path / "s.csv", ["domain", "tokens"], rows)
    with pytest.raises(BadInputError, match=said):
        DesignJob(domains=sizes, count=3, out=str(tmp_path / "o")).plan()


def test_caps_that_cannot_be(tmp_path):
    header = ["domain", "tokens", "cap"]
    for cap, said in ((2, "the cap of domain 'a' is 2"), ("x", "the cap of domain 'a'")):
        sizes = write(tmp_path / "s.csv", header, [["a", 5, cap], ["b", 20, ""]])
        with pytest.raises(BadInputError, match=said):
            DesignJob(domains=sizes, count=3, out=str(tmp_path / "o")).plan()
    sizes = write(tmp_path / "s.csv", header, [["a", 5, 0.2], ["b", 20, 0.4]])
    with pytest.raises(BadInputError, match="and under their caps the domains fill only 0.6"):
        DesignJob(domains=sizes, count=3, out=str(tmp_path / "o")).plan()
