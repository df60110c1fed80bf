"""The job: what it refuses, plans and resolves, before anything starts."""

import dataclasses
import hashlib
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
from gristmill.training.preflight import check_members, spread
from gristmill.training.rules import DATACOMPS, Rounding, departures
from gristmill.training.scales import SCALES, overrides
from gristmill.training.shards import resolve
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


def finished_reshard(folder, *, count=3):
    """A run as the resharder leaves it; the folder of its shards."""
    made = write_shards(folder / "shards", count=count)
    facts = {"output_shard_count": count, "output_shard_format": "{:08d}.tar"}
    (made / "meta.json").write_text(json.dumps(facts))
    outputs = {
        f"shards/{path.name}": {"sha256": "x", "bytes": path.stat().st_size}
        for path in made.iterdir()
    }
    (folder / "config.json").write_text(json.dumps({"hash": "h", "config": {}}))
    (folder / "DONE").write_text(json.dumps({"outputs": outputs}))
    return made


def test_every_spelling_of_a_folder_has_one_identity_with_its_runs_manifest(tmp_path):
    made = finished_reshard(tmp_path / "run")
    spellings = [made, made / "{00000000..00000002}.tar", tmp_path / "run", tmp_path]
    first, *others = (resolve(str(spelling))[0].identity() for spelling in spellings)
    assert all(other == first for other in others)
    assert first["pinned_by"] == "reshard manifest"
    manifest = (tmp_path / "run" / "DONE").read_bytes()
    assert first["reshard_manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert resolve(str(made / "{00000000..00000001}.tar"))[0].identity() != first


def test_other_folders_say_that_only_names_and_sizes_pin_them(shards):
    identity = resolve(str(shards))[0].identity()
    assert identity["pinned_by"] == "names and sizes"
    assert identity["reshard_manifest_sha256"] == ""


def test_a_shard_unlike_its_runs_manifest_is_refused(tmp_path):
    made = finished_reshard(tmp_path / "run")
    write_tar(made / "00000001.tar", {"a.txt": b"x" * 50_000})
    with pytest.raises(BadInputError, match=r"00000001.tar has [\d,]+ bytes, its run's DONE says"):
        resolve(str(made))


def test_an_unfinished_reshard_is_refused_from_above_and_from_inside(tmp_path):
    made = finished_reshard(tmp_path / "runs" / "one")
    finished_reshard(tmp_path / "runs" / "two")
    (tmp_path / "runs" / "one" / "DONE").unlink()
    inside = ["", "00000000.tar", "{00000000..00000001}.tar"]
    for data in [tmp_path / "runs", tmp_path / "runs" / "one", *(made / name for name in inside)]:
        with pytest.raises(BadInputError, match=r"runs/one is an unfinished run"):
            resolve(str(data))
    assert resolve(str(tmp_path / "runs" / "two" / "shards"))


def test_a_config_of_another_program_is_no_unfinished_run(tmp_path):
    folder = write_shards(tmp_path / "a", count=1)
    (folder / "config.json").write_text('{"model_type": "clip"}')
    assert resolve(str(folder))


def test_preflight_looks_at_shards_spread_over_the_list(tmp_path, caplog):
    for i in range(9):
        good = {"a.jpg": picture_bytes(), "a.txt": b"t"}
        write_tar(tmp_path / f"{i}.tar", good if i == 8 else {"a.jpg": picture_bytes()})
    [source] = resolve(str(tmp_path))
    assert [shard.uri[-5] for shard in spread(source.shards)] == ["0", "2", "4", "6", "8"]
    check_members([source])
    assert not caplog.records


def test_preflight_only_warns_of_what_it_cannot_know(tmp_path, caplog):
    late = {f"{i:03}.jpg": b"j" for i in range(100)} | {"z.jpg": b"j", "z.txt": b"t"}
    write_tar(tmp_path / "0.tar", late)
    check_members(resolve(str(tmp_path)))
    assert "no caption and image of one key" in caplog.text


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
