"""The end of a training: the model that other commands read, the ledger, the report."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gristmill.core import config as configs
from gristmill.core import io
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.corpora.ledger import HEADER, Ledger, make_ledger
from gristmill.corpora.tokenizer import FILE
from gristmill.training.lm import checkpoint
from gristmill.training.lm.preflight import VOCABULARY
from gristmill.training.lm.records import lines_of

if TYPE_CHECKING:
    from gristmill.training.lm.job import TrainLmJob
    from gristmill.training.lm.preflight import Checked

MODEL, LEDGER = "model", "ledger.json"
CURVES = (
    ("loss", "Training loss", "nats a token"),
    ("lr", "Learning rate", "rate"),
    ("grad_norm", "Norm of the gradient, before clipping", "norm"),
    ("tokens_per_second", "Tokens a second, all workers", "tokens/s"),
)


def conclude(job: "TrainLmJob", run: Run, checked: "Checked") -> None:
    """Write model/, ledger.json, the summary and report.html."""
    step, folder = job.num_steps, run.path(checkpoint.FOLDER)
    manifest = checkpoint.read_manifest(folder, step, model=job.config)
    _keep_model(job, run, checked, manifest)
    drawn = manifest["progress"]["drawn"]
    realised = make_ledger(
        checked.mixture.weights,
        drawn,
        {e.domain: e.available for e in checked.ledger.entries},
        checked.seq_len,
    )
    io.write_json(
        run.path(LEDGER), {"planned": checked.ledger.to_json(), "realised": realised.to_json()}
    )
    run.add_output(LEDGER)
    run.add_output(f"{checkpoint.FOLDER}/{checkpoint.name_of(step)}/{checkpoint.MANIFEST}")
    for name, entry in manifest["files"].items():
        where = f"{checkpoint.FOLDER}/{checkpoint.name_of(step)}/{name}"
        run.add_output(where, sha256=entry["sha256"], num_bytes=entry["bytes"])
    metrics = run.metrics()
    summary = _summary(metrics, manifest, realised)
    run.set_summary(**summary)
    report(job, summary, metrics, checked.ledger, realised).save(run.path(REPORT))


def _keep_model(job: "TrainLmJob", run: Run, checked: "Checked", manifest: dict[str, Any]) -> None:
    """The existing folder of a model, its tokenizer beside it."""
    from gristmill.models.lm import checkpoint as model_folder

    folder = run.path(checkpoint.FOLDER)
    states = checkpoint.read_states(folder, job.num_steps, manifest)
    weights = {name: state.param for name, state in states}
    model = model_folder.fill(job.config, weights, source=io.redact(folder))
    where = run.path(MODEL)
    sha256 = model_folder.save(model, where)
    run.add_output(f"{MODEL}/{model_folder.WEIGHTS}", sha256=sha256)
    run.add_output(f"{MODEL}/{model_folder.CONFIG}")
    io.write_json(io.join(where, VOCABULARY), asdict(checked.corpus.vocabulary))
    run.add_output(f"{MODEL}/{VOCABULARY}")
    source = io.join(job.corpora[0], FILE)
    if io.exists(source):
        io.write_bytes(io.join(where, FILE), io.read_bytes(source))
        run.add_output(f"{MODEL}/{FILE}")


def _summary(
    metrics: list[dict[str, Any]], manifest: dict[str, Any], realised: Ledger
) -> dict[str, Any]:
    steps, runs = lines_of(metrics, "step"), lines_of(metrics, "run")
    validations = lines_of(metrics, "validation")
    rates = sorted(line["tokens_per_second"] for line in steps)
    progress = manifest["progress"]
    return {
        "steps": progress["step"],
        "tokens": realised.tokens,
        "final_loss": steps[-1]["loss"] if steps else None,
        "validation": validations[-1]["loss"] if validations else {},
        "tokens_per_second": rates[len(rates) // 2] if rates else None,
        "mfu": steps[-1]["mfu"] if steps else None,
        "precision": runs[-1]["precision"] if runs else None,
        "engine": runs[-1]["engine"] if runs else None,
        "num_workers": manifest["world_size"],
        "order": progress["order"],
        "skipped_steps": progress["skipped"],
        "rewinds": progress["rewinds"],
        "restarts": max(len(lines_of(metrics, "start")) - len(runs), 0),
        "model": MODEL,
    }


def report(
    job: "TrainLmJob",
    summary: dict[str, Any],
    metrics: list[dict[str, Any]],
    planned: Ledger,
    realised: Ledger,
) -> Report:
    """The page."""
    page = Report(f"Training of {job.preset}", f"{summary['tokens']:,} tokens")
    events = lines_of(metrics, "guard")
    if events:
        page.warnings.append(
            f"{summary['skipped_steps']} steps were skipped and the training was set back "
            f"{summary['rewinds']} times; see Bad steps."
        )
    shown = [(k, v) for k, v in summary.items() if k != "validation"]
    page.table("Result", ("figure", "value"), shown)
    last = sorted(summary["validation"].items())
    page.table("Validation loss", ("domain", "nats a token"), last, "After the last step.")
    lines = lines_of(metrics, "step")
    for name, title, label in CURVES:
        page.plot(title, _curve(lines, name, label))
    page.plot("Validation loss by domain", _by_domain(lines_of(metrics, "validation")))
    page.table("Ledger, planned", HEADER, planned.rows())
    page.table("Ledger, realised", HEADER, realised.rows(), "What was read, skipped steps too.")
    if events:
        names = ("step", "position", "loss", "why", "action")
        page.table("Bad steps", names, [[str(line[n]) for n in names] for line in events])
    config = configs.to_dict(job)
    page.table("Config", ("setting", "value"), [(k, str(v)) for k, v in config.items()])
    return page


def _curve(lines: list[dict[str, Any]], name: str, label: str) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        points = [(x["tokens"], x[name]) for x in lines if x[name] is not None]
        axes.plot([x for x, _ in points], [y for _, y in points], linewidth=1)
        axes.set_xlabel("tokens")
        axes.set_ylabel(label)

    return draw


def _by_domain(lines: list[dict[str, Any]]) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        for domain in sorted({name for line in lines for name in line["loss"]}):
            points = [(x["step"], x["loss"][domain]) for x in lines if domain in x["loss"]]
            axes.plot([x for x, _ in points], [y for _, y in points], linewidth=1, label=domain)
        axes.set_xlabel("steps")
        axes.set_ylabel("nats a token")
        if lines:
            axes.legend(fontsize=7, frameon=False)

    return draw
