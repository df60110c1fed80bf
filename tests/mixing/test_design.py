"""Designs: RegMix's rules kept exactly, the same for the same names."""

import numpy as np
import pytest
from mix_world import DOMAINS, TARGETS, world, write, write_surface

from gristmill.core.errors import BadInputError, RunError
from gristmill.core.job import run_job
from gristmill.mixing.design import DesignJob
from gristmill.mixing.dirichlet import UNITS, Rules, bounds, draw, to_units
from gristmill.mixing.spread import informative, next_batch, place, promising
from gristmill.mixing.surface import Surface
from gristmill.mixing.tables import read_mixtures

PILE = np.array(
    [.113285273, .079608651, .003913491, .185375901, .051081359, .015962925, .101750772,
     .003707518, .066529351, .001750772, .027085479, .236869207, .01184346, .007929969,
     .008032956, .038825953, .046446962]
)  # fmt: skip
SHARES = PILE / PILE.sum()


def test_rules_are_kept_exactly():
    units = draw(512, SHARES, Rules(), seed=0)
    assert units.shape == (512, 17)
    assert (units.sum(1) == UNITS).all() and (units >= 0).all()
    assert (units / UNITS <= np.minimum(15 * SHARES, 1) + 1e-15).all()
    assert len(np.unique(units, axis=0)) == 512
    assert (abs((units / UNITS).sum(1) - 1) < 1e-12).all()


def test_the_seed_says_which():
    first = draw(50, SHARES, Rules(), seed=0)
    np.testing.assert_array_equal(first, draw(50, SHARES, Rules(), seed=0))
    assert (first != draw(50, SHARES, Rules(), seed=1)).any()


def test_without_bounds_means_are_those_of_the_prior():
    """A Dirichlet has the mean of its prior, whatever its strength."""
    rules = Rules(max_repetition=1e9, candidates=40)
    units = draw(4000, SHARES, rules, seed=0)
    warm = SHARES**0.5 / (SHARES**0.5).sum()
    assert abs(units.mean(0) / UNITS - warm).max() < 0.02


def test_rounding_is_largest_remainder_under_bounds():
    most = np.array([5000, 2000, 5000])
    found = to_units(np.array([[0.33333, 0.33333, 0.33334], [0.6, 0.4, 0.0]]), most)
    assert found.tolist() == [[1667, 1666, 1667], [3000, 2000, 0]]
    full = to_units(np.array([[0.49995, 0.4, 0.10005]]), np.array([2499, 2000, 5000]))
    assert full.tolist() == [[2499, 2000, 501]]


def test_other_sizes_than_it_was_made_of_are_noticed(tmp_path):
    sizes = write(tmp_path / "s.csv", ["domain", "tokens"], [["a", 10], ["b", 20]])
    asked = DesignJob(domains=sizes, count=3, out=str(tmp_path / "o"))
    first = run_job(asked).done()
    assert run_job(asked).done() == first
    write(tmp_path / "s.csv", ["domain", "tokens"], [["a", 10], ["b", 2000]])
    with pytest.raises(RunError, match=r"the domains changed since .* --overwrite"):
        run_job(asked)
    assert run_job(asked, overwrite=True).done() != first
    (tmp_path / "s.csv").unlink()
    assert run_job(asked).done()["summary"]["mixtures"] == 3


def test_a_csv_of_others_is_left_alone_and_our_own_comes_back(tmp_path):
    sizes = write(tmp_path / "s.csv", ["domain", "tokens"], [["a", 10], ["b", 20]])
    notes = tmp_path / "m.csv"
    notes.write_text("my notes\n")
    asked = DesignJob(domains=sizes, count=3, out=str(notes))
    for overwrite in (False, True):
        with pytest.raises(BadInputError, match=r"m\.csv is there already"):
            run_job(asked, overwrite=overwrite)
    with pytest.raises(BadInputError, match=r"s\.csv is there already"):
        run_job(DesignJob(domains=sizes, count=3, out=sizes))
    assert notes.read_text() == "my notes\n"
    notes.unlink()
    run_job(asked)
    text = notes.read_text()
    notes.unlink()
    run_job(asked)
    assert notes.read_text() == text
    run_job(asked, overwrite=True)
    assert notes.read_text() == text


def test_bounds_that_leave_nothing():
    with pytest.raises(BadInputError, match=r"fill only 0\.5"):
        bounds(np.array([0.5, 0.5]), Rules(max_repetition=0.5))
    with pytest.raises(BadInputError, match="ask for fewer"):
        draw(1000, np.array([0.5, 0.5]), Rules(max_repetition=1.0), seed=0)


def sizes(folder, order=(0, 1, 2, 3), name="sizes.csv"):
    rows = [("books", 400), ("code", 300), ("news", 200), ("web", 100)]
    folder.mkdir(exist_ok=True)
    return write(folder / name, ["domain", "tokens"], [rows[i] for i in order])


@pytest.mark.parametrize("method", ["dirichlet", "space_filling"])
def test_the_order_of_domains_changes_nothing(tmp_path, method):
    found = []
    for name, order in (("a", (0, 1, 2, 3)), ("b", (3, 1, 0, 2))):
        out = tmp_path / f"{name}.csv"
        job = DesignJob(
            domains=sizes(tmp_path / name, order), count=20, method=method, out=str(out)
        )
        run_job(job)
        found.append(out.read_bytes())
    assert found[0] == found[1]


def test_a_folder_or_a_table(tmp_path):
    given = sizes(tmp_path)
    run = run_job(DesignJob(domains=given, count=9, out=str(tmp_path / "run")))
    table = read_mixtures(run.path("mixtures.csv"))
    assert table.columns == ("books", "code", "news", "web")
    assert table.index == tuple(str(i) for i in range(1, 10)) and table.drift < 1e-12
    run_job(DesignJob(domains=given, count=9, out=str(tmp_path / "m.csv")))
    assert (tmp_path / "m.csv").read_bytes() == (tmp_path / "run" / "mixtures.csv").read_bytes()


def test_space_filling_lies_farther_apart(tmp_path):
    nearest = {}
    for method in ("dirichlet", "space_filling"):
        out = str(tmp_path / f"{method}.csv")
        run_job(DesignJob(domains=sizes(tmp_path), count=30, method=method, out=out))
        where = place(read_mixtures(out).values)
        apart = ((where[:, None] - where[None]) ** 2).sum(2) + 1e9 * np.eye(30)
        nearest[method] = apart.min()
    assert nearest["space_filling"] > 2 * nearest["dirichlet"]


def test_a_later_design_keeps_off_an_earlier_one(tmp_path):
    given = sizes(tmp_path)
    run_job(DesignJob(domains=given, count=30, out=str(tmp_path / "a.csv")))
    later = DesignJob(
        domains=given, count=30, beside=str(tmp_path / "a.csv"), first_index=31,
        out=str(tmp_path / "b.csv"),
    )  # fmt: skip
    run_job(later)
    a, b = (read_mixtures(str(tmp_path / f"{n}.csv")) for n in "ab")
    assert b.index[0] == "31"
    assert not {r.tobytes() for r in np.round(a.values, 6)} & {
        r.tobytes() for r in np.round(b.values, 6)
    }


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("books", 5), ("code", 0)], "domain 'code' is empty"),
        ([("books", 5), ("books", 6)], "'books' twice"),
        ([("books", 5), ("code", "many")], "'many', not a number"),
        ([("books", 5), ("code", "nan")], "domain 'code' is empty"),
    ],
)
def test_bad_sizes(tmp_path, rows, said):
    given = write(tmp_path / "s.csv", ["domain", "tokens"], rows)
    with pytest.raises(BadInputError, match=said):
        run_job(DesignJob(domains=given, out=str(tmp_path / "o")))


# -- sequential --------------------------------------------------------------------------------

SIZES = {"arts": 300, "books": 50, "code": 250, "diary": 200, "essays": 200}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_surface(tmp_path_factory.mktemp("model"), 24)


def sequential(folder, model, name="d", order=tuple(SIZES), **more):
    given = write(folder / f"{name}-s.csv", ["domain", "tokens"], [(n, SIZES[n]) for n in order])
    fields = {"count": 8, "method": "sequential", "model": model, **more}
    out = folder / f"{name}.csv"
    run_job(DesignJob(domains=given, out=str(out), **fields))
    return read_mixtures(str(out))


def test_half_lie_where_the_fit_is_unsure_half_where_the_optimum_may_lie(model, tmp_path):
    """Of the pairs' first and second rows, against what a plain draw would give."""
    surface, even = Surface.load(model), {name: 0.5 for name in TARGETS}
    chosen = sequential(tmp_path, model).values
    plain = draw(400, np.array(list(SIZES.values())) / 1000, Rules(), seed=5) / UNITS
    unsure, good = informative(surface, even, chosen), promising(surface, even, chosen)
    assert np.median(unsure[::2]) > np.quantile(informative(surface, even, plain), 0.9)
    assert np.median(good[1::2]) > np.quantile(promising(surface, even, plain), 0.9)


def test_a_sequential_design_keeps_the_rules_and_off_what_is_known(model, tmp_path):
    found = sequential(tmp_path, model)
    units = np.round(found.values * UNITS).astype(int)
    assert (units.sum(1) == UNITS).all() and len(np.unique(units, axis=0)) == 8
    shares = np.array([SIZES[name] for name in found.columns]) / 1000
    assert (units <= bounds(shares, Rules())).all()
    known = place(Surface.load(model).weights)
    apart = ((place(found.values)[:, None] - known[None]) ** 2).sum(2)
    assert apart.min() > 0.01
    again = sequential(tmp_path, model, "again", order=tuple(SIZES)[::-1])
    assert np.array_equal(again.values, found.values)


def test_a_sequential_design_for_one_target_differs(model, tmp_path):
    books = sequential(tmp_path, model, "books", targets=("books",))
    assert not np.array_equal(books.values, sequential(tmp_path, model).values)
    with pytest.raises(BadInputError, match="no target 'newspapers'"):
        sequential(tmp_path, model, "none", targets=("newspapers",))


def test_more_proxies_where_it_matters_find_the_optimum_sooner(tmp_path):
    """True loss of the best of 4,000 mixtures by a fit: 16 rows and 8 more, chosen or drawn."""
    from gristmill.regressors.gaussian_process import GaussianProcess

    pool, _, truth = world(4000, seed=50, noise=0.0)
    regrets = {"chosen": [], "drawn": []}
    for seed in range(4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        surface = Surface.load(write_surface(folder, 16, seed=seed))
        chosen = next_batch(surface, {"books_loss": 1.0}, pool, 8, surface.weights)
        drawn = np.random.default_rng(seed).permutation(4000)[:8]
        for name, rows in (("chosen", chosen), ("drawn", list(drawn))):
            weights = np.concatenate([surface.weights, pool[rows]])
            losses = np.concatenate([surface.losses["books_loss"], truth[rows]])
            found = GaussianProcess().fit(weights, losses).mean(pool)
            regrets[name].append(truth[np.argmin(found)] - truth.min())
    assert np.mean(regrets["chosen"]) < 0.5 * np.mean(regrets["drawn"]), regrets


def test_sequential_needs_a_fit_of_the_same_domains(model, tmp_path):
    with pytest.raises(BadInputError, match="needs --model"):
        DesignJob(domains="s.csv", method="sequential", out=str(tmp_path / "o"))
    given = write(tmp_path / "s.csv", ["domain", "tokens"], [(n, 5) for n in DOMAINS[:4]])
    job = DesignJob(domains=given, method="sequential", model=model, out=str(tmp_path / "o"))
    with pytest.raises(BadInputError, match="essays"):
        run_job(job)
