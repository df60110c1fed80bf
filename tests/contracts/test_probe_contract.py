"""What every probe promises, asked of each file in gristmill.diagnostics."""

import dataclasses
import gc
import json
import math
import re

import pytest
import torch

from gristmill.core import plugins
from gristmill.diagnostics._observe import observe
from gristmill.diagnostics.base import Probe
from gristmill.models.lm.config import ModelConfig

NAMES = plugins.names("gristmill.diagnostics")
CONFIG = ModelConfig(
    vocab_size=40, width=16, num_layers=2, num_heads=2, ffn_hidden=24, context_length=64
)
VARIANTS = {
    "plain": {},
    "sink token": {"attention_bias": "sink_token"},
    "learned key": {"attention_bias": "k"},
    "sigmoid": {"attention": "sigmoid", "normalizer": "unit"},
    "prefix": {"prefix": 4},
    "learned positions": {"positions": "learned"},
}


def tokens_of(count, length):
    choose = torch.Generator().manual_seed(count)
    return torch.randint(0, 40, (count, length + 1), generator=choose)


def run(name, tokens, batch, config=CONFIG):
    kind = plugins.find("gristmill.diagnostics", name, Probe)
    model, probe = config.build(seed=1).eval(), kind(config)
    for first in range(0, len(tokens), batch):
        observe(model, [probe], tokens[first : first + batch])
    return model, probe


def length_of(name):
    return plugins.find("gristmill.diagnostics", name, Probe).seq_len or 33


def numbers(value):
    if isinstance(value, dict):
        return [x for item in value.values() for x in numbers(item)]
    if isinstance(value, list):
        return [x for item in value for x in numbers(item)]
    return [value] if isinstance(value, float) else []


def close(one, other):
    assert json.loads(json.dumps(one)).keys() == json.loads(json.dumps(other)).keys()
    for x, y in zip(numbers(one), numbers(other), strict=True):
        assert x == pytest.approx(y, rel=1e-4, abs=1e-6)


def test_the_folder_is_not_empty():
    assert {"loss", "attention_sink", "massive_activation", "effective_dimension"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_says_where_its_definition_comes_from(name):
    kind = plugins.find("gristmill.diagnostics", name, Probe)
    assert re.search(r"\d{4}\.\d{5}", kind.__doc__)
    assert kind.shows <= {"hidden", "attention", "keys", "values"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_finite_json_on_every_kind_of_model(name, variant):
    config = dataclasses.replace(CONFIG, **VARIANTS[variant])
    result = run(name, tokens_of(6, length_of(name)), 4, config)[1].result()
    assert json.loads(json.dumps(result)) == result
    assert all(math.isfinite(x) for x in numbers(result)) and numbers(result)


@pytest.mark.parametrize("name", NAMES)
def test_same_numbers_whatever_the_batch_size(name):
    tokens = tokens_of(11, length_of(name))
    close(run(name, tokens, 1)[1].result(), run(name, tokens, 11)[1].result())


@pytest.mark.parametrize("name", NAMES)
def test_keeps_nothing_that_grows_with_the_sequences(name):
    def held(count):
        probe = run(name, tokens_of(count, length_of(name)), 4)[1]
        return sum(t.numel() for t in tensors(probe, set()))

    assert held(8) == held(24) <= 4 * 16 * 16


def tensors(thing, seen):
    """Every tensor that an object refers to, however deep, outside modules and classes."""
    if id(thing) in seen or isinstance(thing, type | torch.nn.Module | type(math)):
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, dict | list | tuple) or hasattr(thing, "__dict__"):
        for other in gc.get_referents(thing):
            yield from tensors(other, seen)


@pytest.mark.parametrize("name", NAMES)
def test_leaves_the_model_as_it_was_and_may_be_asked_midway(name):
    tokens = tokens_of(8, length_of(name))
    model, probe = run(name, tokens[:4], 4)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.parameters(), CONFIG.build(seed=1).parameters(), strict=True)
    )
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    probe.result()
    observe(model, [probe], tokens[4:])
    close(probe.result(), run(name, tokens, 8)[1].result())


def test_probes_share_a_pass_and_see_what_they_would_alone():
    tokens = tokens_of(6, 64)
    model = CONFIG.build(seed=1).eval()
    together = {n: plugins.find("gristmill.diagnostics", n, Probe)(CONFIG) for n in NAMES}
    losses = observe(model, list(together.values()), tokens)
    assert losses.shape == (6, 64)
    for name, probe in together.items():
        close(probe.result(), run(name, tokens, 6)[1].result())
