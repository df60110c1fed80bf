"""The losses are those of open_clip's own entry point, called with DataComp's flags."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.core.job import run_job
from gristmill.execution.session import Execution
from gristmill.models import clip
from gristmill.training.job import TrainClipJob
from gristmill.training.scales import SCALES

OPEN_CLIP = """
import json, random, sys
import open_clip, torch
import open_clip_train.data as data
import open_clip_train.main as entry
from webdataset.filters import _shuffle

folder, out, *argv = sys.argv[1:]
open_clip.add_model_config(folder)

# open_clip seeds this one shuffle from process id and clock; give it our rule (epoch 0).
def seeded_shuffle(bufsize, initial):
    return lambda src: _shuffle(src, bufsize, initial, random.Random(data.pytorch_worker_seed(0)))
data.wds.shuffle = seeded_shuffle

# Record what the loss returns, in full precision.
losses, create_loss = [], entry.create_loss
def recording(args):
    loss = create_loss(args)
    def call(**inputs):
        out = loss(**inputs)
        losses.append(sum(out.values()).item())
        return out
    return call
entry.create_loss = recording

entry.main(argv)
json.dump(losses, open(out, "w"))
"""


CHECKPOINTED = ["--grad-checkpointing"]


def open_clip_losses(tmp_path, model_folder, shards, *flags, loader_workers, micro_batch):
    """Losses of `open_clip_train.main`, in a process of its own."""
    script, out = tmp_path / "reference.py", tmp_path / "losses.json"
    script.write_text(OPEN_CLIP)
    argv = [str(model_folder), str(out), "--save-frequency", "0", "--ddp-static-graph"]
    argv += ["--local-loss", "--gather-with-grad"]
    argv += ["--train-data", str(shards / "{00000000..00000005}.tar")]
    argv += ["--train-num-samples", "320", "--warmup", "5", "--dataset-type", "webdataset"]
    argv += ["--precision", "fp32", "--workers", str(loader_workers), "--model", "tiny-vit"]
    argv += ["--batch-size", str(micro_batch), "--epochs", "1", "--lr", "0.001"]
    argv += ["--logs", str(tmp_path / "logs"), "--name", "reference", "--seed", "0"]
    argv += ["--save-most-recent", "--resume", "latest", "--dataset-resampled"]
    argv += ["--device", "cpu", "--log-every-n-steps", "1", *(flags or CHECKPOINTED)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), *argv], env=env, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(out.read_text())


@pytest.mark.parametrize("loader_workers", [0, 1])
def test_the_losses_are_open_clips(
    train_here, losses, model_folder, shards, tmp_path, loader_workers
):
    ours = losses(train_here(shards, loader_workers=loader_workers))
    theirs = open_clip_losses(
        tmp_path, model_folder, shards, loader_workers=loader_workers, micro_batch=16
    )
    assert len(theirs) == 20
    assert [ours[i] for i in range(20)] == pytest.approx(theirs, abs=1e-6)
    assert theirs[-1] < theirs[0] - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("loader_workers", [2])
def test_also_with_accumulation_clipping_weights_and_beta2(
    train_here, losses, model_folder, shards, tmp_path, loader_workers
):
    flags = [*CHECKPOINTED, "--accum-freq", "2", "--grad-clip-norm", "0.5", "--beta2", "0.95"]
    flags += ["--train-data-upsampling-factors", "2"]
    ours = losses(
        train_here(
            shards, loader_workers=loader_workers, accum=2, clip=0.5, beta2=0.95, data_weights="2"
        )
    )
    theirs = open_clip_losses(
        tmp_path, model_folder, shards, *flags, loader_workers=loader_workers, micro_batch=8
    )
    last_of_each_step = theirs[1::2]
    assert len(last_of_each_step) == 20
    assert [ours[i] for i in range(20)] == pytest.approx(last_of_each_step, abs=1e-6)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.parametrize("loader_workers", [1])
def test_the_whole_job_on_ray_has_open_clips_losses(ray_cluster, shards, tmp_path, loader_workers):
    scale = dataclasses.replace(SCALES["demo"], train_num_samples=320, batch_size=16, warmup=5)
    job = TrainClipJob(
        scale=scale,
        data=str(shards),
        out=str(tmp_path / "run"),
        num_checkpoints=1,
        loader_workers=loader_workers,
        allow_override=True,
        execution=Execution(workers=1),
    )
    ours = [line["loss"] for line in run_job(job).metrics() if line["kind"] == "step"]
    flags = ["--model", scale.model, "--lr", str(scale.learning_rate), "--beta2", str(scale.beta2)]
    configs = Path(clip.__file__).parent / "clip_configs"
    theirs = open_clip_losses(
        tmp_path, configs, shards, *flags, loader_workers=loader_workers, micro_batch=16
    )
    assert len(theirs) == 20
    assert ours == pytest.approx(theirs, abs=1e-6)
