"""Models to and from Hugging Face's format: `config.json` and `*.safetensors`.

A model that is a Llama is written as one, which everything reads. Any other is written with two
files of code beside it, which `trust_remote_code=True` loads; those need gristmill installed.
Neither direction needs transformers.
"""

import dataclasses
from importlib import resources
from typing import TYPE_CHECKING, Any

from gristmill.core import config as configs
from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.models.lm import checkpoint, safetensor_file
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.decoder import Decoder

if TYPE_CHECKING:
    from torch import Tensor

LLAMA_ONLY = {
    "norm_placement": "pre",
    "feed_forward": "swiglu",
    "series": 1,
    "shortcuts": 0,
    "positions": "rope",
    "attention": "softmax",
    "normalizer": "sum",
    "attention_row_sum": 1.0,
    "attention_bias": "none",
    "window": 0,
    "prefix": 0,
}
"""What a Llama has of our variants."""
NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
BLOCK_NAMES = {
    "attention_norm": "input_layernorm",
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CODE = ("configuration_gristmill.py", "modeling_gristmill.py")


def is_llama(config: ModelConfig) -> bool:
    """Whether the model computes what a Llama computes."""
    return all(getattr(config, name) == value for name, value in LLAMA_ONLY.items())


def export(model: Decoder, folder: str) -> None:
    """Write a model in Hugging Face's format, as a Llama if it is one."""
    weights = dict(model.named_parameters())
    dtype = str(model.embedding.weight.dtype).removeprefix("torch.")
    if is_llama(model.config):
        settings = _llama_settings(model.config)
        weights = {_llama_name(name): value for name, value in weights.items()}
    else:
        settings = _custom_settings(model.config)
        weights = {f"decoder.{name}": value for name, value in weights.items()}
        code = resources.files("gristmill.models.lm") / "hugging_face_code"
        for name in CODE:
            io.write_bytes(io.join(folder, name), (code / name).read_bytes())
    safetensor_file.write(io.join(folder, WEIGHTS), weights, metadata={"format": "pt"})
    io.write_json(io.join(folder, CONFIG), {**settings, "torch_dtype": dtype})


def read_config(folder: str) -> ModelConfig:
    """The configuration of a model in Hugging Face's format; reads no weights.

    Raises:
        BadInputError: It is another architecture, or a Llama with parts of its own.
    """
    settings = io.read_json(io.join(folder, CONFIG))
    kind = settings.get("model_type")
    if kind == "llama":
        return _llama_config(settings, folder)
    if kind == "gristmill":
        config: ModelConfig = configs.from_dict(settings["gristmill"])
        return config
    raise BadInputError(
        f"{io.redact(folder)} holds a model of type {kind!r}; llama and gristmill can be read"
    )


def is_one(folder: str) -> bool:
    """Whether a folder holds a model in Hugging Face's format and none in ours."""
    own = io.exists(io.join(folder, checkpoint.CONFIG))
    return not own and io.exists(io.join(folder, CONFIG))


def read_config_as(folder: str, model: ModelConfig) -> ModelConfig:
    """The configuration of a model in Hugging Face's format, with what that format does not say,
    or what weights do not depend on, as in another."""
    found = read_config(folder)
    return dataclasses.replace(
        found,
        initializer=model.initializer,
        initializer_std=model.initializer_std,
        context_length=(found if found.positions == "learned" else model).context_length,
    )


def read(folder: str, *, device: str = "cpu", expect: ModelConfig | None = None) -> Decoder:
    """A model from a folder in Hugging Face's format: a Llama of any origin, or our export.

    Args:
        folder: With config.json and safetensors.
        device: Where to put it.
        expect: The configuration it must have, apart from what `read_config_as` leaves open.

    Raises:
        BadInputError: It is another architecture or model, or a Llama with parts of its own.
        CorruptDataError: A file is cut short or does not fit the configuration.
    """
    config = read_config(folder)
    if expect is not None:
        config = read_config_as(folder, expect)
        checkpoint.require_equal(config, expect, source=folder)
    plain = io.read_json(io.join(folder, CONFIG)).get("model_type") == "llama"
    names = _llama_name if plain else "decoder.{}".format
    stored: dict[str, Tensor] = {}
    for uri in io.list_files(folder, ".safetensors"):
        stored |= safetensor_file.read(uri)
    # Tables that writers of older Llamas kept beside the weights; they follow from the settings.
    stored = {k: v for k, v in stored.items() if not k.endswith("rotary_emb.inv_freq")}
    ours = {names(name): name for name, _ in config.build(device="meta").named_parameters()}
    if config.tied:
        stored.pop("lm_head.weight", None)  # some writers store it twice
    weights = {ours.get(name, name): value for name, value in stored.items()}
    return checkpoint.fill(config, weights, source=io.redact(folder), device=device)


def _llama_name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{BLOCK_NAMES[rest.removesuffix('.weight')]}.weight"


def _llama_settings(config: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.ffn_hidden,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "use_cache": True,
    }


def _custom_settings(config: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["GristmillForCausalLM"],
        "model_type": "gristmill",
        "auto_map": {
            "AutoConfig": "configuration_gristmill.GristmillConfig",
            "AutoModelForCausalLM": "modeling_gristmill.GristmillForCausalLM",
        },
        "gristmill": configs.to_dict(config),
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "max_position_embeddings": config.context_length,
        "tie_word_embeddings": config.tied,
    }


def _llama_config(settings: dict[str, Any], folder: str) -> ModelConfig:
    rope = settings.get("rope_parameters") or {}
    scaling = settings.get("rope_scaling") or {}
    kinds = {d.get("rope_type", d.get("type", "default")) for d in (rope, scaling)}
    own = [name for name in ("attention_bias", "mlp_bias") if settings.get(name)]
    own += [f"rope {kind}" for kind in kinds - {"default"}]
    if settings.get("hidden_act", "silu") != "silu":
        own.append(f"activation {settings['hidden_act']}")
    if own:
        raise BadInputError(f"{io.redact(folder)} is a Llama with {', '.join(own)}, not ours")
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    kv_heads, head_dim = settings.get("num_key_value_heads"), settings.get("head_dim")
    return ModelConfig(
        vocab_size=settings["vocab_size"],
        width=width,
        num_layers=settings["num_hidden_layers"],
        num_heads=heads,
        # What follows from the others is not stored, so that equal models have equal configs.
        num_kv_heads=kv_heads if kv_heads and kv_heads != heads else 0,
        head_dim=head_dim if head_dim and head_dim * heads != width else 0,
        ffn_hidden=settings["intermediate_size"],
        context_length=settings.get("max_position_embeddings", 2048),
        tied=settings.get("tie_word_embeddings", False),
        norm_eps=settings.get("rms_norm_eps", 1e-6),
        rope_theta=float(rope.get("rope_theta") or settings.get("rope_theta") or 10_000.0),
    )
