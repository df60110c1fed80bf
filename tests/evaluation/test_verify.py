"""Each way to tamper with a bundle fails a check of its own, even when hashes were made to fit."""

import json

import pytest
from tamper_cases import CASES
from tampering import rehash, submission
from test_submission import submit

from gristmill.core.errors import BadInputError
from gristmill.core.job import run_job
from gristmill.evaluation.checks import CHECKS
from gristmill.evaluation.received import Bundle
from gristmill.evaluation.verify import VerifyError, VerifyJob, run_checks


@pytest.fixture
def made(world, tmp_path):
    run_job(submit(world, tmp_path / "b", include_checkpoint=True))
    return tmp_path / "b"


@pytest.mark.parametrize("case", CASES)
def test_tampering_fails_its_own_check(made, case):
    tamper, check, message, raw = CASES[case]
    tamper(made)
    if not raw:
        rehash(made)
    verdicts = run_checks(Bundle(str(made)))
    first = next(v for v in verdicts if v.status == "FAIL")
    assert (first.check, message in first.reason) == (check, True), first.line()
    assert [v.check for v in verdicts] == list(CHECKS)


def test_every_check_is_failed_by_some_case():
    assert {check for _, check, _, _ in CASES.values()} == set(CHECKS)


def test_a_failure_is_reported_and_leaves_the_run_unfinished(made, tmp_path, capsys):
    submission(track="free")(made)
    rehash(made)
    with pytest.raises(VerifyError, match="1 of 17 checks failed, the first: schema: track"):
        run_job(VerifyJob(bundle=str(made), out=str(tmp_path / "v")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].startswith("FAIL schema")
    assert lines[4].startswith("SKIP versions")
    assert not (tmp_path / "v/DONE").exists()
    assert "free" in (tmp_path / "v/report.html").read_text()


def test_a_non_comparable_run_is_accepted_as_such(tmp_path, uids):
    import eval_world

    chain = eval_world.write_chain(tmp_path / "r", "x", b"w", uids, comparable=False)
    eval_world.write_eval(chain, comparable=False)
    run_job(submit(chain, tmp_path / "b"))
    assert "Non-comparable" in (tmp_path / "b/submission.json").read_text()
    record = json.loads((tmp_path / "b/demo_scale/main_metrics.json").read_text())
    assert (record["scale"], record["comparable"]) == ("demo", False)
    assert all(v.status == "OK" for v in run_checks(Bundle(str(tmp_path / "b"))))


def test_verifying_anew_never_returns_an_old_answer(made):
    one, two = VerifyJob(bundle=str(made)), VerifyJob(bundle=str(made))
    assert one.out != two.out


@pytest.mark.parametrize("below", ["", "verdicts", ".."])
def test_verdicts_stay_out_of_the_bundle(tmp_path, below):
    (tmp_path / "a/b").mkdir(parents=True)
    with pytest.raises(BadInputError, match="lie in one another"):
        VerifyJob(bundle=str(tmp_path / "a/b"), out=str(tmp_path / "a/b" / below))
    VerifyJob(bundle=str(tmp_path / "a/b"), out=str(tmp_path / "a/b2"))


@pytest.mark.ray
def test_membership_is_a_check_of_its_own(ray_cluster, made, tmp_path, uids, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gristmill.pools.uid import hex_of_uid

    texts = [hex_of_uid(u) for u in uids]
    (tmp_path / "pool/metadata").mkdir(parents=True)
    path = tmp_path / "pool/metadata/0.parquet"
    pq.write_table(pa.table({"uid": texts}), path)
    run_job(VerifyJob(bundle=str(made), pool=str(tmp_path / "pool")))
    assert "50 uids, all among 50 rows" in capsys.readouterr().out
    pq.write_table(pa.table({"uid": texts[1:]}), path)
    with pytest.raises(VerifyError, match="pool: 1 of 50 uids are not in the pool"):
        run_job(VerifyJob(bundle=str(made), pool=str(tmp_path / "pool")))
