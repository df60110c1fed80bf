import math

import numpy as np
import pytest
from eval_world import COLOURS, colour_samples, write_set

from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.evaluation.tasks.base import HIGH, LOW, MAIN
from gristmill.evaluation.zero_shot import (
    Predictions,
    ZeroShotClassification,
    best_classes,
    zero_shot_classifier,
)


def predictions(scores, labels, num_classes):
    records = [{} for _ in labels]
    return Predictions(np.array(labels), best_classes(np.array(scores)), num_classes, records)


def naive(scores, labels, num_classes):
    """The definitions, sample by sample."""
    right, top5, by_class = 0, 0, {}
    for row, label in zip(scores, labels, strict=True):
        order = sorted(range(num_classes), key=lambda c: (-row[c], c))
        right += order[0] == label
        top5 += label in order[:5]
        by_class.setdefault(label, []).append(order[0] == label)
    recalls = [sum(v) / len(v) for v in by_class.values()]
    acc5 = top5 / len(labels) if num_classes >= 5 else None
    return right / len(labels), acc5, sum(recalls) / len(recalls)


@pytest.mark.parametrize("num_classes", [2, 4, 5, 9])
@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_metrics_equal_the_definitions_with_and_without_ties(num_classes, levels):
    rng = np.random.default_rng(num_classes * levels)
    scores = rng.integers(0, levels, (60, num_classes)).astype(np.float32)
    labels = rng.integers(0, num_classes, 60)
    seen = predictions(scores, labels, num_classes)
    acc1, acc5, recall = naive(scores.tolist(), labels.tolist(), num_classes)
    assert seen.accuracy(1) == pytest.approx(acc1, abs=1e-12)
    assert seen.accuracy(5) == (acc5 if acc5 is None else pytest.approx(acc5, abs=1e-12))
    assert seen.mean_per_class_recall() == pytest.approx(recall, abs=1e-12)


def test_recall_is_scikit_learns_balanced_accuracy():
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(3)
    scores, labels = rng.random((80, 6)), rng.integers(0, 5, 80)  # class 5 has no samples
    expected = balanced_accuracy_score(labels, scores.argmax(axis=1))
    assert predictions(scores, labels, 6).mean_per_class_recall() == pytest.approx(expected)


def test_equal_scores_go_to_the_first_class():
    seen = predictions([[1.0, 1.0, 1.0]] * 3, [0, 1, 2], 3)
    assert seen.accuracy(1) == pytest.approx(1 / 3)
    assert seen.right.tolist() == [True, False, False]


def test_classifier_is_the_mean_of_normalised_prompts(tiny):
    import torch
    from torch.nn import functional

    names, templates = ["red", "a {blue} one", "green"], ["a {c}.", "{c} and {c}", "photo of {c}"]
    rows = []
    for name in names:  # CLIP_benchmark's zero_shot_classifier, a class at a time
        tokens = tiny.tokenizer([t.replace("{c}", name) for t in templates])
        with torch.no_grad():
            features = functional.normalize(tiny.model.encode_text(tokens), dim=-1).mean(dim=0)
        rows.append((features / features.norm()).numpy())
    for batch_size in (1, 4, 100):
        ours = zero_shot_classifier(tiny, names, templates, batch_size)
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, np.stack(rows), atol=2e-6)


class Colours(ZeroShotClassification):
    """Our own kind of main metric, as a task file would add it."""

    name = "Colours"
    key = "vtab/colours"
    test_size = 20
    group = "vtab"
    metric = "worst_half"

    def more_metrics(self, seen):
        halves = [seen.right[[r["half"] == b for r in seen.records]] for b in (b"0", b"1")]
        return {"worst_half": float(min(half.mean() for half in halves))}

    def interval(self, seen):
        return 0.0, 1.0


def test_a_task_can_bring_its_own_metric_and_read_other_members(tiny, tmp_path):
    samples = colour_samples(20)
    for i, (_, members) in enumerate(samples):
        members["half"] = str(i % 2).encode()
    write_set(tmp_path / "wds_vtab-colours_test", samples, classnames=COLOURS)
    results = [Colours().evaluate(tiny, str(tmp_path), batch) for batch in (1, 7, 64)]
    metrics = results[0].metrics
    assert metrics[MAIN] == metrics["worst_half"] <= metrics["acc1"]
    assert (metrics[LOW], metrics[HIGH], metrics["acc5"]) == (0.0, 1.0, None)
    assert results[0].metrics == results[1].metrics == results[2].metrics
    assert results[0].details == results[2].details
    assert set(results[0].inputs) == {
        "classnames.txt",
        "zeroshot_classification_templates.txt",
        "test/0.tar",
        "test/1.tar",
    }
    kept = results[0].details["pictures"]
    assert 1 <= len(kept) <= 12
    assert sum(map(sum, results[0].details["confusion"])) == 20


def test_a_set_of_another_size_is_refused(tiny, tmp_path):
    write_set(tmp_path / "wds_vtab-colours_test", colour_samples(19), classnames=COLOURS)
    with pytest.raises(BadInputError, match="holds 19 samples, not 20"):
        Colours().evaluate(tiny, str(tmp_path), 8)


def test_digits_are_a_fixed_set_of_1797_and_the_batch_does_not_matter(tiny):
    from gristmill.evaluation.tasks.digits import Digits

    task = Digits()
    task.check("")
    result = task.evaluate(tiny, "", 256)
    assert result.metrics["num_samples"] == 1797
    assert 0 < result.metrics["acc1"] < 0.4
    assert result.metrics["acc5"] > result.metrics["acc1"]
    assert result.metrics[LOW] < result.metrics["acc1"] < result.metrics[HIGH]
    assert result.chance == 0.1
    assert math.isclose(sum(result.details["support"]), 1797)


def test_a_diverged_model_is_an_error_not_a_score(tiny, tmp_path):
    import copy
    import dataclasses

    import torch

    broken = dataclasses.replace(tiny, model=copy.deepcopy(tiny.model))
    with torch.no_grad():
        next(broken.model.visual.parameters()).fill_(float("nan"))
    write_set(tmp_path / "wds_vtab-colours_test", colour_samples(20), classnames=COLOURS)
    with pytest.raises(BadInputError, match="image features are not finite"):
        Colours().evaluate(broken, str(tmp_path), 8)


def test_a_broken_picture_names_its_file_and_key(tiny, tmp_path):
    samples = colour_samples(20)
    samples[6][1]["webp"] = samples[6][1]["webp"][:40]
    write_set(tmp_path / "wds_vtab-colours_test", samples, classnames=COLOURS)
    with pytest.raises(CorruptDataError, match=r"0\.tar, sample s0006"):
        Colours().evaluate(tiny, str(tmp_path), 8)
