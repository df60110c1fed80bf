"""RegMix's 1M proxy at its full batch on a CUDA device: tokens/s, and how near its bf16 peak.

Steps are timed by themselves, as `mix proxies` takes them: the batch is read from a token corpus (made up, with
RegMix's vocabulary) and goes through in micro-batches. `python tests/bench/gpu_proxies.py FOLDER` prints the table.
"""

import dataclasses
import sys
import time
from pathlib import Path

PRESET = "regmix-1m"
MICRO_BATCHES = (16, 64, 128)
WARM_UP, STEPS = 2, 8
DOMAINS = {"web": 4_000_000, "books": 2_000_000, "code": 2_000_000}


def run(out, heading):
    """The section; nothing, with a message, where there is no CUDA device."""
    import torch

    if not torch.cuda.is_available():
        print(
            "gpu-proxies is skipped: torch sees no CUDA device here; run it on a machine with one"
        )
        return ""
    from gristmill.training.lm.clock import bf16_peak

    device = torch.cuda.get_device_name()
    peak = bf16_peak(device)
    corpus = _corpus(out)
    lines = [
        heading("RegMix's 1M proxy on a GPU", "make bench").replace("no GPU", device).rstrip(),
        "",
        f"{PRESET} in bf16 at its full batch of 512 sequences of 2,048 tokens, by micro-batch: {STEPS} steps after "
        f"{WARM_UP}. The share is of the device's dense bf16 peak"
        + (f", {peak / 1e12:,.0f} TFLOP/s" if peak else ", which devices.json does not have")
        + ", by PaLM's count of FLOPs a token; reading is the time until the batch is an array, in which the device waits.",
        "",
        "| micro-batch | tokens/s | share of the roofline | seconds a step | of them reading | GB at most |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for micro in MICRO_BATCHES:
        found = measured(corpus, micro)
        share = f"{100 * found['flops'] / peak:.1f} %" if peak else "unknown"
        lines.append(
            f"| {micro} | {found['rate']:,.0f} | {share} | {found['step']:.2f} | {found['reading']:.2f} "
            f"| {found['memory'] / 1e9:.1f} |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def measured(corpus, micro, *, on_gpu=True, steps=STEPS, **changes):
    """Rates of some steps of one proxy; `changes` are of Training, for a smaller one."""
    import torch

    from gristmill.corpora.tokens import TokenCorpus
    from gristmill.mixing.proxy import ProxyBench, Trial
    from gristmill.mixing.proxy_settings import Training

    vocabulary = TokenCorpus(corpus).vocabulary.size
    training = Training(preset=PRESET, micro_batch_size=micro, **changes)
    settings = dataclasses.replace(training.settings(vocabulary), validation_sequences=1)
    bench = ProxyBench(corpora=(corpus,), settings=settings, on_gpu=on_gpu)
    bench.setup()
    weights = {domain: 1 / len(DOMAINS) for domain in DOMAINS}
    proxy = bench.begin(Trial(index="1", weights=weights, seed=0))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    proxy.advance(WARM_UP)  # ends with a look at the loss, so the device is done
    started = time.perf_counter()
    proxy.advance(steps)
    seconds = (time.perf_counter() - started) / steps
    started = time.perf_counter()
    for step in range(steps):
        proxy._stream.batch(WARM_UP + step)
    rate = settings.batch_size * settings.seq_len / seconds
    return {
        "rate": rate,
        "flops": rate * settings.model.flops_per_token(settings.seq_len),
        "step": seconds,
        "reading": (time.perf_counter() - started) / steps,
        "memory": torch.cuda.max_memory_allocated() if on_gpu else 0,
    }


def _corpus(out):
    from made_corpora import vocabulary, write_tokens

    if not (out / "t" / "corpus.json").exists():
        (out / "t").mkdir(parents=True, exist_ok=True)
        write_tokens(out / "t", DOMAINS, validation=5000, vocab=vocabulary(size=50_432))
    return str(out / "t")


if __name__ == "__main__":
    root = Path(__file__).parents[2]
    sys.path[:0] = [str(root / "platform"), str(root / "tests")]
    print(run(Path(sys.argv[1]), lambda title, command: f"# {title}\n\n`{command}`, no GPU\n"))
