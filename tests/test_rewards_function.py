"""Reward functions: their shape, the way to TRL and back, and the reranker's."""

import numpy as np
import pytest

from recloop.errors import ContractError, DataError
from recloop.records import Completion, Group, Lists, Prompt, UserCompletions
from recloop.rewards.function import from_trl, rewards_of, to_trl
from recloop.rewards.preference_pairs import preference_pairs
from recloop.rewards.reranker_reward import RerankerReward, reranker_reward
from recloop.testing import FakeEncoder, check_reward, fake_reward

PROMPTS = [Prompt(4, "Be short.", "war and drama", 1, 0), Prompt(2, "Be short.", "comedy", 1, 0)]
TEXTS = [["war", "drama and comedy"], ["comedy", "war"]]


def trl_call(function, prompts=PROMPTS, texts=TEXTS, **columns):
    """The call of `GRPOTrainer._calculate_rewards` in TRL 1.16.0: one row per completion, all by keyword."""
    rows = [(prompt, text, place) for place, prompt in enumerate(prompts) for text in texts[place]]
    return function(
        prompts=[
            [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.text}]
            for prompt, _, _ in rows
        ],
        completions=[[{"role": "assistant", "content": text}] for _, text, _ in rows],
        completion_ids=[[1, 2] for _ in rows],
        user=[prompt.user for prompt, _, _ in rows],
        trainer_state=None,
        log_extra=lambda *_: None,
        log_metric=lambda *_: None,
        **{name: [values[place] for _, _, place in rows] for name, values in columns.items()},
    )


def test_ours_goes_into_trl():
    # Words of the text that the prompt holds: 1 of 1, 2 of 3; 1 of 1, 0 of 1.
    assert trl_call(to_trl(fake_reward)) == pytest.approx([1, 2 / 3, 1, 0])
    assert to_trl(fake_reward).__name__ == "fake_reward"
    assert to_trl(fake_reward)(prompts=["war", "war"], completions=["war", "drama"]) == [1.0, 0.0]


def test_one_written_for_trl_goes_in():
    seen = []

    def long_enough(prompts, completions, wanted, **columns):
        seen.extend(zip(prompts, columns["user"], strict=True))
        return [float(len(one[0]["content"]) >= least) for one, least in zip(completions, wanted, strict=True)]

    ours = from_trl(long_enough)
    assert ours(PROMPTS, TEXTS, wanted=[4, 6]).tolist() == [[0, 1], [1, 0]]
    assert seen[0] == ([{"role": "system", "content": "Be short."}, {"role": "user", "content": "war and drama"}], 4)
    check_reward(ours, wanted=[4, 6, 8])


def test_there_and_back_is_the_same():
    again = from_trl(to_trl(fake_reward))
    np.testing.assert_array_equal(again(PROMPTS, TEXTS), fake_reward(PROMPTS, TEXTS))


def test_a_reward_for_trl_that_gives_none_or_too_few_is_refused():
    with pytest.raises(ContractError, match="1 that are not finite"):
        from_trl(lambda **_: [1.0, None, 1.0, 1.0])(PROMPTS, TEXTS)
    with pytest.raises(ContractError, match="one number per row, got 1 for 4"):
        from_trl(lambda **_: [1.0])(PROMPTS, TEXTS)


def completions():
    rows = tuple(
        tuple(Completion(prompt.user, n, text, 1, is_finished=True, logp_sum=-1.0) for n, text in enumerate(texts_N))
        for prompt, texts_N in zip(PROMPTS[::-1], TEXTS[::-1], strict=True)
    )
    return UserCompletions(np.array([2, 4]), rows, tuple(PROMPTS[::-1]))


def test_completions_with_their_prompts_become_rewards_and_pairs():
    rewards = rewards_of(fake_reward, completions())
    assert (rewards.metric, rewards.round, rewards.user_U.tolist()) == ("fake_reward", 0, [2, 4])
    np.testing.assert_allclose(rewards.rewards_UN, [[1, 0], [1, 2 / 3]])
    found = preference_pairs(completions(), rewards, min_gap=0.5)
    assert [(pair.user, pair.chosen, pair.rejected) for pair in found.pairs] == [(2, "comedy", "war")]
    assert [prompt.user for prompt in found.prompts_U] == [2, 4]
    assert preference_pairs(completions(), fake_reward, min_gap=0.5) == found
    with pytest.raises(DataError, match="got 0 for 2 users; take completions from"):
        rewards_of(fake_reward, UserCompletions(np.array([2, 4]), completions().completions_UN))


class LikesLongTexts:
    """A reward model: the first item is better the more a text's vector has at its first place."""

    def score(self, lists, vectors):
        first_BN = vectors.vectors_UND[vectors.rows_of(lists.user_B), :, 0]
        scores_BNL = np.zeros((*first_BN.shape, lists.items_BL.shape[1]), np.float32)
        scores_BNL[:, :, 0] = first_BN
        scores_BNL[:, :, 1] = 0.5
        return scores_BNL


class FirstPlace(FakeEncoder):
    """A vector whose first place says whether the text is long."""

    def encode(self, texts):
        vectors_BD = super().encode(texts)
        vectors_BD[:, 0] = [len(text) > 4 for text in texts]
        return vectors_BD


def test_the_reranker_reward_is_a_reward_function_and_a_prompt_may_come_again():
    labels_BL = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0]], np.float32)
    lists = Lists(Group.REWARD, np.array([2, 4, 4]), np.zeros((3, 3), np.int64), labels_BL, np.ones((3, 3), bool))
    reward = RerankerReward([LikesLongTexts()], lists, FirstPlace(), "ndcg@1")
    # User 4: first item first where the text is long; of two lists one wants it. User 2: "comedy" is long.
    assert reward(PROMPTS, TEXTS).tolist() == [[0.5, 0.5], [1, 0]]
    assert trl_call(to_trl(reward)) == [0.5, 0.5, 1, 0]
    check_reward(reward, [Prompt(user, "", "", 0, 0) for user in (4, 2, 9)])  # 9 has no list
    vectors = vectors_of([2, 4], TEXTS[::-1])
    table = reranker_reward(LikesLongTexts(), lists, vectors, metric="ndcg@1")
    np.testing.assert_array_equal(table.rewards_UN, reward(PROMPTS, TEXTS)[::-1])


def vectors_of(users, texts):
    from recloop.records import UserVectors

    return UserVectors(np.array(users), np.stack([FirstPlace().encode(one) for one in texts]))
