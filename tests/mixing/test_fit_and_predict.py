"""Fit and predict, from files to files."""

import csv
import json

import numpy as np
import pytest
from mix_world import DOMAINS, TARGETS, world, write, write_world

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.job import run_job
from gristmill.execution.session import Execution
from gristmill.mixing.fit import FitJob
from gristmill.mixing.odd import fit_without_odd
from gristmill.mixing.predict import PredictJob
from gristmill.mixing.selection import fit_target, quantile, score
from gristmill.mixing.surface import Surface

QUICK = ("gaussian_process", "mixing_law", "ordinary_least_squares", "stack")


def fit(folder, tables, name="fit", **more):
    mixtures, losses = tables
    more = {"regressors": QUICK, "execution": Execution(workers=1)} | more
    return run_job(FitJob(mixtures=mixtures, losses=losses, out=str(folder / name), **more))


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    return fit(folder, write_world(folder, 60))


@pytest.mark.ray
def test_summary_files_and_report(fitted):
    done = fitted.done()
    assert done["summary"]["targets"] == 2 and done["summary"]["held_out_spearman"] > 0.97
    assert {"model.json", "model.npz", "held_out.csv", "report.html"} <= set(done["outputs"])
    from gristmill.core import io

    page = io.read_bytes(fitted.path("report.html")).decode()
    for words in ("Chosen by cross-validation", "Importance of domains", "interactions"):
        assert words in page


@pytest.mark.ray
def test_columns_intervals_and_order_of_predictions(fitted, tmp_path):
    weights, _, _ = world(300, seed=9)
    rows = [[f"r{i}", *map(float, weights[i])] for i in range(300)][::-1]
    given = write(tmp_path / "m.csv", ["index", *DOMAINS], rows)
    run_job(PredictJob(model=fitted.uri, mixtures=given, out=str(tmp_path / "p.csv")))
    found = read(tmp_path / "p.csv")
    header = [c for t in sorted(TARGETS) for c in (t, f"{t}_lo", f"{t}_hi")]
    assert list(found[0]) == ["index", *header]
    assert [row["index"] for row in found] == [row[0] for row in rows]
    for target in TARGETS:
        _, measured, _ = world(300, 9, target)
        mean, lo, hi = (
            np.array([float(r[c]) for r in found])[::-1]
            for c in (target, f"{target}_lo", f"{target}_hi")
        )
        assert score(measured, mean).spearman > 0.97
        # Of 60 rows, the 90 % quantile itself has a deviation of 4 %.
        assert 0.78 < ((lo <= measured) & (measured <= hi)).mean() < 0.99


@pytest.mark.ray
def test_rows_and_columns_in_another_order_give_the_same(fitted, tmp_path):
    order = np.random.default_rng(1).permutation(60).tolist()
    other = fit(tmp_path, write_world(tmp_path, 60, order=order, columns=(3, 0, 4, 2, 1)))
    for name in ("model.json", "model.npz", "held_out.csv"):
        assert other.done()["outputs"][name] == fitted.done()["outputs"][name], name
    weights, _, _ = world(20, seed=2)
    found = []
    for name, columns in (("a", (0, 1, 2, 3, 4)), ("b", (4, 2, 0, 1, 3))):
        given = write(
            tmp_path / f"{name}_m.csv",
            ["index", *(DOMAINS[c] for c in columns)],
            [[i, *(float(weights[i, c]) for c in columns)] for i in range(20)],
        )
        run_job(PredictJob(model=fitted.uri, mixtures=given, out=str(tmp_path / f"{name}.csv")))
        found.append((tmp_path / f"{name}.csv").read_bytes())
    assert found[0] == found[1]


@pytest.mark.ray
def test_a_prediction_names_wrong_domains(fitted, tmp_path):
    given = write(tmp_path / "m.csv", ["index", "arts", "boks"], [[1, 0.5, 0.5]])
    with pytest.raises(BadInputError, match="unknown domains: boks"):
        run_job(PredictJob(model=fitted.uri, mixtures=given, out=str(tmp_path / "p.csv")))


@pytest.mark.ray
def test_a_model_that_was_tampered_with(fitted, tmp_path):
    import shutil

    shutil.copytree(fitted.uri, tmp_path / "model")
    (tmp_path / "model" / "model.npz").write_bytes(b"PK nothing")
    with pytest.raises(CorruptDataError, match=r"model\.npz is not a readable"):
        Surface.load(str(tmp_path / "model"))
    data = json.loads((tmp_path / "model" / "model.json").read_text())
    del data["domains"]
    shutil.copy(fitted.path("model.npz"), tmp_path / "model" / "model.npz")
    (tmp_path / "model" / "model.json").write_text(json.dumps(data))
    with pytest.raises(CorruptDataError, match=r"model\.json is damaged"):
        Surface.load(str(tmp_path / "model"))
    with pytest.raises(BadInputError, match="make it with gristmill mix fit"):
        Surface.load(str(tmp_path))


def test_the_plan_refuses_too_few_mixtures(tmp_path):
    m = write(tmp_path / "m.csv", ["index", "a", "b"], [[i, i / 10, 1 - i / 10] for i in range(3)])
    losses = write(tmp_path / "l.csv", ["index", "x"], [[i, 2.0 + i] for i in range(3)])
    with pytest.raises(BadInputError, match="3 mixtures are too few"):
        FitJob(mixtures=m, losses=losses, out=str(tmp_path / "o")).plan()


def with_empty(tmp_path, held=0.0):
    """Eleven mixtures of arts, books and a domain that none holds, or the last one holds."""
    shares = [(i / 20, 0.0 if i < 10 else held) for i in range(11)]
    rows = [[i, a, 1 - a - c, c] for i, (a, c) in enumerate(shares)]
    return write(tmp_path / f"m{held}.csv", ["index", "arts", "books", "comics"], rows)


@pytest.mark.ray
def test_a_domain_that_no_mixture_holds(tmp_path, caplog):
    losses = write(tmp_path / "l.csv", ["index", "x"], [[i, 2 + i / 10] for i in range(11)])
    run = fit(tmp_path, (with_empty(tmp_path), losses))
    assert "nothing of them" in caplog.text and "comics" in caplog.text
    assert run.done()["summary"]["empty_domains"] == ["comics"]
    assert Surface.load(run.uri).domains == ("arts", "books")
    given = with_empty(tmp_path)
    run_job(PredictJob(model=run.uri, mixtures=given, out=str(tmp_path / "p.csv")))
    assert len(read(tmp_path / "p.csv")) == 11
    job = PredictJob(model=run.uri, mixtures=with_empty(tmp_path, 0.25), out=str(tmp_path / "q"))
    with pytest.raises(BadInputError, match="weight to domain 'comics' in the rows 10"):
        run_job(job)


@pytest.mark.parametrize("other", ["x_lo", "x_hi", "x_held_out"])
def test_targets_whose_columns_would_collide(tmp_path, other):
    m = write(tmp_path / "m.csv", ["index", "a", "b"], [[i, i / 9, 1 - i / 9] for i in range(10)])
    losses = write(tmp_path / "l.csv", ["index", "x", other], [[i, 2 + i, 3] for i in range(10)])
    with pytest.raises(BadInputError, match=f"{other} is a target, and would also be"):
        FitJob(mixtures=m, losses=losses, out=str(tmp_path / "o")).plan()


@pytest.mark.ray
def test_worthless_and_constant_targets_are_named(tmp_path, caplog):
    weights, losses, _ = world(30)
    noise = 2 + np.random.default_rng(0).random(30)
    mixtures = write(
        tmp_path / "m.csv", ["index", *DOMAINS], [[i, *w] for i, w in enumerate(weights.tolist())]
    )
    rows = [[i, losses[i], noise[i], 2.5] for i in range(30)]
    run = fit(tmp_path, (mixtures, write(tmp_path / "l.csv", ["index", "g", "n", "flat"], rows)))
    summary = run.done()["summary"]
    assert summary["weak_targets"] == ["n"] and summary["constant_targets"] == ["flat"]
    assert "under 0.9 on 1 of 3 targets: n (" in caplog.text
    assert "1 of 3 targets measured the same in every run" in caplog.text
    surface = Surface.load(run.uri)
    ranks = [surface.fits[t].scores[surface.fits[t].chosen].spearman for t in ("g", "n")]
    assert summary["held_out_spearman"] == pytest.approx(np.mean(ranks), abs=1e-5)
    flat = surface.predict("flat", weights)
    np.testing.assert_allclose(flat.mean, 2.5, atol=1e-6)
    np.testing.assert_allclose(flat.half, 0.05)  # it was written to one decimal


def test_code_that_a_model_names_is_not_run_unasked(tmp_path, monkeypatch):
    import sys

    from mix_world import write_surface

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "theirs_mix.py").write_text(
        "from gristmill.regressors.ordinary_least_squares import OrdinaryLeastSquares\n"
        "class Theirs(OrdinaryLeastSquares):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    name = "python:theirs_mix:Theirs"
    model = write_surface(tmp_path / "model", 20, candidates=(name,))
    sys.modules.pop("theirs_mix")
    with pytest.raises(BadInputError, match="give --allow theirs_mix"):
        Surface.load(model)
    assert "theirs_mix" not in sys.modules
    assert Surface.load(model, allow=("theirs_mix",)).fits["books_loss"].chosen == name


def test_settings_that_cannot_be_right(tmp_path):
    given = {"mixtures": "m.csv", "losses": "l.csv", "out": str(tmp_path)}
    with pytest.raises(BadInputError, match="perhaps you meant gaussian_process"):
        FitJob(**given, regressors=("gausian_process",))
    with pytest.raises(BadInputError, match="nothing to fit beside the stack"):
        FitJob(**given, regressors=("stack",))
    with pytest.raises(BadInputError, match="folds must be"):
        FitJob(**given, folds=1)


def test_plan_starts_nothing(tmp_path):
    mixtures, losses = write_world(tmp_path, 40)
    text = FitJob(mixtures=mixtures, losses=losses, out=str(tmp_path / "o")).plan().text()
    assert "fit 2 targets of 40 mixtures of 5 domains" in text
    assert not (tmp_path / "o").exists()


def test_too_few_mixtures():
    weights, losses, _ = world(7)
    with pytest.raises(BadInputError, match="7 mixtures are too few"):
        fit_target(weights, losses, QUICK)


def test_the_right_regressor_wins():
    weights, _, _ = world(80)
    line = weights @ np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    found = fit_target(weights, line, ("ordinary_least_squares", "mixing_law"))
    assert found.chosen == "ordinary_least_squares"
    weights, losses, _ = world(80)
    found = fit_target(weights, losses, ("ordinary_least_squares", "gaussian_process"))
    assert found.chosen == "gaussian_process"


def test_intervals_cover_what_they_say():
    covered = []
    for seed in range(6):
        weights, losses, _ = world(48, seed, noise=0.01)
        unseen, measured, _ = world(400, seed + 100, noise=0.01)
        fit = fit_target(weights, losses, ("gaussian_process", "mixing_law", "stack"), seed=seed)
        found = fit.fits[fit.chosen].predict(unseen)
        covered.append((np.abs(measured - found.mean) <= fit.factor * found.spread).mean())
    assert 0.86 < np.mean(covered) < 0.95


def test_quantile_counts_ranks():
    assert quantile(np.arange(1.0, 100.0), np.arange(99)) == 90.0
    assert quantile(np.arange(1.0, 6.0), np.arange(5)) == 5.0
    assert quantile(np.arange(1.0, 65.0), np.arange(64)) == pytest.approx(58.5)


def test_runs_of_one_mixture_do_not_count_as_so_many_mixtures():
    """Losses have nothing to do with weights, but four runs of a mixture are alike."""
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(12), 4)
    weights = random.dirichlet(np.ones(5), 12)[group]
    losses = 2 + 0.1 * random.normal(size=12)[group] + 0.001 * random.normal(size=48)
    fit = fit_target(weights, losses, ("gaussian_process", "mixing_law", "ordinary_least_squares"))
    assert fit.scores[fit.chosen].spearman < 0.5
    found = fit.fits[fit.chosen].predict(random.dirichlet(np.ones(5), 300))
    truth = 2 + 0.1 * random.normal(size=300)
    assert (np.abs(truth - found.mean) <= fit.factor * found.spread).mean() > 0.7
    assert quantile(np.repeat(np.arange(1.0, 13.0), 4), group) == 12.0
    with pytest.raises(BadInputError, match=r"7 mixtures \(in 28 rows\) are too few"):
        fit_target(weights[:28], losses[:28], ("gaussian_process",))


def test_a_new_value_lies_below_the_quantile_nine_times_in_ten():
    random = np.random.default_rng(0)
    below = [random.random() < quantile(random.random(64), np.arange(64)) for _ in range(6_000)]
    assert np.mean(below) == pytest.approx(0.9, abs=0.013)


def test_scores_are_those_of_scipy():
    from scipy.stats import pearsonr, spearmanr

    random = np.random.default_rng(0)
    a = random.normal(size=50).round(1)
    b = a + random.normal(size=50).round(1)
    found = score(a, b)
    assert found.spearman == pytest.approx(spearmanr(a, b).statistic)
    assert found.pearson == pytest.approx(pearsonr(a, b).statistic)
    assert found.mae == pytest.approx(np.abs(a - b).mean())
    assert score(a, np.zeros(50)).spearman == 0.0


def several(targets, *, rows=80, wrong=(), by=0.4):
    """Weights, and losses of so many targets, wrong in some rows."""
    losses = {}
    for i, target in enumerate((sorted(TARGETS) * targets)[:targets]):
        noise = 0.003 * np.random.default_rng(i).normal(size=rows)
        losses[f"{target}{i}"] = world(rows, 0, target)[1] + noise
        losses[f"{target}{i}"][list(wrong)] += by
    return world(rows)[0], losses


def fit_all(name, weights, losses):
    found = ("gaussian_process", "mixing_law")
    return {n: fit_target(weights, y, found) for n, y in losses.items()}


@pytest.mark.parametrize("targets", [1, 4])
def test_a_wild_run_is_left_out_and_the_rest_is_as_without_it(targets):
    """One loss of ln(vocabulary) among losses of 2 to 4, whatever the number of targets."""
    weights, losses = several(targets, wrong=[7], by=8.0)
    found = fit_without_odd(weights, losses, fit_all)
    gone = np.flatnonzero(~found.kept).tolist()
    assert 7 in gone and len(gone) <= 2 and found.error.argmax() == 7 and found.error[7] > 10
    unseen, _, truth = world(300, 5)
    expected = fit_all("", weights[found.kept], {n: y[found.kept] for n, y in losses.items()})
    for name, fit in found.fits.items():
        np.testing.assert_array_equal(
            fit.interval(unseen).mean, expected[name].interval(unseen).mean
        )
        assert fit.factor <= expected[name].factor
    assert score(truth, found.fits["books_loss0"].interval(unseen).mean).spearman > 0.97


def test_odd_runs_stay_but_scale_no_interval():
    weights, losses = several(4, wrong=[7, 41])
    found = fit_without_odd(weights, losses, fit_all)
    assert found.kept.all() and np.flatnonzero(~found.usual).tolist() == [7, 41]
    first = fit_all("", weights, losses)
    assert all(fit.factor <= first[name].factor for name, fit in found.fits.items())


def test_runs_that_went_right_stay():
    for targets in (1, 2, 4):
        weights, losses = several(targets, rows=40)
        assert fit_without_odd(weights, losses, fit_all).kept.all()


def test_so_few_mixtures_that_none_can_be_spared():
    weights, losses = several(1, rows=8, wrong=[3], by=8.0)
    assert fit_without_odd(weights, losses, fit_all).kept.all()


def test_one_bad_run_does_not_choose_the_regressor():
    """By squares alone one row would; the best is what is better on the others."""
    from gristmill.mixing.selection import _choice
    from gristmill.regressors.base import Prediction

    losses = np.linspace(2, 4, 40)
    close, far = losses + 0.01, losses + 0.1
    close[5], far[5] = losses[5] + 3.0, losses[5] + 2.5
    seen = {n: Prediction(mean=m, spread=np.ones(40)) for n, m in (("a", far), ("b", close))}
    assert _choice(seen, losses, np.arange(40)) == "b"


@pytest.mark.ray
def test_a_fit_says_which_runs_it_left_out(tmp_path, caplog):
    mixtures, losses = write_world(tmp_path, 40)
    rows = read(losses)
    next(row for row in rows if row["index"] == "13")["code_loss"] = "10.8"
    losses = write(tmp_path / "bad.csv", list(rows[0]), [list(row.values()) for row in rows])
    run = fit(tmp_path, (mixtures, losses))
    assert run.done()["summary"]["left_out"] == ["13"] and "1 of 40 runs" in caplog.text
    surface = Surface.load(run.uri)
    assert "13" not in surface.index and list(surface.odd) == ["13"] and surface.odd["13"] > 10
    held = {row["index"]: row for row in read(run.path("held_out.csv"))}
    assert len(held) == 40 and float(held["13"]["code_loss"]) == 10.8
    assert float(held["13"]["code_loss_held_out"]) < 5
