"""Small token corpora and models, and ranks in processes of their own, without Ray."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from made_corpora import _write_shard, vocabulary

from gristmill.core.config import from_dict, to_dict
from gristmill.corpora.corpus import MANIFEST, manifest_of
from gristmill.execution.session import source_root
from gristmill.models.lm.config import ModelConfig

VOCAB = 96
MODEL = ModelConfig(
    vocab_size=VOCAB, width=32, num_layers=2, num_heads=2, ffn_hidden=48, context_length=16,
    series=2, shortcuts=1, shortcut_reduction=4, tied=True,
)  # fmt: skip
MIXTURE = {"one": 0.5, "three": 0.2, "two": 0.3}


def write_small_tokens(folder, *, train=20_000, validation=600, sha256="b" * 64, size=VOCAB):
    """Three domains, each with a rule of its own that a small model learns."""
    vocab, listed = vocabulary(sha256, size), {}
    for number, domain in enumerate(sorted(MIXTURE)):
        for split, total in (("train", train), ("validation", validation)):
            choose = np.random.default_rng([number, total])
            row = np.zeros(total, vocab.dtype)
            noise = choose.integers(0, 4, total)
            for i in range(1, total):
                row[i] = (
                    0 if i % 10 == 9 else (int(row[i - 1]) * (2 * number + 3) + noise[i]) % 95 + 1
                )
            shard = _write_shard(folder, f"tokens/{domain}/{split}/000000", row)
            listed[domain, split] = [shard]
    manifest = manifest_of("tokens", listed, vocabulary=asdict(vocab), documents_sha256="")
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return str(folder)


def spec_for(
    corpus, checkpoints, *, engine="torch", bf16=False, micro=2, optimization=None, **fields
):
    """What `gristmill lm train` would hand to the ranks."""
    from gristmill.training.lm.engine import EngineSpec
    from gristmill.training.lm.guard import Guard
    from gristmill.training.lm.loop import LmSpec
    from gristmill.training.lm.schedule import Optimization

    how = EngineSpec(
        name=engine, bf16=bf16, offload=fields.pop("offload", False), micro_batch_size=micro,
        micro_batches=1, optimization=optimization or Optimization(lr=1e-2, warmup_share=0.1),
    )  # fmt: skip
    base = LmSpec(
        model=MODEL, init="", corpora=(str(corpus),), mixture=MIXTURE, seq_len=16, batch_size=12,
        steps=24, seed=3, engine=how, recompute=False, compile=False,
        attention_kernel="auto", guard=Guard(),
        validation_every=12, validation_sequences=5, log_every=1, checkpoints=str(checkpoints),
        checkpoint_every=8, checkpoint_minutes=0, keep_checkpoints=0,
    )  # fmt: skip
    return dataclasses.replace(base, **fields)


def train_here(spec, **fields):
    """One rank in this process; its records."""
    import torch

    from gristmill.training.lm.loop import train
    from gristmill.training.place import Place

    records = []
    place = Place(rank=0, world_size=1, device=torch.device("cpu"))
    train(dataclasses.replace(spec, **fields), place, records.append)
    return records


def train_ranks(world, specs, **env):
    """Several trainings, one after another, by the same group of ranks; rank 0's records of each."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "specs").write_text(json.dumps([to_dict(spec) for spec in specs]))
        paths = os.pathsep.join([source_root(), os.path.dirname(__file__)])
        ranks = []
        for rank in range(world):
            words = [sys.executable, "-m", "lm_training", folder, str(rank), str(world)]
            environ = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **env}
            with Path(folder, f"log{rank}").open("wb") as log:
                ranks.append(
                    subprocess.Popen(words, env=environ, stdout=log, stderr=subprocess.STDOUT)
                )
        codes = [rank.wait(280) for rank in ranks]
        logs = "".join(Path(folder, f"log{r}").read_text()[-3000:] for r in range(world))
        assert codes == [0] * world, logs
        return [json.loads(line) for line in Path(folder, "records").read_text().splitlines()]


def _rank(folder, rank, world):
    import torch

    from gristmill.training.lm.loop import train
    from gristmill.training.place import Place

    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    place = Place(rank=rank, world_size=world, device=torch.device("cpu"))
    for spec in from_dict(json.loads(Path(folder, "specs").read_text())):
        records = []
        train(spec, place, records.append)
        if rank == 0:
            with open(f"{folder}/records", "a") as file:
                file.write(json.dumps(records) + "\n")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def of_kind(records, kind):
    return [record for record in records if record["kind"] == kind]


def losses(records):
    """Loss by step, the last time it was taken."""
    return {r["step"]: r["loss"] for r in of_kind(records, "step")}


def orders(records):
    return {r["step"]: r["order"] for r in of_kind(records, "step")}


if __name__ == "__main__":
    _rank(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
