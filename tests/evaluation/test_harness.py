"""The harness on a small local task, and our model beside the harness's own Hugging Face one."""

import dataclasses
import json
import math

import pytest
import torch
from lm_world import LLAMA, tokenizer_text, write_corpus, write_model

from gristmill.core.errors import BadInputError
from gristmill.core.job import run_job
from gristmill.evaluation.lm.evaluate import LmEvaluateJob
from gristmill.models.lm import hugging_face

pytest.importorskip("lm_eval")
CHOICE = """
task: grain_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: choices
metric_list:
  - metric: acc
  - metric: acc_norm
"""
TEXT = """
task: grain_text
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
"""
WRITTEN = """
task: grain_written
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{written}}}}"
generation_kwargs:
  until: ["mill"]
  max_gen_toks: 12
metric_list:
  - metric: exact_match
"""
WORDS = ["meal", "grain", "wheat", "stone", "river", "wheel", "flour", "oat", "bread"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path_factory):
    import datasets

    cache = tmp_path_factory.mktemp("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harness")
    (folder / "tasks").mkdir()
    rows = []
    for i in range(24):
        question = " ".join(WORDS[(i * k) % 9] for k in range(1, 3 + i % 7))
        choices = [f" {WORDS[i % 9]}", f" {WORDS[(i + 4) % 9]} of the mill", " é日\U0001f33e"]
        text = " ".join(WORDS[(i * k + 1) % 9] for k in range(4 + 7 * (i % 5))) + "\n"
        rows.append(
            {"question": question, "choices": choices, "answer": i % 3, "text": text, "written": ""}
        )
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, source in (("choice", CHOICE), ("text", TEXT), ("written", WRITTEN)):
        (folder / "tasks" / f"{name}.yaml").write_text(source.format(data=data))
    return {"folder": folder, "rows": rows, "model": write_model(folder / "m")}


def run(world, out, *tasks, **fields):
    job = LmEvaluateJob(
        model=str(world["folder"] / "m"),
        tasks=tasks,
        include_path=str(world["folder"] / "tasks"),
        out=str(out),
        **fields,
    )
    run_job(job)
    return json.loads((out / "results.json").read_text())


def test_a_local_task_gives_the_harnesss_own_names(world, tmp_path):
    found = run(world, tmp_path / "o", "grain_choice,grain_text", "grain_written")["tasks"]
    choice = found["results"]["grain_choice"]
    assert {"acc,none", "acc_stderr,none", "acc_norm,none"} <= set(choice)
    assert found["n-samples"] == {"grain_choice": 24, "grain_text": 24, "grain_written": 24}
    assert found["lm_eval"]
    p, n = choice["acc,none"], 24
    assert choice["acc,none"] == pytest.approx(plain_accuracy(world), abs=1e-9)
    assert choice["acc_stderr,none"] == pytest.approx(math.sqrt(p * (1 - p) / (n - 1)), rel=1e-6)
    bits = found["results"]["grain_text"]["bits_per_byte,none"]
    assert bits == pytest.approx(plain_bits(world), rel=1e-5)
    page = (tmp_path / "o" / "report.html").read_text()
    assert "grain_text" in page and "bits_per_byte,none" in page


def plain_score(world, context, text):
    """Sum of log p over the tokens of text, one pass a text, no batches."""
    from tokenizers import Tokenizer

    ids = Tokenizer.from_str(tokenizer_text())
    before = ids.encode(context).ids or [ids.token_to_id("<|endoftext|>")]
    whole = ids.encode(context + text).ids if context else before + ids.encode(text).ids
    total = 0.0
    for start in range(len(before), len(whole), LLAMA.context_length):
        piece = whole[max(start - 1, 0) : start + LLAMA.context_length] if not context else whole
        with torch.no_grad():
            logs = world["model"](torch.tensor([piece[:-1]]))[0].double().log_softmax(-1)
        wanted = piece[1:] if not context else whole[len(before) :]
        total += sum(float(row[t]) for row, t in zip(logs[-len(wanted) :], wanted, strict=True))
        if context:
            break
    return total


def plain_accuracy(world):
    scores = [
        [plain_score(world, row["question"], choice) for choice in row["choices"]]
        for row in world["rows"]
    ]
    right = [
        max(range(3), key=lambda i, s=s: s[i]) == row["answer"]
        for s, row in zip(scores, world["rows"], strict=True)
    ]
    return sum(right) / len(right)


def plain_bits(world):
    nats = sum(plain_score(world, "", row["text"]) for row in world["rows"])
    return -nats / math.log(2) / sum(len(row["text"].encode()) for row in world["rows"])


PI = dataclasses.replace(LLAMA, series=2, shortcuts=1, shortcut_reduction=4)


@pytest.mark.parametrize("config", [LLAMA, PI], ids=["llama", "pangu-pi"])
@pytest.mark.usefixtures("custom_code")
def test_equals_the_harnesss_own_model_on_a_hugging_face_copy(config, tmp_path):
    pytest.importorskip("accelerate")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    from gristmill.evaluation.lm.harness_model import HarnessModel

    model = write_model(tmp_path / "ours", config=config)
    hugging_face.export(model, str(tmp_path / "theirs"))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer_text()), eos_token="<|endoftext|>"
    )
    fast.save_pretrained(str(tmp_path / "theirs"))
    theirs = HFLM(
        pretrained=str(tmp_path / "theirs"),
        device="cpu",
        dtype="float32",
        batch_size=3 if config is LLAMA else 1,  # our exported code takes no padding
        max_length=config.context_length,
        trust_remote_code=True,
    )
    ours = HarnessModel(
        model, str(tmp_path / "ours" / "tokenizer.json"), batch_size=5, precision="fp32"
    )

    def asked(kind, *arguments):
        return [
            Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)
        ]

    pairs = asked(
        "loglikelihood",
        ("grain of", " wheat"),
        ("grain of", " wheat and oat"),
        ("grain of ", "wheat"),
        ("", "a mill by the river"),
        ("stone " * 60, "wheel é日\U0001f33e"),  # longer than the context
        ("grain of", " rye"),
    )
    for mine, other in zip(ours.loglikelihood(pairs), theirs.loglikelihood(pairs), strict=True):
        assert mine[0] == pytest.approx(other[0], abs=1e-4) and mine[1] == other[1]
    whole = asked("loglikelihood_rolling", ("river",), ("wheat and oat " * 40,), ("é" * 30,))
    for mine, other in zip(
        ours.loglikelihood_rolling(whole), theirs.loglikelihood_rolling(whole), strict=True
    ):
        assert mine == pytest.approx(other, abs=1e-4) and mine < -1
    how = {"until": ["\n"], "max_gen_toks": 9, "do_sample": False}
    texts = asked("generate_until", ("grain of", how), ("stone wheel " * 30, how))
    assert ours.generate_until(texts) == theirs.generate_until(texts)


def test_stop_strings_end_a_text(world):
    from lm_eval.api.instance import Instance

    from gristmill.evaluation.lm.harness_model import HarnessModel

    ours = HarnessModel(
        world["model"],
        str(world["folder"] / "m" / "tokenizer.json"),
        batch_size=1,
        precision="fp32",
    )

    def text(**how):
        how = {"max_gen_toks": 12, **how}
        asked = Instance(request_type="generate_until", doc={}, arguments=("oat", how), idx=0)
        return ours.generate_until([asked])[0]

    whole = text(until=[])
    stop = whole[4:6]
    assert len(whole) > 6 and text(until=[stop]) == whole.split(stop)[0]
    with pytest.raises(BadInputError, match="asks for 48 new tokens"):
        text(max_gen_toks=48)


@pytest.mark.ray
def test_losses_and_tasks_in_one_run(world, tmp_path):
    write_corpus(tmp_path / "t", validation=20)
    found = run(
        world, tmp_path / "o", "grain_choice", corpora=(str(tmp_path / "t"),), limit=5, fewshot=0
    )
    assert set(found["domains"]) == {"bread", "mills"}
    assert found["tasks"]["n-samples"] == {"grain_choice": 5}


def test_unknown_tasks_and_missing_tokenizers_are_named(world, tmp_path):
    with pytest.raises(BadInputError, match="has no task 'grain_choise'; near: grain_choice"):
        run(world, tmp_path / "o", "grain_choise")
    write_model(tmp_path / "bare", tokenizer="")
    bare = {**world, "folder": tmp_path}
    (tmp_path / "bare").rename(tmp_path / "m")
    (tmp_path / "tasks").symlink_to(world["folder"] / "tasks")
    with pytest.raises(BadInputError, match="has no tokenizer.json; give --tokenizer"):
        run(bare, tmp_path / "p", "grain_choice")
