"""Each probe against its definition, written out in plain numpy over a dump of everything."""

import dataclasses

import numpy as np
import pytest
import torch

from gristmill.core import plugins
from gristmill.diagnostics._observe import observe
from gristmill.diagnostics.base import Probe
from gristmill.models.lm.config import ModelConfig

PLAIN = ModelConfig(
    vocab_size=50, width=32, num_layers=3, num_heads=4, ffn_hidden=48, context_length=64
)


def changed(**fields):
    return dataclasses.replace(PLAIN, **fields)


CONFIGS = {
    "plain": PLAIN,
    "grouped": changed(num_kv_heads=2, series=2, shortcuts=1, shortcut_reduction=4),
    "sink token": changed(attention_bias="sink_token"),
    "key": changed(attention_bias="k"),
    "key and value": changed(attention_bias="kv", attention_bias_by="layer"),
    "value": changed(attention_bias="v"),
    "scaled": changed(attention_row_sum=0.05),
    "sigmoid": changed(attention="sigmoid", normalizer="unit"),
    "linear": changed(attention="linear", normalizer="clamped_sum"),
    "p-norm": changed(normalizer="p_norm", normalizer_p=2.0),
    "window": changed(window=16, norm_placement="post"),
}


def model_of(config):
    model = config.build(seed=3).eval()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter *= 8 if ".q." in name or ".k." in name else 3  # peaked attention: sinks
            parameter += 0.3 * torch.randn(parameter.shape, generator=noise)
        # Texts begin with token 0, which alone differs much: some heads lean on it.
        model.embedding.weight[1:] += 2 * torch.randn(PLAIN.width, generator=noise)
        model.embedding.weight[0] += 2 * torch.randn(PLAIN.width, generator=noise)
    return model


def tokens_of(count, length, seed=0):
    choose = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, PLAIN.vocab_size, (count, length + 1), generator=choose)
    tokens[:, 0] = 0
    return tokens


def dump(model, tokens):
    """Everything the model shows, as float64: {(what, layer): array}."""
    found = {}

    def keep(layer, what, shown):
        found[what, layer] = shown.double().numpy()

    with torch.no_grad():
        logits = model(tokens[:, :-1], watch=keep)
    return found, logits.double()


def probed(name, model, tokens, batch=5):
    probe = plugins.find("gristmill.diagnostics", name, Probe)(model.config)
    for first in range(0, len(tokens), batch):
        observe(model, [probe], tokens[first : first + batch])
    return probe.result()


@pytest.mark.parametrize("name", CONFIGS)
def test_attention_sink(name):
    model, tokens = model_of(CONFIGS[name]), tokens_of(12, 64)
    found, _ = dump(model, tokens)
    config = model.config
    sequences, star, sink = [], [], {k: [] for k in (1, 2, 3, 4)}
    extra = int(config.attention_bias in ("sink_token", "k", "kv"))
    for b in range(len(tokens)):
        heads = [found["attention", i][b, h] for i in range(3) for h in range(4)]
        alphas = [plain_alphas(w, config, extra) for w in heads]
        sequences.append(np.mean([a[1] for a in alphas]))
        for k in sink:
            sink[k].append(np.mean([a[k] > 0.3 for a in alphas]))
        star.append(np.mean([a["star"] > 0.3 for a in alphas]))
    got = probed("attention_sink", model, tokens)
    for k, values in sink.items():
        assert got[f"sink_{k}"] == pytest.approx(100 * np.mean(values), abs=1e-9)
        error = 100 * np.std(values, ddof=1) / np.sqrt(len(values))
        assert got[f"sink_{k}_standard_error"] == pytest.approx(error, abs=1e-9)
    assert np.mean(got["alpha_1"]) == pytest.approx(np.mean(sequences), abs=1e-5)
    assert ("sink_star" in got) == bool(extra)
    if extra:
        assert got["sink_star"] == pytest.approx(100 * np.mean(star), abs=1e-9)
    if name == "plain":
        assert 0 < got["sink_1"] < 100  # so that the threshold was crossed by some


def plain_alphas(weights, config, extra):
    """alpha of one head by token, query by query."""
    softmax = config.attention == "softmax" and config.normalizer == "sum"
    if config.attention_bias == "sink_token":
        weights = weights[1:]
    if not softmax or config.attention_row_sum != 1:
        weights = np.stack([np.abs(row) / (np.abs(row).sum() + 1e-8) for row in weights])
    length = len(weights)
    alphas = {
        k: sum(weights[t - 1, extra + k - 1] for t in range(k, length + 1)) / (length - k + 1)
        for k in (1, 2, 3, 4)
    }
    return {**alphas, "star": weights[:, 0].mean() if extra else 0.0}


def test_a_head_that_looks_only_at_the_first_token_is_a_sink():
    probe = plugins.find("gristmill.diagnostics", "attention_sink", Probe)(PLAIN)
    first, itself = torch.zeros(64, 64), torch.eye(64)
    first[:, 0] = 1
    probe.see(
        0, "attention", torch.stack([first, itself, first, itself])[None].expand(3, -1, -1, -1)
    )
    probe.see(1, "attention", itself.expand(3, 4, 64, 64))
    probe.end_batch(torch.zeros(3, 64))
    got = probe.result()
    assert got["sink_1"] == 25 and got["sink_2"] == 0 and got["sequences"] == 3
    assert got["alpha_1"][0] == [1, pytest.approx(1 / 64), 1, pytest.approx(1 / 64)]


@pytest.mark.parametrize("name", ["plain", "grouped", "sink token", "key and value", "key"])
def test_massive_activation(name):
    model, tokens = model_of(CONFIGS[name]), tokens_of(7, 64)
    found, _ = dump(model, tokens)
    got = probed("massive_activation", model, tokens)
    bias = model.config.attention_bias
    for what, layers in (("hidden", 4), ("keys", 3), ("values", 3)):
        before = bias == "sink_token" or (what != "hidden" and bias in ("k", "kv"))
        for layer in range(layers):
            shown = found[what, layer]
            shown = shown[:, None] if what == "hidden" else shown  # one "head"
            ratios, star = [], []
            for sequence in shown:
                norms = [[np.sqrt((v**2).sum()) for v in head] for head in sequence]
                text = [row[before:] for row in norms]
                ratios.append(np.mean([row[0] / np.mean(row[1:]) for row in text]))
                star.append(
                    np.mean([n[0] / np.mean(t[1:]) for n, t in zip(norms, text, strict=True)])
                )
            assert got[what][layer] == pytest.approx(np.mean(ratios), rel=1e-5)
            assert (f"{what}_star" in got) == bool(before)
            if before:
                assert got[f"{what}_star"][layer] == pytest.approx(np.mean(star), rel=1e-5)
    assert got["largest_hidden"] == max(got["hidden"])


@pytest.mark.parametrize("name", ["plain", "sink token", "window"])
def test_effective_dimension(name):
    model, tokens = model_of(CONFIGS[name]), tokens_of(20, 24)
    found, _ = dump(model, tokens)
    got = probed("effective_dimension", model, tokens)
    skip = 1 + (model.config.attention_bias == "sink_token")
    for layer in range(1, 4):
        features = found["hidden", layer][:, skip:].reshape(-1, 32)
        singular = np.linalg.svd(features - features.mean(0), compute_uv=False)
        explained = np.cumsum(singular**2) / np.sum(singular**2)
        assert got["d_0.8"][layer - 1] == next(i for i, x in enumerate(explained, 1) if x >= 0.8)
    assert got["tokens"] == 20 * 23


def test_effective_dimension_of_known_spectra():
    probe = plugins.find("gristmill.diagnostics", "effective_dimension", Probe)(PLAIN)
    even = torch.eye(10)[None].repeat(3, 1, 1)  # ten directions (nine when centred) alike
    even[:, 0] = 1000.0  # a first token that must not count
    flat = torch.zeros(3, 10, 10)
    flat[:, :, 0] = torch.arange(10)
    probe.see(1, "hidden", even)
    probe.see(2, "hidden", flat)
    probe.end_batch(torch.zeros(3, 10))
    assert probe.result()["d_0.8"] == [7, 1]


@pytest.mark.parametrize("name", ["plain", "sink token"])
def test_feature_diversity(name):
    model, tokens = model_of(CONFIGS[name]), tokens_of(6, 16)
    found, _ = dump(model, tokens)
    got = probed("feature_diversity", model, tokens)
    e = np.full((16, 1), 1 / 4)
    for layer in range(4):
        features = found["hidden", layer][:, model.config.attention_bias == "sink_token" :]
        apart = [np.linalg.norm((np.eye(16) - e @ e.T) @ h) for h in features]
        share = [a / np.linalg.norm(h) for a, h in zip(apart, features, strict=True)]
        assert got["diversity"][layer] == pytest.approx(np.mean(apart), rel=1e-5)
        assert got["share"][layer] == pytest.approx(np.mean(share), rel=1e-5)


@pytest.mark.parametrize("prefix", [0, 5])
def test_loss(prefix):
    model, tokens = model_of(changed(prefix=prefix)), tokens_of(9, 20)
    _, logits = dump(model, tokens)
    losses = -logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0].numpy()
    losses = losses[:, max(prefix - 1, 0) :]
    got = probed("loss", model, tokens, batch=4)
    means = losses.mean(1)
    assert got["nats_per_token"] == pytest.approx(means.mean(), rel=1e-5)
    assert got["standard_error"] == pytest.approx(means.std(ddof=1) / 3, rel=1e-4)
    ends = [1, 2, 4, 8, 16, 20] if prefix == 0 else [1, 2, 4, 8, 16]
    assert got["up_to_place"] == ends
    for value, first, last in zip(got["nats_by_place"], [0, *ends], ends, strict=False):
        assert value == pytest.approx(losses[:, first:last].mean(), rel=1e-5)
