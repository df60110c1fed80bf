"""A made-up token corpus of three domains whose text is easy to tell apart, and one-layer proxies."""

import json
from dataclasses import asdict

import numpy as np
from made_corpora import _write_shard, vocabulary

from gristmill.corpora.corpus import MANIFEST, manifest_of
from gristmill.execution.session import Execution
from gristmill.execution.slices import SliceWorker
from gristmill.mixing.proxies import ProxiesJob
from gristmill.mixing.proxy import ProxyBench
from gristmill.mixing.proxy_settings import Training
from gristmill.mixing.tables import write_mixtures

DOMAINS = ("code", "prose", "tables")
VOCAB = 64


def write_corpus(folder, sizes=(6000, 9000, 3000), validation=400):
    """Each domain is a noisy walk over its own third of the ids, so learning one helps no other."""
    listed = {}
    for number, (domain, size) in enumerate(zip(DOMAINS, sizes, strict=True)):
        random = np.random.default_rng(number)
        for split, total in (("train", size), ("validation", validation)):
            steps = random.choice([1, 2, 5], size=total, p=[0.7, 0.2, 0.1])
            ids = (1 + 20 * number + np.cumsum(steps) % 20).astype("<u2")
            if total:
                shard = _write_shard(folder, f"tokens/{domain}/{split}/000000", ids)
                listed[domain, split] = [shard]
            else:
                listed[domain, split] = []
    manifest = manifest_of(
        "tokens", listed, vocabulary=asdict(vocabulary(size=VOCAB)), documents_sha256=""
    )
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return str(folder)


def write_model(folder):
    """The JSON of a model that trains in a blink."""
    path = folder / "tiny.json"
    path.write_text(json.dumps({"width": 16, "num_layers": 1, "num_heads": 2, "ffn_hidden": 32}))
    return str(path)


def training(folder, **fields):
    given = {"steps": 16, "batch_size": 4, "seq_len": 16, "lr": 1e-2, **fields}
    return Training(preset=write_model(folder), **given)


def write_design(folder, count=4, seed=0):
    path = folder / f"design-{count}.csv"
    weights = np.random.default_rng(seed).dirichlet(np.ones(3), count)
    write_mixtures(str(path), [str(i) for i in range(1, count + 1)], DOMAINS, weights)
    return str(path)


def job(folder, corpus, out, *, count=4, workers=2, **fields):
    """A sweep of tiny proxies; `training` fields and job fields alike."""
    own = {"asha", "max_failed", "seed", "design"}
    taken = {name: fields.pop(name) for name in own & set(fields)}
    return ProxiesJob(
        design=taken.pop("design", "") or write_design(folder, count),
        corpora=(corpus,),
        training=training(folder, **fields),
        out=str(out),
        execution=Execution(workers=workers),
        **taken,
    )


class Raising(ProxyBench):
    """Raises at the start of proxy 2: at first only, or for ever."""

    times = 1
    marks = ""

    def begin(self, trial):
        import os

        if trial.index == "2":
            tries = len(os.listdir(self.marks))
            if tries < self.times:
                open(os.path.join(self.marks, str(tries)), "w").close()
                raise OSError(f"the disk of proxy {trial.index} went away")
        return super().begin(trial)


class Idle(SliceWorker):
    """Does nothing, on one CPU."""

    def process(self, piece):
        return {}
