import json
import shutil
import time

import numpy as np
import pytest

from recloop.errors import GenerationError, SettingError
from recloop.llm.language_model import Sampling
from recloop.llm.local import TransformersLM
from recloop.records import Prompt
from recloop.testing import check_language_model
from tiny_lm import build_tiny_lm

SAMPLING = Sampling(num_completions=4, temperature=1.0, top_p=0.95, max_tokens=12, seed=5)


@pytest.fixture(scope="module")
def lm_folder(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def lm(lm_folder):
    return TransformersLM(lm_folder, device="cpu")


def make_prompts(num, seed=0):
    rng = np.random.default_rng(seed)
    lines = ['5 stars | "Glass Harbour" | Drama', '2 stars | "Ox" | Comedy', '4 stars | "Sea" | War']
    return [
        Prompt(user, "You summarise.", "\n".join(lines[i] for i in rng.integers(0, 3, rng.integers(0, 7))), 1, 0)
        for user in range(num)
    ]


def ask(lm, prompts, sampling=SAMPLING):
    answers = dict(lm.generate(prompts, sampling))
    return [answers[position] for position in range(len(prompts))]


@pytest.mark.slow
def test_it_keeps_the_contract(lm):
    check_language_model(lm)


@pytest.mark.slow
def test_small_batches_give_the_same_completions_as_one(lm_folder, lm):
    prompts = make_prompts(9)
    narrow = TransformersLM(lm_folder, device="cpu", batch_tokens=200)
    for one, other in zip(ask(lm, prompts), ask(narrow, prompts), strict=True):
        assert [d.text for d in one] == [d.text for d in other]
        assert [d.num_tokens for d in one] == [d.num_tokens for d in other]


def test_logp_sum_is_what_a_plain_forward_pass_gives(lm_folder, lm):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(lm_folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(lm_folder)
    greedy = Sampling(1, 0.0, 1.0, 12, 0)
    prompt = make_prompts(3)[2]
    (completion,) = ask(lm, [prompt], greedy)[0]
    ids = tokenizer(lm.render(prompt), add_special_tokens=False).input_ids
    logp, reply = 0.0, []
    with torch.inference_mode():
        for _ in range(12):
            logps = model(torch.tensor([ids + reply])).logits[0, -1].log_softmax(-1)
            reply.append(int(logps.argmax()))
            logp += float(logps.max())
            if reply[-1] == tokenizer.eos_token_id:
                break
    assert completion.logp_sum == pytest.approx(logp, abs=1e-4)
    assert completion.num_tokens == len(reply)
    assert completion.text == tokenizer.decode(reply, skip_special_tokens=True).strip()


def test_the_prompt_ends_where_the_answer_begins(lm):
    assert lm.render(Prompt(3, "Sum up.", "One line.", 1, 0)) == "<|system|>Sum up.<|user|>One line.<|assistant|>"
    assert lm.count_tokens("") == 0


def test_a_template_that_refuses_a_system_role_gets_one_turn(lm_folder, tmp_path):
    folder = shutil.copytree(lm_folder, tmp_path / "lm")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "<|user|>{{ m.content }}{% endfor %}<|assistant|>"
    )
    lm = TransformersLM(folder, device="cpu")
    assert lm.render(Prompt(3, "Sum up.", "One line.", 1, 0)) == "<|user|>Sum up.\n\nOne line.<|assistant|>"


def test_the_name_follows_the_weights_not_the_folder(lm_folder, lm, tmp_path):
    moved = shutil.copytree(lm_folder, tmp_path / "moved")
    assert TransformersLM(moved, device="cpu").name == lm.name
    assert TransformersLM(build_tiny_lm(tmp_path / "other", seed=1), device="cpu").name != lm.name


@pytest.mark.slow
# peft reads an attribute that transformers is about to rename.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_folder_answers_as_its_merged_model(lm_folder, lm, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(lm_folder),
        LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    )
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.fill_(0.1)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(lm_folder / file, tmp_path / "merged")
    adapter, merged = (TransformersLM(tmp_path / kind, device="cpu") for kind in ("adapter", "merged"))
    prompts = make_prompts(3)
    texts = [[d.text for d in completions] for completions in ask(adapter, prompts)]
    assert texts == [[d.text for d in completions] for completions in ask(merged, prompts)]
    assert texts != [[d.text for d in completions] for completions in ask(lm, prompts)]
    assert len({adapter.name, merged.name, lm.name}) == 3


def test_a_prompt_that_leaves_no_room_is_an_error(lm):
    with pytest.raises(GenerationError, match=r"fit into the 512 tokens .* for user 8 and max_tokens=12"):
        ask(lm, [Prompt(8, "", "word " * 600, 1, 0)])


def test_no_prompts_no_completions(lm):
    assert list(lm.generate([], SAMPLING)) == []


def test_an_unknown_folder_is_one_clear_error(tmp_path):
    with pytest.raises(GenerationError, match=r"got '.*nowhere' \(no such folder\)"):
        TransformersLM(tmp_path / "nowhere")
    with pytest.raises(GenerationError, match=r"no config\.json in it"):
        TransformersLM(tmp_path)
    with pytest.raises(GenerationError, match="Hugging Face"):
        TransformersLM("nobody/nothing-at-all")  # offline in tests


def without_template(folder):
    (folder / "chat_template.jinja").unlink()


def cut_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def no_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def own_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "made_up",
        "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("raise SystemExit('this must never run')")


@pytest.mark.parametrize("damage", [without_template, cut_weights, no_weights, own_code])
def test_a_damaged_folder_is_one_clear_error(lm_folder, tmp_path, damage):
    folder = shutil.copytree(lm_folder, tmp_path / "lm")
    damage(folder)
    with pytest.raises(GenerationError, match="lm"):
        TransformersLM(folder, device="cpu")


@pytest.mark.slow
def test_ten_completions_cost_a_third_of_what_generate_needs(tmp_path):
    """Processor time, one thread, prompts of 200 tokens; measured 12 times less at 448 tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = build_tiny_lm(tmp_path, width=192, num_layers=4)
    lm = TransformersLM(folder, device="cpu")
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    prompts = [Prompt(user, "", f"{user} drama war " * 30, 1, 0) for user in range(6)]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start_s = time.process_time()
        ask(lm, prompts, Sampling(10, 1.0, 1.0, 24, 0))
        ours_s = time.process_time() - start_s
        encoded = tokenizer([lm.render(p) for p in prompts], padding=True, return_tensors="pt")
        start_s = time.process_time()
        with torch.inference_mode():
            model.generate(
                **encoded, do_sample=True, top_k=0, num_return_sequences=10, max_new_tokens=24, pad_token_id=0
            )
        theirs_s = time.process_time() - start_s
    finally:
        torch.set_num_threads(num_threads)
    assert theirs_s > 3 * ours_s


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("wide"), width=64)  # 4 bits come in blocks of 64 weights


@pytest.mark.slow
def test_in_four_bits_it_keeps_the_contract_under_a_name_of_its_own(wide_folder):
    lm = TransformersLM(wide_folder, device="cpu")
    small = TransformersLM(wide_folder, device="cpu", load_in_4bit=True)
    check_language_model(small)
    assert small.name == lm.name.replace("M-", "M-4bit-")
    layer = small._model.model.layers[0].mlp.gate_proj
    assert type(layer).__name__ == "Linear4bit"
    assert layer.weight.element_size() * layer.weight.numel() * 2 == layer.in_features * layer.out_features


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_in_four_bits_an_adapter_is_not_rounded_with_its_base(wide_folder, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(wide_folder)
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    AutoTokenizer.from_pretrained(wide_folder).save_pretrained(tmp_path / "adapter")
    adapter, plain = (
        TransformersLM(folder, device="cpu", load_in_4bit=True) for folder in (tmp_path / "adapter", wide_folder)
    )
    prompts = make_prompts(4)
    reply = "By genre: likes Drama."
    changes = [
        abs(one - other) > 0.1
        for (one, _), (other, _) in zip(
            adapter.reply_logps(prompts, [reply] * 4), plain.reply_logps(prompts, [reply] * 4), strict=True
        )
    ]
    assert all(changes)
    layer = adapter._model.model.layers[0].mlp.gate_proj
    whole = adapted.base_model.model.model.layers[0].mlp.gate_proj
    assert torch.equal(layer.lora_A["default"].weight, whole.lora_A["default"].weight)


def test_without_bitsandbytes_four_bits_are_one_clear_error(lm_folder, monkeypatch):
    monkeypatch.setattr("recloop.llm.weights.find_spec", lambda name: None)
    with pytest.raises(SettingError, match="load_in_4bit needs bitsandbytes, got none; pip install"):
        TransformersLM(lm_folder, device="cpu", load_in_4bit=True)
