"""The job: what it refuses, plans and resolves, before anything starts."""

import dataclasses
import json
import subprocess
import sys

import pytest
from training_shards import picture_bytes, write_tar

from gristmill.core.config import from_dict, to_dict
from gristmill.core.errors import BadInputError
from gristmill.core.job import run_job
from gristmill.execution.session import Execution
from gristmill.recipes import train_clip
from gristmill.training import job as job_module
from gristmill.training.rules import DATACOMPS, Rounding, departures
from gristmill.training.scales import SCALES, overrides
from gristmill.training.steps import count_steps

RECIPES = ["demo", "debug", "small", "medium", "large", "xlarge"]


def job_for(shards, out, recipe="small", **fields):
    base = getattr(train_clip, recipe)()
    return dataclasses.replace(base, data=str(shards), out=str(out), **fields)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_the_scales(name):
    job = getattr(train_clip, name)()
    assert job.scale == SCALES[name]
    assert job.comparable


def test_the_scales_are_datacomps():
    figures = {
        name: (s.model, s.train_num_samples, s.batch_size, s.learning_rate, s.warmup, s.beta2)
        for name, s in SCALES.items()
        if name != "demo"
    }
    assert figures == {
        "debug": ("ViT-B-32", 128_000, 1024, 1e-4, 500, None),
        "small": ("ViT-B-32", 12_800_000, 4096, 5e-4, 500, None),
        "medium": ("ViT-B-32", 128_000_000, 4096, 5e-4, 500, None),
        "large": ("ViT-B-16", 1_280_000_000, 8192, 5e-4, 500, None),
        "xlarge": ("ViT-L-14", 12_800_000_000, 90112, 1e-3, 10000, 0.95),
    }
    assert all(s.weight_decay == 0.2 for s in SCALES.values())


def test_changing_a_scale_is_refused_with_both_values(shards, tmp_path):
    changed = dataclasses.replace(SCALES["small"], batch_size=2048)
    with pytest.raises(BadInputError, match=r"batch_size is 2048, .* fixes it at 4096"):
        job_for(shards, tmp_path, scale=changed)
    with pytest.raises(BadInputError, match="no scale 'smal'; perhaps small"):
        overrides(dataclasses.replace(SCALES["small"], name="smal"))


def test_an_allowed_change_is_marked(shards, tmp_path):
    changed = dataclasses.replace(SCALES["small"], warmup=10)
    job = job_for(shards, tmp_path, allow_override=True, scale=changed)
    assert not job.comparable
    assert "non-comparable: warmup 10 instead of 500" in job.plan().text()
    assert from_dict(json.loads(json.dumps(to_dict(job)))) == job


@pytest.mark.parametrize("name", RECIPES)
def test_default_flags_keep_every_scale_comparable(name):
    scale = SCALES[name]
    rules = {"precision": "auto", "grad_clip_norm": None}
    assert departures(scale, rounding=DATACOMPS, **rules) == []
    exact = Rounding(accum_freq=1, num_checkpoints=2, loader_workers=1)
    assert departures(scale, rounding=exact, **rules) == []


def test_checkpoints_that_round_the_samples_up_are_refused_with_the_figures(shards, tmp_path):
    with pytest.raises(BadInputError, match=r"163,840,000 .*checkpoints 10000.* at 12,800,000"):
        job_for(shards, tmp_path, num_checkpoints=10_000)
    job = job_for(shards, tmp_path, num_checkpoints=10_000, allow_override=True)
    assert not job.comparable
    assert "samples seen 163,840,000" in job.why_not_comparable()
    assert "instead of 12,800,000" in job.plan().text()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"seed": 7}, ""),
        ({"num_checkpoints": 1}, ""),
        ({"accum_freq": 4}, ""),
        ({"loader_workers": 0}, ""),
        ({"precision": "amp"}, ""),
        ({"precision": "amp_bf16"}, ""),
        ({"precision": "fp32"}, ""),
        ({"precision": "bf16"}, "precision 'bf16' instead of 'amp'"),
        ({"precision": "fp16"}, "precision 'fp16' instead of 'amp'"),
        ({"grad_clip_norm": 1.0}, "grad_clip_norm 1.0 instead of None"),
    ],
)
def test_which_settings_leave_a_run_comparable(shards, tmp_path, fields, why):
    if why:
        with pytest.raises(BadInputError, match="--allow-override"):
            job_for(shards, tmp_path, **fields)
    job = job_for(shards, tmp_path, allow_override=bool(why), **fields)
    assert (job.comparable, job.why_not_comparable()) == (not why, why)


def test_no_steps_between_checkpoints_is_refused(shards, tmp_path):
    for allow in (False, True):
        with pytest.raises(BadInputError, match="32 micro-batches, fewer than the 64 of a step"):
            job_for(
                shards,
                tmp_path,
                recipe="demo",
                num_checkpoints=500,
                accum_freq=64,
                allow_override=allow,
            )


def test_plan_says_steps_cost_and_warnings(shards, tmp_path):
    text = job_for(shards, tmp_path, loader_workers=1).plan().text()
    assert "12,800,000 seen, from 6 shards" in text
    assert "3,125 of 4,096 pairs" in text
    assert "5.68e+17 FLOPs" in text
    assert "3 h 59 min of one GPU" in text
    assert "only 6 shards" in text
    text = job_for(shards, tmp_path, recipe="debug").plan().text()
    assert "the rate only reaches" in text


def test_steps_are_rounded_up_as_open_clip_does():
    steps = count_steps(
        SCALES["small"], num_workers=1, accum_freq=1, num_checkpoints=5, loader_workers=4
    )
    assert (steps.per_epoch, steps.total, steps.micro_batch_size) == (628, 3140, 4096)
    steps = count_steps(
        SCALES["large"], num_workers=8, accum_freq=2, num_checkpoints=5, loader_workers=6
    )
    assert steps.micro_batch_size == 512


def test_a_batch_that_does_not_divide_is_refused(shards, tmp_path):
    job = job_for(shards, tmp_path, execution=Execution(workers=3))
    with pytest.raises(BadInputError, match=r"4096 does not divide by 3 workers.*such as 2"):
        job.plan()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"accum_freq": 0}, "accum_freq must be 1 or more, not 0"),
        ({"grad_clip_norm": -1.0}, "grad_clip_norm must be above 0"),
        ({"data_weights": "1::2"}, "2 data weights .* for 1 parts"),
        ({"data_weights": "one"}, "not numbers"),
        ({"data_weights": "0"}, "not all 0"),
    ],
)
def test_settings_are_checked_at_construction(shards, tmp_path, fields, message):
    with pytest.raises(BadInputError, match=message):
        job_for(shards, tmp_path, **fields)


def test_no_captions_end_the_job_before_ray_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(job_module, "session", lambda *_: pytest.fail("it asked for Ray"))
    write_tar(tmp_path / "pool" / "0.tar", {"a.jpg": picture_bytes()})
    with pytest.raises(BadInputError, match="no sample in"):
        run_job(job_for(tmp_path / "pool", tmp_path / "out"))


def test_help_and_plan_load_nothing_heavy(shards, tmp_path):
    code = (
        "import sys; from gristmill.recipes.commands import main; "
        f"main(['clip','train','small','--data',{str(shards)!r},'--out','x','--plan']); "
        "print([m for m in ('torch', 'ray', 'open_clip', 'webdataset') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert not (tmp_path / "x").exists()
