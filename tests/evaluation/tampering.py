"""Ways to change a bundle, as a careless hand or a careful cheat would."""

import hashlib
import json
import os

import numpy as np
from eval_world import sha
from test_submission import edit

SCALE = "demo_scale"
HASH = "a" * 64


def rehash(folder):
    """Make submission.json and MANIFEST fit the files again, as a careful cheat would."""
    skip = {
        "MANIFEST",
        "submission.json",
        "config.json",
        "env.json",
        "DONE",
        "report.html",
        "events.jsonl",
    }
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    names = [n for n in names if n not in skip and not n.startswith((".", "logs/"))]
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


def rehash_manifest_only(b):
    lines = dict(reversed(x.split("  ")) for x in (b / "MANIFEST").read_text().splitlines())
    lines["submission.json"] = sha(b / "submission.json")
    (b / "MANIFEST").write_text("".join(f"{h}  {n}\n" for n, h in sorted(lines.items())))


def rename_run(b):
    edit(b / "submission.json", lambda d: d["lineage"]["evaluate"].update(done_sha256=HASH))
