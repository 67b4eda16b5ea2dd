"""What the trained model reads: lengths, end tokens, order, and errors that say what to do."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recloop.errors import ContractError, DataError, SettingError, TrainingError
from recloop.training.dataset import reply_comparer, select_rows, training_order
from recloop.training.result import TrainingBudget
from tiny_lm import build_tiny_lm
from training_cases import make_pairs, make_prompts

pytestmark = pytest.mark.slow  # torch and transformers


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("lm"))


def with_template(lm, folder, change):
    """A copy of the model with another chat template."""
    shutil.copytree(lm, folder)
    template = folder / "chat_template.jinja"
    text = template.read_text()
    assert change(text) != text
    template.write_text(change(text))
    return folder


def test_lengths_count_the_template_and_the_end_token(lm):
    from transformers import AutoTokenizer

    prompts, pairs = make_prompts(2), make_pairs(2, "a b", "a b c d e")
    rows = select_rows(lm, prompts, pairs, TrainingBudget(), seed=0).rows
    tokenizer = AutoTokenizer.from_pretrained(lm)
    for row in rows:
        text = f"<|system|>{row.prompt.system}<|user|>{row.prompt.text}<|assistant|>a b c d e<|end|>"
        assert row.num_tokens == len(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_reply_at_the_limit_stays_and_one_above_it_is_dropped_and_counted(lm):
    from transformers import AutoTokenizer

    texts = ["By genre: likes Drama.", "By genre: likes Drama, Thriller."]
    tokenizer = AutoTokenizer.from_pretrained(lm)
    short, long = (len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    assert short < long
    pairs = (*make_pairs(1, texts[0], "x"), *make_pairs(1, texts[1], "x"), *make_pairs(1, "x", texts[1]))
    found = select_rows(lm, make_prompts(1), pairs, TrainingBudget(max_reply_tokens=short), seed=0)
    assert [row.pair for row in found.rows] == [pairs[0]]
    assert (found.num_too_long, found.num_thinned) == (2, 0)
    with pytest.raises(TrainingError, match=rf"got none \(2 with a reply above {short} tokens\)"):
        select_rows(lm, make_prompts(1), pairs[1:], TrainingBudget(max_reply_tokens=short), seed=0)


def test_thinning_is_random_but_the_same_for_swapped_pairs(lm):
    budget = TrainingBudget(max_pairs=5)
    found = select_rows(lm, make_prompts(30), make_pairs(30), budget, seed=1)
    users = [row.pair.user for row in found.rows]
    assert (len(users), found.num_thinned) == (5, 25)
    assert users == sorted(users) != list(range(5))
    swapped = select_rows(lm, make_prompts(30), make_pairs(30, "b", "a"), budget, seed=1)
    assert [row.pair.user for row in swapped.rows] == users


def test_what_does_not_fit_stops_the_run(lm, tmp_path):
    prompts, pairs = make_prompts(1), make_pairs(1)
    with pytest.raises(SettingError, match=r"may have 10 tokens with its chat template, got .* for 0;"):
        select_rows(lm, prompts, pairs, TrainingBudget(max_prompt_tokens=10), seed=0)
    with pytest.raises(DataError, match="got none for user 3"):
        select_rows(lm, prompts, make_pairs(4)[3:], TrainingBudget(), seed=0)
    small = tmp_path / "small"
    shutil.copytree(lm, small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 20}))
    with pytest.raises(SettingError, match="context of 20 tokens"):
        select_rows(small, prompts, pairs, TrainingBudget(), seed=0)


def test_a_template_that_never_ends_the_reply_is_refused(lm, tmp_path):
    endless = with_template(lm, tmp_path / "endless", lambda text: text.replace("<|end|>", ""))
    with pytest.raises(ContractError, match="must close the reply with an end token"):
        select_rows(endless, make_prompts(1), make_pairs(1), TrainingBudget(), seed=0)
    other = with_template(
        lm,
        tmp_path / "other",
        lambda text: text.replace("-%}<|assistant|>{%- endif", "-%}<|user|><|assistant|>{%- endif"),
    )
    with pytest.raises(ContractError, match="render the prompt alike"):
        select_rows(other, make_prompts(1), make_pairs(1), TrainingBudget(), seed=0)


def test_replies_are_compared_as_tokens_up_to_the_limit(lm):
    same = reply_comparer(lm, max_reply_tokens=4)
    assert same("likes Drama", "likes Drama")
    assert not same("likes Drama", "likes War")
    assert same("By genre: likes Drama, Thriller; dislikes Comedy.", "By genre: likes Drama, Thriller; dislikes War.")


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=200),
    batch=st.integers(1, 5),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_every_row_is_trained_on_once_an_epoch(lengths, batch, epochs, seed):
    order = training_order(lengths, TrainingBudget(batch_size=batch, epochs=epochs), seed)
    by_epoch = order.reshape(epochs, len(lengths))
    assert (np.sort(by_epoch, axis=1) == np.arange(len(lengths))).all()


def test_batches_hold_rows_of_like_length():
    lengths = np.random.default_rng(0).integers(100, 450, 640)
    budget = TrainingBudget(batch_size=4, epochs=2)
    order = training_order(lengths.tolist(), budget, seed=0)
    padded = lengths[order].reshape(-1, 4).max(axis=1).sum() * 4
    assert padded < 1.03 * lengths.sum() * 2  # a plain shuffle pads by about 25%
    assert (order[:640] != order[640:]).any()
