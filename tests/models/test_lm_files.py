"""Models to and from disk, our format and Hugging Face's; broken files; generated text."""

import dataclasses
import json

import pytest
import torch

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError
from gristmill.core.job import run_job
from gristmill.models.lm import checkpoint, hugging_face, safetensor_file
from gristmill.models.lm.config import ModelConfig
from gristmill.models.lm.generate import GenerateJob
from gristmill.models.lm.sampling import Sampling, choose, generate

LLAMA = ModelConfig(
    vocab_size=60, width=32, num_layers=2, num_heads=4, ffn_hidden=48, context_length=64
)
LLAMAS = {
    "plain": LLAMA,
    "grouped": dataclasses.replace(LLAMA, num_kv_heads=2),
    "tied": dataclasses.replace(LLAMA, tied=True, norm_eps=1e-6, rope_theta=500.0),
    "heads": dataclasses.replace(LLAMA, head_dim=16, num_kv_heads=1),
}
PI = dataclasses.replace(LLAMA, series=2, shortcuts=1, shortcut_reduction=4, attention_bias="kv")
TOKENS = torch.randint(0, 60, (2, 40), generator=torch.Generator().manual_seed(0))


def model_of(config, seed=5):
    model = config.build(seed=seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter += 0.1 * torch.randn(
                    parameter.shape, generator=torch.Generator().manual_seed(1)
                )
            else:
                parameter *= 5  # far from a uniform distribution
    return model


def same(one, other):
    assert one.config == other.config
    names = dict(other.named_parameters())
    assert all(torch.equal(value, names[name]) for name, value in one.named_parameters())


@pytest.mark.parametrize("config", [*LLAMAS.values(), PI])
def test_a_saved_model_comes_back_whole(tmp_path, config):
    model = model_of(config)
    sha256 = checkpoint.save(model, str(tmp_path))
    assert sha256 == io.sha256(str(tmp_path / checkpoint.WEIGHTS))
    back = checkpoint.load(str(tmp_path), expect=config)
    same(model, back)
    assert all(p.requires_grad for p in back.parameters())
    assert (back.head.weight is back.embedding.weight) == config.tied
    assert not back.training


def test_our_safetensors_are_the_librarys(tmp_path):
    from safetensors.torch import load_file

    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.randn(2, 5).bfloat16().T,  # not contiguous
        "c": torch.tensor(7),
        "d": torch.zeros(0, 3),
        "e": torch.tensor([True, False]),
    }
    uri = str(tmp_path / "x.safetensors")
    safetensor_file.write(uri, tensors, metadata={"format": "pt"})
    back = load_file(uri)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], value) for name, value in tensors.items())
    assert all(back[name].dtype == value.dtype for name, value in tensors.items())


def test_models_live_on_any_storage():
    model = model_of(LLAMA)
    checkpoint.save(model, "memory://models/one")
    same(model, checkpoint.load("memory://models/one"))
    hugging_face.export(model, "memory://models/two")
    same(model, hugging_face.read("memory://models/two"))


def test_broken_and_foreign_folders_are_named(tmp_path):
    folder = str(tmp_path / "m")
    with pytest.raises(BadInputError, match=r"no model at .*m: it has no model\.json"):
        checkpoint.load(folder)
    checkpoint.save(model_of(LLAMA), folder)
    wider = dataclasses.replace(LLAMA, width=64)
    with pytest.raises(BadInputError, match="holds another model.*width: 32 -> 64"):
        checkpoint.load(folder, expect=wider)
    other = checkpoint.configs.to_dict(dataclasses.replace(LLAMA, ffn_hidden=40))
    io.write_json(io.join(folder, checkpoint.CONFIG), other)
    with pytest.raises(
        CorruptDataError, match=r"feed_forward.down.weight: \(32, 48\), wanted \(32, 40\).* more"
    ):
        checkpoint.load(folder)
    io.write_json(io.join(folder, checkpoint.CONFIG), checkpoint.configs.to_dict(LLAMA))
    whole = (tmp_path / "m" / checkpoint.WEIGHTS).read_bytes()
    for cut in (0, 5, 100, len(whole) - 1):
        (tmp_path / "m" / checkpoint.WEIGHTS).write_bytes(whole[:cut])
        with pytest.raises(CorruptDataError, match="cannot read weights"):
            checkpoint.load(folder)
    (tmp_path / "m" / checkpoint.WEIGHTS).unlink()
    with pytest.raises(BadInputError, match="no file at"):
        checkpoint.load(folder)


@pytest.mark.parametrize("name", LLAMAS)
def test_an_exported_llama_is_transformers_llama_and_comes_back(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    model = model_of(LLAMAS[name])
    assert hugging_face.is_llama(model.config)
    hugging_face.export(model, str(tmp_path / "ours"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert type(theirs).__name__ == "LlamaForCausalLM"
    with torch.no_grad():
        wanted = model(TOKENS)
        torch.testing.assert_close(theirs(TOKENS).logits, wanted, rtol=0, atol=1e-5)
        assert wanted.std() > 0.1  # so that 1e-5 says something
        same(model, hugging_face.read(str(tmp_path / "ours")))
        theirs.save_pretrained(tmp_path / "theirs")
        back = hugging_face.read(str(tmp_path / "theirs"))
        torch.testing.assert_close(back(TOKENS), wanted, rtol=0, atol=1e-5)
        greedy = generate(model, TOKENS[:, :5], max_new_tokens=12, sampling=Sampling(temperature=0))
        told = theirs.generate(
            TOKENS[:, :5],
            attention_mask=torch.ones(2, 5),  # else made up from a padding token
            max_new_tokens=12,
            do_sample=False,
            pad_token_id=0,
        )
    assert torch.equal(greedy, told)


@pytest.mark.usefixtures("custom_code")
def test_another_model_is_exported_with_its_code(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = model_of(PI)
    hugging_face.export(model, str(tmp_path / "pi"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "pi", trust_remote_code=True
    ).eval()
    with torch.no_grad():
        out = theirs(TOKENS, labels=TOKENS)
        torch.testing.assert_close(out.logits, model(TOKENS), rtol=0, atol=1e-5)
        torch.testing.assert_close(out.loss, model(TOKENS[:, :-1], TOKENS[:, 1:]))
        told = theirs.generate(
            TOKENS[:1, :5],
            attention_mask=torch.ones(1, 5),
            max_new_tokens=6,
            do_sample=False,
            pad_token_id=0,
        )
    greedy = generate(model, TOKENS[:1, :5], max_new_tokens=6, sampling=Sampling(temperature=0))
    assert torch.equal(greedy, told)
    same(model, hugging_face.read(str(tmp_path / "pi")))
    with pytest.raises(ValueError, match="padding is not supported"):
        theirs(TOKENS, attention_mask=torch.zeros_like(TOKENS))


def test_an_older_llama_keeps_tables_beside_its_weights(tmp_path):
    model = model_of(LLAMA)
    hugging_face.export(model, str(tmp_path))
    [path] = tmp_path.glob("*.safetensors")
    stored = safetensor_file.read(str(path))
    stored = {name: value.clone() for name, value in stored.items()}
    table = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    safetensor_file.write(str(path), {**stored, **table}, metadata={"format": "pt"})
    same(model, hugging_face.read(str(tmp_path)))


def test_a_llama_with_parts_we_lack_is_refused(tmp_path):
    hugging_face.export(model_of(LLAMA), str(tmp_path))
    path = tmp_path / "config.json"
    plain = json.loads(path.read_text())
    for change, said in (
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "activation gelu"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "rope llama3"),
        ({"model_type": "mamba"}, "type 'mamba'; llama and gristmill can be read"),
    ):
        path.write_text(json.dumps({**plain, **change}))
        with pytest.raises(BadInputError, match=said):
            hugging_face.read(str(tmp_path))


def test_greedy_generation_equals_the_full_forward_step_by_step():
    model = model_of(PI)
    tokens = TOKENS[:, :3]
    with torch.no_grad():
        for _ in range(9):
            tokens = torch.cat((tokens, model(tokens)[:, -1:].argmax(-1)), dim=1)
    found = generate(model, TOKENS[:, :3], max_new_tokens=9, sampling=Sampling(temperature=0))
    assert torch.equal(found, tokens)
    stop = int(tokens[0, 5])
    ended = generate(
        model,
        TOKENS[:1, :3],
        max_new_tokens=9,
        sampling=Sampling(temperature=0),
        stop_token=stop,
    )
    first = tokens[0, 3:].tolist().index(stop)
    assert torch.equal(ended, tokens[:1, : 4 + first])


def test_choices_follow_the_probabilities_they_are_cut_to():
    logits = torch.tensor([[0.4, 0.1, 0.3, 0.2]]).log().repeat(4000, 1)

    def shares(**how):
        drawn = choose(logits, Sampling(**how), torch.Generator().manual_seed(0))
        return (drawn.flatten().bincount(minlength=4) / 4000).tolist()

    near = {"abs": 0.03}
    assert shares() == pytest.approx([0.4, 0.1, 0.3, 0.2], **near)
    assert shares(top_k=2) == pytest.approx([4 / 7, 0, 3 / 7, 0], **near)
    assert shares(top_p=0.6) == pytest.approx([4 / 7, 0, 3 / 7, 0], **near)
    assert shares(top_p=0.01) == [1, 0, 0, 0]
    assert shares(temperature=0.0) == [1, 0, 0, 0]
    squares = [0.16 / 0.3, 0.01 / 0.3, 0.09 / 0.3, 0.04 / 0.3]
    assert shares(temperature=0.5) == pytest.approx(squares, **near)


def test_prompts_and_settings_that_cannot_be_are_refused():
    model = model_of(LLAMA)
    with pytest.raises(BadInputError, match="the prompt is empty"):
        generate(model, TOKENS[:, :0], max_new_tokens=3)
    with pytest.raises(BadInputError, match="token ids 0 to 60, the model a vocabulary of 60"):
        generate(model, torch.tensor([[0, 60]]), max_new_tokens=3)
    with pytest.raises(BadInputError, match="top_p must lie in"):
        Sampling(top_p=0)
    with pytest.raises(BadInputError, match="num_texts must be 1 or more, not 0"):
        GenerateJob(model="m", num_texts=0)


def test_the_generate_job_prints_and_keeps_text(tmp_path, capsys):
    tokenizers = pytest.importorskip("tokenizers")
    words = {f"w{i}": i for i in range(59)} | {"<|endoftext|>": 59}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder = tmp_path / "model"
    checkpoint.save(model_of(LLAMA), str(folder))
    job = GenerateJob(
        model=str(folder),
        prompt="w3 w4",
        num_texts=2,
        max_new_tokens=5,
        device="cpu",
        out=str(tmp_path / "out"),
    )
    assert "2 texts of up to 5 tokens" in job.plan().text()
    with pytest.raises(BadInputError, match=r"no file at .*tokenizer\.json"):
        run_job(job)
    tokenizer.save(str(folder / "tokenizer.json"))
    run_job(job)
    lines = [json.loads(line) for line in (tmp_path / "out" / "texts.jsonl").open()]
    assert [line["tokens"][:2] for line in lines] == [[3, 4], [3, 4]]
    assert lines[0]["text"].startswith("w3 w4")
    assert lines[0]["text"] in capsys.readouterr().out
    run_job(job)  # the same seed, the same text
    assert [json.loads(line) for line in (tmp_path / "out" / "texts.jsonl").open()] == lines
    empty = dataclasses.replace(job, prompt="", out=str(tmp_path / "empty"))
    run_job(empty)
    assert json.loads((tmp_path / "empty" / "texts.jsonl").open().readline())["tokens"][0] == 59
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptDataError, match="is not a tokenizer"):
        run_job(dataclasses.replace(job, out=str(tmp_path / "bad")))
