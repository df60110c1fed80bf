"""The demo's third track: a small language model on the mixture that the search proposed."""

import json
from typing import Any

from gristmill.core import io
from gristmill.core.job import run_job
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.corpora.mixture import NATURAL
from gristmill.mixing.search import MIXTURE
from gristmill.models.lm.generate import TEXTS, GenerateJob
from gristmill.recipes.demo.mixture import SEARCH, TOKENS
from gristmill.training.lm.job import TrainLmJob
from gristmill.training.lm.placement import Placement
from gristmill.training.lm.schedule import Optimization

PRESET, STEPS, BATCH_SIZE, LR = "demo", 800, 4, 4e-3
"""docs/results/lm-demo.md says how batch and rate were found; these steps are about a minute."""
WORKERS = 2
PROMPTS = ("The ", "def ", "#include ")
NEW_TOKENS = 48
PLAN = f"preset {PRESET}, {STEPS} steps of {BATCH_SIZE} sequences"


def train(run: Run, *, seed: int, address: str, searched: bool) -> dict[str, Any]:
    """Train on the mixture found, or the natural one without a search; then continue prompts."""
    model = run.path("lm", "train")
    done = run_job(
        TrainLmJob(
            preset=PRESET,
            corpora=(run.path("text", TOKENS),),
            mixture=run.path("text", SEARCH, MIXTURE) if searched else NATURAL,
            steps=STEPS,
            batch_size=BATCH_SIZE,
            seed=seed,
            optimization=Optimization(lr=LR),
            validation_every=STEPS,
            out=model,
            execution=Placement(address=address, workers=WORKERS, checkpoint_every=STEPS // 4),
        )
    ).done()
    texts = {}
    for number, prompt in enumerate(PROMPTS):
        out = run.path("lm", f"text-{number}")
        run_job(
            GenerateJob(
                model=io.join(model, "model"),
                prompt=prompt,
                max_new_tokens=NEW_TOKENS,
                seed=seed,
                out=out,
            )
        )
        texts[prompt] = json.loads(io.read_bytes(io.join(out, TEXTS)))["text"]
    return {**(done or {})["summary"], "texts": texts}


def line(found: dict[str, Any]) -> str:
    """What the terminal says of it; the texts were printed as they came."""
    return (
        f"language model: {found['tokens']:,} tokens, last loss {found['final_loss']:.3f} nats a "
        f"token; its texts are above and in the report"
    )


def write(page: Report, found: dict[str, Any]) -> None:
    """The language model's part of the page."""
    page.table(
        "Text of the language model",
        ("prompt", "text"),
        [[prompt, text] for prompt, text in found["texts"].items()],
        note=line(found),
    )
    links = {"training": f"lm/train/{REPORT}"}
    page.links("Every step's own report: the language model", links)
