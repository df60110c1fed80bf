"""Each way to tamper with a bundle fails a check of its own, even when hashes were made to fit."""

import hashlib
import json
import os

import numpy as np
import pytest
from eval_world import sha
from test_submission import edit, submit

from gristmill.core.errors import BadInputError
from gristmill.core.job import run_job
from gristmill.evaluation.checks import CHECKS
from gristmill.evaluation.evalset import CONTENT
from gristmill.evaluation.received import Bundle
from gristmill.evaluation.verify import VerifyError, VerifyJob, run_checks

SCALE = "demo_scale"


@pytest.fixture
def made(world, tmp_path):
    run_job(submit(world, tmp_path / "b", include_checkpoint=True))
    return tmp_path / "b"


def rehash(folder):
    """Make submission.json and MANIFEST fit the files again, as a careful cheat would."""
    skip = {"MANIFEST", "submission.json", "config.json", "env.json", "DONE", "report.html"}
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    names = [n for n in names if n not in skip and not n.startswith(".")]
    files = {n: {"sha256": sha(folder / n), "bytes": (folder / n).stat().st_size} for n in names}
    edit(folder / "submission.json", lambda d: d.update(files=files))
    hashes = {n: f["sha256"] for n, f in files.items()}
    hashes["submission.json"] = sha(folder / "submission.json")
    text = "".join(f"{hashes[n]}  {n}\n" for n in sorted(hashes))
    (folder / "MANIFEST").write_text(text)


def name_runs_again(folder):
    """Make submission.json name the lineage as it now is, config hashes included."""

    def change(data):
        for verb in data["lineage"]:
            run = folder / "lineage" / verb
            stored = json.loads((run / "config.json").read_text())
            data["lineage"][verb] = {
                "config_hash": stored["hash"],
                "done_sha256": sha(run / "DONE"),
            }

    edit(folder / "submission.json", change)


def submission(**changes):
    return lambda b: edit(b / "submission.json", lambda d: d.update(changes))


def results(change):
    def tamper(b):
        path = b / SCALE / "eval_results.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        change(rows)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return tamper


def record(change):
    return lambda b: edit(b / SCALE / "main_metrics.json", change)


def done(verb, change):
    def tamper(b):
        edit(b / "lineage" / verb / "DONE", change)
        name_runs_again(b)

    return tamper


def config(verb, change, *, fit=False):
    def tamper(b):
        path = b / "lineage" / verb / "config.json"
        edit(path, change)
        if fit:
            fields = json.loads(path.read_text())["config"]
            fields = {k: v for k, v in fields.items() if k not in ("out", "execution")}
            digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
            edit(path, lambda d: d.update(hash=digest))
            edit(path.parent / "DONE", lambda d: d.update(config_hash=digest))
        name_runs_again(b)

    return tamper


def subset(array):
    return lambda b: np.save(b / SCALE / "samples.npy", array)


def write(name, data):
    def tamper(b):
        (b / name).parent.mkdir(parents=True, exist_ok=True)
        (b / name).write_bytes(data)

    return tamper


def manifest_line(text):
    return lambda b: (b / "MANIFEST").write_text((b / "MANIFEST").read_text() + text)


def link(b):
    (b / SCALE / "samples.npy").rename(b.parent / "elsewhere.npy")
    os.symlink(b.parent / "elsewhere.npy", b / SCALE / "samples.npy")


def pickled(b):
    np.save(b / SCALE / "samples.npy", np.array([{"a": 1}], object), allow_pickle=True)


def more_uids(b):
    uids = np.load(b / SCALE / "samples.npy")
    np.save(b / SCALE / "samples.npy", np.concatenate([uids, uids[-1:]]))
    submission(dataset_size=51)(b)


def no_train(b):
    for name in ("config.json", "env.json", "DONE"):
        (b / "lineage/train" / name).unlink()


def swap(rows):
    rows[0]["key"] = rows[1]["key"]


def better(rows):
    rows[0]["metrics"].update(mean_per_class_recall=0.9, main_metric=0.9)


def better_everywhere(b):
    results(better)(b)
    record(lambda d: d.update(average=0.5, tasks={**d["tasks"], "demo_drawings": 0.9}))(b)


def not_comparable(b):
    done("train", lambda d: d["summary"].update(comparable=False))(b)


def replaced(data):
    def tamper(b):
        (b / "submission.json").write_bytes(data)
        rehash_manifest_only(b)

    return tamper


HASH = "a" * 64
# (what is done, which check fails, its message); files fit their hashes again unless `raw`
CASES = {
    "escape": (manifest_line(f"{HASH}  ../x\n"), "manifest", "'../x' is not plain", "raw"),
    "absolute": (manifest_line(f"{HASH}  /etc/passwd\n"), "manifest", "is not plain", "raw"),
    "hidden": (manifest_line(f"{HASH}  a/.ssh\n"), "manifest", "is not plain", "raw"),
    "garbage": (manifest_line("what\n"), "manifest", "is not a hash and a name", "raw"),
    "twice": (
        lambda b: manifest_line((b / "MANIFEST").read_text())(b),
        "manifest",
        "twice",
        "raw",
    ),
    "lost": (lambda b: (b / SCALE / "checkpoint.pt").unlink(), "files", "are missing", "raw"),
    "extra": (write("notes.txt", b"x"), "files", "not listed, such as notes.txt", "raw"),
    "dotfile": (write(".x/y", b"x"), "files", "not listed, such as .x/y", "raw"),
    "link": (link, "files", "samples.npy is a symbolic link", "raw"),
    "bytes": (write(f"{SCALE}/checkpoint.pt", b"W"), "sha256", "checkpoint.pt has SHA", "raw"),
    "no json": (replaced(b"{"), "schema", "is not JSON", "raw"),
    "deep json": (replaced(b'{"a":' * 9000), "schema", "is not JSON", "raw"),
    "no object": (replaced(b"[]"), "schema", "is not a JSON object", "raw"),
    "no email": (submission(email="nobody"), "schema", "email 'nobody'", ""),
    "no author": (submission(author=""), "schema", "author '' is not one line", ""),
    "track": (submission(track="free"), "schema", "track 'free'", ""),
    "kind": (submission(dataset_size="50"), "schema", "dataset_size is '50', not int", ""),
    "field": (submission(prize=1), "schema", "unknown fields: prize", ""),
    "scale name": (submission(scale="../x"), "schema", "is not plain", ""),
    "schema": (submission(schema_version=2), "versions", "schema_version is 2", ""),
    "benchmark": (
        submission(benchmark={"name": "demo", "version": 9}),
        "versions",
        "this program has demo@1",
        "",
    ),
    "stated hash": (
        lambda b: (submission(files={})(b), rehash_manifest_only(b)),
        "listing",
        "differ on demo_scale/checkpoint.pt",
        "raw",
    ),
    "stranger": (write(f"{SCALE}/run.sh", b"x"), "listing", "run.sh is no file of", ""),
    "no train run": (no_train, "listing", "needs lineage/train/config.json", ""),
    "other scale": (submission(scale="small"), "listing", "needs small_scale/", ""),
    "unsorted": (subset(np.array([(2, 1), (1, 1)], "u8,u8")), "subset", "is not sorted", ""),
    "empty": (subset(np.zeros(0, "u8,u8")), "subset", "is empty", ""),
    "dtype": (subset(np.zeros(3, "f8")), "subset", "has dtype float64", ""),
    "shape": (subset(np.zeros((2, 2), "u8,u8")), "subset", "shape", ""),
    "pickle": (pickled, "subset", "", ""),
    "size": (submission(dataset_size=49), "subset", "dataset_size says 49", ""),
    "task gone": (results(lambda rows: rows.pop()), "results", "no result for", ""),
    "task twice": (results(swap), "results", "has 2 results", ""),
    "not main": (
        results(lambda rows: rows[0]["metrics"].update(main_metric=0.9)),
        "results",
        "main_metric 0.9 is not its mean_per_class_recall 0.25",
        "",
    ),
    "better": (results(better), "record", "differs from the results on demo_drawings", ""),
    "record": (
        record(lambda d: d["tasks"].update(demo_drawings=0.26)),
        "record",
        "differs from the results on demo_drawings",
        "",
    ),
    "average": (record(lambda d: d.update(average=0.9)), "average", "average is 0.9", ""),
    "group": (record(lambda d: d["groups"].update(retrieval=1)), "average", "groups is", ""),
    "better everywhere": (
        better_everywhere,
        "evaluation",
        "the evaluation wrote a eval_results.jsonl with",
        "",
    ),
    "config": (
        config("train", lambda d: d["config"].update(lr=9)),
        "configs",
        "train run's config does not have the hash beside it",
        "",
    ),
    "config and hash": (
        config("filter", lambda d: d.update(hash=HASH)),
        "configs",
        "filter run's config does not have the hash beside it",
        "",
    ),
    "foreign DONE": (
        done("reshard", lambda d: d.update(config_hash=HASH)),
        "configs",
        "reshard run's DONE was written for another config",
        "",
    ),
    "another run": (
        lambda b: rename_run(b),
        "configs",
        "names another evaluate run",
        "",
    ),
    "other uids": (more_uids, "filter", "the filter run made a subset.npy with SHA-256", ""),
    "other pool": (
        done("reshard", lambda d: d["inputs"].update(subset={"sha256": HASH})),
        "reshard",
        "did not read the subset here",
        "",
    ),
    "other data": (
        done("train", lambda d: d["inputs"]["shards"].update(listing_sha256=HASH)),
        "reshard",
        "the train run read shards, which the reshard run here did not write",
        "",
    ),
    "other meta": (
        done("train", lambda d: d["inputs"]["shards"].update(meta_sha256=HASH)),
        "reshard",
        "the train run read shards, which the reshard run here did not write",
        "",
    ),
    "more data": (
        done("train", lambda d: d["inputs"].update(more={"listing_sha256": HASH})),
        "reshard",
        "the train run read more, which",
        "",
    ),
    "other weights": (
        done("evaluate", lambda d: d["summary"].update(weights_sha256=HASH)),
        "evaluation",
        "are no checkpoint of the train run",
        "",
    ),
    "other checkpoint": (
        write(f"{SCALE}/checkpoint.pt", b"W"),
        "evaluation",
        "the checkpoint here is not the one that was evaluated",
        "",
    ),
    "other benchmark": (
        done("evaluate", lambda d: d["summary"].update(benchmark_version=0)),
        "evaluation",
        "the evaluation ran demo@0",
        "",
    ),
    "hyper-parameters": (
        config("train", lambda d: d["config"]["scale"].update(learning_rate=0.5), fit=True),
        "scale",
        "learning_rate is 0.5, but scale 'demo' fixes it at",
        "",
    ),
    "an override allowed": (
        config(
            "train",
            lambda d: (
                d["config"]["scale"].update(learning_rate=0.5),
                d["config"].update(allow_override=True),
            ),
            fit=True,
        ),
        "scale",
        "depart from scale demo: learning_rate 0.5",
        "",
    ),
    "too much seen": (
        done("train", lambda d: d["summary"].update(samples_seen=32_768)),
        "scale",
        "the training saw 32,768 samples; scale demo has 16,640",
        "",
    ),
    "no count seen": (
        done("train", lambda d: d["summary"].update(samples_seen="many")),
        "scale",
        "'many'",
        "",
    ),
    "another job": (
        config("train", lambda d: d["config"].update(type="os:system"), fit=True),
        "scale",
        "is of 'os:system', not of clip train",
        "",
    ),
    "other set": (
        done("evaluate", lambda d: d["inputs"]["eval_data/demo_drawings"].update({CONTENT: HASH})),
        "eval_data",
        "task demo_drawings was evaluated on another set than its own",
        "",
    ),
    "part of a set": (
        results(lambda rows: rows[1]["metrics"].update(num_samples=9)),
        "results",
        "demo_retrieval: num_samples is 9, not 632",
        "",
    ),
    "record scale": (record(lambda d: d.update(scale="xlarge")), "record", "scale 'xlarge'", ""),
    "record comparable": (record(lambda d: d.pop("comparable")), "record", "comparable None", ""),
    "meta left out": (
        done("train", lambda d: d["inputs"]["shards"].update(meta_sha256="")),
        "reshard",
        "the train run read shards, which the reshard run here did not write",
        "",
    ),
    "list for a hash": (
        done("train", lambda d: d["inputs"]["shards"].update(listing_sha256=[])),
        "reshard",
        "a value is not what it must be (TypeError",
        "",
    ),
    "benchmark a list": (submission(benchmark={"name": [], "version": 1}), "versions", "", ""),
    "email a digit": (replaced(b'{"a": ' + b"9" * 5000 + b"}"), "schema", "is not JSON", "raw"),
    "400 digits": (
        done("train", lambda d: d["summary"].update(samples_seen=int("9" * 400))),
        "scale",
        "the training saw 9",
        "",
    ),
    "400 digits score": (
        results(lambda rows: rows[0]["metrics"].update(main_metric=int("9" * 400))),
        "results",
        "neither a finite number nor null",
        "",
    ),
    "comparable": (not_comparable, "scale", "says comparable True, the runs say False", ""),
}


def rehash_manifest_only(b):
    lines = dict(reversed(x.split("  ")) for x in (b / "MANIFEST").read_text().splitlines())
    lines["submission.json"] = sha(b / "submission.json")
    (b / "MANIFEST").write_text("".join(f"{h}  {n}\n" for n, h in sorted(lines.items())))


def rename_run(b):
    edit(b / "submission.json", lambda d: d["lineage"]["evaluate"].update(done_sha256=HASH))


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
