"""The duplicate filters through the whole filter job, against the plain engine of the tests."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_up import write_metadata
from plain_facts import PlainFacts

from gristmill.core.arrays import to_column
from gristmill.core.job import run_job
from gristmill.filters.basic import Basic
from gristmill.filters.caption_duplicates import CaptionDuplicates
from gristmill.filters.exact_duplicates import ExactDuplicates
from gristmill.filters.near_duplicates import NearDuplicates
from gristmill.filters.semantic_duplicates import SemanticDuplicates
from gristmill.pools.selection import FilterJob
from gristmill.pools.subset import Subset
from gristmill.pools.uid import hex_of_uid

pytestmark = pytest.mark.ray
ROWS = 900
SCORE = "clip_b32_similarity_score"


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A pool's folder, its rows in order, and centroids."""
    folder = tmp_path_factory.mktemp("pool")
    table = write_metadata(folder, ROWS, row_group=70)
    rng = np.random.default_rng(0)
    families = rng.normal(size=(60, 16))[rng.integers(0, 60, ROWS)]
    features = (families + 0.1 * rng.normal(size=(ROWS, 16))).astype(np.float16)
    start = 0
    for file in sorted((folder / "metadata").glob("*.parquet")):
        count = pq.read_metadata(file).num_rows
        np.savez(file.with_suffix(".npz"), l14_img=features[start : start + count])
        start += count
    np.save(folder / "centroids.npy", rng.normal(size=(5, 16)).astype(np.float32))
    return folder, table.append_column("l14_img", to_column(features))


@pytest.mark.parametrize(
    "make",
    [
        lambda _: ExactDuplicates(),
        lambda _: ExactDuplicates(column="text", best_by=SCORE),
        lambda _: NearDuplicates(shared_chunks=2),
        lambda _: CaptionDuplicates(ngram=2),
        lambda folder: SemanticDuplicates(centroids=str(folder / "centroids.npy")),
        lambda _: Basic() & NearDuplicates(best_by=SCORE) & CaptionDuplicates(ngram=2),
    ],
    ids=["sha256", "text", "near", "caption", "semantic", "chain"],
)
def test_the_job_keeps_what_the_plain_engine_keeps(pool, tmp_path, make):
    folder, table = pool
    chosen = make(folder)
    facts = PlainFacts(table)
    fitted = chosen.fit(facts)
    fitted.setup()
    kept = fitted.judge(facts.table.select(list(fitted.columns))) == 0
    assert 0 < kept.sum() < ROWS
    run_job(FilterJob(pool=str(folder), filter=chosen, out=str(tmp_path / "f")))
    found = [hex_of_uid(uid) for uid in Subset.load(str(tmp_path / "f" / "subset.npy")).uids]
    assert found == sorted(np.array(table["uid"].to_pylist())[kept].tolist())
