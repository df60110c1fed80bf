import dataclasses
import json

import numpy as np
import pytest
from made_corpora import finish_job, kill_job_when
from made_proxies import DOMAINS, training, write_corpus

from gristmill.core.errors import BadInputError
from gristmill.core.job import run_job
from gristmill.core.run import Run
from gristmill.corpora.mixture import Mixture
from gristmill.execution.session import Execution
from gristmill.mixing import search_report
from gristmill.mixing.check import Check, read_check, write_check_design
from gristmill.mixing.objective import Objective
from gristmill.mixing.search import SearchJob
from gristmill.mixing.selection import fit_target
from gristmill.mixing.stopping import Round, expected_improvement, judge
from gristmill.mixing.surface import Surface
from gristmill.mixing.tables import Table, read_losses, read_mixtures

pytestmark = pytest.mark.ray


def search(folder, corpus, out, **fields):
    given = {"first": 10, "batch": 4, "most": 14, "check_random": 2, "check_seeds": 2, **fields}
    return SearchJob(
        corpora=(corpus,),
        training=training(folder, steps=40),
        out=str(out),
        execution=Execution(workers=2),
        **given,
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def finished(ray_cluster, corpus, tmp_path_factory):
    """A search for low loss on prose, which must go on to its limit of proxies."""
    folder = tmp_path_factory.mktemp("search")
    run_job(search(folder, corpus, folder / "o", targets=("prose",), enough=1.0))
    return folder


def read(folder, *names):
    return json.loads(folder.joinpath("o", *names).read_text())


def test_it_finds_the_domain_that_lowers_its_own_loss(finished):
    mixture = Mixture.load(str(finished / "o" / "mixture.json"))
    assert mixture.weights["prose"] > 0.8
    summary = Run(str(finished / "o")).done()["summary"]
    assert summary["beats_natural"] == "2 of 2 seeds" and summary["beats_random"] == "2 of 2"
    assert summary["measured_gain"] > 0.05
    assert summary["proxies"] == 14 and summary["rounds"] == 2
    assert summary["stopped"] == "the limit of proxies is reached"


def test_later_rounds_add_to_earlier_ones(finished):
    first = read_mixtures(str(finished / "o" / "round-01" / "mixtures.csv"))
    both = read_mixtures(str(finished / "o" / "round-02" / "mixtures.csv"))
    assert len(first.index) == 10 and len(both.index) == 14
    assert np.array_equal(both.rows(first.index), first.values)
    assert read_losses(str(finished / "o" / "round-02" / "losses.csv")).columns == DOMAINS
    assert [one["over"] for one in read(finished, "rounds.json")] == [False, True]


def test_the_check_run_is_of_other_seeds(finished):
    tables = [
        read_losses(str(finished / "o" / "check" / f"seed-{n}" / "losses.csv")) for n in (1, 2)
    ]
    assert {"proposed", "natural"} < set(tables[0].index) and len(tables[0].index) == 4
    assert not np.array_equal(tables[0].values, tables[1].values)
    seeds = [Run(str(finished / "o" / "check" / f"seed-{n}")).config() for n in (1, 2)]
    assert [one["config"]["seed"] for one in seeds] == [1, 2]


def test_the_report_tells_all(finished):
    page = (finished / "o" / "report.html").read_text()
    for title in (
        "Proposed mixture",
        "Check run",
        "Rounds",
        "Design: weights tried",
        "prose: predicted against measured",
        "Importance of domains",
        "Ledger of a proxy",
        "Pareto front",
        "Losses of the proxies, best first",
        "Losses in the order tried",
        "Proxies trained",
        "and 2 of 2 random ones",
        "round-02/fit/report.html",
    ):
        assert title in page


@pytest.mark.long
def test_a_search_with_a_higher_limit_goes_on(ray_cluster, corpus, tmp_path):
    few = {"first": 8, "batch": 3, "enough": 1.0, "check_random": 0, "check_seeds": 1}
    few |= {"targets": ("prose",), "guard": ("prose",)}
    run_job(search(tmp_path, corpus, tmp_path / "o", most=9, **few))
    results = list((tmp_path / "o").glob("round-*/proxies/results/*.json"))
    before = {path: path.stat().st_mtime_ns for path in results}
    assert len(before) == 9
    run_job(search(tmp_path, corpus, tmp_path / "o", most=12, **few))
    summary = Run(str(tmp_path / "o")).done()["summary"]
    assert summary["proxies"] == 12 and summary["rounds"] == 3
    assert summary["rails_expected_kept"] and summary["rails_measured_kept"] == "1 of 1 targets"
    assert "Check run: guard-rails" in (tmp_path / "o" / "report.html").read_text()
    assert {path: path.stat().st_mtime_ns for path in results} == before
    counts = [
        len(list((tmp_path / "o" / f"round-0{i}").rglob("results/*.json"))) for i in (1, 2, 3)
    ]
    assert counts == [8, 1, 3]
    done = (tmp_path / "o" / "DONE").stat().st_mtime_ns
    run_job(search(tmp_path, corpus, tmp_path / "o", most=10, **few))
    assert (tmp_path / "o" / "DONE").stat().st_mtime_ns == done


@pytest.mark.slow
def test_a_killed_search_resumes_where_it_was(finished, corpus, tmp_path):
    asked = search(finished, corpus, tmp_path / "o", targets=("prose",), enough=1.0)
    log, sweep = tmp_path / "log", tmp_path / "o" / "round-02" / "proxies" / "results"
    kill_job_when(lambda: sweep.is_dir() and any(sweep.iterdir()), asked, log)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "o").rglob("results/*.json")}
    assert len(before) >= 11
    status, said = finish_job(asked, log)
    assert status == 0, said
    assert {p: p.stat().st_mtime_ns for p in before} == before
    for name in ("mixture.json", "rounds.json", "check/seed-2/losses.csv"):
        assert (tmp_path / "o" / name).read_bytes() == (finished / "o" / name).read_bytes()


@pytest.mark.long
def test_it_stops_when_rounds_no_longer_change_the_answer(corpus, tmp_path):
    run_job(search(tmp_path, corpus, tmp_path / "o", enough=-1.0, tolerance=0.99, most=60))
    summary = Run(str(tmp_path / "o")).done()["summary"]
    assert summary["stopped"].startswith("the last ")
    assert 10 < summary["proxies"] < 60 and summary["rounds"] > 1


def test_caps_and_settings_that_cannot_be(corpus, tmp_path):
    with pytest.raises(BadInputError, match="no mixture fits"):
        search(tmp_path, corpus, tmp_path / "o", planned_tokens=1e9).plan()
    with pytest.raises(BadInputError, match="first must be at least 8, not 3"):
        search(tmp_path, corpus, tmp_path / "o", first=3)
    with pytest.raises(BadInputError, match=r"most \(4\) is less than the first round"):
        search(tmp_path, corpus, tmp_path / "o", most=4)
    for fields, said in (
        ({"targets": ("proze",)}, "no target 'proze'; perhaps you meant prose"),
        ({"targets": ("prose=nan",)}, "the weight of target prose is nan"),
        ({"targets": ("e",)}, "may mean any of the targets code, prose, tables"),
        ({"guard": ("coed",)}, "no target 'coed'; perhaps you meant code"),
        ({"guard": ("all", "code")}, "give all alone"),
    ):
        asked = search(tmp_path, corpus, tmp_path / "o", **fields)
        with pytest.raises(BadInputError, match=said):
            asked.plan()
        with pytest.raises(BadInputError, match=said):
            run_job(asked)
        assert not (tmp_path / "o" / "round-01").exists()
        assert not (tmp_path / "o" / "config.json").exists()  # the corrected one may come here
    text = search(tmp_path, corpus, tmp_path / "o").plan().text()
    assert "10 to 14, then 8 to check" in text


# -- the pure parts ----------------------------------------------------------------------------


class Fixed:
    """An objective whose mean is the first weight, with one width for all."""

    def __init__(self, half):
        self._half = half
        self.shares = {"t": 1.0}
        self.surface = self
        self.domains = ("a", "b")
        self.seed = 0
        losses = np.linspace(0, 1, 9)
        self.losses = {"t": losses}
        seen = type("Seen", (), {"mean": losses})
        self.fits = {"t": type("Fit", (), {"seen": seen})}

    def mean(self, rows):
        return rows[:, 0]

    def half(self, rows):
        return np.full(len(rows), self._half)


def test_expected_improvement_as_by_simulation():
    objective, even = Fixed(0.2), np.array([0.5, 0.5])
    found = expected_improvement(objective, 0.1, even, np.ones(2))
    drawn = np.random.default_rng(0).normal(0.0, 0.2 / 1.645, 400_000)
    assert found == pytest.approx(np.maximum(0.1 - drawn, 0).mean(), abs=2e-3)


def round_before(quiet=False, change=-1.0, proxies=16):
    numbers = dict.fromkeys(("spearman", "target_spearman", "value", "gain", "gain_lo", "gain_hi"))
    return Round(
        folder="round-01", proxies=proxies, promise=1.0, change=change, quiet=quiet, over=False,
        why="", **numbers,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("half", "used", "before", "last", "why"),
    [
        (1e-6, 20, None, None, "go on"),  # a first round cannot have been quiet
        (0.3, 20, None, None, "go on"),
        (0.3, 30, None, None, "the limit of proxies is reached"),
        (0.3, 20, 0.2, round_before(quiet=True), "go on"),
        (1e-6, 20, 0.2, round_before(quiet=True), "go on"),
        (0.3, 20, 0.04, round_before(), "go on"),  # quiet once, and one more promises much
        (
            1e-6, 20, 0.04, round_before(),
            "the last 4 proxies lowered the expected loss by 0.0400 and one more promises 0.0000, "
            "both within the tolerance of 0.0500",
        ),
        (
            0.3, 20, 0.04, round_before(quiet=True, change=0.01),
            "the last two rounds lowered the expected loss by 0.0100 and 0.0400, within the "
            "tolerance of 0.0500; one more proxy may still bring 0.0728",
        ),
    ],
)  # fmt: skip
def test_the_stopping_rule(half, used, before, last, why):
    figures = {
        "caps": {"a": 1.0, "b": 1.0},
        "gain": {"mean": 0.5, "lo": 0.4, "hi": 0.6},
        "mixtures": {
            "proposed": {"value": 0.0},
            "optimum": {"value": 0.0},
            "natural": {"weights": {"a": 0.5, "b": 0.5}},
        },
    }
    found = judge(
        Fixed(half),
        figures,
        before=None if before is None else {"a": before, "b": 1 - before},
        last=last,
        folder="round-02",
        used=used,
        most=30,
        enough=0.9,
        tolerance=0.1,
    )
    assert found.change == (-1 if before is None else before)
    assert found.quiet is (before == 0.04)
    assert found.over is (why != "go on") and found.spearman == pytest.approx(1.0)
    assert found.why == (why if found.over else "the answer may still change")
    assert "gain 0.5000 (0.4000 to 0.6000)" in found.line()


def surface_of_two():
    """Losses of 40 mixtures of a and b: each is low with much of its own domain."""
    random = np.random.default_rng(0)
    a = random.random(40)
    weights = np.stack([a, 1 - a], axis=1)
    losses = {"a": 3 - weights[:, 0], "b": 3 - weights[:, 1]}
    fits = {n: fit_target(weights, y + 0.001 * random.normal(size=40), ("ordinary_least_squares",
            "gaussian_process")) for n, y in losses.items()}  # fmt: skip
    index = tuple(str(i) for i in range(40))
    return Surface(
        domains=("a", "b"), index=index, weights=weights, losses=losses, fits=fits, seed=0
    )


@pytest.mark.parametrize(
    ("rails", "proposed", "before", "kept", "low", "high"),
    [
        ({}, 0.9, 0.6, True, 0.29, 0.31),
        ({}, 0.9, 0.9, True, 0.0, 0.01),
        ({"b": 2.5}, 0.5, 0.9, True, 1.0, 1e9),  # the one before was lower, but broke the rail
        ({"b": 2.5}, 0.5, 0.49, True, 0.0, 0.02),
        ({"b": 2.5}, 0.52, 0.52, False, 0.0, 0.01),  # while a rail is broken nothing settles
    ],
)
def test_rails_count_when_a_search_stops(rails, proposed, before, kept, low, high):
    objective = Objective(surface=surface_of_two(), shares={"a": 1.0})
    figures = {
        "caps": {"a": 0.9, "b": 1.0},
        "gain": {"mean": 0.2, "lo": 0.1, "hi": 0.3},
        "rails": rails,
        "rails_kept": kept,
        "mixtures": {
            "proposed": {"value": 3 - proposed, "weights": {"a": proposed, "b": 1 - proposed}},
            "optimum": {"value": 3 - proposed},
            "natural": {"weights": {"a": 0.3, "b": 0.7}},
        },
    }
    found = judge(
        objective,
        figures,
        before={"a": before, "b": 1 - before},
        last=round_before(quiet=True),
        folder="round-03",
        used=20,
        most=30,
        enough=0.9,
        tolerance=0.1,
    )
    assert low <= found.change <= high
    assert found.over is (kept and found.change < 0.02)
    assert kept or found.why == "the proposal breaks a guard-rail"
    promise = [
        expected_improvement(objective, 2.5, np.array([0.3, 0.7]), np.ones(2), rails)
        for rails in ({}, {"b": 2.5}, {"b": 2.9})
    ]
    assert promise[0] > 0.3 and promise[1] < 0.02 and promise[2] > 0.2


def sure_round(low, high):
    return dataclasses.replace(round_before(), spearman=0.95, gain_lo=low, gain_hi=high)


def test_the_check_measures_rails_and_bears_missing_random_mixtures(tmp_path):
    objective = Objective(surface=surface_of_two(), shares={"a": 1.0})
    index = ("natural", "proposed", "random-1", "random-2")
    mixtures = Table(
        source="m",
        index=index,
        columns=("a", "b"),
        values=np.array([[0.3, 0.7], [0.6, 0.4], [0.5, 0.5], [0.9, 0.1]]),
    )
    first = Table(source="1", index=index, columns=("a", "b"), values=np.array(
        [[2.7, 2.3], [2.4, 2.6], [2.5, 2.5], [2.1, 2.9]]))  # fmt: skip
    second = Table(source="2", index=index[:3], columns=("a", "b"), values=first.values[:3] + 0.1)
    check = read_check(objective, mixtures, [first, second], ["a", "b"])
    assert check.names == index[:3] and check.random == 1 and check.wins == 2
    assert check.guarded["b"] == pytest.approx([0.3, 0.3])
    assert check.broken == ["b"] and check.half.shape == (3,)
    figures = {"rails": {"a": 2.7, "b": 2.3}, "rails_kept": True, "margins_kept": True}
    warned = search_report.warnings(
        search(tmp_path, str(tmp_path), tmp_path / "o"), sure_round(0.1, 0.5), figures, check
    )
    assert warned == ["Guarded targets measured worse than with the natural mixture: b by 0.3000."]


def check_of_two_seeds():
    return Check(
        names=("natural", "proposed", "random-1", "random-2"),
        measured=np.array([[2.0, 1.0, 3.0, 0.5], [2.0, 2.5, 3.0, 0.5]]),
        predicted=np.zeros(4),
        half=np.zeros(4),
        targets={},
    )


def test_wins_are_counted_by_seed():
    check = check_of_two_seeds()
    assert check.gains == [1.0, -0.5] and check.wins == 1
    assert check.random == 2 and check.wins_over_random == 1 and check.rivals == ["random-2"]


def test_what_is_not_sure_is_said(tmp_path):
    check = check_of_two_seeds()
    asked = search(tmp_path, str(tmp_path), tmp_path / "o")
    last = dataclasses.replace(sure_round(-0.28, 0.43), spearman=0.8)
    said = search_report.warnings(asked, last, {"rails_kept": False}, check)
    for one, words in zip(
        said,
        (
            "beats the natural one in 1 of 2 seeds",
            "does not beat 1 of 2 random mixtures (random-2)",
            "holds 0 (-0.2800 to 0.4300, 90 %)",
            "Spearman of 0.800, under the 0.9",
            "No mixture under the caps is expected to keep every guard-rail",
        ),
        strict=True,
    ):
        assert words in one


def test_random_mixtures_of_the_check_keep_the_planned_caps(tmp_path):
    table = Table(source="r", index=("1", "2"), columns=("a", "b"),
                  values=np.array([[0.9, 0.1], [0.2, 0.8]]))  # fmt: skip
    named = {"proposed": {"a": 0.6, "b": 0.4}, "natural": {"a": 0.5, "b": 0.5}}
    write_check_design(str(tmp_path / "m.csv"), named, table, np.array([0.6, 1.0]))
    found = read_mixtures(str(tmp_path / "m.csv"))
    assert found.rows(["random-1", "random-2"]) == pytest.approx(np.array([[0.6, 0.4], [0.2, 0.8]]))
