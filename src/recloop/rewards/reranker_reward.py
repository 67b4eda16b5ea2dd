"""Rewards: what each draft of a feedback user earns when the judge reranks that user's lists with it.

Source: DPO4Rec (arXiv 2410.05939), stage 2: the recommender's own per-user metric is the reward. The judge is
frozen and was fitted on other users, so a reward never comes from a label the judge has seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from recloop.errors import ContractError, DataError, SettingError
from recloop.records import Group, Lists, Rewards, UserVectors
from recloop.rerankers.metrics import compute_draft_metrics, user_means

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float32, Float64


class Judge(Protocol):
    """The one method of a fitted reranker that rewards need."""

    def score(self, lists: Lists, vectors: UserVectors | None, /) -> Float32[np.ndarray, "B N L"]: ...


def reward_lists(
    judges: Sequence[Judge], lists: Lists, vectors: UserVectors, metric: str
) -> Float64[np.ndarray, "B N"]:
    """The metric of every list under every draft of its user; NaN where a list has no positive.

    Of several judges it is the mean of the metric under each. What one fit of a reranker prefers among a
    user's drafts is mostly its own affair, and mean metrics agree better than mean scores (docs/log.md,
    "One judge's rewards are mostly its own").

    Axes: B lists, N drafts per user.

    Args:
        judges: fitted rerankers.
        lists: lists of feedback users.
        vectors: encoded drafts of at least the users in `lists`.
        metric: a name that `recloop.rerankers.metrics` knows, e.g. ``ndcg@5`` or ``loglik``.

    Raises:
        LeakageError: the lists belong to another group than feedback.
        SettingError: there is no judge.
        ContractError: a judge's scores have the wrong shape or are not finite at a real item.
    """
    lists.require(Group.FEEDBACK)
    if not judges:
        raise SettingError("rewards need a judge, got none; give at least one fitted reranker")
    values = [compute_draft_metrics(metric, _checked_scores(one, lists, vectors), lists) for one in judges]
    return np.mean(values, axis=0)


def _checked_scores(judge: Judge, lists: Lists, vectors: UserVectors) -> Float32[np.ndarray, "B N L"]:
    scores_BNL = np.asarray(judge.score(lists, vectors))
    num_drafts = vectors.vectors_UND.shape[1]
    expected = (len(lists), num_drafts, lists.items_BL.shape[1])
    if scores_BNL.shape != expected:
        raise ContractError(
            f"a judge must score lists, drafts and items in shape {expected}, got {scores_BNL.shape}; "
            f"score every list once per draft of its user"
        )
    is_bad_BNL = ~np.isfinite(scores_BNL) & lists.is_item_BL[:, None, :]
    if is_bad_BNL.any():
        row = int(np.argwhere(is_bad_BNL)[0, 0])
        raise ContractError(
            f"a judge's scores must be finite, got {int(is_bad_BNL.sum())} that are not (first: a list of "
            f"user {lists.user_B[row]}); check that its fit did not diverge"
        )
    return scores_BNL


def reward_drafts(judges: Sequence[Judge], lists: Lists, vectors: UserVectors, metric: str, round: int) -> Rewards:
    """What each draft of each feedback user earned: the mean of the metric over that user's lists.

    Users none of whose lists holds a positive earn nothing and are left out.

    Args:
        judges: fits of the frozen reranker of Algorithm 1; more than one are our addition (`reward_lists`).
        lists: lists of feedback users.
        vectors: encoded drafts of at least the users in `lists`, N each.
        metric: e.g. ``ndcg@5``, ``map@5`` or ``loglik`` (log-likelihoods are at most 0).
        round: 0 for the drafts of the untuned language model.

    Raises:
        LeakageError: the lists belong to another group than feedback.
        SettingError: there is no judge.
        ContractError: a judge's scores have the wrong shape or are not finite.
        DataError: no list holds a positive.

    Source: DPO4Rec, section on reward-based feedback; dropping users without positives is our decision.
    """
    values_BN = reward_lists(judges, lists, vectors, metric)
    users_U, rewards_UN = user_means(values_BN, lists.user_B, empty="drop")
    if len(users_U) == 0:
        raise DataError(
            f"rewards need lists with a positive item, got none among {len(lists)} lists of feedback users; "
            f"give the feedback group more users or longer logs"
        )
    return Rewards(round, metric, users_U, rewards_UN.astype(np.float32))
