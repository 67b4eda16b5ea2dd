import numpy as np
import pytest

from recloop.llm.shared_prefix import LEAST_SHARE, MOST_OWN, Head, alone, share_heads


def test_each_prompt_is_in_one_head_and_begins_with_it():
    rng = np.random.default_rng(0)
    starts = ["".join(rng.choice(list("abc"), 30)) for _ in range(6)]
    prompts = [starts[rng.integers(6)] + "".join(rng.choice(list("xyz"), rng.integers(0, 9))) for _ in range(80)]
    heads = share_heads(prompts, 2)
    assert sorted(n for head in heads for n in head.members) == list(range(80))
    for head in heads:
        first = prompts[head.members[0]]
        if len(head.members) == 1:
            assert head.length == len(first)
            continue
        texts = [prompts[n] for n in head.members]
        assert all(text[: head.length] == first[: head.length] for text in texts)
        assert all(len(text) > head.length for text in texts)  # something of its own, to end with
        assert all(head.length >= LEAST_SHARE * len(text) for text in texts)
        assert sum(len(text) - head.length + 2 for text in texts) <= MOST_OWN * head.length
    assert len(heads) < 30


def test_the_same_prompt_twice_shares_all_but_its_last_unit():
    assert share_heads([(1, 2, 3), (1, 2, 3)], 1) == [Head(2, (0, 1))]


@pytest.mark.parametrize(
    ("prompts", "growth"),
    [
        ([], 1),
        ([(1, 2, 3, 4), (1, 9, 9, 9)], 0),  # a quarter in common
        ([(1, 2, 3), (1, 2, 4)], 100),  # their completions would outgrow what is shared
        ([(1,), (2,), (1, 5)], 0),  # nothing of its own would be left of the first
    ],
)
def test_too_little_in_common_leaves_each_alone(prompts, growth):
    assert sorted(share_heads(prompts, growth), key=lambda head: head.members) == alone(prompts)
