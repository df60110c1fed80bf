"""The decoder once more, query by query in float64, written from the papers' equations.

Slow and plain on purpose: no masks, no batches of heads, no fused kernels. Gradients come from
autograd over these loops.
"""

import math

import torch

EPS = 1e-8


def logits(config, weights, tokens):
    """Logits [T, V] of one text; `weights` is a state dict in float64."""
    x = [weights["embedding.weight"][t] for t in tokens]
    for t in range(len(x)):
        if config.positions == "learned":
            x[t] = x[t] + weights["positions.table.weight"][t]
        if config.positions == "sinusoidal":
            x[t] = x[t] + sinusoid(t, config.width)
    places = list(range(len(x)))
    if config.attention_bias == "sink_token":
        x, places = [weights["sink_token_M"], *x], [None, *places]
    for layer in range(config.num_layers):
        mine = {
            name.removeprefix(f"blocks.{layer}."): value
            for name, value in weights.items()
            if name.startswith(f"blocks.{layer}.")
        }
        x = block(config, mine, weights, x, places)
    if config.attention_bias == "sink_token":
        x = x[1:]
    head = weights["embedding.weight"] if config.tied else weights["head.weight"]
    return torch.stack([head @ rms(h, weights["norm.weight"], config.norm_eps) for h in x])


def sinusoid(t, width):
    values = []
    for channel in range(width):
        angle = t / 10_000 ** (2 * (channel // 2) / width)
        values.append(math.sin(angle) if channel % 2 == 0 else math.cos(angle))
    return torch.tensor(values, dtype=torch.float64)


def rms(x, gain, eps):
    return x / (x.pow(2).mean() + eps).sqrt() * gain


def block(config, w, weights, x, places):
    def norm(name, h):
        return rms(h, w[f"{name}.weight"], config.norm_eps)

    if config.norm_placement == "pre":
        z = [norm("attention_norm", h) for h in x]
        mixed = attention(config, w, weights, z, places)
        x = [h + m + shortcut(config, w, n) for h, m, n in zip(x, mixed, z, strict=True)]
        return [h + feed_forward(config, w, norm("feed_forward_norm", h)) for h in x]
    mixed = attention(config, w, weights, x, places)
    x = [
        norm("attention_norm", h + m + shortcut(config, w, h))
        for h, m in zip(x, mixed, strict=True)
    ]
    return [norm("feed_forward_norm", h + feed_forward(config, w, h)) for h in x]


def shortcut(config, w, z):
    """Path by path: path i owns the i-th slice of the two matrices."""
    total = torch.zeros_like(z)
    inner = config.width // config.shortcut_reduction
    for i in range(config.shortcuts):
        piece = slice(i * inner, (i + 1) * inner)
        down, up = w["shortcuts.down.weight"][piece], w["shortcuts.up.weight"][:, piece]
        total = total + up @ gelu(down @ z)
    return total


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def silu(x):
    return x / (1 + torch.exp(-x))


def relu(x):
    return x * (x > 0)


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def elu(x):
    return torch.where(x > 0, x, torch.exp(x) - 1)


ACTIVATIONS = {
    "swiglu": silu,
    "geglu": gelu,
    "reglu": relu,
    "glu": sigmoid,
    "swish": silu,
    "gelu": gelu,
    "relu": relu,
}


def feed_forward(config, w, x):
    sigma = ACTIVATIONS[config.feed_forward]
    gated = config.feed_forward.endswith("glu")
    inner = w["feed_forward.gate.weight" if gated else "feed_forward.up.weight"] @ x
    if config.series == 1:
        active = sigma(inner)
    else:
        a, b = w["feed_forward.series.scale_NF"], w["feed_forward.series.offset_NF"]
        active = sum(sigma(a[i] * inner + b[i]) for i in range(config.series))
    if gated:
        active = active * (w["feed_forward.up.weight"] @ x)
    return w["feed_forward.down.weight"] @ active


def turned(config, vector, place):
    """RoPE as a product of complex numbers, channel i with channel i + d/2."""
    if config.positions != "rope" or place is None:
        return vector
    half = len(vector) // 2
    out = [None] * len(vector)
    for i in range(half):
        angle = place * config.rope_theta ** (-2 * i / len(vector))
        re, im = vector[i], vector[i + half]
        out[i] = re * math.cos(angle) - im * math.sin(angle)
        out[i + half] = re * math.sin(angle) + im * math.cos(angle)
    return torch.stack(out)


def seen(config, query, key):
    """Whether the query at a place sees the key at another; None stands before all texts."""
    if key is None:
        return True
    if query is None:
        return False
    if key < config.prefix:
        return True
    return key <= query and (not config.window or query - key < config.window)


def position_score(config, weights, head, query, key):
    if query is None or key is None:
        return 0.0
    distance = max(query - key, 0)
    if config.positions == "alibi":
        return -distance * 2 ** (-8 * (head + 1) / config.num_heads)
    if config.positions == "t5_relative":
        bucket = distance
        if distance >= 16:
            bucket = 16 + int(math.log(distance / 16) / math.log(128 / 16) * 16)
        return weights["positions.table.weight"][min(bucket, 31), head]
    return 0.0


def attention(config, w, weights, z, places):
    size = config.head_size
    group = config.num_heads // config.kv_heads
    heads = []
    for h in range(config.num_heads):
        g = h // group
        mine, shared = slice(h * size, (h + 1) * size), slice(g * size, (g + 1) * size)
        queries = [
            turned(config, w["attention.q.weight"][mine] @ n, p)
            for n, p in zip(z, places, strict=True)
        ]
        keys = [
            turned(config, w["attention.k.weight"][shared] @ n, p)
            for n, p in zip(z, places, strict=True)
        ]
        values = [w["attention.v.weight"][shared] @ n for n in z]
        key_places = list(places)
        row = g if config.attention_bias_by == "head" else 0
        if config.attention_bias in ("k", "kv"):
            keys = [w["attention.bias.key_KD"][row], *keys]
            star = torch.zeros(size, dtype=torch.float64)
            if config.attention_bias == "kv":
                star = w["attention.bias.value_KD"][row]
            values, key_places = [star, *values], [None, *key_places]
        extra = 0.0
        if config.attention_bias == "v":
            extra = w["attention.bias.value_KD"][row]
        heads.append(
            [
                one_query(config, w, weights, h, q, p, keys, values, key_places) + extra
                for q, p in zip(queries, places, strict=True)
            ]
        )
    return [
        w["attention.out.weight"] @ torch.cat([head[t] for head in heads]) for t in range(len(z))
    ]


def one_query(config, w, weights, head, q, place, keys, values, key_places):
    sims, chosen = [], []
    for k, v, p in zip(keys, values, key_places, strict=True):
        if seen(config, place, p):
            extra = position_score(config, weights, head, place, p)
            sims.append(similarity(config, w, q, k, extra))
            chosen.append(v)
    total = sum(sims)
    if config.normalizer == "unit":
        z = 1.0
    elif config.normalizer == "sum":
        z = total + (0 if config.attention == "softmax" else EPS)
    elif config.normalizer == "clamped_sum":
        z = total.abs() if total.abs() > 1 else torch.ones(())
    elif config.normalizer == "p_norm":
        z = sum(s.abs() ** config.normalizer_p for s in sims) ** (1 / config.normalizer_p)
        z = z + (0 if config.attention == "softmax" else EPS)
    return config.attention_row_sum * sum(s * v for s, v in zip(sims, chosen, strict=True)) / z


def similarity(config, w, q, k, extra):
    root = math.sqrt(config.head_size)
    if config.attention == "elu_kernel":
        return (elu(q) + 1) @ (elu(k) + 1) / root
    if config.attention == "mlp":
        first = w["attention.operation.kernel.0.weight"]
        last = w["attention.operation.kernel.2.weight"]
        return (last @ relu(first @ q)) @ (last @ relu(first @ k)) / root
    score = q @ k / root + extra
    if config.attention == "softmax":
        return torch.exp(score)
    if config.attention == "sigmoid":
        return sigmoid(score)
    if config.attention == "elu":
        return elu(score) + 1
    assert config.attention == "linear"
    return score


def cross_entropy(config, weights, tokens, targets):
    """Mean over tokens; a prefix LM does not count targets inside its prefix."""
    rows = logits(config, weights, tokens)
    losses = []
    for t, target in enumerate(targets):
        if config.prefix and t + 1 < config.prefix:
            continue
        losses.append(torch.log(torch.exp(rows[t]).sum()) - rows[t][target])
    return sum(losses) / len(losses)
