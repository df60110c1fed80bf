import json
import subprocess

import eval_world
import numpy as np
import pytest

from gristmill.core.errors import BadInputError, MissingExtraError, RunError
from gristmill.core.job import run_job
from gristmill.evaluation.submission import SubmitJob, _upload
from gristmill.evaluation.verify import VerifyError, VerifyJob


def submit(world, out, **changes):
    fields = {
        "method_name": "CLIP score, 30 %",
        "author": "A. Author",
        "email": "a@example.org",
        "track": "filtering",
        "writeup": "We kept the best 30 % by score.",
        "filter_run": str(world.filter),
        "reshard_run": str(world.reshard),
        "train_run": str(world.train),
        "eval_run": str(world.root / "evaluate"),
        "out": str(out),
    }
    return SubmitJob(**{**fields, **changes})


def test_a_bundle_goes_round_and_sha256sum_agrees(world, tmp_path, capsys):
    job = submit(world, tmp_path / "b", include_checkpoint=True)
    assert "50 samples" in job.plan().text()
    run_job(job)
    data = json.loads((tmp_path / "b/submission.json").read_text())
    assert (data["scale"], data["dataset_size"], data["comparable"]) == ("demo", 50, True)
    assert {"demo_scale/samples.npy", "demo_scale/checkpoint.pt"} < set(data["files"])
    assert set(data["lineage"]) == {"filter", "reshard", "train", "evaluate"}
    subprocess.run(["sha256sum", "-c", "--quiet", "MANIFEST"], cwd=tmp_path / "b", check=True)
    run_job(VerifyJob(bundle=str(tmp_path / "b"), out=str(tmp_path / "v")))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 18
    assert all(line.startswith("OK ") for line in lines[:16])
    assert lines[16].split() == ["SKIP", "pool", "no", "--pool", "given"]
    assert lines[17] == "17 checks: 16 OK, 1 SKIP (pool)"


def test_a_raw_memmap_subset_and_a_writeup_file_are_taken(world, tmp_path, uids, capsys):
    (tmp_path / "raw.npy").write_bytes(uids.tobytes())
    (tmp_path / "w.md").write_text("From a file.\n")
    run_job(
        submit(
            world,
            tmp_path / "b",
            filter_run="",
            reshard_run="",
            subset=str(tmp_path / "raw.npy"),
            writeup=str(tmp_path / "w.md"),
        )
    )
    data = json.loads((tmp_path / "b/submission.json").read_text())
    assert data["writeup"] == "From a file.\n"
    assert [w.split(":")[0] for w in data["warnings"]] == ["No filter run", "No reshard run"]
    run_job(VerifyJob(bundle=str(tmp_path / "b"), out=str(tmp_path / "v")))
    lines = capsys.readouterr().out.splitlines()
    assert "WARN reshard    NOT TIED: no reshard run given" in "\n".join(lines)
    assert lines[-1].startswith("17 checks: 14 OK, 2 WARN (filter, reshard), 1 SKIP (pool); ")
    assert "NOT TIED" in lines[-1]
    assert "NOT TIED" in (tmp_path / "v/report.html").read_text()
    summary = json.loads((tmp_path / "v/DONE").read_text())["summary"]
    assert (summary["warned"], summary["skipped"]) == (["filter", "reshard"], ["pool"])


def test_byod_goes_without_a_subset(world, tmp_path):
    job = submit(world, tmp_path / "b", filter_run="", track="byod", dataset_size=7)
    run_job(job)
    run_job(VerifyJob(bundle=str(tmp_path / "b")))


def test_a_killed_start_leaves_nothing_behind(world, tmp_path):
    job = submit(world, tmp_path / "b")
    run_job(job)
    (tmp_path / "b/DONE").unlink()
    (tmp_path / "b/MANIFEST").unlink()
    (tmp_path / "b/demo_scale/.samples.npy.0123456789ab.tmp").write_bytes(b"half")
    run_job(job)
    run_job(VerifyJob(bundle=str(tmp_path / "b")))


@pytest.mark.parametrize("name", ["runs/a/DONE", "demo_scale/notes.txt", "lineage/mine", ".x"])
def test_files_that_no_bundle_has_are_never_removed(world, tmp_path, name):
    job = submit(world, tmp_path / "b")
    run_job(job)
    (tmp_path / "b/DONE").unlink()
    (tmp_path / "b" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "b" / name).write_bytes(b"1")
    with pytest.raises(RunError, match=f"holds {name}, which is no file of a bundle"):
        run_job(job)
    assert (tmp_path / "b" / name).exists()
    assert (tmp_path / "b/demo_scale/samples.npy").exists()


def test_weights_changed_after_their_evaluation_are_not_packed(world, tmp_path):
    (world.train / "checkpoints/epoch_1.pt").write_bytes(b"others!")
    with pytest.raises(BadInputError, match="changed since it was evaluated"):
        run_job(submit(world, tmp_path / "b", include_checkpoint=True))
    assert not (tmp_path / "b/MANIFEST").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"email": "a at b"}, "email 'a at b' is not of the form"),
        ({"author": " "}, "author ' ' is not one line"),
        ({"method_name": "a\nb"}, "is not one line of text"),
        ({"method_name": "a" * 201}, "has 201 characters"),
        ({"filter_run": ""}, "give --filter-run or --subset"),
        ({"subset": "x"}, "not both"),
        ({"upload_to": "a/b"}, "takes both --upload-to and --yes-upload"),
        ({"yes_upload": True}, "takes both --upload-to and --yes-upload"),
        ({"dataset_size": -1}, "0 or more"),
    ],
)
def test_what_cannot_be_right_is_refused_at_once(world, tmp_path, changes, message):
    with pytest.raises(BadInputError, match=message):
        submit(world, tmp_path / "b", **changes)


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def drop_result(world):
    path = world.root / "evaluate/eval_results.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    edit(
        world.root / "evaluate/DONE",
        lambda d: d["outputs"].update({"eval_results.jsonl": eval_world.file_entry(path)}),
    )


def other_subset(world):
    np.save(world.filter / "subset.npy", np.zeros(3, "u8,u8"))


def secret(world):
    path = world.train / "env.json"
    path.write_text(json.dumps({"command": ["--data", "s3://me:hunter2@bucket/x"]}))


def signed(query):
    def spoil(world):
        path = world.train / "env.json"
        path.write_text(json.dumps({"command": ["--data", f"https://host/x.tar?{query}"]}))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: (w.train / "DONE").unlink(), "train run .* is not finished"),
        (drop_result, "no result for demo_retrieval"),
        (other_subset, "the filter run made a subset.npy with SHA-256"),
        (
            lambda w: edit(
                w.train / "DONE", lambda d: d["inputs"].update(more={"listing_sha256": "a" * 64})
            ),
            "the train run read more, which the reshard run here did not write",
        ),
        (
            lambda w: edit(w.train / "DONE", lambda d: d.update(inputs={})),
            "the train run's DONE names no shards that it read",
        ),
        (
            lambda w: edit(w.reshard / "DONE", lambda d: d.update(inputs={})),
            "the reshard run did not read the subset",
        ),
        (secret, "lineage/train/env.json holds a URI with a password"),
        (signed("X-Amz-Signature=0a"), "holds a signed URL .* 'X-Amz-Signature' part"),
        (signed("sv=2024&sig=0a%3D"), "holds a signed URL .* 'sig' part"),
        (signed("a=1&access_token=0a"), "holds a signed URL .* 'access_token' part"),
        (
            lambda w: edit(
                w.root / "evaluate/DONE", lambda d: d["inputs"].pop("eval_data/demo_drawings")
            ),
            "task demo_drawings was evaluated on another set than its own",
        ),
    ],
)
def test_nothing_is_written_when_a_link_does_not_hold(world, tmp_path, spoil, message):
    spoil(world)
    with pytest.raises((BadInputError, RunError), match=message):
        run_job(submit(world, tmp_path / "b"))
    assert not (tmp_path / "b/MANIFEST").exists()
    assert not (tmp_path / "b/demo_scale").exists()


def test_a_wrong_dataset_size_is_refused(world, tmp_path):
    with pytest.raises(BadInputError, match="dataset_size is 49, the subset has 50"):
        run_job(submit(world, tmp_path / "b", dataset_size=49))


def test_sending_needs_the_hub_extra(world, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    job = submit(world, tmp_path / "b", upload_to="a/b", yes_upload=True)
    with pytest.raises(MissingExtraError, match=r"gristmill\[hub\]"):
        run_job(job)
    assert not (tmp_path / "b/MANIFEST").exists()


def test_only_listed_files_are_sent(monkeypatch, tmp_path):
    import sys
    import types

    sent = {}

    class Api:
        def upload_folder(self, **words):
            sent.update(words)

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(HfApi=Api))
    _upload(str(tmp_path), "me/it", ["MANIFEST", "submission.json"])
    assert sent == {
        "folder_path": str(tmp_path),
        "repo_id": "me/it",
        "allow_patterns": ["MANIFEST", "submission.json"],
    }


def test_an_unfinished_bundle_fails(world, tmp_path):
    run_job(submit(world, tmp_path / "b"))
    (tmp_path / "b/MANIFEST").unlink()
    with pytest.raises(VerifyError, match=r"manifest: .* has no MANIFEST"):
        run_job(VerifyJob(bundle=str(tmp_path / "b")))


def test_a_bundle_lives_on_object_storage_too(world, bucket, capsys):
    run_job(submit(world, f"{bucket}/b", include_checkpoint=True))
    run_job(VerifyJob(bundle=f"{bucket}/b", out=f"{bucket}/v"))
    lines = capsys.readouterr().out.splitlines()
    assert [line[:2] for line in lines] == ["OK"] * 16 + ["SK", "17"]
