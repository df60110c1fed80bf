"""Proposals: caps, guard-rails, and an optimum that is known."""

import json

import numpy as np
import pytest
from mix_world import DOMAINS, TARGETS, world, write, write_surface
from scipy.stats import norm

from gristmill.core.errors import BadInputError
from gristmill.core.job import run_job
from gristmill.mixing import simplex
from gristmill.mixing.effects import _rows, _within, importance, swap
from gristmill.mixing.front import undominated
from gristmill.mixing.objective import Objective, parse_rails, parse_targets
from gristmill.mixing.propose import ProposeJob
from gristmill.mixing.surface import Surface
from gristmill.mixing.tables import read_mixtures, read_table

SIZES = {"arts": 300, "books": 50, "code": 250, "diary": 200, "essays": 200}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_surface(tmp_path_factory.mktemp("model"), 80)


@pytest.fixture
def sizes(tmp_path):
    return write(tmp_path / "s.csv", ["domain", "tokens"], list(SIZES.items())[::-1])


def propose(model, tmp_path, name="p", **more):
    run = run_job(ProposeJob(model=model, draws=4000, out=str(tmp_path / name), **more))
    figures = json.loads((tmp_path / name / "proposal.json").read_text())
    table = read_mixtures(run.path("proposal.csv"))
    return figures, dict(zip(table.index, table.values, strict=True))


def test_caps_hold_and_the_uncapped_optimum_stands_beside(model, sizes, tmp_path):
    figures, found = propose(
        model, tmp_path, domains=sizes, tokens=1000, max_repetition=4, targets=("books",)
    )
    caps = np.array([min(4 * SIZES[d] / 1000, 1.0) for d in DOMAINS])
    for name in ("proposed", "optimum", "simulated"):
        assert (found[name] <= caps + 1e-9).all() and abs(found[name].sum() - 1) < 1e-9
    assert found["optimum"][1] == pytest.approx(0.2, abs=1e-6)  # all books that there are
    assert found["uncapped"][1] > 0.8
    value = {n: figures["mixtures"][n]["value"] for n in found}
    assert value["uncapped"] < value["optimum"] <= value["proposed"] <= value["simulated"]
    assert value["simulated"] < value["natural"]
    np.testing.assert_allclose(found["natural"], np.array([SIZES[d] for d in DOMAINS]) / 1000)
    gain = figures["gain"]
    assert gain["mean"] == pytest.approx(value["natural"] - value["proposed"])
    assert 0 < gain["lo"] < gain["mean"] < gain["hi"]


def test_a_hundred_domains_are_searched_without_trying_every_pair():
    random = np.random.default_rng(0)
    best = simplex.cap(random.dirichlet(np.full(100, 0.2), 1), np.full(100, 0.2))[0]
    scale, tried = random.uniform(0.5, 2, 100), [0]

    def cost(rows):
        tried[0] += len(rows)
        return ((rows - best) ** 2 * scale).sum(1)

    found = simplex.search(cost, np.full((1, 100), 0.01), np.full(100, 0.2))
    assert found.cost < 1e-4
    assert tried[0] < 200_000


def test_the_optimum_of_the_law_itself(model, sizes, tmp_path):
    """Of books alone the loss falls with the effective amount, which is linear: pile on books."""
    _, found = propose(model, tmp_path, domains=sizes, targets=("books_loss",))
    assert found["optimum"][1] > 0.85


def test_a_proposal_is_eased_by_no_more_than_is_given(model, sizes, tmp_path):
    """A noisier fit is eased further, up to the share asked for; 0 asks for the optimum itself."""
    noisy = write_surface(tmp_path / "surface", 60, noise=0.3)
    moved = []
    for name, surface in (("clear", model), ("noisy", noisy)):
        figures, found = propose(surface, tmp_path, name, domains=sizes, ease=0.3)
        value = {n: figures["mixtures"][n]["value"] for n in found}
        best = value["natural"] - value["optimum"]
        assert 0 <= value["proposed"] - value["optimum"] <= 0.3 * best + 1e-9
        assert value["proposed"] <= value["simulated"] + 1e-9
        natural, optimum = found["natural"], found["optimum"]
        away = np.abs(found["proposed"] - optimum).sum() / np.abs(natural - optimum).sum()
        moved.append(away)
    assert moved[0] < moved[1] and moved[1] > 0.02
    _, plain = propose(noisy, tmp_path, "plain", domains=sizes, ease=0)
    np.testing.assert_allclose(plain["proposed"], plain["optimum"])


def test_guard_rails(model, sizes, tmp_path):
    free, _ = propose(model, tmp_path, "free", domains=sizes, targets=("books",))
    kept, _ = propose(model, tmp_path, "kept", domains=sizes, targets=("books",), guard=("all",))
    code = {n: f["mixtures"]["proposed"]["targets"]["code_loss"]["mean"]
            for n, f in (("free", free), ("kept", kept))}  # fmt: skip
    rail = kept["rails"]["code_loss"]
    natural = kept["mixtures"]["natural"]["targets"]["code_loss"]["mean"]
    assert rail == pytest.approx(natural) and kept["rails_kept"]
    assert code["free"] > rail and code["kept"] <= rail + 1e-6
    assert kept["gain"]["mean"] > 0


def test_guard_rails_have_a_margin(sizes, tmp_path):
    """The surer a rail is to be kept, the farther from it the proposal stays."""
    noisy = write_surface(tmp_path / "noisy", 60, noise=0.05)
    asked = {"domains": sizes, "targets": ("books",), "guard": ("code",)}
    means, _ = propose(noisy, tmp_path, "means", guard_confidence=0.5, **asked)
    sure, _ = propose(noisy, tmp_path, "sure", guard_confidence=0.9, **asked)
    rail = means["rails"]["code_loss"]
    code = [f["mixtures"]["proposed"]["targets"]["code_loss"]["mean"] for f in (means, sure)]
    assert code[1] < code[0] <= rail + 1e-6 and sure["margins_kept"]
    chance = [f["rails_chance"]["code_loss"] for f in (means, sure)]
    assert 0.45 < chance[0] < 0.9 <= chance[1] + 1e-3
    bands = [sure["mixtures"][n]["targets"]["code_loss"] for n in ("proposed", "natural")]
    deviation = np.hypot(*(b["hi"] - b["mean"] for b in bands)) / 1.645
    assert chance[1] == pytest.approx(norm.cdf((rail - code[1]) / deviation), abs=1e-6)


def test_rails_that_no_margin_fits_are_kept_by_the_means(sizes, tmp_path, caplog):
    noisy = write_surface(tmp_path / "noisy", 60, noise=0.3)
    asked = {"domains": sizes, "targets": ("books",), "guard": ("all",)}
    figures, _ = propose(noisy, tmp_path, "p", guard_confidence=0.999, **asked)
    assert figures["rails_kept"] and not figures["margins_kept"]
    assert "keeps every guard-rail with a chance of 0.999" in caplog.text
    page = (tmp_path / "p" / "report.html").read_text()
    assert "chance that it holds" in page and "chance of 0.999" in page


def test_a_worthless_fit_is_named(sizes, tmp_path, caplog):
    noisy = write_surface(tmp_path / "noisy", 40, noise=3.0)
    propose(noisy, tmp_path, domains=sizes, targets=("books",))
    assert "under 0.9 on 1 of 1 targets: books_loss" in caplog.text


def test_importance_is_that_of_mixtures_near_the_trained_ones(tmp_path):
    """A fit that knows a domain's small weights only says nothing of mixtures full of it."""
    surface = Surface.load(write_surface(tmp_path / "s", 60))
    rows, others = _rows(surface)
    made = swap(rows, others, (1, 2))
    near = _within(surface.support, made)
    assert 0.25 * len(made) <= near.sum() < len(made)
    assert surface.support.beyond(made[near]).max() <= surface.support.beyond(made[~near]).min()
    assert (importance(surface, "books_loss") > 0).all()


def test_weighted_targets_and_the_front(model, sizes, tmp_path):
    even, _ = propose(model, tmp_path, "even", domains=sizes)
    assert even["objective"] == {"books_loss": 0.5, "code_loss": 0.5}
    one, a = propose(model, tmp_path, "one", domains=sizes, targets=("books=3", "code_loss=1"))
    assert one["objective"] == {"books_loss": 0.75, "code_loss": 0.25}
    front = read_table(str(tmp_path / "one" / "pareto.csv"), "column")
    column = {n: front.values[:, i] for i, n in enumerate(front.columns)}
    assert (np.diff(column["objective"]) > 0).all() and (np.diff(column["worst_change"]) < 0).all()
    assert abs(front.values[:, [front.columns.index(d) for d in DOMAINS]].sum(1) - 1).max() < 1e-9
    _, b = propose(model, tmp_path, "again", domains=sizes, targets=("code_loss=1", "books=3"))
    np.testing.assert_array_equal(a["proposed"], b["proposed"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"targets": ("bokks",)}, "no target 'bokks'; there are: books_loss, code_loss"),
        ({"targets": ("loss",)}, "may mean any of the targets books_loss, code_loss"),
        ({"targets": ("books", "books_loss=2")}, "books_loss is named twice"),
        ({"targets": ("books=0",)}, "weight of target books is 0"),
        ({"targets": ("books=x",)}, "is 'x', not a number"),
        ({"guard": ("cod", "none")}, "no target 'none'"),
        ({"guard_confidence": 0.4}, "guard_confidence must be a chance from 0.5 to below 1"),
        ({"guard_confidence": 1.0}, "guard_confidence must be a chance from 0.5 to below 1"),
        ({"tokens": 1e5}, "sum to 0.04, less than 1"),
    ],
)
def test_bad_requests(model, sizes, tmp_path, more, said):
    with pytest.raises(BadInputError, match=said):
        propose(model, tmp_path, domains=sizes, **more)


def test_caps_need_sizes_and_known_domains(model, tmp_path):
    with pytest.raises(BadInputError, match="give --domains with --tokens"):
        ProposeJob(model=model, tokens=5, out=str(tmp_path))
    wrong = write(tmp_path / "w.csv", ["domain", "tokens"], [*SIZES.items(), ("codes", 4)])
    with pytest.raises(BadInputError, match="no domain 'codes' in the fit; perhaps you meant code"):
        propose(model, tmp_path, "w", domains=wrong)
    fewer = write(tmp_path / "f.csv", ["domain", "tokens"], list(SIZES.items())[1:])
    with pytest.raises(BadInputError, match="no domain 'arts'"):
        propose(model, tmp_path, "f", domains=fewer)


def test_an_interval_of_a_weighted_set_covers(model):
    surface = Surface.load(model)
    objective = Objective(surface=surface, shares=parse_targets((), surface.targets))
    weights, _, _ = world(400, seed=7)
    measured = np.mean([world(400, 7, t)[1] for t in sorted(TARGETS)], axis=0)
    error = np.abs(objective.mean(weights) - measured)
    assert 0.8 < (error <= objective.half(weights)).mean() < 0.98
    rails = parse_rails(("code",), surface, weights[0], 0.01)
    assert rails["code_loss"] == pytest.approx(1.01 * surface.mean("code_loss", weights[:1])[0])


def test_capping_keeps_proportions():
    caps = np.array([0.2, 1.0, 1.0, 0.5])
    found = simplex.cap(np.array([[0.5, 0.3, 0.2, 0.0], [1.0, 0.0, 0.0, 0.0]]), caps)
    np.testing.assert_allclose(found[0], [0.2, 0.48, 0.32, 0.0])
    assert found[1, 0] == 0.2 and found[1].sum() == pytest.approx(1) and (found <= caps).all()


def test_the_search_finds_a_known_optimum():
    """A quadratic on the simplex, against its projection computed in closed form."""
    middle = np.array([0.55, 0.25, 0.15, 0.05])
    caps = np.array([0.4, 1.0, 1.0, 1.0])

    def cost(rows):
        return ((rows - middle) ** 2).sum(1)

    best = simplex.search(cost, np.eye(4)[1:], caps)
    expected = np.array([0.4, 0.30, 0.20, 0.10])
    np.testing.assert_allclose(best.weights, expected, atol=2e-3)


def test_the_front_drops_what_is_beaten():
    first, second = np.array([1.0, 2.0, 2.0, 3.0, 4.0]), np.array([5.0, 6.0, 4.0, 4.0, 1.0])
    assert undominated(first, second) == [0, 2, 4]
