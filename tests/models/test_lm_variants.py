"""Every variant against the naive reference: logits, loss, all gradients, and cached decoding."""

import dataclasses
import functools

import lm_reference as reference
import pytest
import torch

from gristmill.core import plugins
from gristmill.core.errors import BadInputError
from gristmill.models.lm import visibility
from gristmill.models.lm.cache import KvCache
from gristmill.models.lm.config import PACKAGE, PLUGIN_FIELDS, ModelConfig

BASE = ModelConfig(
    vocab_size=13,
    width=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    ffn_hidden=12,
    context_length=32,
    shortcut_reduction=4,
)
VARIANTS = {
    "plain": {},
    "one head a query": {"num_kv_heads": 0},
    "one key head": {"num_kv_heads": 1},
    "head size of its own": {"head_dim": 6},
    "tied": {"tied": True},
    "post-norm": {"norm_placement": "post"},
    "post-norm, pi": {"norm_placement": "post", "shortcuts": 1, "series": 2},
    "series 2": {"series": 2},
    "series 3": {"series": 3},
    "series 2, relu": {"series": 2, "feed_forward": "relu"},
    "shortcuts 1": {"shortcuts": 1},
    "shortcuts 3": {"shortcuts": 3},
    "pi": {"shortcuts": 1, "series": 2},
    **{kind: {"feed_forward": kind} for kind in plugins.names(f"{PACKAGE}.feed_forward")},
    **{f"positions {kind}": {"positions": kind} for kind in plugins.names(f"{PACKAGE}.positions")},
    "theta": {"rope_theta": 100.0},
    "scaled softmax": {"attention_row_sum": 0.2},
    "softmax, p 2": {"normalizer": "p_norm", "normalizer_p": 2.0},
    "softmax, p 1/2": {"normalizer": "p_norm", "normalizer_p": 0.5},
    "softmax, p 2, window": {"normalizer": "p_norm", "normalizer_p": 2.0, "window": 3},
    "sigmoid, sum": {"attention": "sigmoid"},
    "sigmoid": {"attention": "sigmoid", "normalizer": "unit"},
    "sigmoid, p 2": {"attention": "sigmoid", "normalizer": "p_norm", "normalizer_p": 2.0},
    "sigmoid, p 1/2": {"attention": "sigmoid", "normalizer": "p_norm", "normalizer_p": 0.5},
    "sigmoid, scaled": {"attention": "sigmoid", "attention_row_sum": 2.0},
    "sigmoid, alibi": {"attention": "sigmoid", "positions": "alibi"},
    "sigmoid, window": {"attention": "sigmoid", "window": 3, "normalizer": "unit"},
    "sigmoid, kv": {"attention": "sigmoid", "attention_bias": "kv"},
    "elu": {"attention": "elu", "normalizer": "unit"},
    "elu, sum": {"attention": "elu"},
    "elu kernel": {"attention": "elu_kernel"},
    "elu kernel, window": {"attention": "elu_kernel", "window": 2},
    "linear": {"attention": "linear", "normalizer": "unit"},
    "linear, clamped": {"attention": "linear", "normalizer": "clamped_sum"},
    "linear, p 2": {"attention": "linear", "normalizer": "p_norm", "normalizer_p": 2.0},
    "mlp": {"attention": "mlp", "normalizer": "unit"},
    "mlp, clamped": {"attention": "mlp", "normalizer": "clamped_sum"},
    "mlp, sink token": {
        "attention": "mlp",
        "normalizer": "unit",
        "attention_bias": "sink_token",
    },
    "sink token": {"attention_bias": "sink_token"},
    "sink token, window": {"attention_bias": "sink_token", "window": 3},
    "sink token, prefix": {"attention_bias": "sink_token", "prefix": 2},
    "sink token, alibi": {"attention_bias": "sink_token", "positions": "alibi"},
    "sink token, t5": {"attention_bias": "sink_token", "positions": "t5_relative"},
    "sink token, learned": {"attention_bias": "sink_token", "positions": "learned"},
    "k": {"attention_bias": "k"},
    "v": {"attention_bias": "v"},
    "kv": {"attention_bias": "kv"},
    "k, shared": {"attention_bias": "k", "attention_bias_by": "layer"},
    "v, shared": {"attention_bias": "v", "attention_bias_by": "layer"},
    "kv, shared": {"attention_bias": "kv", "attention_bias_by": "layer"},
    "kv, window": {"attention_bias": "kv", "window": 2},
    "kv, alibi": {"attention_bias": "kv", "positions": "alibi"},
    "kv, prefix": {"attention_bias": "kv", "prefix": 3},
    "window 1": {"window": 1},
    "window 3": {"window": 3},
    "window as long as the text": {"window": 7},
    "window, alibi": {"window": 3, "positions": "alibi"},
    "prefix 1": {"prefix": 1},
    "prefix 3": {"prefix": 3},
    "prefix, window": {"prefix": 2, "window": 2},
    "prefix, alibi": {"prefix": 3, "positions": "alibi"},
    "prefix, t5": {"prefix": 3, "positions": "t5_relative"},
}
TOKENS = torch.tensor([[3, 1, 12, 7, 7, 0, 5], [2, 2, 9, 11, 4, 6, 1]])
TARGETS = torch.tensor([[1, 12, 7, 7, 0, 5, 3], [2, 9, 11, 4, 6, 1, 8]])


def config_of(name):
    return dataclasses.replace(BASE, **VARIANTS[name])


def model_of(config, *, seed=1):
    """A float64 model all of whose parameters are far from their start, so that all of them count."""
    model = config.build(seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += noise * 0.4
    return model


def weights_of(model):
    return {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}


@pytest.mark.parametrize("name", VARIANTS)
def test_forward_and_gradients_equal_the_reference(name):
    config = config_of(name)
    model = model_of(config)
    weights = weights_of(model)
    expected = torch.stack([reference.logits(config, weights, row.tolist()) for row in TOKENS])
    torch.testing.assert_close(model(TOKENS), expected, rtol=1e-9, atol=1e-9)

    loss = model(TOKENS, TARGETS)
    wanted = sum(
        reference.cross_entropy(config, weights, tokens.tolist(), targets.tolist())
        for tokens, targets in zip(TOKENS, TARGETS, strict=True)
    ) / len(TOKENS)
    torch.testing.assert_close(loss, wanted, rtol=1e-9, atol=1e-9)
    loss.backward()
    wanted.backward()
    for key, parameter in model.named_parameters():
        grad = weights[key].grad
        assert grad.abs().max() > 0, f"{key} plays no part"
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-7, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", VARIANTS)
def test_cached_decoding_equals_the_full_forward(name):
    config = config_of(name)
    model = model_of(config)
    with torch.no_grad():
        whole = model(TOKENS)
        cache = KvCache(max_tokens=7)
        steps = [model(TOKENS[:, :3], cache=cache)]
        steps.append(model(TOKENS[:, 3:5], cache=cache))  # several at once
        steps += [model(TOKENS[:, t : t + 1], cache=cache) for t in (5, 6)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-10, atol=1e-10)
    with pytest.raises(BadInputError, match="7 \\+ 1 tokens do not fit a cache of 7"):
        model(TOKENS[:, :1], cache=cache)


@pytest.mark.parametrize("name", VARIANTS)
def test_no_token_but_a_prefix_is_seen_before_its_time(name):
    config = config_of(name)
    model = model_of(config)
    other = TOKENS.clone()
    other[:, 4:] = (other[:, 4:] + 1) % config.vocab_size
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS)[:, :4], model(other)[:, :4], rtol=0, atol=1e-12)
        assert not torch.equal(model(TOKENS)[:, 4:], model(other)[:, 4:])


def test_every_plugin_stands_in_the_table_above():
    for field, folder in PLUGIN_FIELDS.items():
        if field != "initializer":
            used = {getattr(config_of(name), field) for name in VARIANTS}
            assert used == set(plugins.names(f"{PACKAGE}.{folder}")), field


def test_t5_buckets_reach_the_last():
    """The texts above are shorter than 16 tokens, where the logarithm starts."""
    config = dataclasses.replace(BASE, positions="t5_relative", num_layers=1, context_length=512)
    model = model_of(config)
    weights = weights_of(model)
    places = torch.arange(300)
    bias = model.positions.score_bias(places[-1:], places)
    for key in range(300):
        for head in range(config.num_heads):
            wanted = reference.position_score(config, weights, head, 299, key)
            assert bias[head, 0, key].item() == wanted.item()


def test_recomputed_blocks_give_the_same_gradients():
    config = config_of("pi")
    model, twin = model_of(config), model_of(config)
    twin.recompute_blocks = True
    model(TOKENS, TARGETS).backward()
    twin(TOKENS, TARGETS).backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-12, atol=1e-14)


def test_watch_shows_the_weights_that_were_used():
    config = config_of("kv")
    model = model_of(config)
    shown = {}
    model(TOKENS, watch=lambda layer, kind, value: shown.__setitem__((layer, kind), value))
    weights = shown[0, "attention"]
    assert weights.shape == (2, 4, 7, 8)  # the learned key's column comes first
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 7, dtype=torch.float64))
    assert shown[2, "hidden"].shape == (2, 7, 16)
    assert shown[1, "keys"].shape == (2, 2, 8, 4)


def test_what_does_not_go_together_is_refused():
    def build(**changes):
        return dataclasses.replace(BASE, **changes).build(device="meta")

    with pytest.raises(BadInputError, match="positions alibi add to attention scores"):
        build(attention="mlp", positions="alibi")
    with pytest.raises(BadInputError, match="softmax is not bounded under normalizer unit"):
        build(normalizer="unit")
    with pytest.raises(
        BadInputError, match="no attention named 'sofmax'; perhaps you meant softmax"
    ):
        build(attention="sofmax")
    with pytest.raises(BadInputError, match="width 16 is no multiple of num_heads 3"):
        build(num_heads=3, num_kv_heads=0)
    with pytest.raises(BadInputError, match="rope needs an even head size, not 5"):
        build(head_dim=5)
    with pytest.raises(BadInputError, match="33 tokens are more than the 32 learned positions"):
        model_of(config_of("positions learned"))(torch.zeros(1, 33, dtype=torch.long))
    with pytest.raises(BadInputError, match="reads its 3 prefix tokens at once, not 2"):
        model_of(config_of("prefix 3"))(TOKENS[:, :2], cache=KvCache(max_tokens=9))


@pytest.mark.parametrize(
    "name",
    [
        "window 3",
        "prefix 3",
        "kv",
        "kv, window",
        "sink token, window",
        "prefix, alibi",
        "window, alibi",
    ],
)
def test_flex_attention_equals_the_other_kernel(name):
    model = model_of(config_of(name)).float()
    with torch.no_grad():
        wanted = model(TOKENS)
        model.kernel = "flex"
        torch.testing.assert_close(model(TOKENS), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "on_gpu"),
    [
        ("window 3", "flex"),
        ("kv, window", "flex"),
        ("prefix, alibi", "flex"),
        ("sink token", "flex"),
        ("positions t5_relative", "sdpa"),
        ("sigmoid, window", "sdpa"),
        ("softmax, p 2, window", "sdpa"),
    ],
)
def test_flex_is_taken_on_a_gpu_where_it_fits(name, on_gpu):
    config = dataclasses.replace(config_of(name), width=64)
    choose = functools.partial(visibility.kernel_for, config)
    assert choose("auto", device="cuda", cached=False) == on_gpu
    assert choose("auto", device="cuda", cached=True) == "sdpa"
    assert choose("auto", device="cpu", cached=False) == "sdpa"
    assert choose("sdpa", device="cuda", cached=False) == "sdpa"
    assert choose("flex", device="cpu", cached=False) == "flex"
    narrow = dataclasses.replace(config, head_dim=8)
    assert visibility.kernel_for(narrow, "auto", device="cuda", cached=False) == "sdpa"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["plain", "window 3", "kv, window", "sink token", "prefix, alibi"])
def test_on_a_gpu_every_kernel_gives_the_gradients_of_the_cpu(name):
    config = dataclasses.replace(config_of(name), width=64, num_layers=2)
    tokens = torch.randint(0, 13, (2, 256), generator=torch.Generator().manual_seed(0))
    model = dataclasses.replace(config, context_length=256).build()
    model(tokens, tokens).backward()
    for kernel in ("sdpa", "flex"):
        twin = dataclasses.replace(config, context_length=256).build(device="cuda")
        twin.kernel = kernel
        twin(tokens.cuda(), tokens.cuda()).backward()
        for one, other in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad.cpu(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_bfloat16_by_autocast_or_throughout_is_near(name):
    """Types meet everywhere: projections in bfloat16 with float32 parameters, or all of it."""
    if "linear" in name or "elu, sum" in name or "1/2" in name:
        pytest.skip("sums near 0, where rounding is all there is")
    model = config_of(name).build(seed=1)
    wanted = model(TOKENS, TARGETS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(TOKENS, TARGETS)
    loss.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-2, atol=0)
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    torch.testing.assert_close(model.bfloat16()(TOKENS, TARGETS), wanted, rtol=1e-2, atol=0)
