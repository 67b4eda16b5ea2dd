"""Tests, corrections and intervals against scipy, hand calculation and simulation."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats

from recloop.errors import DataError, SettingError
from recloop.evaluation import significance
from recloop.evaluation.per_user_scores import VariantScores
from recloop.evaluation.significance import (
    StatisticsConfig,
    Verdict,
    bootstrap_interval,
    compare,
    holm,
    sign_flip_p,
)

CONFIG = StatisticsConfig()
QUICK = StatisticsConfig(num_flips=2_000, num_resamples=2_000)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def variant_of(
    name: str, values_SU: np.ndarray, *, mean: str = "user", lists_U: np.ndarray | None = None
) -> VariantScores:
    num_seeds, num_users = values_SU.shape
    return VariantScores(
        name=name,
        mean=mean,
        empty="drop",
        metrics=("ndcg@5",),
        seeds=tuple(range(num_seeds)),
        user_U=np.arange(num_users),
        num_lists_U=np.ones(num_users, np.int64) if lists_U is None else lists_U,
        values_SUM=values_SU[:, :, None],
    )


# Sign-flip test


def test_exact_p_by_hand() -> None:
    # 1, 2, 3: the 8 signed sums are +-6, +-4, +-2, 0, 0; only +-6 are as far out as 6
    assert sign_flip_p(np.array([[1.0], [2.0], [3.0]]), CONFIG, rng()) == pytest.approx(2 / 8)
    # 1, 2, -3: the sum is 0, every flip is at least as far out
    assert sign_flip_p(np.array([[1.0], [2.0], [-3.0]]), CONFIG, rng()) == pytest.approx(1.0)
    # -1, 2, 3 -> 4: +-6 and +-4
    assert sign_flip_p(np.array([[-1.0], [2.0], [3.0]]), CONFIG, rng()) == pytest.approx(4 / 8)


def test_users_without_a_difference_change_nothing() -> None:
    few = np.array([0.1, 0.4, -0.2, 0.3, 0.9])
    many = np.concatenate([np.zeros(2_000), few])
    p_few = sign_flip_p(few[:, None], CONFIG, rng())
    np.testing.assert_array_equal(sign_flip_p(many[:, None], CONFIG, rng()), p_few)
    assert sign_flip_p(np.zeros((50, 1)), CONFIG, rng()) == 1.0


@pytest.mark.parametrize("num_users", [2, 5, 11])
def test_exact_p_equals_scipy_and_enumeration(num_users: int) -> None:
    for seed in range(8):
        # rounded so that many sums tie exactly
        difference_U = np.round(rng(seed).normal(0.3, 1, num_users), 1)
        expected = stats.permutation_test(
            (difference_U,),
            np.sum,
            permutation_type="samples",
            n_resamples=np.inf,
            alternative="two-sided",
        ).pvalue
        sums = [abs(np.dot(signs, difference_U)) for signs in product((1, -1), repeat=num_users)]
        enumerated = np.mean([s >= abs(difference_U.sum()) - 1e-9 for s in sums])
        p = sign_flip_p(difference_U[:, None], CONFIG, rng())[0]
        assert p == pytest.approx(enumerated, abs=1e-12)
        # scipy doubles the smaller tail; the two agree because flipping every sign mirrors the distribution
        assert p == pytest.approx(expected, abs=1e-12)


def test_random_p_approaches_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    differences_UC = rng(3).normal(0.25, 1, (16, 6))
    exact = sign_flip_p(differences_UC, CONFIG, rng())
    monkeypatch.setattr(significance, "MAX_EXACT", 0)
    random = sign_flip_p(differences_UC, CONFIG, rng())
    standard_error = np.sqrt(exact * (1 - exact) / 100_000)
    assert (np.abs(random - exact) < 4.5 * standard_error + 1e-5).all()


@pytest.mark.slow
def test_random_p_equals_scipy_on_many_users() -> None:
    differences_UC = rng(5).normal(0.1, 1, (200, 1))
    expected = stats.permutation_test(
        (differences_UC[:, 0],), np.mean, permutation_type="samples", n_resamples=10_000, rng=rng(7)
    ).pvalue
    p = sign_flip_p(differences_UC, CONFIG, rng())[0]
    assert p == pytest.approx(expected, abs=0.02)
    # for many users the test is close to the t-test
    assert p == pytest.approx(stats.ttest_1samp(differences_UC[:, 0], 0).pvalue, abs=0.01)


def test_random_p_is_never_zero() -> None:
    p = sign_flip_p(np.ones((300, 1)), QUICK, rng())[0]
    assert p == pytest.approx(1 / 2_001)


@pytest.mark.slow
@pytest.mark.parametrize("max_exact", [0, 16])
def test_false_positives_are_as_frequent_as_promised(monkeypatch: pytest.MonkeyPatch, max_exact: int) -> None:
    monkeypatch.setattr(significance, "MAX_EXACT", max_exact)
    # skewed within users but symmetric between the rows: the null hypothesis of the test
    generator = rng(11)
    num_users, num_tables = (12, 4_000) if max_exact else (80, 4_000)
    a_UC, b_UC = generator.gamma(0.5, 1, (2, num_users, num_tables))
    p_C = sign_flip_p(a_UC - b_UC, QUICK, generator)
    for alpha in (0.01, 0.05, 0.2):
        standard_error = np.sqrt(alpha * (1 - alpha) / num_tables)
        assert abs((p_C <= alpha).mean() - alpha) < 4 * standard_error, alpha


def test_power_when_shifted() -> None:
    shifted_UC = rng(12).normal(0.4, 1, (80, 500))  # 3.6 standard errors
    assert (sign_flip_p(shifted_UC, QUICK, rng()) <= 0.05).mean() > 0.9


# Holm


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04; times 4 3 2 1: .04 .06 .06 .04; running maximum: .04 .06 .06 .06
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.04, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.6, 0.9])), [1.0, 1.0])
    np.testing.assert_allclose(holm(np.array([0.2])), [0.2])
    assert len(holm(np.array([]))) == 0


def test_holm_rejects_what_the_textbook_procedure_rejects() -> None:
    for seed in range(200):
        p_C = rng(seed).random(7) ** 3
        alpha = 0.05
        rejected = set()
        for k, c in enumerate(np.argsort(p_C)):
            if p_C[c] > alpha / (7 - k):
                break
            rejected.add(c)
        assert set(np.flatnonzero(holm(p_C) <= alpha)) == rejected


# Bootstrap


def test_interval_equals_scipy() -> None:
    values_UC = rng(1).gamma(2.0, 1.0, (60, 2))
    low_C, high_C = bootstrap_interval(values_UC, np.ones(60), CONFIG, rng())
    for c in range(2):
        expected = stats.bootstrap(
            (values_UC[:, c],), np.mean, method="percentile", n_resamples=10_000, rng=rng(2)
        ).confidence_interval
        assert low_C[c] == pytest.approx(expected.low, abs=0.02)
        assert high_C[c] == pytest.approx(expected.high, abs=0.02)


def test_weighted_interval_is_that_of_the_ratio() -> None:
    generator = rng(4)
    values_U, weights_U = generator.random(50), generator.integers(1, 9, 50).astype(float)
    low_C, high_C = bootstrap_interval(values_U[:, None], weights_U, CONFIG, rng())
    means = []
    for _ in range(10_000):
        drawn = generator.integers(0, 50, 50)
        means.append((values_U[drawn] * weights_U[drawn]).sum() / weights_U[drawn].sum())
    np.testing.assert_allclose([low_C[0], high_C[0]], np.quantile(means, [0.025, 0.975]), atol=0.006)


def test_intervals_cover_as_often_as_promised() -> None:
    # 1,500 studies of 100 users, true mean 0.5
    values_UC = rng(9).beta(2, 2, (100, 1_500))
    low_C, high_C = bootstrap_interval(values_UC, np.ones(100), QUICK, rng())
    assert 0.925 < ((low_C <= 0.5) & (high_C >= 0.5)).mean() < 0.965


# Tables


def table_rows(shift: float, *, num_users: int = 300, num_seeds: int = 3, seed: int = 0) -> list[VariantScores]:
    generator = rng(seed)
    user_U = generator.beta(3, 3, num_users)
    noise_SU = generator.normal(0, 0.1, (2, num_seeds, num_users))
    return [variant_of("untuned", user_U + noise_SU[0]), variant_of("trained", user_U + noise_SU[1] + shift)]


def test_a_real_difference_is_better_and_its_mirror_worse() -> None:
    rows = table_rows(0.05)
    better = compare(rows, [("trained", "untuned")], "ndcg@5", QUICK, seed=1).contrasts[0]
    worse = compare(rows, [("untuned", "trained")], "ndcg@5", QUICK, seed=1).contrasts[0]
    assert better.verdict is Verdict.BETTER
    assert worse.verdict is Verdict.WORSE
    assert better.difference.low > 0.03
    assert better.difference.high < 0.07
    assert better.difference.value == pytest.approx(-worse.difference.value)
    assert better.p == worse.p


def test_no_difference_is_not_shown() -> None:
    verdicts = [
        compare(table_rows(0.0, seed=s), [("trained", "untuned")], "ndcg@5", QUICK, seed=1).contrasts[0].verdict
        for s in range(20)
    ]
    assert verdicts.count(Verdict.NOT_SHOWN) >= 18


def test_table_numbers_by_hand() -> None:
    a_SU, b_SU = np.array([[0.2, 0.4], [0.6, 0.8]]), np.array([[0.1, 0.1], [0.2, 0.2]])
    lists_U = np.array([1, 3])
    rows = [variant_of("a", a_SU, mean="list", lists_U=lists_U), variant_of("b", b_SU, mean="list", lists_U=lists_U)]
    table = compare(rows, [("a", "b")], "ndcg@5", QUICK, seed=1)
    assert table.estimates["a"].by_seed == pytest.approx(((0.2 + 3 * 0.4) / 4, (0.6 + 3 * 0.8) / 4))
    assert table.estimates["a"].value == pytest.approx(0.55)
    assert table.contrasts[0].difference.by_seed == pytest.approx((0.25, 0.55))
    assert table.contrasts[0].difference.value == pytest.approx(0.4)
    # user differences (mean of seeds, times lists): .25, 3 * .45; both signs equal -> 2 of 4 flips
    assert table.contrasts[0].p == pytest.approx(0.5)
    assert (table.num_users, table.num_lists, table.num_seeds) == (2, 4, 2)


def test_one_seed_is_a_demonstration_and_two_are_too_few() -> None:
    for num_seeds, is_demonstration in ((1, True), (2, False)):
        rows = table_rows(0.2, num_seeds=num_seeds)
        table = compare(rows, [("trained", "untuned")], "ndcg@5", QUICK, seed=1)
        assert table.is_demonstration is is_demonstration
        assert table.contrasts[0].p_holm < 0.01
        assert table.contrasts[0].verdict is Verdict.TOO_FEW_SEEDS


def test_one_seed_of_the_other_sign_spoils_the_claim() -> None:
    difference_SU = np.array([[0.3], [0.3], [-0.01]]) + rng(1).normal(0, 0.05, (3, 200))
    base_SU = np.full((3, 200), 0.5)
    rows = [variant_of("a", base_SU + difference_SU), variant_of("b", base_SU)]
    contrast = compare(rows, [("a", "b")], "ndcg@5", QUICK, seed=1).contrasts[0]
    assert contrast.p_holm < 0.01
    assert contrast.verdict is Verdict.NOT_SHOWN


def test_rows_that_no_seed_moves_were_drawn_once() -> None:
    better, worse = rng(1).random((1, 200)) + 0.5, rng(2).random((1, 200))
    rows = [variant_of("better", better.repeat(3, axis=0)), variant_of("worse", worse.repeat(3, axis=0))]
    contrast = compare(rows, [("better", "worse")], "ndcg@5", QUICK, 0).contrasts[0]
    assert contrast.p < 0.01
    assert (contrast.num_seeds, contrast.verdict) == (1, Verdict.TOO_FEW_SEEDS)


def test_rows_that_move_alike_are_as_many_seeds_as_they_have() -> None:
    values_SU = rng(1).random((3, 50))
    rows = [variant_of("one", values_SU), variant_of("other", values_SU)]
    contrast = compare(rows, [("one", "other")], "ndcg@5", QUICK, 0).contrasts[0]
    assert (contrast.num_seeds, contrast.verdict) == (3, Verdict.NOT_SHOWN)


def test_rounding_alone_is_no_difference() -> None:
    values_SU = rng(0).random((3, 40))
    shifted = values_SU * (1 + 4e-16) + 1e-17
    assert (shifted != values_SU).any()
    rows = [variant_of("one", shifted), variant_of("other", values_SU)]
    contrast = compare(rows, [("one", "other")], "ndcg@5", QUICK, 0).contrasts[0]
    assert (contrast.difference.value, contrast.p) == (0.0, 1.0)


def test_holm_counts_every_contrast_of_the_table() -> None:
    rows = [*table_rows(0.02), variant_of("third", table_rows(0.0, seed=5)[0].of("ndcg@5"))]
    contrasts = [("trained", "untuned"), ("trained", "third"), ("untuned", "third")]
    table = compare(rows, contrasts, "ndcg@5", QUICK, seed=1)
    p_C = np.array([contrast.p for contrast in table.contrasts])
    np.testing.assert_allclose([contrast.p_holm for contrast in table.contrasts], holm(p_C))
    assert [(c.name, c.against) for c in table.contrasts] == contrasts


def test_same_seed_same_table_and_order_of_rows_changes_no_number() -> None:
    rows = table_rows(0.01)
    first = compare(rows, [("trained", "untuned")], "ndcg@5", QUICK, seed=1)
    assert compare(rows, [("trained", "untuned")], "ndcg@5", QUICK, seed=1) == first
    turned = compare(rows[::-1], [("trained", "untuned")], "ndcg@5", QUICK, seed=1)
    assert turned.contrasts[0].p == first.contrasts[0].p
    assert turned.estimates["trained"] == first.estimates["trained"]


def test_misuse_is_refused() -> None:
    rows = table_rows(0.01)
    cases = [
        (rows, [("trained", "nobody")], SettingError, "names no variant of the table, got variants untuned, trained"),
        (rows, [("trained", "trained")], SettingError, "cannot be compared with itself"),
        (rows, [("trained", "untuned"), ("untuned", "trained")], SettingError, "may appear once"),
        ([rows[0], rows[0]], [], DataError, "distinct names"),
        ([], [], DataError, "distinct names"),
        ([rows[0], replace(rows[1], mean="list")], [], DataError, "share their conventions"),
        ([rows[0], replace(rows[1], user_U=rows[1].user_U + 1)], [], DataError, "scored on the same lists"),
        ([rows[0], replace(rows[1], num_lists_U=rows[1].num_lists_U + 1)], [], DataError, "same lists"),
        ([rows[0], replace(rows[1], seeds=(7, 8, 9))], [("trained", "untuned")], SettingError, "same seeds"),
    ]
    for table, contrasts, error, words in cases:
        with pytest.raises(error, match=words):
            compare(table, contrasts, "ndcg@5", QUICK, seed=1)
