"""The export job: a saved model in Hugging Face's format, its tokenizer beside it."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import tyro

from gristmill.core import io
from gristmill.core.config import config_hash
from gristmill.core.job import Job
from gristmill.core.plan import Plan
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.models.lm.generate import TOKENIZER

FOLDER = "hugging-face"
"""In the run's folder, which has a config.json of its own."""
TOKENIZER_CONFIG = "tokenizer_config.json"
BESIDE = (TOKENIZER, "vocabulary.json")
"""What training leaves beside a model, and an export keeps: `lm train --init` compares them."""


@dataclass(frozen=True, kw_only=True)
class ExportJob(Job):
    """Write a language model in Hugging Face's format: as a Llama if it is one, else with code."""

    uri_fields: ClassVar[tuple[str, ...]] = ("model",)
    always_anew: ClassVar[bool] = True
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Folder of a model: model.json and model.safetensors, such as RUN/model of a training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights that are written."""
    out: str = ""
    """Folder, in which hugging-face/ is the model; empty: one of its own under runs/."""

    def __post_init__(self) -> None:
        if not self.out:
            plain = dataclasses.replace(self, out="runs/lm-export")
            object.__setattr__(self, "out", f"{plain.out}-{config_hash(plain)[:8]}")
        super().__post_init__()

    def plan(self) -> Plan:
        """What is read and written; refuses a folder without a model."""
        from gristmill.models.lm import checkpoint, hugging_face

        config = checkpoint.read_config(self.model)
        size = (4 if self.dtype == "float32" else 2) * config.num_params
        return Plan(
            title=f"export a model of {config.num_params:,} parameters",
            reads=[(f"the model in {io.redact(self.model)}", 4 * config.num_params)],
            writes=[(f"{FOLDER}/", size)],
            work=[("format", _format(llama=hugging_face.is_llama(config)))],
        )

    def execute(self, run: Run) -> None:
        """Read, convert, write."""
        import torch

        from gristmill.models.lm import checkpoint, hugging_face

        model = checkpoint.load(self.model).to(getattr(torch, self.dtype))
        model.tie()
        where = run.path(FOLDER)
        hugging_face.export(model, where)
        for name in BESIDE:
            source = io.join(self.model, name)
            if io.exists(source):
                io.write_bytes(io.join(where, name), io.read_bytes(source))
        if io.exists(io.join(where, TOKENIZER)):  # a Llama's own class would add tokens to it
            io.write_json(
                io.join(where, TOKENIZER_CONFIG), {"tokenizer_class": "PreTrainedTokenizerFast"}
            )
        for uri in io.list_files(where):
            run.add_output(f"{FOLDER}/{uri.rpartition('/')[2]}")
        kind = _format(llama=hugging_face.is_llama(model.config))
        run.set_summary(parameters=model.config.num_params, format=kind, folder=FOLDER)
        print(f"{where}: {kind}")
        page = Report(title="Exported model", subtitle=io.redact(self.model))
        facts = [("format", kind), ("type", self.dtype), ("parameters", model.config.num_params)]
        page.table("Model", ("what", "value"), facts)
        page.save(run.path(REPORT))


def _format(*, llama: bool) -> str:
    if llama:
        return "a Llama, which transformers and others load by themselves"
    return "with code beside it: trust_remote_code=True, and gristmill installed"
