"""Putting folds together equals never having taken them apart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recloop.errors import DataError
from recloop.evaluation.significance import StatisticsConfig, sign_flip_p
from studies.evidence.statistics import Z95, Moments, covariance, moments_of, pool, ratio_interval

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=5)


@given(SIZES, st.integers(0, 2**32))
def test_pooled_moments_are_those_of_all_users(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [rng.normal(rng.normal(), 1, size) for size in sizes]
    everyone = np.concatenate(parts)
    pooled = pool([moments_of(part) for part in parts])
    assert pooled.num_users == len(everyone)
    assert pooled.mean == pytest.approx(everyone.mean(), abs=1e-12)
    assert pooled.sum_of_squares == pytest.approx((everyone**2).sum(), rel=1e-9)
    if len(everyone) > 1:
        assert pooled.variance == pytest.approx(everyone.var(ddof=1), rel=1e-9)


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.02, 0.03])
def test_p_of_three_folds_is_that_of_the_sign_flip_test_over_all_their_users(shift: float) -> None:
    rng = np.random.default_rng(5)
    # skewed, with many zeros: what differences of NDCG look like
    parts = [rng.gamma(2, 0.08, 300) * rng.choice([-1, 0, 1], 300) + shift for _ in range(3)]
    config = StatisticsConfig(num_flips=40_000)
    exact = sign_flip_p(np.concatenate(parts)[:, None], config, np.random.default_rng(0))[0]
    p = pool([moments_of(part) for part in parts]).p
    assert p == pytest.approx(exact, rel=0.1, abs=3 / config.num_flips)


@pytest.mark.slow
def test_the_interval_covers_the_mean_of_the_population_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(2000):
        parts = [rng.exponential(0.1, size) for size in (150, 200, 250)]
        low, high = pool([moments_of(part) for part in parts]).interval
        hits += low <= 0.1 <= high
    assert hits / 2000 == pytest.approx(0.95, abs=0.015)


def test_differences_that_never_differ_are_no_evidence() -> None:
    assert moments_of(np.zeros(5)).p == 1.0
    assert moments_of(np.ones(1)) == Moments(num_users=1, mean=1.0, variance=0.0)


def test_covariance_comes_back_from_the_variance_of_the_difference() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(size=50)
    b = a + rng.normal(size=50)
    got = covariance(moments_of(a), moments_of(b), moments_of(a - b))
    assert got == pytest.approx(np.cov(a, b)[0, 1])


def test_a_ratio_and_its_interval() -> None:
    # A denominator without any spread is a constant c: the interval is that of the numerator, divided by c.
    top = Moments(num_users=400, mean=0.3, variance=0.04)
    bottom = Moments(num_users=400, mean=0.6, variance=0.0)
    difference = Moments(num_users=400, mean=-0.3, variance=0.04)
    half = Z95 * 0.01 / 0.6
    assert ratio_interval(top, bottom, difference) == pytest.approx((0.5 - half, 0.5 + half))
    # A numerator that is always a third of the denominator: the ratio is known exactly.
    values = np.random.default_rng(3).normal(1, 0.5, 200)
    exact = ratio_interval(moments_of(values / 3), moments_of(values), moments_of(values / 3 - values))
    assert exact == pytest.approx((1 / 3, 1 / 3), abs=1e-6)
    # A denominator that may be 0 leaves the ratio open.
    unsure = Moments(num_users=400, mean=0.01, variance=0.04)
    assert ratio_interval(top, unsure, Moments(num_users=400, mean=0.29, variance=0.08)) is None


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [[1.0]]])
def test_what_has_no_moments_is_refused(values: list[float]) -> None:
    with pytest.raises(DataError, match="one finite value per user"):
        moments_of(np.array(values))
    with pytest.raises(DataError, match="at least one fold"):
        pool([])
