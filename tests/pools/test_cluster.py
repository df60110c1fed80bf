"""`pool cluster` against plain k-means; the same bytes whatever the cut, the workers or a kill."""

import json

import numpy as np
import pytest
import reference
from killing import finish, kill_driver_when, markers
from made_up import write_features, write_metadata, write_pool

from gristmill.core.config import to_dict
from gristmill.core.errors import BadInputError, RunError
from gristmill.core.job import run_job
from gristmill.core.run import Run
from gristmill.execution.session import Execution
from gristmill.filters import _hash128
from gristmill.filters._caption_rule import judge_captions
from gristmill.filters._language import languages
from gristmill.filters.image_based import ImageBased
from gristmill.pools import cluster, kmeans
from gristmill.pools.cluster import ClusterJob
from gristmill.pools.cluster_workers import add_up, load
from gristmill.pools.selection import FilterJob
from gristmill.pools.uid import make_uids

ROWS, CLUSTERS = 3000, 12
ray = pytest.mark.ray


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    table = write_metadata(folder, ROWS, files=3, row_group=300)
    return str(folder), table, write_features(folder, kinds=9)["l14_img"]


def run(pool, out, **fields):
    fields = {"clusters": CLUSTERS, "iterations": 6, **fields}
    done = run_job(ClusterJob(pool=pool, out=str(out), **fields))
    centroids = np.load(out / "centroids.npy", allow_pickle=False)
    sizes = np.load(out / "sizes.npy", allow_pickle=False)
    return centroids, sizes, done.done()["summary"]


def hashes(table, seed):
    uids = make_uids(table["uid"].to_pylist())
    words = [uids["f0"], uids["f1"], np.full(len(uids), seed, np.uint64)]
    return _hash128.keys_of_words(np.stack(words, 1))


def plain_kmeans(rows, order, clusters, iterations, metric="inner_product"):
    """First centroids: the rows of the least keys, one a uid. Then Lloyd, in float64; an empty
    cluster takes half of the largest."""
    first, seen = [], set()
    for i in np.lexsort((order[:, 2], order[:, 1], order[:, 0])):
        if tuple(order[i]) not in seen:
            seen.add(tuple(order[i]))
            first.append(i)
    rows = rows.astype(np.float64)
    centroids = rows[first[:clusters]]
    for _ in range(iterations):
        found = nearest(rows, centroids, metric)
        new = centroids.copy()
        counts = np.bincount(found, minlength=clusters)
        for c in np.flatnonzero(counts):
            new[c] = rows[found == c].mean(0)
        centroids = new.astype(np.float32)
        for empty in np.flatnonzero(counts == 0):
            donor = int(counts.argmax())
            sway = np.tile([1 / 1024, -1 / 1024], centroids.shape[1] // 2).astype(np.float32)
            centroids[empty], centroids[donor] = (
                centroids[donor] * (1 + sway),
                centroids[donor] * (1 - sway),
            )
            counts[empty] = counts[donor] // 2
            counts[donor] -= counts[empty]
        centroids = centroids.astype(np.float64)
    return centroids.astype(np.float32), np.bincount(
        nearest(rows, centroids, metric), minlength=clusters
    )


def nearest(rows, centroids, metric):
    scores = rows @ centroids.T
    return (scores - (centroids**2).sum(1) / 2 if metric == "l2" else scores).argmax(1)


def order_of(table, seed):
    uids = make_uids(table["uid"].to_pylist())
    return np.stack([hashes(table, seed)[:, 1], uids["f0"], uids["f1"]], 1)


@ray
@pytest.mark.parametrize("metric", ["inner_product", "l2"])
def test_equals_plain_kmeans(made, tmp_path, metric):
    pool, table, features = made
    want, sizes = plain_kmeans(features, order_of(table, 3), CLUSTERS, 6, metric)
    got, got_sizes, summary = run(pool, tmp_path / "o", metric=metric, seed=3)
    assert got.dtype == np.float32 and np.abs(got - want).max() < 1e-6
    assert np.array_equal(got_sizes, sizes)
    assert summary["clustered"] == ROWS and summary["empty_clusters"] == (sizes == 0).sum()
    lines = [line for line in Run(str(tmp_path / "o")).metrics() if "objective" in line]
    objective = [line["objective"] for line in lines]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5, 6]
    rising = np.diff(objective) * (1 if metric == "inner_product" else -1)
    assert metric == "inner_product" or (rising >= -1e-9).all()  # Lloyd's promise is for L2
    assert rising.sum() > 0
    assert "Objective by iteration" in (tmp_path / "o" / "report.html").read_text()


@ray
def test_objective_of_l2_is_the_mean_squared_distance(made, tmp_path):
    pool, table, features = made
    run(pool, tmp_path / "o", metric="l2", iterations=1)
    rows = features.astype(np.float64)
    first, _ = plain_kmeans(features, order_of(table, 0), CLUSTERS, 0, "l2")
    gap = rows - first[nearest(rows, first.astype(np.float64), "l2")]
    line = Run(str(tmp_path / "o")).metrics()[-1]
    assert line["objective"] == pytest.approx((gap**2).sum(1).mean(), abs=1e-6)


@ray
def test_cut_workers_and_ranges_change_no_byte(made, tmp_path, monkeypatch):
    pool, *_ = made
    want = run(pool, tmp_path / "a", execution=Execution(workers=1))
    monkeypatch.setattr(cluster, "ROWS_PER_GROUP", 700)
    monkeypatch.setattr(kmeans, "RANGE_BYTES", 5 * 8 * 16)
    got = run(pool, tmp_path / "b", execution=Execution(workers=2))
    for a, b in zip(want[:2], got[:2], strict=True):
        assert a.tobytes() == b.tobytes()
    other = run(pool, tmp_path / "c", seed=1)
    assert other[0].tobytes() != want[0].tobytes()


@ray
def test_float32_features_cut_otherwise_give_the_same_bytes(tmp_path):
    """The same rows in other files and row groups, in float32."""
    results = []
    for name, files, group in (("a", 1, 5000), ("b", 4, 70)):
        write_metadata(tmp_path / name, 900, files=files, row_group=group)
        write_features(tmp_path / name, dtype=np.float32)
        results.append(run(str(tmp_path / name), tmp_path / f"o{name}", clusters=7))
    assert results[0][0].tobytes() == results[1][0].tobytes()
    assert np.array_equal(results[0][1], results[1][1])


@ray
def test_on_object_storage(tmp_path, bucket):
    import s3fs

    write_metadata(tmp_path / "p", 400, files=2)
    write_features(tmp_path / "p")
    s3fs.S3FileSystem().put(str(tmp_path / "p"), f"{bucket}/p", recursive=True)
    want, *_ = run(str(tmp_path / "p"), tmp_path / "o", clusters=6, sample=0.7)
    job = ClusterJob(pool=f"{bucket}/p", out=f"{bucket}/o", clusters=6, iterations=6, sample=0.7)
    run_job(job)
    assert load(f"{bucket}/o/centroids.npy").tobytes() == want.tobytes()


@ray
def test_faiss_gives_the_same_bytes(made, tmp_path):
    pytest.importorskip("faiss")
    pool, *_ = made
    a, b = (run(pool, tmp_path / e, engine=e)[0] for e in ("numpy", "faiss"))
    assert a.tobytes() == b.tobytes()


@ray
@pytest.mark.parametrize("captions", ["all", "english"])
def test_a_sample_depends_on_uid_and_seed_alone(made, tmp_path, captions):
    pool, table, features = made
    kept = hashes(table, 0)[:, 0] < np.uint64(int(0.5 * 2.0**64))
    if captions == "english":
        texts = table["text"].to_pylist()
        told = languages([t or "" for t in texts])
        kept &= [
            t is not None and len(t) > 5 and len(t.split()) + t.count("\n") > 1 and said == "en"
            for t, said in zip(texts, told, strict=True)
        ]
    want, sizes = plain_kmeans(features[kept], order_of(table, 0)[kept], 8, 3)
    got, got_sizes, summary = run(
        pool, tmp_path / "o", sample=0.5, captions=captions, clusters=8, iterations=3
    )
    assert summary["clustered"] == kept.sum() and np.array_equal(got_sizes, sizes)
    assert np.abs(got - want).max() < 1e-6


@ray
def test_rows_that_are_not_finite_take_no_part(tmp_path):
    write_metadata(tmp_path / "p", 200, files=1)
    features = write_features(tmp_path / "p")["l14_img"]
    features[17, 3], features[40, 0] = np.nan, np.inf
    np.savez(tmp_path / "p" / "metadata" / "0000.npz", l14_img=features)
    _, sizes, summary = run(str(tmp_path / "p"), tmp_path / "o", clusters=4)
    assert summary["unusable"] == 2 and sizes.sum() == 198


@ray
def test_empty_clusters_take_half_of_the_largest(tmp_path):
    """Two kinds of identical rows under many uids: most first centroids get no row."""
    write_metadata(tmp_path / "p", 100, files=1, repeat=0)
    features = np.zeros((100, 16), np.float16)
    features[:70, 0], features[70:, 1] = 1, 1
    np.savez(tmp_path / "p" / "metadata" / "0000.npz", l14_img=features)
    centroids, sizes, summary = run(str(tmp_path / "p"), tmp_path / "o", clusters=5)
    assert sizes.sum() == 100 and sorted(sizes)[-2:] == [30, 70]
    assert np.isfinite(centroids).all() and centroids.any(axis=1).all()
    assert summary["empty_clusters"] == 3


def test_splitting_by_hand():
    centroids = np.array([[8.0, 8.0], [0, 0], [4, 4], [0, 0]], np.float32)
    assert kmeans.split_largest(centroids, np.array([10, 0, 7, 0])) == 2
    up, down = 1 + 1 / 1024, 1 - 1 / 1024
    want = [[8 * down, 8 * up], [8 * up, 8 * down], [4 * down, 4 * up], [4 * up, 4 * down]]
    assert np.allclose(centroids, want, rtol=1e-7)
    alone = np.ones((3, 2), np.float32)
    assert kmeans.split_largest(alone, np.array([1, 0, 1])) == 1
    assert (alone == 1).all()  # a cluster of one row cannot be split


def test_sums_are_exact_in_any_order():
    rng = np.random.default_rng(0)
    for dtype in (np.float16, np.float32):
        rows = (rng.normal(size=(5000, 8)) * 10.0 ** rng.integers(-6, 1, (5000, 1))).astype(dtype)
        found = rng.integers(0, 5, 5000)
        a, b = np.zeros((5, 8)), np.zeros((5, 8))
        norms = add_up(a, rows, found)
        order = rng.permutation(5000)
        other = sum(add_up(b, rows[part], found[part]) for part in np.array_split(order, 37))
        assert a.tobytes() == b.tobytes() and norms == other


@ray
@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bytes(made, tmp_path):
    pool, *_ = made
    words = ["pool", "cluster", "--pool", pool, "--clusters", CLUSTERS, "--iterations", 12]
    run(pool, tmp_path / "calm", iterations=12)
    out, log = tmp_path / "o", tmp_path / "log"

    def midway():
        return markers(out / ".work" / "pass-0002" / "assigned") >= 1

    kill_driver_when(midway, *words, "--out", out, log=log)
    assert not (out / "DONE").exists()
    state = (out / ".work" / "iteration-0001.json").stat().st_mtime_ns
    kill_driver_when(
        lambda: markers(out / ".work" / "pass-0006" / "assigned") >= 1,
        *words, "--out", out, log=log,
    )  # fmt: skip
    assert (out / ".work" / "iteration-0001.json").stat().st_mtime_ns == state
    status, text = finish(*words, "--out", out, log=log)
    assert status == 0, text
    for name in ("centroids.npy", "sizes.npy"):
        assert (out / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    lines = Run(str(out)).metrics()
    assert [line["iteration"] for line in lines] == list(range(1, 13))
    calm = Run(str(tmp_path / "calm")).metrics()
    assert [x["objective"] for x in lines] == [x["objective"] for x in calm]
    assert not (out / ".work").exists()


@ray
def test_image_based_takes_the_run(made, tmp_path):
    """`pool cluster`, then `pool filter`: the uids of the plain rules."""
    pool, table, features = made
    centroids, *_ = run(pool, tmp_path / "c")
    np.save(tmp_path / "targets.npy", features[:3])
    chosen = ImageBased(centroids=str(tmp_path / "c"), targets=str(tmp_path / "targets.npy"))
    run_job(FilterJob(pool=pool, filter=chosen, out=str(tmp_path / "f")))
    assigned = nearest(features.astype(np.float64), centroids.astype(np.float64), "inner_product")
    captions = judge_captions(table["text"]) == 0
    kept = captions & np.isin(assigned, assigned[:3])
    want = reference.subset_bytes(
        [u for u, k in zip(table["uid"].to_pylist(), kept, strict=True) if k]
    )
    assert (tmp_path / "f" / "subset.npy").read_bytes() == want and 50 < kept.sum() < ROWS / 2
    assert json.loads((tmp_path / "f" / "DONE").read_text())["inputs"]["centroids"]["sha256"]


@ray
def test_pictures_of_members_stand_in_the_report(tmp_path):
    write_pool(tmp_path / "p", shards=2, per_shard=20)
    write_features(tmp_path / "p")
    run(str(tmp_path / "p"), tmp_path / "o", clusters=3)
    page = (tmp_path / "o" / "report.html").read_text()
    assert "data:image/" in page and "from the first shard" in page


@ray
def test_changed_features_are_not_resumed(made, tmp_path):
    write_metadata(tmp_path / "p", 300, files=2)
    write_features(tmp_path / "p")
    job = ClusterJob(pool=str(tmp_path / "p"), out=str(tmp_path / "o"), clusters=3, iterations=2)
    with Run(job.out).open(job) as started, pytest.raises(SystemExit):

        def stop(*_):
            raise SystemExit

        started.keep_metrics = stop
        job.execute(started)
    write_features(tmp_path / "p", seed=5)
    with pytest.raises(RunError, match="the features changed since this run began"):
        run_job(job)


@ray
def test_too_many_clusters_are_refused(tmp_path):
    write_metadata(tmp_path / "p", 30, files=1, repeat=0.5)
    write_features(tmp_path / "p")
    with pytest.raises(BadInputError, match="30 of 30 rows .* too few different uids for 30"):
        run(str(tmp_path / "p"), tmp_path / "o", clusters=30)


def test_plan_says_cost_memory_and_few_rows(made):
    job = ClusterJob(pool=made[0], out="o", clusters=100)
    text = job.plan().text()
    assert "cluster 3,000 of 3,000 rows" in text and "FLOPs" in text
    assert "fewer than 39 each" in text and "a worker holds centroids and sums" in text
    assert json.dumps(to_dict(job))


@pytest.mark.parametrize(
    "fields", [{"clusters": 0}, {"iterations": 0}, {"sample": 0}, {"sample": 1.5}, {"seed": -1}]
)
def test_bad_settings_are_refused(fields):
    with pytest.raises(BadInputError):
        ClusterJob(pool="p", out="o", **fields)


def test_faiss_missing_is_said(made, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "faiss", None)
    job = ClusterJob(pool=made[0], out=str(tmp_path / "o"), engine="faiss")
    with pytest.raises(ImportError, match=r"gristmill\[faiss\]"):
        run_job(job)
