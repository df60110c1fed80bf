"""Made-up documents, token corpora and tokenizers; and jobs run in a process of their own."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import asdict

import numpy as np
from killing import LIMIT_SECONDS, environment, wait_for

from gristmill.core.config import to_dict
from gristmill.corpora.corpus import MANIFEST, Shard, manifest_of
from gristmill.corpora.tokenizer import Vocabulary
from gristmill.corpora.tokens import INDEX

WORDS = [
    "meal",
    "grain",
    "wheat",
    "stone",
    "mill",
    "river",
    "wheel",
    "flour",
    "oat",
    "barley",
    "sack",
    "rye",
    "bread",
    "oven",
    "crust",
]


def texts(count, seed=0, words=30):
    """Documents that differ, with letters beyond ASCII and a few long ones."""
    choose = random.Random(seed)
    made = []
    for i in range(count):
        length = choose.randrange(3, words) * (10 if i % 17 == 0 else 1)
        line = " ".join(choose.choice(WORDS) for _ in range(length))
        made.append(f"{line} é日\U0001f33e {seed}-{i}\n")
    return made


def write_lines(path, documents, field="text"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({field: text}) + "\n" for text in documents))


def vocabulary(sha256="a" * 64, size=60_000):
    return Vocabulary(sha256=sha256, size=size, end_token="<|endoftext|>", end_id=0)


def write_tokens(folder, sizes, *, validation=100, shards=3, vocab=None):
    """A token corpus; a token tells its domain and place, so that any mistake shows.

    Returns {domain: all its training tokens}.
    """
    vocab = vocab or vocabulary()
    listed, rows = {}, {}
    for number, (domain, size) in enumerate(sizes.items()):
        for split, total in (("train", size), ("validation", validation)):
            row = ((np.arange(total) * 7 + number * 1009) % min(59_999, vocab.size - 1) + 1).astype(
                vocab.dtype
            )
            row[9::10] = 0  # a document ends at every tenth token
            if split == "train":
                rows[domain] = row.astype(np.int64)
            # Cut between documents, into files of unequal length.
            cuts = sorted({total * i * i // shards**2 // 10 * 10 for i in range(1, shards)} - {0})
            for i, piece in enumerate(np.split(row, cuts)):
                shard = _write_shard(folder, f"tokens/{domain}/{split}/{i:06d}", piece)
                listed.setdefault((domain, split), []).append(shard)
    manifest = manifest_of("tokens", listed, vocabulary=asdict(vocab), documents_sha256="")
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return rows


def _write_shard(folder, name, tokens):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    starts = np.arange(0, len(tokens), 10)
    index = np.zeros(len(starts), INDEX)
    index["start"] = starts
    path.with_suffix(".bin").write_bytes(tokens.tobytes())
    path.with_suffix(".idx").write_bytes(index.tobytes())
    return Shard(name=name, documents=len(starts), size=len(tokens), sha256="")


def word_tokenizer(end="</s>"):
    """The text of a tokenizer.json that is no BPE: whole words, as another library made it."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = {word: i for i, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([end] if end else [])
    tokenizer.enable_truncation(5)
    return tokenizer.to_str()


RUN = """
import json, logging, sys
from gristmill.core.cli import guarded
from gristmill.core.config import from_dict
from gristmill.core.job import run_job
sys.exit(guarded(lambda: (run_job(from_dict(json.loads(sys.argv[1]))), 0)[1]))
"""


def start_job(job, log):
    """The job in a process of its own, with a cluster of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, json.dumps(to_dict(job))],
        stdout=log.open("ab"),
        stderr=subprocess.STDOUT,
        env=environment(),
    )


def kill_job_when(condition, job, log):
    process = start_job(job, log)
    wait_for(condition, process, log)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def finish_job(job, log):
    return start_job(job, log).wait(LIMIT_SECONDS), log.read_text(errors="replace")
