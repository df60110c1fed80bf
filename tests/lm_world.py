"""Small token corpora with a byte-level tokenizer of their own, and small models for them."""

import json
from dataclasses import asdict

import numpy as np
from made_corpora import texts

from gristmill.corpora.corpus import MANIFEST, Shard, manifest_of
from gristmill.corpora.tokenizer import FILE, DocumentTokenizer
from gristmill.corpora.tokens import INDEX
from gristmill.models.lm import checkpoint
from gristmill.models.lm.config import ModelConfig

VOCAB_SIZE = 400
LLAMA = ModelConfig(
    vocab_size=VOCAB_SIZE, width=32, num_layers=2, num_heads=4, ffn_hidden=48, context_length=48
)


def tokenizer_text(seed=0):
    """tokenizer.json of a byte-level BPE, trained on made-up texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(200, seed=seed), trainer)
    return tokenizer.to_str()


def write_corpus(folder, domains=("bread", "mills"), tokenizer=None, validation=60):
    """A token corpus in three files a split. Returns {domain: its validation documents}."""
    text = tokenizer or tokenizer_text()
    encoder = DocumentTokenizer(text)
    listed, held = {}, {}
    for number, domain in enumerate(domains):
        for split, count in (("train", 200), ("validation", validation)):
            documents = texts(count, seed=10 * number + (split == "train"))
            if split == "validation":
                held[domain] = documents
            for i in range(3):
                some = documents[i::3]
                name = f"tokens/{domain}/{split}/{i:06d}"
                listed.setdefault((domain, split), []).append(
                    _write_shard(folder, name, encoder.encode(some) if some else [])
                )
            if split == "validation":
                held[domain] = [d for i in range(3) for d in documents[i::3]]
    manifest = manifest_of(
        "tokens", listed, vocabulary=asdict(encoder.vocabulary), documents_sha256=""
    )
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / FILE).write_text(text)
    return held


def _write_shard(folder, name, documents):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = [len(ids) for ids in documents]
    index = np.zeros(len(documents), INDEX)
    index["start"] = np.cumsum([0, *sizes])[: len(sizes)]
    path.with_suffix(".bin").write_bytes(b"".join(ids.tobytes() for ids in documents))
    path.with_suffix(".idx").write_bytes(index.tobytes())
    return Shard(name=name, documents=len(documents), size=sum(sizes), sha256="")


def write_model(folder, config=LLAMA, tokenizer=None, seed=0):
    """A model's folder with far from uniform logits."""
    import torch

    model = config.build(seed=seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 4 if parameter.ndim > 1 else 1
            if not parameter.any():
                parameter += 0.1
    checkpoint.save(model, str(folder))
    if tokenizer != "":
        (folder / FILE).write_text(tokenizer or tokenizer_text())
    return model
