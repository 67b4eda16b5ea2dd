"""The shared-prompt forward pass against TRL's own, values and gradients."""

import pytest

from tiny_lm import build_tiny_lm

pytestmark = pytest.mark.slow  # torch, transformers and TRL

PAD, NO_LABEL = 0, -100


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("lm"), num_layers=3)


def make_batch(prompt_lengths, reply_lengths):
    """Right-padded rows, reply 0 of every prompt first; `reply_lengths` is [replies][prompts]."""
    import torch

    generator = torch.Generator().manual_seed(len(prompt_lengths))

    def draw(length):
        return torch.randint(5, 300, (length,), generator=generator)

    prompts = [draw(length) for length in prompt_lengths]
    rows, labels = [], []
    for lengths in reply_lengths:
        for prompt, length in zip(prompts, lengths, strict=True):
            reply = draw(length)
            rows.append(torch.cat([prompt, reply]))
            labels.append(torch.cat([torch.full_like(prompt, NO_LABEL), reply]))
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad(rows, batch_first=True, padding_value=PAD)
    mask = pad([torch.ones_like(row) for row in rows], batch_first=True, padding_value=0)
    return ids, mask, pad(labels, batch_first=True, padding_value=NO_LABEL)


def mixed(batch):
    """The same rows as reinforcement has them: replies of one prompt anywhere, prompts padded at the left."""
    import torch

    rows = torch.randperm(len(batch[0]), generator=torch.Generator().manual_seed(1)).tolist()
    ids, mask, labels = (one[rows] for one in batch)
    starts = (labels != NO_LABEL).int().argmax(dim=1)
    spare = int(starts.max()) - starts

    def moved(one, value):
        room = one.new_full((len(one), one.shape[1] + int(spare.max())), value)
        for row, left in enumerate(spare.tolist()):
            room[row, left : left + one.shape[1]] = one[row]
        return room

    return moved(ids, PAD), moved(mask, 0), moved(labels, NO_LABEL)


def run(lm, batch, *, shares, temperature=1.0, dtype="float64", has_adapter=False):
    """Outputs and gradients; TRL's forward pass when prompts are not shared."""
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    from recloop.training.shared_prompt import share_prompts
    from recloop.training.trainer import whole_model

    model = AutoModelForCausalLM.from_pretrained(lm, dtype=dtype)
    add_fused_lm_head(model, temperature, outputs=("log_probs", "entropy", "mean_logits", "is_top1"))
    if has_adapter:
        model = adapted(model)
    if shares:
        share_prompts(whole_model(model), temperature)
    ids, mask, labels = batch
    found = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False, fused_lm_head=True)
    weights = torch.randn(found.log_probs.shape, generator=torch.Generator().manual_seed(0))
    (found.log_probs * weights).sum().backward()
    return model, found, {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def adapted(model):
    """The model with a random adapter, the only part that learns."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=3, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(0)
    return get_peft_model(model, config, autocast_adapter_dtype=False).to(model.dtype)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_with_an_adapter_values_and_gradients_equal_those_of_trl_and_so_does_the_base_without_it(lm):
    import torch

    batch = make_batch([40, 7, 1], [[3, 9, 1], [5, 2, 8]])
    (ours, found, gradients), (theirs, expected, their_gradients) = (
        run(lm, batch, shares=shares, has_adapter=True) for shares in (True, False)
    )
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=1e-4, atol=1e-5)
    assert set(gradients) == set(their_gradients)
    assert all("lora_" in name for name in gradients)
    for name, gradient in their_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-5)
    ids, mask, labels = batch
    bare = []
    for model in (ours, theirs):
        with torch.no_grad(), model.disable_adapter():
            inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
            bare.append(model(**inputs, use_cache=False, fused_lm_head=True).log_probs)
    torch.testing.assert_close(*bare, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(bare[0], found.log_probs, atol=1e-3)


@pytest.mark.parametrize(
    ("prompt_lengths", "reply_lengths"),
    [
        ([40, 7, 1], [[3, 9, 1], [5, 2, 8]]),  # pairs, everything of different length
        ([12, 12], [[4, 4], [4, 4]]),  # no padding at all
        ([1, 1], [[2, 3], [4, 1]]),  # nothing to share
        ([30, 18, 25], [[6, 1, 11]]),  # one reply a prompt
        ([20, 3], [[1, 9], [4, 4], [2, 30], [7, 1], [5, 5]]),  # more replies than one pass takes
    ],
)
@pytest.mark.parametrize(("form", "temperature"), [(lambda batch: batch, 1.0), (mixed, 0.7)])
def test_values_and_gradients_equal_those_of_trl(lm, prompt_lengths, reply_lengths, form, temperature):
    import torch

    batch = form(make_batch(prompt_lengths, reply_lengths))
    _, plain, plain_grads = run(lm, batch, shares=False, temperature=temperature)
    _, shared, shared_grads = run(lm, batch, shares=True, temperature=temperature)
    for name in ("log_probs", "entropy", "mean_logits"):
        torch.testing.assert_close(getattr(shared, name), getattr(plain, name), rtol=1e-4, atol=1e-5)
    assert torch.equal(shared.is_top1.bool(), plain.is_top1.bool())
    assert torch.equal(shared.label_mask, plain.label_mask)
    for name, grad in plain_grads.items():
        torch.testing.assert_close(shared_grads[name], grad, rtol=1e-4, atol=1e-5)


def test_other_calls_are_untouched(lm):
    import torch

    batch = make_batch([9, 4], [[3, 2], [1, 5]])
    model, *_ = run(lm, batch, shares=True)
    plain_model, *_ = run(lm, batch, shares=False)
    ids, mask, _ = batch
    with torch.no_grad():
        logits = [one(input_ids=ids, attention_mask=mask).logits for one in (model, plain_model)]
    assert torch.equal(*logits)


def test_two_threads_sum_a_gradient_in_one_order(lm):
    """Eight replies to each prompt, so threads meet at the same prompt all the time."""
    import torch

    batch = make_batch([450, 420], [[3, 5]] * 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        grads = [run(lm, batch, shares=True, dtype="float32")[2] for _ in range(8)]
    finally:
        torch.set_num_threads(threads)
    for one in grads[1:]:
        assert all(torch.equal(grad, grads[0][name]) for name, grad in one.items())
