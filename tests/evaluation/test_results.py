import json

import numpy as np
import pytest

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.evaluation import intervals
from gristmill.evaluation.aggregate import aggregate
from gristmill.evaluation.benchmark import BENCHMARKS, Benchmark, find_benchmark, load_task
from gristmill.evaluation.results import read_results, result_line, write_results
from gristmill.evaluation.tasks.base import Task


def make_task(key_, group_, metric_="acc1"):
    class Made(Task):
        name, key, group, metric = key_.title(), key_, group_, metric_

        def evaluate(self, model, data_root, batch_size):
            raise NotImplementedError

    return Made()


TASKS = [
    make_task("imagenet1k", "imagenet"),
    make_task("vtab/a", "vtab"),
    make_task("vtab/b", "vtab"),
    make_task("x", "other"),
    make_task("fairface", "other", ""),
]
SCORES = [0.5, 0.25, 0.75, 0.1, None]


def lines():
    return [
        result_line(t, {"acc1": s, "main_metric": s}) for t, s in zip(TASKS, SCORES, strict=True)
    ]


def test_the_average_is_unweighted_over_scored_tasks():
    found = aggregate(lines(), TASKS)
    assert found.average == pytest.approx((0.5 + 0.25 + 0.75 + 0.1) / 4)
    assert found.groups == {"imagenet": 0.5, "vtab": 0.5}
    assert found.tasks["fairface"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(1), "no result for vtab/a: an average needs all 5 tasks"),
        (lambda rows: rows.append(rows[0]), "imagenet1k has 2 results"),
        (lambda rows: rows[2].update(key="vtab/z"), "vtab/z is not in the benchmark"),
        (lambda rows: rows[0]["metrics"].update(main_metric=0.9), "0.9 is not its acc1 0.5"),
        (lambda rows: rows[0]["metrics"].update(main_metric=None), "not a number from 0 to 1"),
        (lambda rows: rows[0]["metrics"].update(main_metric=1.5, acc1=1.5), "1.5, not a number"),
    ],
)
def test_a_part_of_a_benchmark_has_no_average(change, message):
    rows = lines()
    change(rows)
    with pytest.raises(BadInputError, match=message):
        aggregate(rows, TASKS)


def test_a_score_over_another_number_of_samples_is_refused():
    task = make_task("sized", "other")
    type(task).test_size = 7
    rows = [result_line(task, {"acc1": 0.5, "num_samples": 6, "main_metric": 0.5})]
    with pytest.raises(BadInputError, match="task sized: num_samples is 6, not 7"):
        aggregate(rows, [task])


def test_results_survive_the_disk_in_datacomps_format(tmp_path):
    path = tmp_path / "eval_results.jsonl"
    write_results(str(path), lines())
    first = json.loads(path.read_text().splitlines()[0])
    assert first == {
        "key": "imagenet1k",
        "dataset": "Imagenet1K",
        "metrics": {"acc1": 0.5, "main_metric": 0.5},
    }
    assert read_results(str(path)) == lines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1 is not JSON"),
        ('{"key": "a"}', "exactly the keys"),
        ('{"key": "a", "dataset": "b", "metrics": {}}', "no main_metric"),
        ('{"key": "a", "dataset": "b", "metrics": {"main_metric": NaN}}', "neither a finite"),
        ('{"key": "a", "dataset": "b", "metrics": {"main_metric": true}}', "neither a finite"),
        ("[" * 5000, "not JSON"),
        ('{"key": "a", "dataset": "b", "metrics": {"main_metric": 1e999}}', "neither a finite"),
        (f'{{"key": "a", "dataset": "b", "metrics": {{"main_metric": {"9" * 400}}}}}', "neither a"),
        (f'{{"key": "a", "dataset": "b", "metrics": {{"main_metric": {"9" * 5000}}}}}', "not JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, message):
    path = tmp_path / "eval_results.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(CorruptDataError, match=message):
        read_results(str(path))


def test_every_benchmark_loads_and_unknown_names_get_a_hint():
    for benchmark in BENCHMARKS.values():
        assert len(benchmark.load()) == len(benchmark.tasks)
    with pytest.raises(BadInputError, match="perhaps you meant demo"):
        find_benchmark("dem")
    with pytest.raises(BadInputError, match="perhaps you meant digits"):
        load_task("digit")
    with pytest.raises(BadInputError, match="lists digits more than once"):
        Benchmark(name="b", version=1, tasks=("digits", "digits")).load()


def test_wilson_has_its_known_values_and_stays_inside():
    low, high = intervals.wilson(9, 10)
    assert (round(low, 3), round(high, 3)) == (0.596, 0.982)
    assert intervals.wilson(0, 5)[0] == 0.0
    assert intervals.wilson(5, 5)[1] == 1.0


def test_an_interval_has_a_width_even_at_the_ends():
    low, high = intervals.mean_recall_interval([0, 7], [5, 7])
    assert 0.3 < low < 0.5 < high < 0.75
    assert intervals.mean_recall_interval([3], [8]) == pytest.approx(intervals.wilson(3, 8))
    zeros = np.zeros((20, 2))
    assert intervals.ratio_interval(zeros, zeros + 1) == intervals.wilson(0, 20)
    assert intervals.ratio_interval(zeros + 1, zeros + 1) == intervals.wilson(20, 20)


def test_the_interval_of_a_mean_recall_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth, support = rng.uniform(0.05, 0.6, 30), rng.integers(3, 40, 30)
    covered = 0
    for _ in range(400):
        low, high = intervals.mean_recall_interval(rng.binomial(support, truth), support)
        covered += low <= truth.mean() <= high
    assert 0.92 <= covered / 400 <= 0.99


def test_intervals_cover_the_estimate_and_repeat():
    support, correct = np.array([40, 10, 0, 80]), np.array([20, 9, 0, 16])
    low, high = intervals.mean_recall_interval(correct, support)
    assert low < (0.5 + 0.9 + 0.2) / 3 < high
    assert (low, high) == intervals.mean_recall_interval(correct, support)
    parts, sizes = np.array([[1, 2], [0, 1], [1, 0], [0, 0]]), np.array([[1, 2]] * 4)
    low, high = intervals.ratio_interval(parts, sizes)
    assert low < (0.5 + 3 / 8) / 2 < high
