import math

import numpy as np
import pytest
import torch
from made_proxies import DOMAINS, training, write_corpus

from gristmill.core.errors import BadInputError
from gristmill.corpora.mixture import Mixture
from gristmill.corpora.stream import TokenStream, validation_batch
from gristmill.mixing.proxy import DivergedError, ProxyBench, Trial
from gristmill.mixing.proxy_settings import ProxySettings, Training

WEIGHTS = {"code": 0.5, "prose": 0.3, "tables": 0.2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("tokens"))


def bench(tmp_path, corpus, **fields):
    found = ProxyBench(corpora=(corpus,), settings=training(tmp_path, **fields).settings(64))
    found.setup()
    return found


def trained(found, weights=WEIGHTS, seed=0, pieces=1):
    proxy = found.begin(Trial(index="1", weights=weights, seed=seed))
    for _ in range(pieces):
        proxy.advance(-(-found.settings.steps // pieces))
    return proxy


def test_the_same_as_a_plain_loop_in_torch(tmp_path, corpus):
    """The reference has no pieces, no micro-batches and no chunked loss."""
    found = bench(tmp_path, corpus)
    settings = found.settings
    losses = trained(found, pieces=3).losses()
    model = settings.model.build(seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.1)
    stream = TokenStream(found.corpus, Mixture(weights=WEIGHTS), seq_len=16, batch_size=4, seed=0)
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * min((step + 1) / settings.warmup_steps, 1)
        batch = torch.from_numpy(stream.batch(step))
        logits = model(batch[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for domain in DOMAINS:
        rows = torch.from_numpy(validation_batch(found.corpus, domain, seq_len=16))
        with torch.no_grad():
            logits = model(rows[:, :-1])
        want = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        assert losses[domain] == pytest.approx(float(want), abs=1e-4)


def test_a_domain_that_is_trained_on_is_learned(tmp_path, corpus):
    found = bench(tmp_path, corpus, steps=60)
    losses = {
        only: trained(found, {name: float(name == only) for name in DOMAINS}).losses()
        for only in DOMAINS
    }
    for name in DOMAINS:
        others = [losses[other][name] for other in DOMAINS if other != name]
        assert losses[name][name] < min(others) - 0.5


def test_the_same_seed_gives_the_same_and_micro_batches_change_nothing(tmp_path, corpus):
    found = bench(tmp_path, corpus)
    first = trained(found).losses()
    assert trained(found, pieces=5).losses() == first
    assert trained(found, seed=1).losses() != first
    object.__setattr__(found.settings, "micro_batch_size", 3)
    assert trained(found).losses() == pytest.approx(first, abs=1e-4)


def test_a_rate_far_too_high_is_named(tmp_path, corpus):
    found = bench(tmp_path, corpus, lr=1e30)
    with pytest.raises(DivergedError, match=r"(training loss|loss on domain \w+) is (nan|inf)"):
        trained(found).losses()


def test_regmix_settings_by_default():
    found = Training(preset="regmix-1m").settings(50_432)
    assert (found.steps, found.batch_size, found.seq_len) == (1000, 512, 2048)
    assert (found.lr, found.warmup_steps, found.weight_decay, found.clip) == (4e-4, 100, 0.1, 1.0)
    assert (found.beta1, found.beta2) == (0.9, 0.95)
    assert found.tokens == 1_048_576_000
    assert found.model.num_params == 27_133_184
    assert found.rate(0) == pytest.approx(4e-6)
    assert found.rate(99) == found.rate(999) == 4e-4


def test_the_vocabulary_is_the_corpus_and_flags_win():
    usual = Training(preset="demo").settings(2000)
    assert usual.rate(usual.warmup_steps) == usual.lr > 0
    assert 0 < usual.rate(usual.steps - 1) < usual.lr / 100 < usual.rate(usual.steps // 2)
    found = Training(preset="demo", steps=30, seq_len=512, batch_size=2).settings(2000)
    assert found.decay_steps == int(30 * usual.decay_steps / usual.steps) > 0
    assert found.model.vocab_size == 2048
    assert (found.steps, found.seq_len, found.batch_size) == (30, 512, 2)
    assert found.model.context_length == 512
    assert found.warmup_steps == 3 and found.micro_batch_size == 2
    found = Training(preset="regmix-1m", micro_batch_size=4, validation_sequences=9).settings(64)
    assert (found.micro_batch_size, found.validation_sequences) == (4, 9)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preset": "dmeo"}, "perhaps you meant demo"),
        ({"steps": -1}, "steps must be 0 or more, not -1"),
        ({"lr": -0.1}, "lr must be 0 or more"),
        ({"cpus_per_proxy": 0}, "cpus_per_proxy must be above 0"),
        ({"gpus_per_proxy": 1.5}, "a proxy trains on one GPU"),
        ({"lr": float("nan")}, "lr must be 0 or more, not nan"),
        ({"validation_sequences": -1}, "validation_sequences must be 0 or more"),
    ],
)
def test_settings_that_cannot_be(fields, message):
    with pytest.raises(BadInputError, match=message):
        Training(**fields)


def test_a_model_file_that_is_none(tmp_path):
    path = tmp_path / "m.json"
    path.write_text('{"girth": 3}')
    with pytest.raises(BadInputError, match="is no model"):
        Training(preset=str(path)).settings(64)
    with pytest.raises(BadInputError, match="steps must be at least 1"):
        ProxySettings(model=Training().settings(64).model, steps=0)


def test_losses_are_means_over_the_sequences_asked_for(tmp_path, corpus):
    found = bench(tmp_path, corpus)
    assert {rows.shape for rows in found.validation.values()} == {(24, 17)}
    assert all(rows.dtype == np.int32 for rows in found.validation.values())
    assert all(math.isfinite(loss) for loss in trained(found).losses().values())


@pytest.mark.gpu
def test_a_regmix_proxy_in_bf16_on_a_gpu_loses_what_it_does_on_a_cpu(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device here")
    corpus = write_corpus(tmp_path, sizes=(20_000, 20_000, 20_000), validation=3000)
    asked = {"steps": 24, "batch_size": 16, "seq_len": 128, "micro_batch_size": 8, "lr": 4e-3}
    settings = Training(preset="regmix-1m", **asked).settings(64)
    losses = {}
    for on_gpu in (False, True):
        found = ProxyBench(corpora=(corpus,), settings=settings, on_gpu=on_gpu)
        found.setup()
        proxy = found.begin(Trial(index="1", weights=WEIGHTS, seed=0))
        proxy.advance(settings.steps)
        losses[on_gpu] = proxy.losses()
    assert max(losses[False].values()) < 0.8 * math.log(64)  # both have learned
    assert losses[True] == pytest.approx(losses[False], rel=3e-2)
