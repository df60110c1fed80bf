"""What every filter promises, asked of each file in gristmill.filters."""

import pickle
import re
import tempfile

import numpy as np
import pytest
from made_up import write_metadata
from plain_facts import PlainFacts

from gristmill.core import arrays, plugins
from gristmill.core.config import from_dict, to_dict
from gristmill.core.errors import BadInputError
from gristmill.filters.base import AllOf, Filter

FOLDER = tempfile.TemporaryDirectory(prefix="gristmill-contracts-")
np.save(f"{FOLDER.name}/centroids.npy", np.eye(8, dtype=np.float32))
np.save(f"{FOLDER.name}/targets.npy", np.eye(8, dtype=np.float32)[:3])
np.save(f"{FOLDER.name}/evaluation.npy", np.eye(8, dtype=np.float32)[:2])
with open(f"{FOLDER.name}/evaluation.txt", "w", encoding="utf-8") as file:
    file.write("a photo of a brown dog running through the park")
TARGETS = {"centroids": FOLDER.name, "targets": f"{FOLDER.name}/targets.npy"}
FIELDS = {
    "aesthetic": {"fraction": 0.3},
    "clip_score": {"fraction": 0.3},
    "laion2b": {"detector": "fasttext"},
    "decontaminate": {"evaluation": f"{FOLDER.name}/evaluation.npy", "similarity": 0.5},
    "ngram_decontaminate": {"evaluation": f"{FOLDER.name}/evaluation.txt"},
    "image_based": TARGETS,
    "image_based_intersect_clip_score": {"fraction": 0.5, **TARGETS},
    "semantic_duplicates": {"centroids": FOLDER.name, "epsilon": 0.2},
}
NAMES = plugins.names("gristmill.filters")


def make(name):
    return plugins.find("gristmill.filters", name, Filter)(**FIELDS.get(name, {}))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    table = write_metadata(tmp_path_factory.mktemp("pool"), 400)
    features = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float16)
    return table.append_column("l14_img", arrays.to_column(features))


@pytest.fixture(params=[*NAMES, "all of them"])
def chosen(request):
    if request.param == "all of them":
        return AllOf(parts=tuple(make(name) for name in NAMES))
    return make(request.param)


def judged(chosen, table):
    """The fitted filter, the table with every mark that fitting made, and the verdict."""
    facts = PlainFacts(table)
    fitted = chosen.fit(facts)
    fitted.setup()
    return fitted, facts.table, fitted.judge(facts.table.select(list(fitted.columns) or ["uid"]))


def test_the_folder_is_not_empty():
    assert {"basic", "clip_score", "no_filter"} <= set(NAMES)


def test_picklable_and_back_through_json(chosen):
    assert pickle.loads(pickle.dumps(chosen)) == chosen
    import json

    assert from_dict(json.loads(json.dumps(to_dict(chosen)))) == chosen


def test_reads_only_its_columns_and_gives_known_reasons(chosen, table):
    fitted, table, verdict = judged(chosen, table)
    assert verdict.dtype == np.int8 and verdict.shape == (table.num_rows,)
    assert verdict.min() >= 0 and verdict.max() <= len(fitted.reasons)
    assert len(set(fitted.reasons)) == len(fitted.reasons)


def test_same_answer_whatever_the_batch_size_or_order(chosen, table):
    fitted, table, whole = judged(chosen, table)
    columns = list(fitted.columns) or ["uid"]
    pieces = [
        fitted.judge(table.slice(i, 37).select(columns)) for i in range(0, table.num_rows, 37)
    ]
    assert np.array_equal(np.concatenate(pieces), whole)
    order = np.random.default_rng(0).permutation(table.num_rows)
    assert np.array_equal(fitted.judge(table.take(order).select(columns)), whole[order])


def test_an_empty_batch_gives_an_empty_verdict(chosen, table):
    fitted, table, _ = judged(chosen, table)
    assert fitted.judge(table.slice(0, 0).select(list(fitted.columns) or ["uid"])).shape == (0,)


def test_says_where_its_rule_comes_from(chosen):
    if not isinstance(chosen, AllOf):
        assert re.search(r"\d{4}\.\d{4,5}|et al\.", type(chosen).__doc__)


def test_and_flattens_and_names_shared_reasons_apart():
    basic = make("basic")
    twice = basic & (make("no_filter") & basic)
    assert len(twice.parts) == 3
    assert len(set(twice.reasons)) == len(twice.reasons)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"fraction": 0.3, "threshold": 0.1},
        {"fraction": 0},
        {"fraction": 1.5},
        {"threshold": float("nan")},
    ],
)
def test_clip_score_wants_one_sound_cut(fields):
    with pytest.raises(BadInputError):
        plugins.find("gristmill.filters", "clip_score", Filter)(**fields)


def test_an_unknown_filter_names_the_nearest():
    with pytest.raises(BadInputError, match="perhaps you meant clip_score"):
        plugins.find("gristmill.filters", "clip_scores", Filter)
