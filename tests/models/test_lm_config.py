"""Presets, counts, starts and what configurations refuse."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import lm_memory
import pytest
import torch

from gristmill.core import config as configs
from gristmill.core.errors import BadInputError
from gristmill.execution.session import source_root
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.describe import DescribeJob
from gristmill.models.lm.memory import estimate
from gristmill.models.lm.presets import PRESETS, preset

TINY = ModelConfig(vocab_size=50, width=32, num_layers=3, num_heads=4, ffn_hidden=48)
PLAIN = {"series": 1, "shortcuts": 0}


@pytest.mark.parametrize(
    ("name", "changes", "count"),
    [
        ("pangu-pi-1b", {}, 1_033_246_720),
        ("pangu-pi-1b", {"tied": True}, 826_638_336),
        ("pangu-pi-1b", PLAIN, 1_029_830_656),
        ("pangu-pi-1b", {**PLAIN, "tied": True}, 823_222_272),
        ("pangu-pi-7b", {}, 6_727_240_704),
        ("pangu-pi-7b", {"tied": True}, 6_314_023_936),
        ("pangu-pi-7b", PLAIN, 6_695_555_072),
        ("pangu-pi-7b", {**PLAIN, "tied": True}, 6_282_338_304),
        ("pangu-pi-1b-pro", PLAIN, 1_002_158_080),
        ("regmix-1m", {}, 27_133_184),
        ("regmix-60m", {}, 136_462_080),
        ("regmix-1b", {}, 1_337_026_560),
        ("sink-60m", {}, 136_462_080),
    ],
)
def test_counts_are_those_of_the_papers(name, changes, count):
    assert dataclasses.replace(preset(name), **changes).num_params == count


@pytest.mark.parametrize(
    ("name", "count"),
    [("regmix-1m", 1_312_000), ("regmix-60m", 58_998_528), ("regmix-1b", 1_130_457_088)],
)
def test_counts_without_embeddings(name, count):
    assert preset(name).num_params_without_embeddings == count


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_on_the_meta_device_and_survives_json(name):
    config = preset(name)
    model = config.build(device="meta")
    assert sum(p.numel() for p in model.parameters()) == config.num_params
    assert sum(config.params_by_part.values()) == config.num_params
    assert "other" not in config.params_by_part
    assert configs.from_dict(json.loads(json.dumps(configs.to_dict(config)))) == config
    assert model(torch.zeros(1, 4, dtype=torch.long, device="meta")).shape == (
        1,
        4,
        config.vocab_size,
    )


def test_presets_and_jobs_load_no_torch():
    code = (
        "import sys, gristmill.models.lm.presets, gristmill.models.lm.describe, "
        "gristmill.models.lm.generate; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(BadInputError, match="no preset named 'regmix-1M'; perhaps you meant"):
        preset("regmix-1M")
    with pytest.raises(BadInputError, match="no positions named 'rop'; perhaps you meant rope"):
        dataclasses.replace(TINY, positions="rop")
    with pytest.raises(BadInputError, match="no normalizer named 'softmax'; known: clamped_sum"):
        dataclasses.replace(TINY, normalizer="softmax")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "num_layers must be 1 or more, not 0"),
        ({"num_kv_heads": 3}, "num_heads 4 is no multiple of num_kv_heads 3"),
        ({"shortcuts": 1, "shortcut_reduction": 5}, "width 32 is no multiple of shortcut_red"),
        ({"window": -1}, "window must be 0 or more, not -1"),
        ({"prefix": 2048}, "prefix 2048 leaves nothing to learn in 2048 tokens"),
        ({"normalizer_p": 0.0}, "normalizer_p must be over 0, not 0.0"),
        ({"norm_eps": float("nan")}, "norm_eps must be over 0, not nan"),
    ],
)
def test_impossible_shapes_are_refused(changes, message):
    with pytest.raises(BadInputError, match=message):
        dataclasses.replace(TINY, **changes)


def test_flops_follow_palm():
    matrices = 3 * (4 * 32 * 32 + 3 * 32 * 48) + 50 * 32
    assert TINY.flops_per_token(16) == 6 * matrices + 12 * 3 * 32 * 16
    causal = TINY.flops_per_token(16, attention="causal")
    assert causal == 6 * matrices + int(12 * 3 * 32 * 8.5)  # a query sees 8.5 keys on average
    narrow = dataclasses.replace(TINY, window=4)
    seen = sum(min(t + 1, 4) for t in range(16)) / 16
    assert narrow.flops_per_token(16, attention="causal") == int(6 * matrices + 12 * 3 * 32 * seen)
    assert dataclasses.replace(TINY, tied=True).flops_per_token(16) == TINY.flops_per_token(16)


def test_flops_agree_with_torchs_counter():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    for config in (TINY, dataclasses.replace(TINY, shortcuts=2, shortcut_reduction=8, series=2)):
        model = config.build()
        tokens = torch.zeros(2, 16, dtype=torch.long)
        # Plain products: before torch 2.15 the counter passes over the CPU's fused attention.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(tokens).sum().backward()
        assert counter.get_total_flops() / 32 == pytest.approx(config.flops_per_token(16), rel=0.01)


@pytest.mark.parametrize(
    ("accumulate", "wanted"),
    [
        (False, {1: 4 + 12 / 64, 2: 2 + 14 / 64, 3: 16 / 64}),
        (True, {1: 6 + 12 / 64, 2: 2 + 16 / 64, 3: 18 / 64}),
    ],
)
def test_memory_of_states_is_zeros_table(accumulate, wanted):
    """ZeRO's figure 1: 7.5 G parameters on 64 GPUs take 31.4, 16.6 and 1.9 GB; float32 sums of
    several micro-batches' gradients come on top."""
    count = TINY.num_params
    for stage, a_parameter in wanted.items():
        found = estimate(
            TINY,
            micro_batch_size=1,
            seq_len=16,
            workers=64,
            zero_stage=stage,
            accumulate=accumulate,
        )
        assert found.states == pytest.approx(a_parameter * count, rel=1e-3)
    assert pytest.approx(1.9e9, rel=0.02) == 16 * 7.5e9 / 64
    with pytest.raises(BadInputError, match="zero_stage must be 0, 1, 2 or 3, not 4"):
        TINY.memory_per_gpu(micro_batch_size=1, zero_stage=4)


@pytest.mark.timeout(400)
@pytest.mark.slow
@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.long)])
def test_memory_of_states_is_what_live_engines_keep(world, tmp_path):
    """Before and after the last backward of a step, of one micro-batch and of two."""
    pytest.importorskip("deepspeed")
    paths = os.pathsep.join([source_root(), os.path.dirname(lm_memory.__file__)])
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "lm_memory", str(tmp_path / "store"), str(rank), str(world)],
            env={**env, "LOCAL_RANK": str(rank)}, text=True,
            stdout=subprocess.DEVNULL if rank else subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        for rank in range(world)
    ]  # fmt: skip
    said, _ = ranks[0].communicate(timeout=280)
    lines = [json.loads(x.removeprefix("measured")) for x in said.splitlines() if "measured" in x]
    assert len(lines) == len(lm_memory.CASES + lm_memory.MORE * (world > 1))
    for name, bf16, micro_batches, forward, backward in lines:
        stage = 0 if name == "torch" else int(name[-1])
        wanted = estimate(
            lm_memory.MODEL, micro_batch_size=1, seq_len=16, workers=world, zero_stage=stage,
            precision="bf16" if bf16 else "fp32", accumulate=micro_batches > 1,
        )  # fmt: skip
        kept = wanted.states
        if stage == 3:  # the bucket stays, and matrices as small as these stay whole
            kept += wanted.buffers + wanted.gathered
        case = f"{name}, bf16 {bf16}, {micro_batches} micro-batches"
        if stage == 0:  # the copies of bf16 go while backward goes on
            assert forward == pytest.approx(kept + wanted.activations, rel=0.03), case
        elif stage == 1 and world > 1 and not (bf16 and micro_batches > 1):
            assert 0.8 * kept < backward <= kept, case  # those of others are gone again at the end
        else:
            assert backward == pytest.approx(kept, rel=0.03), case


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"series": 2, "shortcuts": 1, "shortcut_reduction": 4},
        {"feed_forward": "gelu"},
        {"num_kv_heads": 1},
        {"attention": "sigmoid", "normalizer": "unit"},
    ],
)
@pytest.mark.parametrize("recompute", [False, True])
def test_estimated_activations_are_near_what_backward_keeps(changes, recompute):
    config = dataclasses.replace(TINY, width=64, num_layers=6, ffn_hidden=160, **changes)
    model = config.build()
    model.recompute_blocks = recompute
    own = {p.data_ptr() for p in model.parameters()}
    kept = {}

    def pack(value):
        if value.data_ptr() not in own and value.is_floating_point():
            kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    tokens = torch.zeros(2, 64, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        hidden = model.hidden(tokens)
    wanted = estimate(
        config, micro_batch_size=2, seq_len=64, precision="fp32", recompute=recompute
    ).activations
    assert hidden.requires_grad
    found = sum(kept.values())
    if recompute:  # the estimate adds one block, as it stands while it is computed again
        block = estimate(config, micro_batch_size=2, seq_len=64, precision="fp32").activations / 6
        assert found == pytest.approx(wanted - block, rel=0.2)
    else:
        assert found == pytest.approx(wanted, rel=0.2)


def test_starts_have_the_deviations_of_their_rules():
    def deviations(**changes):
        config = dataclasses.replace(TINY, width=256, num_layers=4, ffn_hidden=512, **changes)
        model = config.build(seed=3)
        last = model.blocks[3]
        return [
            m.weight.std().item()
            for m in (
                model.embedding,
                last.attention.q,
                last.attention.out,
                last.feed_forward.down,
            )
        ]

    near = {"rel": 0.02}
    assert deviations() == pytest.approx([0.02] * 4, **near)
    assert deviations(initializer_std=0.1) == pytest.approx([0.1] * 4, **near)
    small = 0.02 / math.sqrt(8)
    assert deviations(initializer="gpt") == pytest.approx([0.02, 0.02, small, small], **near)
    half = 0.02 / math.sqrt(4)
    assert deviations(initializer="by_layer") == pytest.approx([0.02, half, half, half], **near)
    wide = math.sqrt(2 / (5 * 256))
    down = 1 / (math.sqrt(512) * 4)
    assert deviations(initializer="regmix") == pytest.approx([wide, wide, wide, down], **near)


def test_a_start_depends_on_the_seed_and_nothing_else():
    one, same, other = TINY.build(seed=1), TINY.build(seed=1), TINY.build(seed=2)
    deeper = dataclasses.replace(TINY, num_layers=5).build(seed=1)
    for name, value in one.named_parameters():
        assert torch.equal(value, same.get_parameter(name))
        assert torch.equal(value, deeper.get_parameter(name))
    assert not torch.equal(one.embedding.weight, other.embedding.weight)
    assert not torch.equal(one.embedding.weight, one.head.weight)


def test_pi_starts_as_a_plain_transformer_with_branches_that_differ():
    plain = TINY.build(seed=1)
    changes = {"shortcuts": 2, "shortcut_reduction": 4}
    wide = dataclasses.replace(TINY, **changes).build(seed=1)
    tokens = torch.arange(10)[None]
    assert torch.equal(plain(tokens), wide(tokens))
    series = dataclasses.replace(TINY, series=3).build().blocks[0].feed_forward.series
    torch.testing.assert_close(series.scale_NF, torch.full((3, 48), 1 / 3))
    assert series.offset_NF[:, 0].tolist() == pytest.approx([-0.1, 0, 0.1])


def test_describe_prints_counts_and_keeps_them(tmp_path, capsys):
    from gristmill.core.job import run_job

    job = DescribeJob(preset="pangu-pi-7b", out=str(tmp_path / "d"), workers=64)
    assert "6,727,240,704" in job.plan().text()
    run_job(job)
    shown = capsys.readouterr().out
    assert "shortcuts               30,408,704" in shown
    facts = json.loads((tmp_path / "d" / "description.json").read_text())
    assert facts["parameters"] == 6_727_240_704
    assert facts["memory_per_gpu_bytes"]["zero_3"]["optimizer"] == 12 * 6_727_240_704 // 64 + (
        12 * 6_727_240_704 % 64 > 0
    )
    assert "Memory a GPU" in (tmp_path / "d" / "report.html").read_text()
    with pytest.raises(BadInputError, match="no preset named 'nope'"):
        DescribeJob(preset="nope", out="x")
    (tmp_path / "mine.json").write_text(json.dumps(configs.to_dict(TINY)))
    mine = DescribeJob(preset=str(tmp_path / "mine.json"))
    assert mine.describe()["parameters"] == TINY.num_params
    assert mine.out.rpartition("/")[2].startswith("lm-describe-mine-")
    assert DescribeJob().out != DescribeJob(workers=3).out  # each has a folder of its own
