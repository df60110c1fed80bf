"""Rates, the rule for batches, the guard, the device table: pure functions."""

import math

import pytest

from gristmill.core.errors import BadInputError
from gristmill.models.lm.config import ModelConfig
from gristmill.training.lm.clock import bf16_peak
from gristmill.training.lm.engine import parameter_groups, shares
from gristmill.training.lm.guard import Guard
from gristmill.training.lm.placement import Placement
from gristmill.training.lm.schedule import Optimization


def rates(steps=100, **fields):
    how = Optimization(lr=1.0, warmup_share=0.1, **fields)
    return [how.rate(step, steps, 64) for step in range(steps)]


def test_the_rate_rises_then_falls_as_cosine():
    found = rates(min_lr_share=0.1)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert found[55] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 0.5)) / 2)
    assert found[99] < 0.102 and found == [*found[:10], *sorted(found[10:], reverse=True)]


def test_constant_and_wsd():
    assert set(rates(schedule="constant")[10:]) == {1.0}
    found = rates(schedule="wsd", decay_share=0.2, min_lr_share=0.0)
    assert set(found[10:80]) == {1.0}
    assert found[80:] == pytest.approx([1 - (i + 1) / 20 for i in range(20)])


def test_the_rule_for_batches():
    how = Optimization(lr=2e-4, lr_batch_size=256)
    assert how.peak(1024) == pytest.approx(4e-4)
    assert Optimization(lr=2e-4).peak(1024) == 2e-4
    assert Optimization(lr=1e-3, lr_batch_size=64, lr_exponent=1.0).peak(32) == 5e-4


@pytest.mark.parametrize("fields", [{"lr": 0.0}, {"warmup_share": 1.5}, {"clip": -1.0}])
def test_settings_out_of_range_are_refused(fields):
    with pytest.raises(BadInputError, match=next(iter(fields))):
        Optimization(**fields)


def test_what_counts_as_a_spike():
    guard, calm = Guard(spike_sigmas=6, spike_window=20), [2.0, 2.1] * 10
    assert guard.fault(2.3, calm) == ""
    assert "after a mean of 2.05" in guard.fault(3.0, calm)
    assert guard.fault(3.0, calm[:8]) == ""  # too few to tell
    assert guard.fault(math.inf, []) == "the loss is inf"
    assert Guard(spike_sigmas=0).fault(1e9, calm) == ""
    assert guard.fault(2.04, [2.0] * 20) == ""  # a spread of nothing is not taken at its word


def test_the_guards_ladder():
    guard = Guard(max_bad_steps=2)
    assert [guard.action(n) for n in (1, 2, 3)] == ["skip", "skip", "rewind"]
    assert Guard(on_bad_step="stop").action(1) == "stop"


def test_an_unlisted_device_has_no_peak():
    assert bf16_peak("NVIDIA H100 80GB HBM3") == 989.4e12
    assert bf16_peak("NVIDIA H100 PCIe") == 756e12
    assert bf16_peak("NVIDIA H100 NVL") is None
    assert bf16_peak("NVIDIA GeForce RTX 9999") is None


def test_checkpoint_shares_are_even_and_cover_all():
    sizes = {f"p{i}": (i * 37) % 101 + 1 for i in range(40)}
    parts = shares(sizes, 3)
    assert sorted(name for part in parts for name in part) == sorted(sizes)
    loads = [sum(sizes[name] for name in part) for part in parts]
    assert max(loads) - min(loads) <= max(sizes.values())
    assert parts == shares(dict(reversed(sizes.items())), 3)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"workers": 2, "min_workers": 1, "max_workers": 2}, "either --workers"),
        ({"min_workers": 3, "max_workers": 2}, "1 <= min_workers <= max_workers"),
        ({"max_workers": 2}, "1 <= min_workers"),
        ({"offload": True}, "--offload needs"),
        ({"workers": -1}, "workers must be 0 or more"),
    ],
)
def test_placements_that_cannot_be(fields, said):
    with pytest.raises(BadInputError, match=said):
        Placement(**fields)


def test_a_batch_that_does_not_divide():
    with pytest.raises(BadInputError, match=r"batch of 12 .* by 5 workers.*--workers 4"):
        Placement(workers=5).require_division(12, 5)
    Placement(min_workers=1, max_workers=5).require_division(12, 5)


@pytest.mark.parametrize(
    ("changes", "without"),
    [
        ({"series": 2, "shortcuts": 1, "shortcut_reduction": 4}, ("series.scale_NF", "series.offset_NF")),
        ({"attention_bias": "kv"}, ("bias.key_KD", "bias.value_KD")),
        ({"attention_bias": "sink_token", "positions": "learned"}, ("sink_token_M",)),
        ({"positions": "t5_relative"}, ("positions.table.weight",)),
        ({"attention": "mlp", "normalizer": "unit", "tied": True}, ()),
    ],
)  # fmt: skip
def test_weights_decay_by_role_and_not_by_shape(changes, without):
    config = ModelConfig(
        vocab_size=50, width=32, num_layers=2, num_heads=2, ffn_hidden=48, **changes
    )
    model = config.build(device="meta")
    names = {id(p): name for name, p in model.named_parameters()}
    decaying, others = (
        {names[id(p)] for p in group["params"]} for group in parameter_groups(model, 0.1)
    )
    assert len(decaying) + len(others) == len(names)
    assert all("norm" not in name for name in decaying)
    assert {name for name in others if "norm" not in name} == {
        name for name in names.values() if name.endswith(tuple(without))
    }
