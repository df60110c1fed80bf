"""The command table, and `main`, the entry point of `gristmill`. Imports nothing heavy."""

import difflib
import importlib
import sys
from collections.abc import Iterable, Sequence

from gristmill import __version__
from gristmill.core.cli import Command, act, guarded, invoke, parse, recipes_of, table

COMMANDS: dict[str, dict[str, Command]] = {
    "pool": {
        "ingest": Command(
            help="image-text pairs from tars, a folder or urls, or documents, to a pool",
            recipes="gristmill.recipes.ingest",
            recipe_word="SOURCE",
        ),
        "score": Command(
            help="add CLIP features and similarity scores to a pool",
            job="gristmill.pools.score:ScoreJob",
        ),
        "hash": Command(
            help="add a perceptual hash of every picture to a pool",
            job="gristmill.pools.hashing:HashJob",
        ),
        "cluster": Command(
            help="k-means centroids of a pool's features",
            job="gristmill.pools.cluster:ClusterJob",
        ),
        "inspect": Command(
            help="counts, sizes, languages, scores and samples of a pool",
            job="gristmill.pools.inspection:InspectJob",
        ),
        "filter": Command(
            help="choose uids by a recipe, a filter, or several: 'A & B(field=value)'",
            recipes="gristmill.recipes.filter",
        ),
        "reshard": Command(
            help="write the pairs of a subset as dense, deterministic shards",
            job="gristmill.pools.reshard:ReshardJob",
        ),
        "extract": Command(
            help="write the metadata rows of a subset as a new pool, such as kept documents",
            job="gristmill.pools.extract:ExtractJob",
        ),
    },
    "corpus": {
        "ingest": Command(
            help="named domains, or the embedded ones, to shuffled documents without repeats",
            recipes="gristmill.recipes.corpus",
            recipe_word="SOURCE",
        ),
        "train-tokenizer": Command(
            help="a byte-level BPE of a corpus",
            job="gristmill.corpora.train_tokenizer:TrainTokenizerJob",
        ),
        "tokenize": Command(
            help="token shards of a corpus, by any Hugging Face tokenizer.json",
            job="gristmill.corpora.token_shards:TokenizeJob",
        ),
        "mix": Command(
            help="materialise a mixture: packed sequences or documents for other trainers",
            job="gristmill.corpora.mix:MixCorpusJob",
        ),
    },
    "mix": {
        "design": Command(
            help="mixtures to try: Dirichlet by RegMix's rules, space-filling, or sequential",
            job="gristmill.mixing.design:DesignJob",
        ),
        "proxies": Command(
            help="train a proxy model on every mixture of a design, and measure all domains",
            job="gristmill.mixing.proxies:ProxiesJob",
        ),
        "fit": Command(
            help="learn every domain's loss as a function of the mixture, with intervals",
            job="gristmill.mixing.fit:FitJob",
        ),
        "predict": Command(
            help="expected losses of mixtures with 90 % intervals",
            job="gristmill.mixing.predict:PredictJob",
        ),
        "propose": Command(
            help="the best mixture for targets, with caps and guard-rails",
            job="gristmill.mixing.propose:ProposeJob",
        ),
        "search": Command(
            help="all of these in rounds, resumable, with a check of what is proposed",
            job="gristmill.mixing.search:SearchJob",
        ),
    },
    "clip": {
        "train": Command(
            help="the standardised training: demo, debug, small, medium, large, xlarge",
            recipes="gristmill.recipes.train_clip",
            recipe_word="SCALE",
        ),
        "evaluate": Command(
            help="zero-shot tasks of a benchmark, one task a Ray worker",
            job="gristmill.evaluation.evaluate:EvaluateJob",
        ),
        "submit": Command(
            help="pack subset, results, configs and hashes into a bundle",
            job="gristmill.evaluation.submission:SubmitJob",
        ),
        "verify": Command(
            help="check a bundle offline",
            job="gristmill.evaluation.verify:VerifyJob",
        ),
    },
    "lm": {
        "train": Command(
            help="a language model on a mixture's stream; torch or DeepSpeed, resumable anywhere",
            job="gristmill.training.lm.job:TrainLmJob",
        ),
        "describe": Command(
            help="parameters, FLOPs and memory of a language model, without building it",
            job="gristmill.models.lm.describe:DescribeJob",
        ),
        "generate": Command(
            help="text from a language model's checkpoint",
            job="gristmill.models.lm.generate:GenerateJob",
        ),
        "export": Command(
            help="a language model in Hugging Face's format",
            job="gristmill.models.lm.export:ExportJob",
        ),
        "evaluate": Command(
            help="held-out loss by domain beside a trigram's, and tasks of the harness",
            job="gristmill.evaluation.lm.evaluate:LmEvaluateJob",
        ),
        "probe": Command(
            help="attention sink, massive activations, effective dimension and more",
            job="gristmill.evaluation.lm.probe:ProbeJob",
        ),
    },
    "cluster": {
        "render": Command(
            help="cluster files of a fleet: Ray on AWS, Google Cloud, Azure, Kubernetes, Slurm",
            action="gristmill.clusters.render:RenderFleet",
        ),
        "validate": Command(
            help="check cluster files against schemas and our rules",
            action="gristmill.clusters.validate:ValidateFiles",
        ),
        "plan": Command(
            help="hours, GPU-hours, cost, memory, disk and network of a job on a fleet",
            action="gristmill.clusters.plan:PlanCapacity",
        ),
        "submit": Command(
            help="send GROUP VERB to a cluster, follow its output, end with its exit code",
            action="gristmill.recipes.submit:SubmitWords",
        ),
        "notices": Command(
            help="on a machine that may be taken away: pass the provider's notice on to Ray",
            action="gristmill.clusters.notices:HeedNotices",
        ),
    },
    "run": {
        "list": Command(
            help="runs below a folder on any storage", action="gristmill.core.runs:ListRuns"
        ),
        "show": Command(
            help="a run's config, events, outputs and the end of its log",
            action="gristmill.core.runs:ShowRun",
        ),
        "watch": Command(
            help="follow a run's figures and events until it ends",
            action="gristmill.core.runs:WatchRun",
        ),
    },
    "demo": {
        "": Command(
            help="all tracks end to end on embedded data: CLIP, mixture, language model",
            job="gristmill.recipes.demo.track:DemoJob",
        ),
    },
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Its exit status is 0, or one of those in core/cli.py."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"gristmill {__version__}")
        return 0
    return guarded(lambda: dispatch(words))


def overview() -> str:
    """What `gristmill --help` prints."""
    return (
        "usage: gristmill GROUP VERB [options]\n\n"
        f"{table(COMMANDS)}\n\n"
        "Every command takes --help; those that make results take --plan (say the cost and stop)\n"
        "and --overwrite. The same command again resumes an unfinished run and returns at once\n"
        "for a finished one."
    )


def dispatch(words: list[str]) -> int:
    """Find the command that the words name and run it."""
    group, *rest = words
    if group not in COMMANDS:
        return _usage(f"no group {group!r}", group, COMMANDS)
    verbs = COMMANDS[group]
    if "" in verbs:
        return run_command(f"gristmill {group}", verbs[""], rest)
    if not rest or rest[0] in ("-h", "--help"):
        print(f"usage: gristmill {group} VERB [options]\n\n{table({group: verbs})}")
        return 0
    verb, *rest = rest
    if verb not in verbs:
        return _usage(f"no verb {group} {verb!r}", verb, verbs)
    return run_command(f"gristmill {group} {verb}", verbs[verb], rest)


def _usage(problem: str, word: str, known: Iterable[str]) -> int:
    near = difflib.get_close_matches(word, known, n=1)
    hint = f"; perhaps you meant {near[0]}" if near else ""
    names = ", ".join(word for word in known if word)
    print(f"error: {problem}{hint}; known: {names}", file=sys.stderr)
    return 2


def run_command(prog: str, command: Command, words: list[str]) -> int:
    """Parse the words after a verb, then plan or run the job."""
    if command.action:
        module, _, name = command.action.partition(":")
        kind = getattr(importlib.import_module(module), name)
        return act(kind, words, prog=prog, about=command.help)
    if command.job:
        module, _, name = command.job.partition(":")
        kind = getattr(importlib.import_module(module), name)
        return invoke(parse(kind, words, prog=prog, about=command.help, default=None))
    recipes = recipes_of(command.recipes)
    if not words or words[0] in ("-h", "--help"):
        about = {n: (f.__doc__ or "").strip().splitlines()[0] for n, f in recipes.items()}
        word = command.recipe_word
        print(f"usage: {prog} {word} [options]\n\n{command.help}\n\n{_listed(about)}")
        if more := getattr(importlib.import_module(command.recipes), "_more", None):
            print(f"\nfilters:\n{_listed(more())}")
        print(f"\n{prog} {word} --help lists the options of one.")
        return 0
    default = getattr(importlib.import_module(command.recipes), "_default", None)
    if default is not None and words[0].startswith("-"):
        words = [default.__name__, *words]
    name, *rest = words
    expression = getattr(importlib.import_module(command.recipes), "_expression", None)
    if name in recipes:
        job = recipes[name]()
    elif expression is not None and not name.startswith("-"):
        job = expression(name)
    else:
        return _usage(f"no {command.recipe_word} {name!r}", name, recipes)
    return invoke(parse(type(job), rest, prog=f"{prog} {name}", about=command.help, default=job))


def _listed(about: dict[str, str]) -> str:
    """Names in a column with what they are, a long name on a line of its own."""
    room = 20
    return "\n".join(
        f"  {name:<{room}} {line}" if len(name) <= room else f"  {name}\n  {'':<{room}} {line}"
        for name, line in about.items()
    )


if __name__ == "__main__":
    sys.exit(main())
