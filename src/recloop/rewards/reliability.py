"""Reliability of a reward: do other lists, or another reward model, prefer the same completions of a user?

If not, a user's best and worst completions are noise, and so is every pair made from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recloop.errors import DataError
from recloop.rerankers.metrics import user_means

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from recloop.rewards.reranker_reward import ListRewards

NUM_RESAMPLES = 2000
MIN_USERS = 10  # below it the bootstrap calls noise repeatable more often than one time in twenty


@dataclass(frozen=True, slots=True)
class Reliability:
    """How well the rewards of a user's completions repeat on other lists of that user.

    half_correlation: correlation between the completion effects seen in odd and in even lists, in [-1, 1].
    reliability: of the mean over all of a user's lists (Spearman-Brown), in [-1, 1]; 1 is noise-free.
    low, high: 95% interval of `reliability`, by bootstrap over users.
    num_users: users with at least two lists that hold a positive.
    num_users_left_out: users with fewer.
    """

    metric: str
    half_correlation: float
    reliability: float
    low: float
    high: float
    num_users: int
    num_users_left_out: int

    @property
    def is_noise(self) -> bool:
        """True when the interval reaches 0 or there are too few users: do not train with such a reward."""
        return self.low <= 0.0 or self.has_too_few_users

    @property
    def has_too_few_users(self) -> bool:
        """True when there are fewer than `MIN_USERS`: their interval means nothing."""
        return self.num_users < MIN_USERS

    def __str__(self) -> str:
        verdict = "indistinguishable from noise" if self.is_noise else "repeatable"
        if self.has_too_few_users:
            verdict = f"too few users to tell it from noise ({MIN_USERS} at least)"
        return (
            f"reward {self.metric}: split-half reliability {self.reliability:.2f} "
            f"(95% interval {self.low:.2f} to {self.high:.2f}, {self.num_users} users), {verdict}"
        )


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well several reward models agree on which of a user's completions are better.

    correlation: of the completion effects under two reward models, mean over pairs of models, in [-1, 1].
    reliability: of the mean of all reward models against as many others (Spearman-Brown), in [-1, 1].
    """

    num_reward_models: int
    correlation: float
    reliability: float

    def __str__(self) -> str:
        return (
            f"{self.num_reward_models} reward models: any two agree on a user's completions at {self.correlation:.2f}, "
            f"the mean of all with that of as many others at {self.reliability:.2f} (correlation)"
        )


def reward_model_agreement(measured: ListRewards) -> Agreement | None:
    """How well the reward models agree; None for one reward model.

    Split-half reliability cannot see this: it asks the same reward models about other lists.

    Source: Spearman (1910), Brown (1910) for the step from one reward model to all.
    """
    if len(measured.values_KBN) < 2:
        return None
    means_KUN = [user_means(values_BN, measured.user_B, empty="drop")[1] for values_BN in measured.values_KBN]
    effects = [(means_UN - means_UN.mean(axis=1, keepdims=True)).ravel() for means_UN in means_KUN]
    # The sums of products that a correlation of effects, whose means are 0, is made of.
    sums = [[x @ y, x @ x, y @ y] for i, x in enumerate(effects) for y in effects[:i]]
    correlation = np.mean(_pooled_correlation(np.array(sums)))
    return Agreement(len(effects), float(correlation), float(spearman_brown(np.asarray(correlation), len(effects))))


def split_half_reliability(measured: ListRewards, seed: int) -> Reliability:
    """Reliability of a metric as a reward: completion effects in odd lists against those in even lists.

    A completion effect is the completion's reward less the mean over that user's completions, so that it does not
    matter how easy a user is. Lists without a positive are left out. Rewards that never differ between completions
    have reliability 0.

    Args:
        seed: of the bootstrap.

    Raises:
        DataError: no user has two lists with a positive.

    Source: Spearman (1910), Brown (1910) for the step from half to whole.
    """
    values_BN, user_B = measured.mean_BN, measured.user_B
    has_positive_B = ~np.isnan(values_BN).any(axis=1)
    odd_UN, even_UN = _half_means(values_BN[has_positive_B], user_B[has_positive_B])
    if len(odd_UN) == 0:
        raise DataError(
            "split-half reliability needs users with at least two lists that hold a positive, got none; "
            "give the reward users longer logs or shorter chunks"
        )
    products_U3 = _effect_products(odd_UN, even_UN)
    correlation = _pooled_correlation(products_U3.sum(axis=0))
    rng = np.random.default_rng(seed)
    num_users = len(products_U3)
    counts_RU = rng.multinomial(num_users, np.full(num_users, 1 / num_users), size=NUM_RESAMPLES)
    resampled_R = spearman_brown(_pooled_correlation(counts_RU @ products_U3))
    low, high = np.quantile(resampled_R, [0.025, 0.975])
    return Reliability(
        measured.metric,
        float(correlation),
        float(spearman_brown(correlation)),
        float(low),
        float(high),
        num_users,
        len(np.unique(user_B)) - num_users,
    )


def spearman_brown(part_correlation: Float64[np.ndarray, ...], parts: int = 2) -> Float64[np.ndarray, ...]:
    """Reliability of the whole from the correlation of its parts: ``n r / (1 + (n - 1) r)``.

    A negative correlation is returned as it is, where the formula would run to minus infinity (our decision).

    Example:
        >>> float(spearman_brown(np.asarray(0.5)).round(3))
        0.667
    """
    r = np.asarray(part_correlation, np.float64)
    return np.where(r > 0, parts * r / (1 + (parts - 1) * np.maximum(r, 0)), r)


def _half_means(
    values_BN: Float64[np.ndarray, "B N"], user_B: Int64[np.ndarray, " B"]
) -> tuple[Float64[np.ndarray, "U N"], Float64[np.ndarray, "U N"]]:
    """Per user the means over its 1st, 3rd, ... and its 2nd, 4th, ... list; users with one list drop out."""
    _, first_U, row_B = np.unique(user_B, return_index=True, return_inverse=True)
    is_even_B = (np.arange(len(user_B)) - first_U[row_B]) % 2 == 1
    odd_user_U, odd_UN = user_means(values_BN[~is_even_B], user_B[~is_even_B], empty="drop")
    even_user_U, even_UN = user_means(values_BN[is_even_B], user_B[is_even_B], empty="drop")
    return odd_UN[np.isin(odd_user_U, even_user_U)], even_UN


def _effect_products(
    odd_UN: Float64[np.ndarray, "U N"], even_UN: Float64[np.ndarray, "U N"]
) -> Float64[np.ndarray, "U 3"]:
    """Sums over a user's completions of odd*even, odd*odd and even*even effects."""
    odd_UN = odd_UN - odd_UN.mean(axis=1, keepdims=True)
    even_UN = even_UN - even_UN.mean(axis=1, keepdims=True)
    return np.stack([(odd_UN * even_UN).sum(1), (odd_UN**2).sum(1), (even_UN**2).sum(1)], axis=1)


def _pooled_correlation(sums: Float64[np.ndarray, "*R 3"]) -> Float64[np.ndarray, "*R"]:
    """Correlation from summed products; 0 where one half does not vary (to rounding error)."""
    scale = np.sqrt(sums[..., 1] * sums[..., 2])
    varies = scale > 1e-20
    return np.where(varies, sums[..., 0] / np.where(varies, scale, 1.0), 0.0)
