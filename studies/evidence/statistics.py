"""Moments of many users' values, from which folds of users can be pooled exactly.

No number of a single user leaves a run. Mean and variance lose nothing by it: folds share no test user, so the sums
of their users are the sums of all users. A difference is tested by the sign-flip test of
`recloop.evaluation.significance` in its large-sample form. Under random signs the sum of the differences has mean 0
and variance the sum of their squares, whatever their distribution. With the hundreds of users of a fold the two
agree to the third digit; each run also keeps its own exact p.

Rejected: shuffled and rounded per-user differences (a line of them over all metrics is still one person's record);
Stouffer's z over folds (weaker where folds differ in size, equal otherwise); inverse-variance weights (they estimate
another mean than that of all users).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recloop.errors import DataError

Z95 = 1.959964  # of the standard normal distribution: 2.5% lie above


class Moments(BaseModel):
    """Number, mean and unbiased variance of some users' values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_users: int = Field(ge=1, description="users, each with one value")
    mean: float = Field(allow_inf_nan=False, description="of their values")
    variance: float = Field(ge=0, allow_inf_nan=False, description="of their values; 0 for one user")

    @property
    def sum_of_squares(self) -> float:
        """Sum of the squared values, not of squared distances from the mean."""
        return (self.num_users - 1) * self.variance + self.num_users * self.mean**2

    @property
    def standard_error(self) -> float:
        """Standard error of the mean."""
        return math.sqrt(self.variance / self.num_users)

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the mean, by the normal distribution."""
        return self.mean - Z95 * self.standard_error, self.mean + Z95 * self.standard_error

    @property
    def p(self) -> float:
        """Two-sided sign-flip test of mean 0 in its large-sample form; 1 when all values are 0.

        Example:
            >>> round(Moments(num_users=100, mean=0.196, variance=0.97).p, 3)
            0.05
        """
        if self.sum_of_squares == 0:
            return 1.0
        z = abs(self.num_users * self.mean) / math.sqrt(self.sum_of_squares)
        return math.erfc(z / math.sqrt(2))


def moments_of(values_U: np.ndarray) -> Moments:
    """The moments of one value per user.

    Raises:
        DataError: no user, or a value that is not finite.
    """
    values_U = np.asarray(values_U, dtype=np.float64)
    if values_U.ndim != 1 or not len(values_U) or not np.isfinite(values_U).all():
        raise DataError(
            f"moments need one finite value per user, got {list(values_U.shape)} values, "
            f"{int((~np.isfinite(values_U)).sum())} of them not finite; leave such users out before"
        )
    variance = float(values_U.var(ddof=1)) if len(values_U) > 1 else 0.0
    return Moments(num_users=len(values_U), mean=float(values_U.mean()), variance=variance)


def pool(parts: Sequence[Moments]) -> Moments:
    """The moments of all users of disjoint folds together.

    Raises:
        DataError: no moments are given.
    """
    if not parts:
        raise DataError("pooling needs the moments of at least one fold, got none; do a run first")
    num = sum(part.num_users for part in parts)
    mean = math.fsum(part.num_users * part.mean for part in parts) / num
    spread = math.fsum(
        (part.num_users - 1) * part.variance + part.num_users * (part.mean - mean) ** 2 for part in parts
    )
    return Moments(num_users=num, mean=mean, variance=spread / (num - 1) if num > 1 else 0.0)


def covariance(first: Moments, second: Moments, difference: Moments) -> float:
    """The covariance of two values of the same users, from the variance of their difference (first minus second).

    Var(a - b) = Var(a) + Var(b) - 2 Cov(a, b).
    """
    if not first.num_users == second.num_users == difference.num_users:
        raise DataError(
            f"a covariance needs the same users throughout, got {first.num_users}, {second.num_users} and "
            f"{difference.num_users}; take all three from one table"
        )
    return (first.variance + second.variance - difference.variance) / 2


def ratio_interval(top: Moments, bottom: Moments, difference: Moments) -> tuple[float, float] | None:
    """95% interval of the ratio of two means over the same users, by Fieller's theorem.

    Args:
        difference: moments of top minus bottom, user by user.

    Returns:
        None where the denominator's own interval contains 0: then any ratio fits the data.

    Source: Fieller 1954.
    """
    num = top.num_users
    v_top, v_bottom = top.variance / num, bottom.variance / num
    v_both = covariance(top, bottom, difference) / num
    a = bottom.mean**2 - Z95**2 * v_bottom
    if a <= 0:
        return None
    b = top.mean * bottom.mean - Z95**2 * v_both
    c = top.mean**2 - Z95**2 * v_top
    root = math.sqrt(max(b * b - a * c, 0.0))
    return (b - root) / a, (b + root) / a
