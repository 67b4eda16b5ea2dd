"""Rewards of user texts: the metric of a frozen reranker that reranks the user's lists with each text.

Source: DPO4Rec (arXiv 2410.05939), stage 2: the recommender's own per-user metric is the reward. The reward model was
fitted on other users, so a reward never comes from a label that the reward model has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.errors import DataError, SettingError
from recloop.records import Group, Lists, Prompt, Rewards, UserVectors
from recloop.rerankers.metrics import checked_scores, compute_completion_metrics, user_means

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from recloop.encoders.sentence import TextEncoder
    from recloop.rerankers.protocol import Reranker


BLOCK_USERS = 4096  # whose scores are in memory at once


@dataclass(frozen=True, slots=True)
class ListRewards:
    """The metric of every list under every completion of its user, by each of K reward models; NaN without a positive.

    Axes: K reward models, B lists, N completions per user.
    """

    metric: str
    user_B: Int64[np.ndarray, " B"]
    values_KBN: Float64[np.ndarray, "K B N"]

    @property
    def mean_BN(self) -> Float64[np.ndarray, "B N"]:
        """The mean over the reward models.

        One fit's preferences among a user's completions are mostly its own, and mean metrics agree better than mean
        scores (docs/log.md, "One reward model's rewards are mostly its own").
        """
        return self.values_KBN.mean(axis=0)


def reward_lists(reward_models: Sequence[Reranker], lists: Lists, vectors: UserVectors, metric: str) -> ListRewards:
    """What fitted rerankers make of every list of reward users under every completion.

    Args:
        vectors: encoded completions of at least the users in `lists`.
        metric: a name that `recloop.rerankers.metrics` knows, e.g. ``ndcg@5`` or ``loglik``.

    Raises:
        LeakageError: the lists belong to another group than the reward users.
        SettingError: there is no reward model.
        ContractError: a reward model's scores have the wrong shape or are not finite at an item.
    """
    lists.require(Group.REWARD)
    if not reward_models:
        raise SettingError("rewards need a reward model, got none; give at least one fitted reranker")
    parts = [measure_block(reward_models, lists, vectors, metric, users) for users in user_blocks(lists)]
    return join_blocks(lists, metric, parts)


def user_blocks(lists: Lists) -> list[tuple[int, int]]:
    """The first user and the one past the last of each block whose lists are scored together; one at least."""
    users_U = np.unique(lists.user_B)
    starts = users_U[::BLOCK_USERS].tolist() or [0]
    return list(zip(starts, [*starts[1:], int(users_U.max(initial=-1)) + 1], strict=True))


def measure_block(
    reward_models: Sequence[Reranker], lists: Lists, vectors: UserVectors, metric: str, users: tuple[int, int]
) -> Float64[np.ndarray, "K B N"]:
    """The metric of the lists of these users, in their order, by each reward model."""
    first, end = users
    own = lists.take(np.flatnonzero((lists.user_B >= first) & (lists.user_B < end)))
    return np.stack(
        [compute_completion_metrics(metric, checked_scores(one, own, vectors), own) for one in reward_models]
    )


def join_blocks(lists: Lists, metric: str, parts: Sequence[Float64[np.ndarray, "K B N"]]) -> ListRewards:
    """What was measured of all blocks, in the order of `user_blocks`, as rewards of the lists in their order."""
    row_B = [np.flatnonzero((lists.user_B >= first) & (lists.user_B < end)) for first, end in user_blocks(lists)]
    values_KBN = np.concatenate(parts, axis=1)
    values_KBN[:, np.concatenate(row_B)] = values_KBN.copy()
    return ListRewards(metric, lists.user_B, values_KBN)


def user_rewards(measured: ListRewards, round: int) -> Rewards:
    """The reward of each completion of each reward user: the mean of the metric over that user's lists.

    Users none of whose lists holds a positive are left out.

    Args:
        round: 0 for the completions of the base model.

    Raises:
        DataError: no list holds a positive.

    Source: DPO4Rec, section on reward-based feedback; dropping users without positives, and several fits of the
    frozen reranker, are our decisions.
    """
    users_U, rewards_UN = user_means(measured.mean_BN, measured.user_B, empty="drop")
    if len(users_U) == 0:
        raise DataError(
            f"rewards need lists with a positive item, got none among {len(measured.user_B)} lists of reward users; "
            f"take more reward users or longer logs"
        )
    return Rewards(round, measured.metric, users_U, rewards_UN.astype(np.float32))


def reranker_reward(
    reward_model: Reranker | Sequence[Reranker], lists: Lists, vectors: UserVectors, *, metric: str, round: int = 0
) -> Rewards:
    """The reward of each completion of each reward user; `RerankerReward` is the same as a reward function.

    Args:
        reward_model: a fitted reranker or several.
        lists: ``lists.reward`` of the candidate lists.
        vectors: encoded completions of at least these users.
        metric: e.g. ``ndcg@5``, ``map@5`` or ``loglik`` (log-likelihoods are at most 0).
        round: 0 for the completions of the base model.

    Raises:
        SettingError, LeakageError, ContractError, DataError: see `reward_lists`, `user_rewards`.
    """
    models = reward_model if isinstance(reward_model, Sequence) else [reward_model]
    return user_rewards(reward_lists(models, lists, vectors, metric), round)


@dataclass(frozen=True, slots=True)
class RerankerReward:
    """The reranker reward as a reward function: texts in, the reranker's metric on their user's lists out.

    lists: of the users whose number a prompt carries; a user without a positive gets 0.
    """

    reward_models: Sequence[Reranker]
    lists: Lists
    encoder: TextEncoder
    metric: str

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]], /, **_: Any
    ) -> Float64[np.ndarray, "P N"]:
        """One reward per completion; a prompt's user may come again."""
        rewards_PN = np.zeros((len(prompts), len(completions[0]) if completions else 0))
        if not rewards_PN.size:
            return rewards_PN
        flat = self.encoder.encode([text for completions_N in completions for text in completions_N])
        vectors_PND = flat.reshape(*rewards_PN.shape, -1)
        for row, prompt in enumerate(prompts):
            lists = self.lists.take(self.lists.user_B == prompt.user)
            if (lists.is_item_BL & (lists.labels_BL > 0)).any():
                vectors = UserVectors(np.array([prompt.user]), vectors_PND[row : row + 1])
                values_BN = reward_lists(self.reward_models, lists, vectors, self.metric).mean_BN
                rewards_PN[row] = user_means(values_BN, lists.user_B, empty="drop")[1][0]
        return rewards_PN
