"""The demo's second track: text corpora, tokens, and a short search of the best mixture of them."""

from typing import Any

from gristmill.core.job import Job, run_job
from gristmill.core.report import Report
from gristmill.core.run import REPORT, Run
from gristmill.corpora.embedded import sources
from gristmill.corpora.ingest import IngestCorpusJob
from gristmill.corpora.mixture import Mixture
from gristmill.corpora.token_shards import TokenizeJob
from gristmill.corpora.train_tokenizer import TrainTokenizerJob
from gristmill.execution.session import Execution
from gristmill.mixing.proxy_settings import Training
from gristmill.mixing.search import MIXTURE, SearchJob

VOCAB_SIZE = 4096
TOKENS, SEARCH = "tokens", "search"
PROXIES, CHECKED = 16, 2
STEPS = 128
"""Of a proxy: four fifths of what `gristmill mix search` takes unasked."""
PLAN = f"{PROXIES} of {STEPS} steps, then {CHECKED + 2} to check"


def make_tokens(run: Run) -> None:
    """Every step from the embedded domains to token shards; at once if they are there."""
    documents, tokenizer, tokens = (run.path("text", n) for n in ("documents", "tokenizer", TOKENS))
    steps: tuple[Job, ...] = (
        IngestCorpusJob(domains=sources(), validation=0.1, out=documents),
        TrainTokenizerJob(corpus=documents, vocab_size=VOCAB_SIZE, out=tokenizer),
        TokenizeJob(corpus=documents, tokenizer=tokenizer, out=tokens),
    )
    for job in steps:
        run_job(job)


def search(run: Run, *, seed: int, execution: Execution) -> dict[str, Any]:
    """From tokens to a checked mixture; the search's summary."""
    done = run_job(
        SearchJob(
            corpora=(run.path("text", TOKENS),),
            training=Training(steps=STEPS),
            first=PROXIES,
            most=PROXIES,
            check_random=CHECKED,
            check_seeds=1,
            seed=seed,
            out=run.path("text", SEARCH),
            execution=execution,
        )
    ).done()
    found: dict[str, Any] = (done or {})["summary"]
    return found


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """What the demo's manifest keeps of it."""
    names = ("proxies", "held_out_spearman", "expected_gain", "measured_gain")
    return {f"mix_{name.removeprefix('mix_')}": found[name] for name in names}


def line(found: dict[str, Any]) -> str:
    """What the terminal says of it."""
    gain = found["measured_gain"]
    return (
        f"mixture: {found['proxies']} proxies, held-out Spearman "
        f"{found['held_out_spearman']:.3f}; trained anew, the proposed mixture's loss is "
        f"{abs(gain):.4f} nats {'below' if gain > 0 else 'above'} the natural one's"
    )


def write(run: Run, page: Report, found: dict[str, Any]) -> None:
    """The mixture track's part of the page."""
    weights = Mixture.load(run.path("text", SEARCH, MIXTURE)).weights
    page.table(
        "The proposed mixture",
        ("domain", "weight"),
        [[name, weight] for name, weight in sorted(weights.items(), key=lambda pair: -pair[1])],
        note=line(found),
    )
    links = {"mixture search": f"text/{SEARCH}/{REPORT}"}
    for name in ("documents", TOKENS):
        links[name] = f"text/{name}/{REPORT}"
    page.links("Every step's own report: the mixture track", links)
