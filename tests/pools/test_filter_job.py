"""`pool filter` gives the uids of the plain rules, byte for byte, however the pool is cut."""

import json

import pytest
import reference
from made_up import write_metadata, write_pool

from gristmill.core.errors import BadInputError, CorruptDataError, RunError
from gristmill.core.job import run_job
from gristmill.execution.session import Execution
from gristmill.filters.basic import Basic
from gristmill.filters.clip_score import ClipScore
from gristmill.filters.no_filter import NoFilter
from gristmill.pools import pool as pool_module
from gristmill.pools.selection import FilterJob

pytestmark = pytest.mark.ray
ROWS = 20_000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    table = write_metadata(folder, ROWS, row_group=1500)
    return str(folder), table.to_pylist()


def run(pool, chosen, out, **fields):
    run_job(FilterJob(pool=pool, filter=chosen, out=str(out), **fields))
    return (out / "subset.npy").read_bytes(), json.loads((out / "stats.json").read_text())


def test_no_filter_lists_every_uid_repeats_too(made, tmp_path):
    pool, rows = made
    got, stats = run(pool, NoFilter(), tmp_path / "o")
    assert got == reference.subset_bytes([r["uid"] for r in rows])
    assert stats["kept"] == ROWS


def test_basic_equals_the_plain_rules(made, tmp_path):
    pool, rows = made
    language = reference.Language()
    want = [r["uid"] for r in rows if reference.basic(r, language)]
    got, stats = run(pool, Basic(), tmp_path / "o")
    assert got == reference.subset_bytes(want)
    assert stats["kept"] + sum(stats["dropped"].values()) == ROWS
    assert stats["dropped"]["caption_missing"] > 0 and stats["dropped"]["language"] > 0


@pytest.mark.parametrize("fraction", [0.3, 0.0001, 0.5, 0.97])
def test_fraction_is_the_exact_order_statistic_with_ties(made, tmp_path, fraction):
    pool, rows = made
    scores = [r["clip_l14_similarity_score"] for r in rows]
    cut = reference.threshold(scores, fraction)
    want = [r["uid"] for r, s in zip(rows, scores, strict=True) if s is not None and s >= cut]
    got, _ = run(pool, ClipScore(arch="l14", fraction=fraction), tmp_path / "o")
    assert got == reference.subset_bytes(want)


def test_threshold_on_b32(made, tmp_path):
    pool, rows = made
    want = [r["uid"] for r in rows if r["clip_b32_similarity_score"] >= 0.25]
    got, _ = run(pool, ClipScore(arch="b32", threshold=0.25), tmp_path / "o")
    assert got == reference.subset_bytes(want)


def test_and_is_the_intersection_with_the_fraction_taken_over_the_whole_pool(made, tmp_path):
    pool, rows = made
    language = reference.Language()
    cut = reference.threshold([r["clip_l14_similarity_score"] for r in rows], 0.3)
    want = [
        r["uid"]
        for r in rows
        if (r["clip_l14_similarity_score"] or -1) >= cut and reference.basic(r, language)
    ]
    got, stats = run(pool, ClipScore(fraction=0.3) & Basic(), tmp_path / "o")
    assert got == reference.subset_bytes(want)
    assert list(stats["dropped"])[:2] == ["clip_score_missing", "clip_score_low"]


def test_slices_and_workers_change_nothing(made, tmp_path, monkeypatch):
    pool, _ = made
    chosen = ClipScore(fraction=0.3) & Basic()
    a, stats_a = run(pool, chosen, tmp_path / "a", execution=Execution(workers=1))
    monkeypatch.setattr(pool_module.Pool.slices, "__defaults__", (2000,))
    b, stats_b = run(pool, chosen, tmp_path / "b", execution=Execution(workers=2))
    assert a == b and stats_a == stats_b


def test_a_cut_among_missing_scores_is_refused(made, tmp_path):
    with pytest.raises(BadInputError, match="NaN or null"):
        run(made[0], ClipScore(fraction=0.9999), tmp_path / "o")


def test_rerun_returns_at_once_and_another_job_is_refused(made, tmp_path):
    pool, _ = made
    run(pool, NoFilter(), tmp_path / "o")
    before = (tmp_path / "o" / "DONE").read_bytes()
    run(pool, NoFilter(), tmp_path / "o")
    assert (tmp_path / "o" / "DONE").read_bytes() == before
    with pytest.raises(RunError, match=r"filter\.type|filter"):
        run(pool, Basic(), tmp_path / "o")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match=r"thesis\.txt"):
        run(pool, NoFilter(), tmp_path / "mine")


def test_report_shows_the_funnel_and_pictures_of_what_was_dropped(tmp_path):
    write_pool(tmp_path / "p", shards=2)
    run(str(tmp_path / "p"), Basic(), tmp_path / "o")
    page = (tmp_path / "o" / "report.html").read_text()
    assert "Funnel" in page and "Dropped: language" in page and "data:image/webp;base64," in page


def damage(path, *, keep=None):
    data = bytearray(path.read_bytes())
    if keep is not None:
        path.write_bytes(data[:keep])
        return
    data[len(data) // 3 : len(data) // 3 + 400] = b"\xff" * 400
    path.write_bytes(data)


def test_a_truncated_parquet_stops_the_job_and_names_the_file(tmp_path):
    write_metadata(tmp_path, 5000)
    damage(tmp_path / "metadata" / "0001.parquet", keep=9000)
    with pytest.raises(CorruptDataError, match=r"0001\.parquet"):
        run(str(tmp_path), NoFilter(), tmp_path / "o")
    assert not (tmp_path / "o" / "DONE").exists() and not (tmp_path / "o" / "subset.npy").exists()


def test_a_corrupt_row_group_is_named_or_skipped_and_counted(tmp_path):
    table = write_metadata(tmp_path, 6000, files=2, row_group=1000)
    damage(tmp_path / "metadata" / "0000.parquet")
    with pytest.raises(CorruptDataError, match=r"0000\.parquet, row group \d"):
        run(str(tmp_path), NoFilter(), tmp_path / "o")
    assert not (tmp_path / "o" / "DONE").exists()
    _, stats = run(str(tmp_path), NoFilter(), tmp_path / "s", skip_corrupt=True)
    assert stats["lost"] > 0 and stats["kept"] + stats["lost"] == table.num_rows
    assert "row group" in stats["corrupt"][0]


def test_missing_and_mistyped_columns_are_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "metadata").mkdir()
    file = tmp_path / "metadata" / "a.parquet"
    pq.write_table(pa.table({"uid": ["0" * 32], "text": ["x"]}), file)
    with pytest.raises(BadInputError, match=r"a\.parquet has no column original_width"):
        run(str(tmp_path), Basic(), tmp_path / "o")
    with pytest.raises(BadInputError, match="pool score adds it"):
        run(str(tmp_path), ClipScore(threshold=0.1), tmp_path / "o2")
    pq.write_table(pa.table({"uid": ["0" * 32], "clip_l14_similarity_score": ["high"]}), file)
    with pytest.raises(BadInputError, match="is string, not a number"):
        run(str(tmp_path), ClipScore(threshold=0.1), tmp_path / "o3")
    pq.write_table(pa.table({"uid": ["0" * 31 + "z"]}), file)
    with pytest.raises(BadInputError, match=r"a\.parquet, row 0: uid"):
        run(str(tmp_path), NoFilter(), tmp_path / "o4")
    pq.write_table(pa.table({"uid": pa.array([], pa.string())}), file)
    assert run(str(tmp_path), NoFilter(), tmp_path / "o5")[1]["kept"] == 0


def test_a_folder_that_is_no_pool(tmp_path):
    with pytest.raises(BadInputError, match="no pool at"):
        run(str(tmp_path), NoFilter(), tmp_path / "o")


def test_pool_and_run_on_object_storage(bucket, tmp_path):
    import fsspec

    write_metadata(tmp_path, 3000)
    fs = fsspec.filesystem("s3")
    fs.put(str(tmp_path / "metadata"), f"{bucket}/pool/metadata", recursive=True)
    run_job(FilterJob(pool=f"{bucket}/pool", filter=ClipScore(fraction=0.3), out=f"{bucket}/o"))
    local, _ = run(str(tmp_path), ClipScore(fraction=0.3), tmp_path / "o")
    assert fs.cat(f"{bucket}/o/subset.npy") == local
    names = {n.rsplit("/", 1)[-1] for n in fs.ls(f"{bucket}/o")}
    kept = {"config.json", "env.json", "DONE", "report.html", "stats.json", "subset.npy"}
    assert names == {*kept, "events.jsonl", "logs"}


def test_two_jobs_in_one_session_never_share_a_worker(made, tmp_path):
    """The second job has the same folder, so the same ledger, but another filter."""
    pool, rows = made
    job = FilterJob(pool=pool, filter=ClipScore(arch="b32", threshold=0.3), out=str(tmp_path / "o"))
    run_job(job)
    run_job(FilterJob(pool=pool, filter=NoFilter(), out=str(tmp_path / "o")), overwrite=True)
    assert (tmp_path / "o" / "subset.npy").read_bytes() == reference.subset_bytes(
        [r["uid"] for r in rows]
    )


def test_the_fraction_is_of_the_rows_that_can_be_read(tmp_path):
    import pyarrow.parquet as pq

    write_metadata(tmp_path, 6000, files=2, row_group=1000, nan=0, null=0, repeat=0)
    damage(tmp_path / "metadata" / "0000.parquet")
    _, stats = run(str(tmp_path), ClipScore(fraction=0.3), tmp_path / "s", skip_corrupt=True)
    assert 0 < stats["lost"] <= 3000 and stats["lost"] % 1000 == 0
    assert 0.3 * stats["rows"] < stats["kept"] < 0.36 * stats["rows"]
    assert pq.read_metadata(tmp_path / "metadata" / "0001.parquet").num_rows == 3000


def test_a_half_made_pool_is_refused(tmp_path):
    write_pool(tmp_path / "p", shards=1)
    (tmp_path / "p" / "config.json").write_text('{"hash": "x", "config": {}}')
    with pytest.raises(BadInputError, match="is not finished"):
        run(str(tmp_path / "p"), NoFilter(), tmp_path / "o")


def test_the_pool_is_never_taken_for_an_output_folder(tmp_path):
    write_pool(tmp_path / "p", shards=1)
    with pytest.raises(RunError, match="is in use"):
        run(str(tmp_path / "p"), NoFilter(), tmp_path / "p")


def test_credentials_in_a_uri_are_refused(tmp_path):
    for uri in ("https://u:hush@host/pool", "https://host/pool?sig=hush"):
        with pytest.raises(BadInputError, match="password or signature"):
            FilterJob(pool=uri, filter=NoFilter(), out=str(tmp_path))
