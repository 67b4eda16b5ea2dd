"""The part of a reward that other users' drafts foretell.

What a draft earns with its user depends mostly on that user's lists, which no prompt shows: pairs made from
it teach a language model next to nothing (docs/log.md, "A reward that a prompt cannot foretell"). What texts
like it earn with other users is the part that a model can learn, so pairs may be made from that part alone.
Not in DPO4Rec.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from recloop.errors import DataError
from recloop.records import Rewards, UserVectors

if TYPE_CHECKING:
    from jaxtyping import Float64

FOLDS = 5
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # of the ridge, per draft it is fitted on


@dataclass(frozen=True, slots=True)
class SharedRewards:
    """Rewards as foretold, and how well they were.

    explained: share of the variance of rewards about each user's mean that is foretold from other users; 0
        or below when nothing is.
    gained_U: what the draft that is foretold to be a user's best did earn, over the user's mean: what a
        language model would win if it wrote such drafts alone.
    """

    rewards: Rewards
    explained: float
    gained_U: Float64[np.ndarray, " U"]

    def __str__(self) -> str:
        share = f"{self.explained:.1%} of what sets a user's drafts apart is foretold by other users' drafts"
        if self.explained <= 0:
            return f"{share}: pairs made from it would be noise"
        mean, error = self.gained_U.mean(), self.gained_U.std() / len(self.gained_U) ** 0.5
        return (
            f"{share}; the one foretold to be best earned {mean:+.4f} over their mean (± {1.96 * error:.4f})"
        )


def share_rewards(rewards: Rewards, vectors: UserVectors, seed: int) -> SharedRewards:
    """Replace what drafts earned by what drafts like them earned with other users.

    A ridge regression goes from a draft's vector and its squares, about the user's mean, to its reward, about
    the user's mean. It is fitted on four fifths of the users and foretells the last fifth, five times over.
    The one strength that foretells best is taken for all.

    Args:
        rewards: of feedback users.
        vectors: of at least these users' drafts, as the judge read them.
        seed: of the fifths.

    Returns:
        The same users with the same mean rewards.

    Raises:
        DataError: there are fewer users than fifths, or a user's drafts have no vectors.
    """
    num_users, num_drafts = rewards.rewards_UN.shape
    if num_users < FOLDS:
        raise DataError(
            f"shared rewards need {FOLDS} users at least, got {num_users}; give the feedback group more "
            f"users or set reward.shared=false"
        )
    missing = np.setdiff1d(rewards.user_U, vectors.user_U)
    if len(missing) or vectors.vectors_UND.shape[1] != num_drafts:
        raise DataError(
            f"every reward needs its draft's vector, got {num_drafts} rewards and "
            f"{vectors.vectors_UND.shape[1]} vectors a user, and {len(missing)} users without; encode them "
            f"all"
        )
    means_U1 = rewards.rewards_UN.astype(np.float64).mean(axis=1, keepdims=True)
    earned_UN = rewards.rewards_UN - means_U1
    features_UNF = _features(vectors.vectors_UND[np.searchsorted(vectors.user_U, rewards.user_U)])
    fold_U = np.random.default_rng([seed, 0x5A]).permutation(num_users) % FOLDS
    foretold_SUN = np.zeros((len(STRENGTHS), num_users, num_drafts))
    for fold in range(FOLDS):
        is_held_U = fold_U == fold
        foretold_SUN[:, is_held_U] = _foretell(
            features_UNF[~is_held_U], earned_UN[~is_held_U], features_UNF[is_held_U]
        )
    errors_S = ((earned_UN - foretold_SUN) ** 2).sum(axis=(1, 2))
    best = int(errors_S.argmin())
    total = float((earned_UN**2).sum())
    explained = 1 - float(errors_S[best]) / total if total else 0.0
    shared_UN = (means_U1 + foretold_SUN[best]).astype(np.float32)
    gained_U = earned_UN[np.arange(num_users), foretold_SUN[best].argmax(axis=1)]
    return SharedRewards(replace(rewards, rewards_UN=shared_UN), explained, gained_U)


def _features(vectors_UND: np.ndarray) -> Float64[np.ndarray, "U N F"]:
    """Vectors and their squares about each user's mean, each column of one spread."""
    wide_UND = vectors_UND.astype(np.float64)
    features_UNF = np.concatenate([wide_UND, wide_UND**2], axis=-1)
    features_UNF -= features_UNF.mean(axis=1, keepdims=True)
    spread_F = features_UNF.std(axis=(0, 1))
    return features_UNF / np.where(spread_F > 1e-9, spread_F, 1.0)


def _foretell(
    features_UNF: np.ndarray, earned_UN: np.ndarray, asked_UNF: np.ndarray
) -> Float64[np.ndarray, "S U N"]:
    """What the ridge of every strength, fitted on some users, says of the drafts of others."""
    rows_BF, earned_B = features_UNF.reshape(-1, features_UNF.shape[-1]), earned_UN.ravel()
    values_F, axes_FF = np.linalg.eigh(rows_BF.T @ rows_BF)
    along_F = axes_FF.T @ (rows_BF.T @ earned_B)
    weights_SF = np.stack(
        [axes_FF @ (along_F / (values_F + strength * len(rows_BF))) for strength in STRENGTHS]
    )
    return np.einsum("unf,sf->sun", asked_UNF, weights_SF)
