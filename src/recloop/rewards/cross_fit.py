"""Cross-fitted rewards: the part of a reward that other users' completions predict.

The reward of a completion depends mostly on its user's lists, which no prompt shows. Pairs made from it teach a
language model next to nothing (docs/log.md, "A reward that a prompt cannot predict"). The rewards of similar texts
with other users are the part that a model can learn, so pairs may be made from that part alone. Not in DPO4Rec.
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
CONSTANT_SPREAD = 1e-9  # of a feature that is the same in all completions of a user
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # of the ridge, per completion it is fitted on


@dataclass(frozen=True, slots=True)
class CrossFittedRewards:
    """Rewards as predicted, and how well they were.

    explained: cross-user R² of the within-user reward, by the best of `STRENGTHS`. That is chosen on the same
        users, so R² may be a little above 0 on noise.
    gained_U: reward of the completion predicted to be a user's best, over the user's mean: the gain of a language
        model that wrote only such completions.
    weights_F, spread_F: of the ridge fitted on all users, and of its features.
    """

    rewards: Rewards
    explained: float
    gained_U: Float64[np.ndarray, " U"]
    weights_F: Float64[np.ndarray, " F"]
    spread_F: Float64[np.ndarray, " F"]

    @property
    def gain(self) -> tuple[float, float]:
        """The mean of `gained_U`, and half the width of its 95% interval."""
        return float(self.gained_U.mean()), float(1.96 * self.gained_U.std() / len(self.gained_U) ** 0.5)

    @property
    def is_noise(self) -> bool:
        """True when the rewards of completions predicted to be best are not shown to be above the others'."""
        mean, error = self.gain
        return self.explained <= 0 or mean - error <= 0

    def __str__(self) -> str:
        mean, error = self.gain
        return (
            f"cross-user R² of the within-user reward {self.explained:.1%}; "
            f"the completion predicted to be best is {mean:+.4f} over its user's mean (± {error:.4f})"
            + (": pairs made from it may be noise" if self.is_noise else "")
        )

    def predict_gain(self, completions: UserVectors, reference: UserVectors) -> Float64[np.ndarray, " U"]:
        """The predicted mean reward of each user's completions, over that of the reference completions.

        Args:
            completions: of any language model, for users with or without rewards.
            reference: completions of the same users by the model whose completions were rewarded.

        Raises:
            DataError: the users differ.
        """
        if not np.array_equal(completions.user_U, reference.user_U):
            counts = f"{len(completions.user_U)} and {len(reference.user_U)} users"
            raise DataError(f"both kinds of completions must be of the same users, got {counts}; encode one group")
        means_UF = _with_squares(completions).mean(axis=1) - _with_squares(reference).mean(axis=1)
        return means_UF / self.spread_F @ self.weights_F


def cross_fit_rewards(rewards: Rewards, vectors: UserVectors, seed: int) -> CrossFittedRewards:
    """Rewards as predicted from similar completions of other users; each user keeps its mean reward.

    A ridge regression goes from a completion's vector and its squares to its reward, both less the user's mean. It
    is fitted on four fifths of the users and predicts the last fifth, five times. The strength that predicts best is
    taken for all.

    Args:
        vectors: of at least these users' completions, as the reward model read them.
        seed: of the folds.

    Raises:
        DataError: there are fewer users than folds, or a user's completions have no vectors.
    """
    num_users, num_completions = rewards.rewards_UN.shape
    if num_users < FOLDS:
        raise DataError(
            f"cross-fitted rewards need at least {FOLDS} users, got {num_users}; take more reward users "
            f"or set reward.cross_fit=false"
        )
    missing = np.setdiff1d(rewards.user_U, vectors.user_U)
    if len(missing) or vectors.vectors_UND.shape[1] != num_completions:
        raise DataError(
            f"every reward needs its completion's vector, got {num_completions} rewards and "
            f"{vectors.vectors_UND.shape[1]} vectors a user, and {len(missing)} users without; encode them all"
        )
    means_U1 = rewards.rewards_UN.astype(np.float64).mean(axis=1, keepdims=True)
    centred_UN = rewards.rewards_UN - means_U1
    wide_UNF = _with_squares(vectors)[np.searchsorted(vectors.user_U, rewards.user_U)]
    features_UNF = wide_UNF - wide_UNF.mean(axis=1, keepdims=True)
    spread_F = features_UNF.std(axis=(0, 1))
    spread_F = np.where(spread_F > CONSTANT_SPREAD, spread_F, 1.0)
    features_UNF /= spread_F
    fold_U = np.random.default_rng([seed, 0x5A]).permutation(num_users) % FOLDS
    predicted_SUN = np.zeros((len(STRENGTHS), num_users, num_completions))
    for fold in range(FOLDS):
        is_held_U = fold_U == fold
        weights_SF = _ridge(features_UNF[~is_held_U], centred_UN[~is_held_U])
        predicted_SUN[:, is_held_U] = np.einsum("unf,sf->sun", features_UNF[is_held_U], weights_SF)
    errors_S = ((centred_UN - predicted_SUN) ** 2).sum(axis=(1, 2))
    best = int(errors_S.argmin())
    total = float((centred_UN**2).sum())
    explained = 1 - float(errors_S[best]) / total if total else 0.0
    cross_fitted_UN = (means_U1 + predicted_SUN[best]).astype(np.float32)
    gained_U = centred_UN[np.arange(num_users), predicted_SUN[best].argmax(axis=1)]
    weights_F = _ridge(features_UNF, centred_UN)[best]
    return CrossFittedRewards(replace(rewards, rewards_UN=cross_fitted_UN), explained, gained_U, weights_F, spread_F)


def _with_squares(vectors: UserVectors) -> Float64[np.ndarray, "U N F"]:
    wide_UND = vectors.vectors_UND.astype(np.float64)
    return np.concatenate([wide_UND, wide_UND**2], axis=-1)


def _ridge(features_UNF: np.ndarray, centred_UN: np.ndarray) -> Float64[np.ndarray, "S F"]:
    """The ridge's weights at every strength."""
    rows_BF, centred_B = features_UNF.reshape(-1, features_UNF.shape[-1]), centred_UN.ravel()
    values_F, axes_FF = np.linalg.eigh(rows_BF.T @ rows_BF)
    along_F = axes_FF.T @ (rows_BF.T @ centred_B)
    return np.stack([axes_FF @ (along_F / (values_F + strength * len(rows_BF))) for strength in STRENGTHS])
