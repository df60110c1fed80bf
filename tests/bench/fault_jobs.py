"""The jobs of the fault table: how each is made, when it is in the middle, and what it leaves.

To add a row: a function that makes what the job reads and gives a Subject, and its name in SUBJECTS.
"""

import dataclasses
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from killing import markers
from made_up import folder_bytes, write_numbered, write_pool

from gristmill.core.job import run_job
from gristmill.core.run import Run
from gristmill.filters.no_filter import NoFilter
from gristmill.pools.selection import FilterJob

_CLIP = (
    "clip train demo --allow-override --loader-workers 0 --num-checkpoints 3 --workers 2 "
    "--max-failures 1 --train-num-samples 4800 --batch-size 16 --warmup 4"
)
_LM = (
    "--mixture uniform --steps 3000 --batch-size 12 --lr 1e-3 --max-epochs 99 --workers 2 "
    "--validation-sequences 5 --checkpoint-every 500 --max-failures 1"
)
_MIX = "mix proxies --steps 400 --batch-size 4 --seq-len 16 --lr 0.01 --max-epochs 99 --workers 2"
_SEARCH = (
    "mix search --targets prose --first 8 --batch 2 --most 8 --check-random 1 --check-seeds 1 "
    "--steps 400 --batch-size 4 --seq-len 16 --lr 0.01 --max-epochs 99 --workers 2"
)
sys.path.append(str(Path(__file__).parents[1] / "training"))  # for its maker of shards


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A job to be struck."""

    title: str
    words: tuple[object, ...]
    """The command, but for its --out."""
    half_way: Callable[[Path], bool]
    """Whether the job in a folder is in the middle."""
    outputs: Callable[[Path], object]
    """What must be equal, whatever happened."""
    worker: str
    """Of the titles of Ray's processes, the worker's: a regular expression."""
    ranks: bool = False
    """Whether it needs both nodes to go on, so that it waits for another."""


def pool_filter(folder):
    """60 slices; each takes a moment, so that a fault finds it in the middle."""
    write_numbered(folder / "pool", 60)
    (folder / "asked").mkdir()
    slow = f"python:group_filters:Logged(folder={folder}/asked, seconds=0.3)"
    chosen = f"{slow} & python:group_filters:SameLetters(best_by=score)"

    def outputs(out):
        stats = re.sub(rb'"seconds": [\d.]+', b"", (out / "stats.json").read_bytes())
        return (out / "subset.npy").read_bytes(), stats

    return Subject(
        title="pool filter, 6,000 rows in 60 slices",
        words=("pool", "filter", chosen, "--pool", folder / "pool"),
        half_way=lambda out: markers(out / ".work" / "judged") >= 15,
        outputs=outputs,
        worker=r"ray::(Host\.)?run",
    )


def pool_score(folder):
    """A small CLIP over every picture of 24 shards."""
    from training_shards import write_shards

    from gristmill.recipes.train_clip import demo

    write_pool(folder / "pool", shards=24, per_shard=100)
    write_shards(folder / "data")
    base = demo()
    short = dataclasses.replace(base.scale, train_num_samples=64, batch_size=16, warmup=2)
    fields = {"loader_workers": 0, "num_checkpoints": 1, "allow_override": True}
    made = {"data": str(folder / "data"), "out": str(folder / "weights")}
    run_job(dataclasses.replace(base, scale=short, **fields, **made))

    return Subject(
        title="pool score, 2,400 pairs in 24 shards",
        words=(
            *["pool", "score", "--arch", "gristmill-demo"],
            "--pool",
            folder / "pool",
            "--weights",
            folder / "weights",
        ),
        half_way=lambda out: markers(out / ".work" / "scored") >= 6,
        outputs=lambda out: {part: folder_bytes(out / part) for part in ("metadata", "features")},
        worker=r"ray::(Host\.)?run",
    )


def pool_reshard(folder):
    """8,000 pairs of 32 shards into 160."""
    write_pool(folder / "pool", shards=32, per_shard=250)
    kept = str(folder / "kept")
    run_job(FilterJob(pool=str(folder / "pool"), filter=NoFilter(), out=kept))
    return Subject(
        title="pool reshard, 8,000 pairs into 160 shards",
        words=(
            *["pool", "reshard", "--shard-size", 50, "--pool", folder / "pool"],
            *["--subset", folder / "kept" / "subset.npy"],
        ),
        half_way=lambda out: markers(out / ".work" / "written") >= 20,
        outputs=lambda out: folder_bytes(out / "shards"),
        worker=r"ray::(Host\.)?run",
    )


def pool_ingest(folder):
    """32 tars of pairs to a pool."""
    write_pool(folder / "source", shards=32, per_shard=250)
    return Subject(
        title="pool ingest tars, 8,000 pairs in 32 tars",
        words=("pool", "ingest", "tars", "--source", folder / "source" / "shards"),
        half_way=lambda out: markers(out / ".work" / "taken") >= 4,
        outputs=lambda out: {part: folder_bytes(out / part) for part in ("metadata", "shards")},
        worker=r"ray::(Host\.)?run",
    )


def corpus_tokenize(folder):
    """60 files of documents, by a BPE of their own."""
    from made_corpora import texts, write_lines

    from gristmill.corpora.ingest import IngestCorpusJob
    from gristmill.corpora.train_tokenizer import TrainTokenizerJob

    domains = []
    for i in range(30):
        write_lines(folder / f"d{i}.jsonl", texts(1500, seed=i, words=90))
        domains.append(f"d{i}={folder}/d{i}.jsonl")
    corpus, tokenizer = str(folder / "corpus"), str(folder / "bpe")
    run_job(IngestCorpusJob(domains=tuple(domains), out=corpus))
    run_job(TrainTokenizerJob(corpus=corpus, vocab_size=400, out=tokenizer))
    return Subject(
        title="corpus tokenize, 45,000 documents in 30 domains",
        words=("corpus", "tokenize", "--corpus", corpus, "--tokenizer", tokenizer),
        half_way=lambda out: markers(out / ".work" / "tokenized") >= 10,
        outputs=lambda out: (folder_bytes(out / "tokens"), (out / "corpus.json").read_bytes()),
        worker=r"ray::(Host\.)?run",
    )


def clip_train(folder):
    """Two ranks, a checkpoint every 100 steps."""
    from training_shards import write_shards

    from gristmill.training.checkpoint import load

    write_shards(folder / "data")

    def outputs(out):
        run = Run(str(out))
        losses = [line["loss"] for line in run.metrics() if line["kind"] == "step"]
        state = load(run.path("checkpoints"), 3)["state_dict"]
        return losses, {name: value.numpy().tobytes() for name, value in state.items()}

    return Subject(
        title="clip train, 300 steps on two ranks, 3 checkpoints",
        words=(*_CLIP.split(), "--data", folder / "data"),
        half_way=lambda out: (out / "checkpoints" / "epoch_1.pt").exists(),
        outputs=outputs,
        worker=r"ray::_?RayTrainWorker",
        ranks=True,
    )


def lm_train(folder):
    """Two ranks, a checkpoint every 500 steps."""
    from lm_training import MODEL, write_small_tokens

    from gristmill.core import io
    from gristmill.core.config import to_dict
    from gristmill.training.lm import checkpoint

    (folder / "t").mkdir()
    write_small_tokens(folder / "t", train=60_000)
    io.write_json(str(folder / "model.json"), to_dict(MODEL))

    def outputs(out):
        lines = [line for line in Run(str(out)).metrics() if line["kind"] == "step"]
        where = str(out / "checkpoints")
        manifest = checkpoint.read_manifest(where, 3000, model=MODEL)
        weights = {
            name: state.param.numpy().tobytes()
            for name, state in checkpoint.read_states(where, 3000, manifest)
        }
        return [(line["step"], line["loss"], line["order"]) for line in lines], weights

    return Subject(
        title="lm train, 3,000 steps on two ranks, 6 checkpoints",
        words=("lm", "train", folder / "model.json", "--corpora", folder / "t", *_LM.split()),
        half_way=lambda out: bool(checkpoint.steps_done(str(out / "checkpoints"))),
        outputs=outputs,
        worker=r"ray::_?RayTrainWorker",
        ranks=True,
    )


def mix_proxies(folder):
    """8 small language models, one a CPU."""
    from made_proxies import write_corpus, write_design, write_model

    (folder / "tokens").mkdir()
    corpus = write_corpus(folder / "tokens")
    design, model = write_design(folder, 8), write_model(folder)
    return Subject(
        title="mix proxies, 8 proxies",
        words=(*_MIX.split(), "--design", design, "--corpora", corpus, "--preset", model),
        half_way=lambda out: markers(out / "results") >= 2,
        outputs=lambda out: (out / "losses.csv").read_bytes(),
        worker=r"ray::\w*(Trial|Trainable|Proxies|ImplicitFunc)",
    )


def mix_search(folder):
    """A round of 8 proxies, a fit, a proposal, and its check with two more."""
    from made_proxies import write_corpus, write_model

    (folder / "tokens").mkdir()
    corpus, model = write_corpus(folder / "tokens"), write_model(folder)
    return Subject(
        title="mix search, 8 proxies, fit and check",
        words=(*_SEARCH.split(), "--corpora", corpus, "--preset", model),
        half_way=lambda out: markers(out / "round-01" / "proxies" / "results") >= 3,
        outputs=lambda out: [
            (out / name).read_bytes() for name in ("mixture.json", "round-01/losses.csv")
        ],
        worker=r"ray::\w*(Trial|Trainable|Proxies|ImplicitFunc)",
    )


SUBJECTS = {
    "filter": pool_filter,
    "reshard": pool_reshard,
    "ingest": pool_ingest,
    "score": pool_score,
    "tokenize": corpus_tokenize,
    "clip": clip_train,
    "lm": lm_train,
    "mix": mix_proxies,
    "search": mix_search,
}
