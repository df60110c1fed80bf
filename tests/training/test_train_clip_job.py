"""The job: what it refuses, plans and resolves, before anything starts."""

import dataclasses
import json
import subprocess
import sys
import time

import pytest
from training_shards import picture_bytes, write_shards, write_tar

from gristmill.core.config import from_dict, to_dict
from gristmill.core.errors import BadInputError
from gristmill.core.job import run_job
from gristmill.execution.session import Execution
from gristmill.recipes import train_clip
from gristmill.training.scales import SCALES, overrides
from gristmill.training.shards import check_members, resolve
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


# -- data ------------------------------------------------------------------------------------------


def test_folders_tars_and_nested_shards_are_found(tmp_path):
    write_shards(tmp_path / "a" / "x" / "shards", count=2)
    write_shards(tmp_path / "b", count=1)
    data = f"{tmp_path / 'a'}::{tmp_path / 'b' / '00000000.tar'}"
    first, second = resolve(data, "1::2")
    names = [shard.uri.removeprefix(str(tmp_path)) for shard in first.shards]
    assert names == ["/a/x/shards/00000000.tar", "/a/x/shards/00000001.tar"]
    assert len(second.shards) == 1
    assert (first.weight, second.weight) == (1, 2)
    assert resolve(str(tmp_path / "a" / "x" / "shards" / "{00000000..00000001}.tar"))


def test_a_source_is_pinned_by_names_and_sizes(tmp_path):
    folder = write_shards(tmp_path / "a", count=2)
    before = resolve(str(folder))[0].identity()
    assert resolve(str(folder))[0].identity() == before
    write_tar(folder / "00000001.tar", {"a.txt": b"x" * 20_000})
    assert resolve(str(folder))[0].identity() != before


def test_missing_shards_of_a_dense_set_are_refused(tmp_path):
    folder = write_shards(tmp_path / "a", count=3)
    meta = {"output_shard_count": 4, "output_shard_format": "{:08d}.tar"}
    (folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(BadInputError, match=r"should hold 4 shards.*has 3 \(00000003.tar is miss"):
        resolve(str(tmp_path))
    (folder / "meta.json").write_text(json.dumps(meta | {"output_shard_count": 3}))
    assert resolve(str(tmp_path))[0].identity()["meta_sha256"]


def test_no_shards_empty_shards_and_unfinished_runs_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="no .tar shards"):
        resolve(str(tmp_path / "nowhere"))
    folder = write_shards(tmp_path / "a", count=1)
    (folder / "00000001.tar").touch()
    with pytest.raises(BadInputError, match="1 of 2 shards are empty"):
        resolve(str(folder))
    (folder / "00000001.tar").unlink()
    (folder / "config.json").write_text("{}")
    with pytest.raises(BadInputError, match="unfinished run"):
        resolve(str(folder))


@pytest.mark.parametrize(
    "members", [{"a.jpg": picture_bytes()}, {"a.txt": b"t"}, {"a.jpg": b"j", "b.txt": b"t"}, {}]
)
def test_preflight_sees_that_there_are_no_pairs(tmp_path, members):
    write_tar(tmp_path / "0.tar", members)
    with pytest.raises(BadInputError, match="no sample in .* has both caption and image"):
        check_members(resolve(str(tmp_path)))


def test_no_captions_end_the_job_before_ray_starts(tmp_path):
    write_tar(tmp_path / "pool" / "0.tar", {"a.jpg": picture_bytes()})
    started = time.monotonic()
    with pytest.raises(BadInputError, match="no sample in"):
        run_job(job_for(tmp_path / "pool", tmp_path / "out"))
    assert time.monotonic() - started < 5


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
