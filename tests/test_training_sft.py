"""Best-of-N fine-training: what it imitates, and that the trained model still stops."""

import pytest

from recloop.records import Pair
from recloop.training.result import TrainingRun
from recloop.training.sft import SftConfig, run_sft
from tiny_lm import build_tiny_lm
from training_cases import LIKED, make_prompts

pytestmark = pytest.mark.slow  # TRL takes ten seconds to import

CONFIG = SftConfig(learning_rate=1e-2, batch_size=4, gradient_accumulation_steps=1, epochs=20)


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("lm"))


def answer(folder, prompt, max_tokens=40):
    """The likeliest answer, token by token, special tokens shown."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.text}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + max_tokens and (len(ids) == start or ids[-1] != tokenizer.eos_token_id):
            ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
    return tokenizer.decode(ids[start:])


def test_the_tuned_model_says_the_best_completion_and_stops(lm, tmp_path):
    # Two pairs a user: the completion with reward 0.9 is the best, whatever the order.
    prompts = make_prompts(8)
    pairs = [
        pair
        for user in prompts
        for pair in (
            Pair(0, user, 1, 2, "By genre: likes War.", "x", 0.5, 0.0),
            Pair(0, user, 0, 2, LIKED, "x", 0.9, 0.0),
        )
    ]
    trained = run_sft(TrainingRun(lm, tmp_path / "out", 0), prompts, pairs, CONFIG)
    assert trained.num_rows == 8
    assert trained.log[-1]["loss"] < 0.05 < 1 < trained.log[0]["loss"]
    assert not answer(lm, prompts[0]).endswith("<|end|>")
    for prompt in (prompts[0], prompts[5]):
        assert answer(trained.folder, prompt) == f"{LIKED}<|end|>"
