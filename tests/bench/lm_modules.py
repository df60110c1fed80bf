"""PanGu-pi's two modules on the embedded corpora: loss and step time.

Losses are compared at equal parameters. Step times are of models with the same feed-forward, so that a
module's whole cost is in them, and no size that matrix products like less. The models take turns step by
step, so that a busy moment of the machine hits all of them; a step time is the median over turns of the
ratio to the plain model in the same turn.
`python tests/bench/lm_modules.py FOLDER train SEED` or `... time WIDTH` does one part; what was done is kept.
"""

import dataclasses
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

STEPS, WARM_UP, PEAK, SEQUENCES, KEEP_EVERY = 600, 50, 2e-3, 8, 20
SEEDS, WIDTHS, TURNS = (0, 1, 2), (128, 512, 1024), {128: 80, 512: 40, 1024: 20}
TIMED_SEQUENCES = {128: SEQUENCES, 512: 2, 1024: 2}
VALIDATION = 32
MODULES = {
    "plain": {},
    "+ series activation": {"series": 2},
    "+ shortcuts": {"shortcuts": 1},
    "both": {"series": 2, "shortcuts": 1},
}


def configs(base):
    """The four models; the feed-forward gives up what the modules take."""
    found = {}
    for name, modules in MODULES.items():
        hidden = base.ffn_hidden
        while (
            config := dataclasses.replace(base, ffn_hidden=hidden, **modules)
        ).num_params > base.num_params:
            hidden -= 1
        found[name] = config
    return found


def prepare(out):
    """Token shards of the embedded corpora."""
    steps = (
        ["ingest", "embedded", "--out", "c"],
        ["train-tokenizer", "--corpus", "c", "--vocab-size", "4096", "--out", "bpe"],
        ["tokenize", "--corpus", "c", "--tokenizer", "bpe", "--out", "t"],
    )
    out.mkdir(parents=True, exist_ok=True)
    for words in steps:
        subprocess.run([sys.executable, "-m", "gristmill", "corpus", *words], cwd=out, check=True)
    return str(out / "t")


def optimizer_of(model):
    import torch

    from gristmill.training.lm.engine import parameter_groups

    return torch.optim.AdamW(parameter_groups(model, 0.1), lr=PEAK, betas=(0.9, 0.95))


def rate(step):
    if step < WARM_UP:
        return PEAK * (step + 1) / WARM_UP
    return PEAK * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - WARM_UP) / (STEPS - WARM_UP))))


def one_step(model, optimizer, tokens, lr):
    """Seconds of forward, backward and update; and the loss."""
    import torch

    for group in optimizer.param_groups:
        group["lr"] = lr
    start = time.perf_counter()
    loss = model(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start, float(loss.detach())


def take_turns(models, optimizers, batch, turn, lr):
    """A step of each, another one first each time."""
    names = list(models)
    order = names[turn % len(names) :] + names[: turn % len(names)]
    done = {name: one_step(models[name], optimizers[name], batch, lr) for name in order}
    return {name: done[name] for name in names}


def train(out, seed):
    """One seed of all four; goes on from the last kept state."""
    import torch

    from gristmill.corpora.mixture import Mixture
    from gristmill.corpora.stream import TokenStream
    from gristmill.corpora.tokens import TokenCorpus
    from gristmill.models.lm import checkpoint
    from gristmill.models.lm.presets import preset

    torch.set_num_threads(1)
    corpus = TokenCorpus(str(out / "t"))
    base = preset("demo")
    models = {name: config.build(seed=seed) for name, config in configs(base).items()}
    optimizers = {name: optimizer_of(model) for name, model in models.items()}
    stream = TokenStream(
        corpus,
        Mixture.normalized(corpus.sizes()),
        seq_len=base.context_length,
        batch_size=SEQUENCES,
        seed=seed,
    )
    state, first = out / f"state-{seed}.pt", 0
    if state.exists():
        kept = torch.load(state, weights_only=True)
        first = kept["step"]
        for name in models:
            models[name].load_state_dict(kept["models"][name])
            optimizers[name].load_state_dict(kept["optimizers"][name])
    for step in range(first, STEPS):
        batch = torch.from_numpy(stream.batch(step))
        take_turns(models, optimizers, batch, step, rate(step))
        if (step + 1) % KEEP_EVERY == 0:
            torch.save(
                {
                    "step": step + 1,
                    "models": {name: model.state_dict() for name, model in models.items()},
                    "optimizers": {name: o.state_dict() for name, o in optimizers.items()},
                },
                state.with_suffix(".tmp"),
            )
            state.with_suffix(".tmp").replace(state)
    for name, model in models.items():
        checkpoint.save(model, str(out / f"model-{seed}" / name.replace(" ", "")))
    found = {name: held_out(model.eval(), corpus) for name, model in models.items()}
    (out / f"seed-{seed}.json").write_text(json.dumps({"losses": found}))
    state.unlink()


def held_out(model, corpus):
    """Nats a token by domain, on the first sequences of each validation split."""
    import torch

    from gristmill.corpora.stream import validation_batch

    found = {}
    for domain in corpus.domains:
        tokens = torch.from_numpy(
            validation_batch(corpus, domain, seq_len=model.config.context_length, count=VALIDATION)
        )
        with torch.no_grad():
            found[domain] = float(model(tokens[:, :-1], tokens[:, 1:]))
    return found


def wide(width):
    from gristmill.models.lm.presets import preset

    if width == preset("demo").width:
        return preset("demo")
    return dataclasses.replace(
        preset("demo"),
        width=width,
        num_layers=2,
        num_heads=width // 64,
        ffn_hidden=width * 11 // 4,
    )


def step_times(out, width):
    """Step times only, on made-up tokens."""
    import torch

    from gristmill.execution.allocator import keep_freed_memory

    keep_freed_memory()  # as the ranks of a training do
    torch.set_num_threads(1)
    base = wide(width)
    models = {name: dataclasses.replace(base, **m).build() for name, m in MODULES.items()}
    optimizers = {name: optimizer_of(model) for name, model in models.items()}
    choose = torch.Generator().manual_seed(0)
    times = {name: [] for name in models}
    for turn in range(TURNS[width] + 1):
        batch = torch.randint(0, 4096, (TIMED_SEQUENCES[width], 257), generator=choose)
        for name, (seconds, _) in take_turns(models, optimizers, batch, turn, 1e-4).items():
            if turn:  # the first meets cold caches
                times[name].append(seconds)
    (out / f"width-{width}.json").write_text(json.dumps({"times": times}))


def added(times, name):
    """Percent added to the plain step: the median over turns, and the middle half of them."""
    ratios = [100 * (t / p - 1) for t, p in zip(times[name], times["plain"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:+.1f} ({low:+.1f} to {high:+.1f})"


def run(out, heading):
    prepare(out)
    for words in [("train", s) for s in SEEDS] + [("time", w) for w in WIDTHS]:
        done = out / (f"seed-{words[1]}.json" if words[0] == "train" else f"width-{words[1]}.json")
        if not done.exists():
            subprocess.run([sys.executable, __file__, str(out), *map(str, words)], check=True)
    return page(out, heading)


def page(out, heading):
    from gristmill.models.lm.presets import preset

    base = preset("demo")
    seeds = [json.loads((out / f"seed-{seed}.json").read_text()) for seed in SEEDS]
    demo = configs(base)
    losses = {
        name: [statistics.mean(s["losses"][name].values()) for s in seeds] for name in MODULES
    }
    lines = [heading("PanGu-pi's modules: loss and step time", "make bench").rstrip(), ""]
    lines += [
        f"Demo model ({base.num_layers} layers, width {base.width}) on the embedded corpora: {STEPS} steps of "
        f"{SEQUENCES} x {base.context_length} tokens, AdamW, peak {PEAK:g}, fp32, one thread. The series has n = 2, "
        "the shortcuts T = 1 and r = 32; the feed-forward gives up the parameters that the modules take. "
        f"Loss: nats a token on held-out text, mean over {len(seeds[0]['losses']['plain'])} domains, by seed.",
        "",
        "| model | FFN hidden | parameters | FLOPs a token | loss by seed | mean | gain by seed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    flops = base.flops_per_token()
    for name, config in demo.items():
        gains = [p - x for p, x in zip(losses["plain"], losses[name], strict=True)]
        cells = [
            name,
            str(config.ffn_hidden),
            f"{config.num_params:,}",
            f"{100 * (config.flops_per_token() / flops - 1):+.2f} %",
            ", ".join(f"{x:.4f}" for x in losses[name]),
            f"{statistics.mean(losses[name]):.4f}",
            "" if name == "plain" else ", ".join(f"{g:+.4f}" for g in gains),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        f"The plain model's seeds differ by {max(losses['plain']) - min(losses['plain']):.4f}.",
        "",
        "Percent that the modules add to a step beside the same feed-forward, with all their parameters: median and "
        "middle half of the turns. The demo model, and wider ones of 2 layers.",
        "",
        "| width | sequences | turns | plain step, ms | " + " | ".join(list(MODULES)[1:]) + " |",
        "| --- | --- | --- | --- |" + " --- |" * (len(MODULES) - 1),
    ]
    for width in WIDTHS:
        found = json.loads((out / f"width-{width}.json").read_text())["times"]
        cells = [added(found, name) for name in list(MODULES)[1:]]
        lines.append(
            f"| {width} | {TIMED_SEQUENCES[width]} | {TURNS[width]} | {1000 * statistics.median(found['plain']):.0f} | {' | '.join(cells)} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2] / "platform"))
    folder, what, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    {"train": train, "time": step_times}[what](folder, number)
