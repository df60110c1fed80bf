"""Language models on a fleet: one training, or a search of many proxies."""

import math

from gristmill.clusters.estimate import FITS, Estimate, Site
from gristmill.clusters.machines import gpu
from gristmill.clusters.rates import Rate, rate
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.presets import preset

PROXIES, PROXY_STEPS, PROXY_SEQUENCES = 512, 1000, 512
"""RegMix (arXiv:2407.01492, section 3): proxies, and steps of so many sequences of each."""
SEQ_LEN = 2048
BATCH_TOKENS = {"lm-1b": 1 << 20, "lm-7b": 1 << 22}
MICRO_BATCHES = (8, 4, 2, 1)
CHECKPOINT_BYTES = 12
"""A parameter: float32 weight and AdamW's two moments (models in bf16 are copies)."""
CHECKPOINTS = 3
TOKEN_BYTES = 2
TRAININGS = {
    # name: preset, tokens, where the number of tokens comes from
    "lm-1b": ("regmix-1b", 25_000_000_000, "RegMix's 1B runs"),
    "lm-7b": ("pangu-pi-7b", 1_600_000_000_000, "PanGu-pi's 7B run"),
}


def train_lm(job: str, tokens: int, site: Site) -> Estimate:
    """A training by its FLOPs and a published share of peak."""
    name, usual, said = TRAININGS[job]
    config = preset(name)
    count = tokens or usual
    used = _mfu(site.machine.gpu)
    flops = config.flops_per_token(SEQ_LEN, attention="causal") * count
    peak = gpu(site.machine.gpu).bf16_tflops * 1e12 * site.gpus
    seconds = [flops / (peak * share) for share in (used.high, used.low)]
    memory, fit = _fit(config, site)
    warnings = [] if fit else ["does not fit even at ZeRO 3 with one sequence: take more GPUs"]
    steps = count // BATCH_TOKENS[job]
    exchange = _exchange(config, site)
    if exchange * steps > 0.2 * seconds[0]:
        warnings.append(
            f"gradients take {exchange:.2g} s a step of {seconds[0] / steps:.2g} s, unless hidden"
        )
    return Estimate(
        title=f"train {name} on {count:,} tokens ({'as asked' if tokens else said})",
        work=(
            ("steps", f"{steps:,} of {BATCH_TOKENS[job]:,} tokens"),
            ("FLOPs", f"{flops:.3g}, attention counted where it sees"),
        ),
        seconds=(seconds[0], seconds[1]),
        uses_gpus=True,
        memory=memory,
        disk=(
            (
                f"{CHECKPOINTS} checkpoints",
                CHECKPOINTS * CHECKPOINT_BYTES * float(config.num_params),
            ),
            ("token shards", float(TOKEN_BYTES * count * (2 if config.vocab_size > 65_536 else 1))),
        ),
        network=(("reading tokens, at most", TOKEN_BYTES * count / seconds[0]),),
        rates=(used,),
        warnings=tuple(warnings),
    )


def search(site: Site) -> Estimate:
    """512 proxies of RegMix's smallest size, one a GPU."""
    config = preset("regmix-1m")
    tokens = PROXY_STEPS * PROXY_SEQUENCES * SEQ_LEN
    used = rate("mfu.proxy")
    flops = config.flops_per_token(SEQ_LEN, attention="causal") * tokens
    rounds = math.ceil(PROXIES / site.gpus)
    peak = gpu(site.machine.gpu).bf16_tflops * 1e12
    seconds = [rounds * flops / (peak * share) for share in (used.high, used.low)]
    memory, _ = _fit(config, site, alone=True)
    return Estimate(
        title=f"search with {PROXIES} proxies of regmix-1m, {tokens:,} tokens each",
        work=(
            ("rounds", f"{rounds:,} of {site.gpus} proxies at once"),
            ("FLOPs", f"{PROXIES * flops:.3g}"),
        ),
        seconds=(seconds[0], seconds[1]),
        uses_gpus=True,
        memory=memory,
        disk=(("results of all proxies, weights not kept", PROXIES * 1e6),),
        rates=(used,),
        warnings=("the rate is a guess; run one proxy first and put its rate in rates.yaml",),
    )


def _mfu(kind: str) -> Rate:
    return rate(f"mfu.{kind.partition('-')[0]}")


def _fit(
    config: ModelConfig, site: Site, *, alone: bool = False
) -> tuple[tuple[tuple[str, float], ...], bool]:
    """The lowest ZeRO stage, with the largest micro-batch, that fits; else the smallest need."""
    from gristmill.models.lm.memory import estimate  # it loads torch

    workers = 1 if alone else site.gpus
    room = FITS * site.gpu_memory
    needs = [
        (
            stage,
            size,
            estimate(
                config, micro_batch_size=size, seq_len=SEQ_LEN, workers=workers, zero_stage=stage
            ),
        )
        for stage in range(4)
        for size in MICRO_BATCHES
    ]
    stage, size, need = next(
        ((s, m, n) for s, m, n in needs if n.total <= room), min(needs, key=lambda n: n[2].total)
    )
    what = f"ZeRO {stage}, {size} sequences of {SEQ_LEN}"
    states = float(need.states)
    parts = ((f"{what}: states", states), (f"{what}: activations and loss", need.total - states))
    return parts, need.total <= room


def _exchange(config: ModelConfig, site: Site) -> float:
    """Seconds of a ring all-reduce of bf16 gradients over the machines' network, nothing hidden."""
    if site.nodes < 2 or not site.machine.gbit:
        return 0.0
    bytes_sent = 2 * 2 * config.num_params * (site.nodes - 1) / site.nodes
    return bytes_sent / (site.machine.gbit * 1e9 / 8)
