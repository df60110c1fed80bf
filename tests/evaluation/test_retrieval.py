import numpy as np
import pytest
from eval_world import caption_samples, write_set

from gristmill.evaluation import retrieval
from gristmill.evaluation.retrieval import Retrieval, _chance, rank, recalls
from gristmill.evaluation.tasks.base import HIGH, LOW, MAIN


def naive(images, texts, owner):
    """The definitions with full sorts, a row at a time."""
    scores = texts @ images.T
    found = {}
    for k in (1, 5, 10):
        hits = []
        for t, row in enumerate(scores):
            order = sorted(range(len(images)), key=lambda i: (-row[i], i))
            hits.append(owner[t] in order[:k])
        found[f"image_retrieval_recall@{k}"] = sum(hits) / len(hits)
        hits = []
        for i, column in enumerate(scores.T):
            order = sorted(range(len(texts)), key=lambda t: (-column[t], t))
            hits.append(any(owner[t] == i for t in order[:k]))
        found[f"text_retrieval_recall@{k}"] = sum(hits) / len(hits)
        both = found[f"image_retrieval_recall@{k}"] + found[f"text_retrieval_recall@{k}"]
        found[f"mean_recall@{k}"] = both / 2
    return found


@pytest.mark.parametrize("block", [1, 40, 1 << 24])
@pytest.mark.parametrize("captions", [1, 3, "mixed"])
@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_recalls_equal_the_definitions(monkeypatch, block, captions, levels):
    monkeypatch.setattr(retrieval, "BLOCK_SCORES", block)
    rng = np.random.default_rng(levels)
    # Small whole numbers: products are exact, so ties are ties on every machine.
    images = rng.integers(0, levels, (14, 3)).astype(np.float32)
    counts = rng.integers(1, 5, 14) if captions == "mixed" else np.full(14, captions)
    owner = np.repeat(np.arange(14), counts)
    texts = rng.integers(0, levels, (len(owner), 3)).astype(np.float32)
    assert recalls(rank(images, texts, owner)) == pytest.approx(naive(images, texts, owner))


def test_a_perfect_and_a_useless_model():
    eye = np.eye(12, dtype=np.float32)
    assert set(recalls(rank(eye, eye, np.arange(12))).values()) == {1.0}
    flat = np.ones((12, 2), np.float32)  # all scores equal: only order decides
    found = recalls(rank(flat, flat, np.arange(12)))
    assert found["mean_recall@1"] == pytest.approx(1 / 12)
    assert found["text_retrieval_recall@10"] == pytest.approx(10 / 12)


@pytest.mark.parametrize("cut", [1, 3, 10])
@pytest.mark.parametrize("counts", [[1] * 12, [3] * 12, [1, 4, 2, 1, 1, 7]])
def test_chance_is_what_random_orders_score(cut, counts):
    counts = np.array(counts)
    owner = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(3000):
        texts, images = rng.permutation(len(owner)), rng.permutation(len(counts))
        found = np.isin(np.arange(len(counts)), owner[texts[:cut]]).mean()
        scores.append((found + np.isin(owner, images[:cut]).mean()) / 2)
    assert _chance(counts, cut) == pytest.approx(np.mean(scores), abs=1e-9 + np.std(scores) / 12)


class Things(Retrieval):
    """A set of our own, with the demo's main metric."""

    name = "Things"
    key = "things"
    metric = "mean_recall@10"
    cut = 10


def test_the_task_end_to_end_with_several_captions(tiny, tmp_path):
    write_set(tmp_path / "wds_things_test", caption_samples(11))
    results = [Things().evaluate(tiny, str(tmp_path), batch) for batch in (2, 64)]
    metrics = results[0].metrics
    assert (metrics["num_samples"], metrics["num_captions"]) == (11, 22)
    assert metrics[LOW] <= metrics[MAIN] == metrics["mean_recall@10"] <= metrics[HIGH]
    assert results[0].metrics == results[1].metrics
    assert results[0].chance == pytest.approx(_chance(np.full(11, 2), 10))
    assert metrics["mean_recall@1"] <= metrics["mean_recall@5"] <= metrics["mean_recall@10"]
