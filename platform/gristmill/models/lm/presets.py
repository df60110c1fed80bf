"""Model presets by name. Importing this loads no torch."""

import difflib

from gristmill.core import config as configs
from gristmill.core import io
from gristmill.core.errors import BadInputError
from gristmill.models.lm.config import ModelConfig

_REGMIX = ModelConfig(
    vocab_size=50_432,
    width=256,
    num_layers=2,
    num_heads=8,
    ffn_hidden=512,
    initializer="regmix",
)
_PANGU = ModelConfig(
    vocab_size=100_883,
    width=2048,
    num_layers=12,
    num_heads=16,
    ffn_hidden=5632,
    series=2,
    shortcuts=1,
)


def _with(base: ModelConfig, **changes: int | str | bool) -> ModelConfig:
    import dataclasses

    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


PRESETS: dict[str, ModelConfig] = {
    # RegMix (arXiv:2407.01492), the released configurations.
    "regmix-1m": _REGMIX,
    "regmix-60m": _with(_REGMIX, width=768, num_layers=10, ffn_hidden=1536),
    "regmix-1b": _with(_REGMIX, width=2048, num_layers=22, num_heads=16, ffn_hidden=5632),
    # When Attention Sink Emerges (arXiv:2410.10781); its code uses RegMix's models.
    "sink-60m": _with(_REGMIX, width=768, num_layers=10, ffn_hidden=1536),
    "sink-1b": _with(_REGMIX, width=2048, num_layers=22, num_heads=16, ffn_hidden=5632),
    # PanGu-pi (arXiv:2312.17276), untied; the 1B's hidden size is not stated there.
    "pangu-pi-1b": _PANGU,
    "pangu-pi-7b": _with(_PANGU, width=4096, num_layers=29, num_heads=32, ffn_hidden=11_008),
    # PanGu-pi Pro (arXiv:2402.02791): compact vocabulary, deeper. The released configuration of
    # the 1B has 20 layers, the paper's table 21. The hidden size of the 1.5B is not stated.
    "pangu-pi-1b-pro": _with(
        _PANGU, vocab_size=48_000, width=1792, num_layers=21, num_heads=14, ffn_hidden=4963
    ),
    "pangu-pi-1.5b-pro": _with(_PANGU, vocab_size=48_000, num_layers=22, ffn_hidden=6912),
    # Ours: learns the embedded corpora in minutes on two CPU cores.
    "demo": _with(
        _REGMIX,
        vocab_size=4096,
        width=128,
        num_layers=4,
        num_heads=4,
        ffn_hidden=352,
        context_length=256,
        tied=True,
    ),
}


def preset(name: str) -> ModelConfig:
    """The configuration of a preset.

    Raises:
        BadInputError: No such preset; the message lists the known.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"; perhaps you meant {near[0]}" if near else ""
        raise BadInputError(f"no preset named {name!r}{hint}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


def read_model(name: str) -> ModelConfig:
    """The configuration of a preset, or in a model.json.

    Raises:
        BadInputError: No such preset, or the file holds something else.
    """
    if not name.endswith(".json"):
        return preset(name)
    found = configs.from_dict(io.read_json(name))
    if not isinstance(found, ModelConfig):
        raise BadInputError(f"{io.redact(name)} is not the configuration of a language model")
    return found
