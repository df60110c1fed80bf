"""DataComp on a fleet: filtering a pool, resharding it, training its model."""

from gristmill.clusters.estimate import FITS, Estimate, Site
from gristmill.clusters.machines import gpu
from gristmill.clusters.rates import Rate, rate
from gristmill.pools.pool import LEAST_ROWS_PER_SLICE
from gristmill.training.cost import PROFILES, checkpoint_bytes, train_flops
from gristmill.training.scales import SCALES, Scale

REFERENCE = "A100-40GB"
CHECKPOINTS = 5
"""Of a training at DataComp's scales."""
STORE = "the store's own limits of requests and bytes are not known here; ask your provider"
KEPT = 0.3
"""Share of a pool that DataComp's best single filter keeps."""
STATE_BYTES = 16
"""A parameter under AMP: float32 weight, gradient and AdamW's two moments."""
TOWERS = {
    "ViT-B-32": (12, 50, 768, 12, 512),
    "ViT-B-16": (12, 197, 768, 12, 512),
    "ViT-L-14": (24, 257, 1024, 12, 768),
}
"""Layers, tokens and width of the image tower, layers and width of the text tower (77 tokens), by
open_clip's model configs."""
BLOCK_VALUES = 34
"""16-bit values that backward keeps in one transformer block, a token and unit of width, without
the attention map (Korthikanti et al. 2022, arXiv:2205.05198, equation 1: 34 s b h bytes)."""


def filter_pool(scale: Scale, recipe: str, site: Site) -> Estimate:
    """Choosing uids from the metadata of a pool."""
    rows = scale.train_num_samples
    speed, a_row, start = rate(f"filter.{recipe}"), rate("pool.metadata"), rate("job.start")
    cpus = min(site.cpus, max(rows // LEAST_ROWS_PER_SLICE, 1))
    floor = rows * a_row.low / site.bytes_per_second if site.bytes_per_second else 0.0
    seconds = [
        s + max(rows / (r * cpus), floor)
        for s, r in ((start.low, speed.high), (start.high, speed.low))
    ]
    return Estimate(
        title=f"filter {scale.name} by {recipe}",
        work=(("rows", f"{rows:,}, so at most {cpus:,} CPUs at work"),),
        seconds=(seconds[0], seconds[1]),
        uses_gpus=False,
        disk=(("metadata read", rows * a_row.low), ("subset written, 30 % kept", rows * KEPT * 16)),
        network=(("reading, at most", rows * a_row.low / max(seconds[0], 1e-9)),),
        rates=(speed, a_row, start),
        warnings=("linear in CPUs: a model; measured up to 4 workers on 2 cores", STORE),
    )


def reshard_pool(scale: Scale, site: Site) -> Estimate:
    """Writing the kept pairs as dense shards: all images are read, a share is written."""
    speed, a_pair = rate("reshard"), rate("pool.images")
    read = scale.train_num_samples * a_pair.low
    written = read * KEPT
    floor = (read + written) / site.bytes_per_second if site.bytes_per_second else 0.0
    seconds = [max(written / (r * site.cpus), floor) for r in (speed.high, speed.low)]
    return Estimate(
        title=f"reshard {scale.name}, {KEPT:.0%} kept",
        work=(("written", f"{scale.train_num_samples * KEPT:,.0f} pairs"),),
        seconds=(seconds[0], seconds[1]),
        uses_gpus=False,
        disk=(("images read", read), ("shards written", written)),
        network=(("reading and writing, at most", (read + written) / max(seconds[0], 1e-9)),),
        rates=(speed, a_pair),
        warnings=(STORE,),
    )


def train_clip(scale: Scale, site: Site) -> Estimate:
    """The standardised training."""
    speed = training_rate(scale.model, site.machine.gpu)
    samples, batch = scale.train_num_samples, scale.batch_size
    steps = samples // batch
    exchange = _exchange_seconds(PROFILES[scale.model].params * 4, site)
    seconds = [samples / (r * site.gpus) for r in (speed.high, speed.low)]
    seconds[1] += steps * exchange
    local = batch / site.gpus
    memory = _memory(scale.model, batch, local)
    flops = train_flops(scale.model, samples)
    images = rate("pool.images")
    a_cpu = samples / seconds[0] / site.cpus
    warnings = [f"loaders must decode up to {a_cpu:,.0f} pictures/s a CPU; not measured here"]
    if batch % site.gpus:
        warnings.append(f"batch {batch:,} does not divide over {site.gpus} GPUs; change --nodes")
    if sum(size for _, size in memory) > FITS * site.gpu_memory:
        warnings.append("does not fit: take more GPUs, or accumulate with --accum-freq")
    if steps * exchange > 0.2 * seconds[0]:
        warnings.append(
            f"gradients take {exchange:.2g} s a step of {seconds[0] / steps:.2g} s, unless hidden"
        )
    return Estimate(
        title=f"train {scale.model} at {scale.name}",
        work=(
            ("samples", f"{samples:,} seen, {steps:,} steps of {batch:,}, {local:,.0f} a GPU"),
            ("FLOPs", f"{flops:.3g}"),
        ),
        seconds=(seconds[0], seconds[1]),
        uses_gpus=True,
        memory=memory,
        disk=((f"{CHECKPOINTS} checkpoints", CHECKPOINTS * checkpoint_bytes(scale.model)),),
        network=(("reading shards, at most", samples / seconds[0] * images.low),),
        rates=(speed, images),
        warnings=tuple(warnings),
    )


def training_rate(model: str, kind: str) -> Rate:
    """Samples/s a GPU. A kind without a figure gets a range: the A100's, up to the peaks' ratio."""
    known = rate(f"clip.{model}.{REFERENCE}")
    if kind == REFERENCE:
        return known
    ratio = gpu(kind).bf16_tflops / gpu(REFERENCE).bf16_tflops
    return Rate(
        name=f"clip.{model}.{kind}",
        low=known.low,
        high=known.high * ratio,
        unit=known.unit,
        kind="modelled",
        origin=f"from no slower than {REFERENCE} to {ratio:.2f} times it, the ratio of bf16 peaks; "
        + known.origin,
    )


def _exchange_seconds(gradient_bytes: float, site: Site) -> float:
    """A ring all-reduce over the machines' network, twice the gradients, nothing hidden."""
    if site.nodes < 2 or not site.machine.gbit:
        return 0.0
    return 2 * gradient_bytes * (site.nodes - 1) / site.nodes / (site.machine.gbit * 1e9 / 8)


def _memory(model: str, batch: int, local: float) -> tuple[tuple[str, float], ...]:
    """States exactly; activations with checkpointing as each block's input and one whole block."""
    layers, tokens, width, text_layers, text_width = TOWERS[model]
    inputs = 2 * (layers * tokens * width + text_layers * 77 * text_width)
    block = BLOCK_VALUES * max(tokens * width, 77 * text_width)
    return (
        ("weights, gradients, optimiser", PROFILES[model].params * STATE_BYTES),
        ("activations with checkpointing, modelled", local * (inputs + block)),
        ("similarities of the batch, float32, four copies", 16.0 * local * batch),
    )


SCALE_NAMES = tuple(name for name in SCALES if name not in ("demo", "debug"))
