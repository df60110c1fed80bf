"""A model in a folder: `model.json`, its configuration, and `model.safetensors`, its weights.

Training keeps optimiser and data position beside these; this pair is all that other commands need.
"""

from typing import TYPE_CHECKING

from gristmill.core import config as configs
from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.models.lm import safetensor_file
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.decoder import Decoder

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "model.json", "model.safetensors"


def save(model: Decoder, folder: str) -> str:
    """Write a model; a tied matrix is stored once.

    Returns:
        SHA-256 of the weights file.
    """
    sha256 = safetensor_file.write(
        io.join(folder, WEIGHTS), dict(model.named_parameters()), metadata={"format": "pt"}
    )
    io.write_json(io.join(folder, CONFIG), configs.to_dict(model.config))
    return sha256


def read_config(folder: str) -> ModelConfig:
    """The configuration of a saved model.

    Raises:
        BadInputError: The folder holds none.
        CorruptDataError: It is not a model's.
    """
    uri = io.join(folder, CONFIG)
    if not io.exists(uri):
        raise BadInputError(f"no model at {io.redact(folder)}: it has no {CONFIG}")
    config = configs.from_dict(io.read_json(uri))
    if not isinstance(config, ModelConfig):
        raise CorruptDataError(f"{io.redact(uri)} is not the configuration of a language model")
    return config


def load(folder: str, *, device: str = "cpu", expect: ModelConfig | None = None) -> Decoder:
    """A saved model, in the type it was saved in, in eval mode.

    Args:
        folder: Where `save` wrote it.
        device: Where to put it.
        expect: The configuration it must have.

    Raises:
        BadInputError: No model, or one of another configuration; the message says what differs.
        CorruptDataError: The weights are cut short or belong to another configuration.
    """
    config = read_config(folder)
    if expect is not None:
        require_equal(config, expect, source=folder)
    uri = io.join(folder, WEIGHTS)
    return fill(config, safetensor_file.read(uri), source=io.redact(uri), device=device)


def require_equal(config: ModelConfig, expect: ModelConfig, *, source: str) -> None:
    """Refuse a model of another configuration.

    Raises:
        BadInputError: It is; says what differs.
    """
    if config != expect:
        lines = configs.differences(configs.to_dict(config), configs.to_dict(expect))
        raise BadInputError(
            f"{io.redact(source)} holds another model (its value -> the wanted): "
            + "; ".join(lines[:5])
        )


def fill(
    config: ModelConfig, weights: dict[str, "Tensor"], *, source: str, device: str = "cpu"
) -> Decoder:
    """A model of `config` with these weights, which must be its parameters exactly.

    Raises:
        CorruptDataError: Some are missing, too many, or of another shape.
    """
    model = config.build(device="meta")
    wanted = {name: tuple(value.shape) for name, value in model.named_parameters()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = [
        f"{name}: {found.get(name, 'missing')}, wanted {wanted.get(name, 'none')}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CorruptDataError(
            f"{source} does not fit its configuration: {'; '.join(wrong[:3])}{more}"
        )
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.to(device).eval()
