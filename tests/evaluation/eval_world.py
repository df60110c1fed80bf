"""Small evaluation sets, runs and models for the tests here, all of them made up."""

import hashlib
import io as bytes_io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from gristmill.core.config import identity, to_dict
from gristmill.evaluation.evalset import CONTENT
from gristmill.evaluation.tasks.demo_drawings import DemoDrawings
from gristmill.evaluation.tasks.demo_retrieval import DemoRetrieval
from gristmill.pools.tar import TarWriter

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "grey": (128,) * 3}
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 49408,
        "width": 32,
        "heads": 2,
        "layers": 1,
    },
}


def picture(colour, seed=0, extension="png"):
    rng = np.random.default_rng(seed)
    pixels = np.clip(np.array(colour) + rng.integers(-25, 25, (24, 24, 3)), 0, 255)
    buffer = bytes_io.BytesIO()
    kind = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[extension]
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path, samples):
    """`samples`: (key, members by extension)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        writer = TarWriter(file)
        for key, members in samples:
            writer.add_sample(key, members)
        writer.finish()


def write_set(folder: Path, samples, *, tars=2, classnames=(), templates=("a picture of {c}.",)):
    for number in range(tars):
        write_tar(folder / "test" / f"{number}.tar", samples[number::tars])
    (folder / "test" / "nshards.txt").write_text(f"{tars}\n")
    if classnames:
        (folder / "classnames.txt").write_text("\n".join(classnames) + "\n")
        text = "\n".join(templates) + "\n"
        (folder / "zeroshot_classification_templates.txt").write_text(text)
    return folder


def colour_samples(count, *, extension="webp"):
    names = list(COLOURS)
    return [
        (
            f"s{i:04d}",
            {
                extension: picture(COLOURS[names[i % 4]], i, extension),
                "cls": str(i % 4).encode(),
            },
        )
        for i in range(count)
    ]


def caption_samples(count):
    names = list(COLOURS)
    return [
        (
            f"r{i:04d}",
            {
                "jpg": picture(COLOURS[names[i % 4]], i, "jpg"),
                "txt": f"a {names[i % 4]} thing\npicture {i}\n".encode(),
            },
        )
        for i in range(count)
    ]


def write_run(folder: Path, config: dict, *, outputs=(), inputs=None, summary=None):
    """A finished run folder: `config` plain JSON, `outputs` names of files already in it."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = json.dumps(identity(config), sort_keys=True).encode()
    digest = hashlib.sha256(shape).hexdigest()
    (folder / "config.json").write_text(json.dumps({"hash": digest, "config": config}))
    (folder / "env.json").write_text(json.dumps({"python": "3", "packages": {}}))
    entries = {name: file_entry(folder / name) for name in outputs}
    done = {
        "config_hash": digest,
        "finished": "2026-01-01T00:00:00Z",
        "seconds": 1.0,
        "inputs": inputs or {},
        "outputs": entries,
        "summary": summary or {},
    }
    (folder / "DONE").write_text(json.dumps(done, indent=1, sort_keys=True))
    return folder


def file_entry(path: Path):
    data = path.read_bytes()
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def sha(path: Path) -> str:
    return file_entry(path)["sha256"]


@dataclass
class Chain:
    """Run folders from filter to train, with a real checkpoint of a tiny model."""

    root: Path
    arch: str

    @property
    def filter(self):
        return self.root / "filter"

    @property
    def reshard(self):
        return self.root / "reshard"

    @property
    def train(self):
        return self.root / "train"


def write_chain(root: Path, arch: str, weights: bytes, uids, *, comparable=True) -> Chain:
    from gristmill.pools.subset import Subset
    from gristmill.training.job import TrainClipJob
    from gristmill.training.scales import SCALES
    from gristmill.training.shards import resolve

    chain = Chain(root, arch)
    Subset(uids).save(str(chain.filter / "subset.npy"))
    write_run(chain.filter, {"type": "F", "pool": "p", "out": "f"}, outputs=["subset.npy"])
    chain.reshard.mkdir(parents=True)
    (chain.reshard / "shards").mkdir()
    (chain.reshard / "shards" / "meta.json").write_text(json.dumps({"output_shard_count": 1}))
    (chain.reshard / "shards" / "00000000.tar").write_bytes(b"tar")
    write_run(
        chain.reshard,
        {"type": "R", "out": "r"},
        outputs=["shards/meta.json", "shards/00000000.tar"],
        inputs={"subset": {"sha256": sha(chain.filter / "subset.npy")}},
    )
    (chain.train / "checkpoints").mkdir(parents=True)
    (chain.train / "checkpoints" / "epoch_1.pt").write_bytes(weights)
    job = TrainClipJob(scale=SCALES["demo"], data=str(chain.reshard / "shards"), out="t")
    write_run(
        chain.train,
        to_dict(job),
        outputs=["checkpoints/epoch_1.pt"],
        inputs={"shards": resolve(str(chain.reshard / "shards"))[0].identity()},
        summary={
            "comparable": comparable,
            "scale": "demo",
            "samples_seen": job.steps(2).samples,
            "num_workers": 2,
            "checkpoint": "checkpoints/epoch_1.pt",
            "arch": arch,
        },
    )
    return chain


def write_eval(chain: Chain, *, comparable=True) -> Path:
    """The folder of a finished evaluation of the chain's training, with made-up scores."""
    folder = chain.root / "evaluate"
    folder.mkdir()
    rows = [
        {
            "key": "demo_drawings",
            "dataset": "Demo drawings",
            "metrics": {
                "acc1": 0.3,
                "mean_per_class_recall": 0.25,
                "num_samples": 224,
                "main_metric": 0.25,
            },
        },
        {
            "key": "demo_retrieval",
            "dataset": "Demo retrieval",
            "metrics": {"mean_recall@10": 0.1, "num_samples": 632, "main_metric": 0.1},
        },
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "eval_results.jsonl").write_text(text)
    return write_run(
        folder,
        {"type": "E", "out": "e"},
        outputs=["eval_results.jsonl"],
        inputs={
            f"eval_data/{task.key}": {CONTENT: task.digest}
            for task in (DemoDrawings, DemoRetrieval)
        },
        summary={
            "benchmark": "demo",
            "benchmark_version": 1,
            "comparable": comparable,
            "weights_sha256": sha(chain.train / "checkpoints" / "epoch_1.pt"),
        },
    )
