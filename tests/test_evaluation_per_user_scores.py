"""VariantScores: averaging by user and by list, joining seeds, and the Parquet file."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from recloop.errors import DataError, SettingError
from recloop.evaluation.per_user_scores import VariantScores, join_seeds, read_variant_scores, write_variant_scores


def variant_of(
    values_SU: np.ndarray, *, name: str = "variant", mean: str = "user", seeds: tuple[int, ...] = ()
) -> VariantScores:
    num_seeds, num_users = values_SU.shape
    return VariantScores(
        name=name,
        mean=mean,
        empty="drop",
        metrics=("ndcg@5", "mrr@10"),
        seeds=seeds or tuple(range(num_seeds)),
        user_U=np.arange(num_users) * 2,
        num_lists_U=np.arange(num_users) + 1,
        values_SUM=np.stack([values_SU, values_SU / 2], axis=2),
    )


def test_user_mean_and_list_mean_by_hand() -> None:
    values_SU = np.array([[0.2, 0.5, 0.8]])
    # users own 1, 2 and 3 lists
    assert variant_of(values_SU).average("ndcg@5") == pytest.approx((0.2 + 0.5 + 0.8) / 3)
    assert variant_of(values_SU, mean="list").average("ndcg@5") == pytest.approx((0.2 + 2 * 0.5 + 3 * 0.8) / 6)
    assert variant_of(values_SU, mean="list").average("mrr@10") == pytest.approx((0.1 + 2 * 0.25 + 3 * 0.4) / 6)


def test_average_is_the_mean_of_the_seeds_numbers() -> None:
    row = variant_of(np.array([[0.0, 0.3], [1.0, 0.7]]))
    np.testing.assert_allclose(row.seed_means("ndcg@5"), [0.15, 0.85])
    assert row.average("ndcg@5") == pytest.approx(0.5)


def test_joined_seeds_keep_their_values() -> None:
    values_SU = np.random.default_rng(0).random((3, 4))
    parts = [variant_of(values_SU[s : s + 1], seeds=(s + 5,)) for s in range(3)]
    joined = join_seeds(parts)
    assert joined.seeds == (5, 6, 7)
    np.testing.assert_array_equal(joined.of("ndcg@5"), values_SU)


def test_joining_refuses_other_users_and_repeated_seeds() -> None:
    row = variant_of(np.ones((1, 3)))
    with pytest.raises(DataError, match="score them on the same lists"):
        join_seeds([row, replace(row, seeds=(1,), user_U=row.user_U + 1)])
    with pytest.raises(SettingError, match="seeds of variant 'variant' must differ"):
        join_seeds([row, row])
    with pytest.raises(DataError, match="at least one variant"):
        join_seeds([])


def test_parquet_gives_back_every_row_bit_by_bit(tmp_path) -> None:
    rng = np.random.default_rng(1)
    rows = [variant_of(rng.random((2, 5)), name=name, mean="list", seeds=(3, 9)) for name in ("trained", "a", "b")]
    path = tmp_path / "scores.parquet"
    write_variant_scores(path, rows)
    back = read_variant_scores(path)
    assert [row.name for row in back] == ["trained", "a", "b"]
    for row, original in zip(back, rows, strict=True):
        assert (row.mean, row.empty, row.metrics, row.seeds) == ("list", "drop", ("ndcg@5", "mrr@10"), (3, 9))
        np.testing.assert_array_equal(row.values_SUM, original.values_SUM)
        np.testing.assert_array_equal(row.user_U, original.user_U)
        np.testing.assert_array_equal(row.num_lists_U, original.num_lists_U)
    # a plain reader of the file gets the table's number with a group-by
    by_hand = pl.read_parquet(path).filter(pl.col("variant") == "trained")
    weighted = (by_hand["ndcg@5"] * by_hand["num_lists"]).sum() / by_hand["num_lists"].sum()
    assert weighted == pytest.approx(rows[0].average("ndcg@5"))


def test_parquet_refuses_mixed_conventions(tmp_path) -> None:
    row = variant_of(np.ones((1, 3)))
    with pytest.raises(DataError, match="write a file per convention"):
        write_variant_scores(tmp_path / "x.parquet", [row, replace(row, name="other", mean="list")])
    with pytest.raises(DataError, match="distinct names"):
        write_variant_scores(tmp_path / "x.parquet", [row, row])


def test_bad_rows_are_refused() -> None:
    row = variant_of(np.ones((1, 3)))
    with pytest.raises(DataError, match="must be finite"):
        replace(row, values_SUM=np.full((1, 3, 2), np.nan))
    with pytest.raises(DataError, match="seeds, users, metrics"):
        replace(row, seeds=(0, 1))
    with pytest.raises(DataError, match="at least one seed"):
        variant_of(np.ones((1, 0)))
    with pytest.raises(SettingError, match="no metric 'map@5', got ndcg@5, mrr@10"):
        row.of("map@5")
