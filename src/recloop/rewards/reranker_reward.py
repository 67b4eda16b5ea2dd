"""Rewards: what each completion of a reward user earns when the reward model reranks that user's lists with it.

Source: DPO4Rec (arXiv 2410.05939), stage 2: the recommender's own per-user metric is the reward. The reward model is
frozen and was fitted on other users, so a reward never comes from a label the reward model has seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from recloop.errors import ContractError, DataError, SettingError
from recloop.records import Group, Lists, Rewards, UserVectors
from recloop.rerankers.metrics import compute_completion_metrics, user_means

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float32, Float64


class RewardModel(Protocol):
    """The one method of a fitted reranker that rewards need."""

    def score(self, lists: Lists, vectors: UserVectors | None, /) -> Float32[np.ndarray, "B N L"]: ...


def reward_lists(
    reward_models: Sequence[RewardModel], lists: Lists, vectors: UserVectors, metric: str
) -> Float64[np.ndarray, "B N"]:
    """The metric of every list under every completion of its user; NaN where a list has no positive.

    Of several reward models it is the mean of the metric under each. What one fit of a reranker prefers among a
    user's completions is mostly its own affair, and mean metrics agree better than mean scores (docs/log.md,
    "One reward model's rewards are mostly its own").

    Axes: B lists, N completions per user.

    Args:
        reward models: fitted rerankers.
        lists: lists of reward users.
        vectors: encoded completions of at least the users in `lists`.
        metric: a name that `recloop.rerankers.metrics` knows, e.g. ``ndcg@5`` or ``loglik``.

    Raises:
        LeakageError: the lists belong to another group than feedback.
        SettingError: there is no reward model.
        ContractError: a reward model's scores have the wrong shape or are not finite at a real item.
    """
    lists.require(Group.REWARD)
    if not reward_models:
        raise SettingError("rewards need a reward model, got none; give at least one fitted reranker")
    values = [compute_completion_metrics(metric, _checked_scores(one, lists, vectors), lists) for one in reward_models]
    return np.mean(values, axis=0)


def _checked_scores(reward_model: RewardModel, lists: Lists, vectors: UserVectors) -> Float32[np.ndarray, "B N L"]:
    scores_BNL = np.asarray(reward_model.score(lists, vectors))
    num_completions = vectors.vectors_UND.shape[1]
    expected = (len(lists), num_completions, lists.items_BL.shape[1])
    if scores_BNL.shape != expected:
        raise ContractError(
            f"a reward model must score lists, completions and items in shape {expected}, got {scores_BNL.shape}; "
            f"score every list once per completion of its user"
        )
    is_bad_BNL = ~np.isfinite(scores_BNL) & lists.is_item_BL[:, None, :]
    if is_bad_BNL.any():
        row = int(np.argwhere(is_bad_BNL)[0, 0])
        raise ContractError(
            f"a reward model's scores must be finite, got {int(is_bad_BNL.sum())} that are not (first: a list of "
            f"user {lists.user_B[row]}); check that its fit did not diverge"
        )
    return scores_BNL


def reward_completions(
    reward_models: Sequence[RewardModel], lists: Lists, vectors: UserVectors, metric: str, round: int
) -> Rewards:
    """What each completion of each reward user earned: the mean of the metric over that user's lists.

    Users none of whose lists holds a positive earn nothing and are left out.

    Args:
        reward models: fits of the frozen reranker of Algorithm 1; more than one are our addition (`reward_lists`).
        lists: lists of reward users.
        vectors: encoded completions of at least the users in `lists`, N each.
        metric: e.g. ``ndcg@5``, ``map@5`` or ``loglik`` (log-likelihoods are at most 0).
        round: 0 for the completions of the untuned language model.

    Raises:
        LeakageError: the lists belong to another group than feedback.
        SettingError: there is no reward model.
        ContractError: a reward model's scores have the wrong shape or are not finite.
        DataError: no list holds a positive.

    Source: DPO4Rec, section on reward-based feedback; dropping users without positives is our decision.
    """
    values_BN = reward_lists(reward_models, lists, vectors, metric)
    users_U, rewards_UN = user_means(values_BN, lists.user_B, empty="drop")
    if len(users_U) == 0:
        raise DataError(
            f"rewards need lists with a positive item, got none among {len(lists)} lists of reward users; "
            f"give the feedback group more users or longer logs"
        )
    return Rewards(round, metric, users_U, rewards_UN.astype(np.float32))
