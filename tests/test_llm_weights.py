"""Model folders of others: adapters without an end, sizes far beyond the weights, scores that are no numbers."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from recloop.errors import GenerationError
from recloop.llm.chat import load_tokenizer, takes_system_role
from recloop.llm.local import TransformersLM
from recloop.llm.weights import adapter_config, base_folder_of, weights_hash
from tiny_lm import build_tiny_lm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("lm") / "lm")


@pytest.fixture
def model(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "model")


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000, "{}", '{"base_model_name_or_path": 3, "r": 4}'])
def test_a_damaged_adapter_is_one_clear_error(tmp_path, content):
    (tmp_path / "adapter_config.json").write_text(content)
    for read in (adapter_config, base_folder_of, weights_hash):
        with pytest.raises(GenerationError, match=r"adapter_config\.json"):
            read(tmp_path)


def test_an_adapter_of_itself_is_refused(tmp_path):
    told = {"base_model_name_or_path": str(tmp_path), "r": 4}
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    with pytest.raises(GenerationError, match="must be a whole model"):
        weights_hash(tmp_path)


@pytest.mark.parametrize("rank", [0, -1, "4", 10**9, None])
def test_a_rank_has_bounds(tmp_path, rank):
    told = {"base_model_name_or_path": "base", "r": rank}
    (tmp_path / "adapter_config.json").write_text(json.dumps(told))
    with pytest.raises(GenerationError, match="a rank r from 1 to"):
        adapter_config(tmp_path)


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 0},
        {"hidden_size": 10**7},
        {"vocab_size": 10**9},
        {"head_dim": 10**8},
    ],
)
def test_sizes_far_beyond_the_weights_are_refused_before_they_are_made(model, sizes):
    change(model / "config.json", **sizes)
    with pytest.raises(GenerationError, match="sizes that are not theirs"):
        TransformersLM(model, device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_when_read(model, value):
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][3] = value
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GenerationError, match="no finite numbers"):
        TransformersLM(model, device="cpu")


def test_tokens_beyond_the_model_are_refused_when_read(model):
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:100].clone()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    change(model / "config.json", vocab_size=100)
    with pytest.raises(GenerationError, match="below the 100 of the model"):
        TransformersLM(model, device="cpu")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{", "must write a conversation"),
        ("{{ messages[9].content }}", "must write a conversation"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "must write a conversation"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more than 200,000 steps"),
        ("{{ 'x' * 10**11 }}", "no powers and no large numbers"),
        ("Hello.", "must show what it is asked"),
    ],
)
def test_a_bad_chat_template_is_one_clear_error(model, template, complaint):
    (model / "chat_template.jinja").write_text(template)
    with pytest.raises(GenerationError, match=complaint):
        takes_system_role(load_tokenizer(model))


def test_a_chat_template_among_named_ones_has_the_same_limits(model):
    (model / "chat_template.jinja").unlink()
    named = [{"name": "default", "template": "{{ messages | tojson(indent=10**9) }}"}]
    change(model / "tokenizer_config.json", chat_template=named)
    with pytest.raises(GenerationError, match="no powers and no large numbers"):
        load_tokenizer(model)


def test_a_damaged_tokenizer_is_one_clear_error(model):
    (model / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(GenerationError, match=r"cannot be read"):
        load_tokenizer(model)


def test_a_whole_model_is_read(model):
    assert torch.is_tensor(TransformersLM(model, device="cpu")._model.lm_head.weight)
