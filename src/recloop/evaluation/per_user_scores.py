"""What one row of a table earned, per seed and user: the record every comparison starts from.

Axis letters: ``S`` seeds, ``U`` users, ``M`` metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from recloop.errors import DataError, SettingError

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float64, Int64

    from recloop.rerankers.metrics import Empty

Mean = Literal["user", "list"]


@dataclass(frozen=True, slots=True)
class VariantScores:
    """One row of a table before it is averaged.

    name: short and stable, e.g. ``untuned``; files and contrasts refer to it.
    mean: ``user``: every user weighs the same; ``list``: every list does (KAR's mean), so that a user
        weighs as many times as they own lists.
    empty: lists without a positive label were left out (``drop``) or counted as 0 (``zero``).
    seeds: one reranker was fitted per seed.
    user_U: ascending; users of whom no list counts are absent.
    num_lists_U: how many lists of the user count.
    values_SUM: mean over the user's lists of the mean over completions.
    """

    name: str
    mean: Mean
    empty: Empty
    metrics: tuple[str, ...]
    seeds: tuple[int, ...]
    user_U: Int64[np.ndarray, " U"]
    num_lists_U: Int64[np.ndarray, " U"]
    values_SUM: Float64[np.ndarray, "S U M"]

    def __post_init__(self) -> None:
        shape = (len(self.seeds), len(self.user_U), len(self.metrics))
        if self.values_SUM.shape != shape or self.num_lists_U.shape != self.user_U.shape:
            raise DataError(
                f"scores of row {self.name!r} must be [seeds, users, metrics] = {list(shape)}, "
                f"got {list(self.values_SUM.shape)}; build rows with recloop.evaluation.score.score_variant"
            )
        if min(shape) == 0:
            raise DataError(
                f"row {self.name!r} needs at least one seed, user and metric, got {list(shape)}; "
                f"is there any list with a positive label?"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise SettingError(
                f"seeds of row {self.name!r} must differ, got {list(self.seeds)}; fit one reranker per seed"
            )
        if not np.isfinite(self.values_SUM).all():
            raise DataError(f"scores of row {self.name!r} must be finite, got NaN or infinity; did a fit diverge?")

    @property
    def weights_U(self) -> Float64[np.ndarray, " U"]:
        """What each user weighs in the mean of this row."""
        counts = self.num_lists_U if self.mean == "list" else np.ones_like(self.num_lists_U)
        return counts.astype(np.float64)

    def of(self, metric: str) -> Float64[np.ndarray, "S U"]:
        """The values of one metric; SettingError when it was not scored."""
        if metric not in self.metrics:
            raise SettingError(
                f"row {self.name!r} has no metric {metric!r}, got {', '.join(self.metrics)}; "
                f"name it among the metrics to score"
            )
        return self.values_SUM[:, :, self.metrics.index(metric)]

    def seed_means(self, metric: str) -> Float64[np.ndarray, " S"]:
        """The table's number of each seed."""
        return self.of(metric) @ self.weights_U / self.weights_U.sum()

    def average(self, metric: str) -> float:
        """The table's number: the mean of the seeds' numbers."""
        return float(self.seed_means(metric).mean())


def join_seeds(rows: Sequence[VariantScores]) -> VariantScores:
    """One row from several of the same name and users that were scored with different seeds.

    For loops in which every seed has its own completions or its own trained language model.

    Raises:
        DataError: names, users, metrics or conventions differ, or `rows` is empty.
        SettingError: two of them share a seed.
    """
    if not rows:
        raise DataError("joining seeds needs at least one row, got none")
    first = rows[0]
    for row in rows[1:]:
        same_users = np.array_equal(row.user_U, first.user_U) and np.array_equal(row.num_lists_U, first.num_lists_U)
        if _conventions(row) != _conventions(first) or row.name != first.name or not same_users:
            raise DataError(
                f"seeds of one row must share its name, users, metrics and conventions, got {row.name!r} "
                f"{_conventions(row)} after {first.name!r} {_conventions(first)}; "
                f"score them on the same lists"
            )
    return replace(
        first,
        seeds=tuple(seed for row in rows for seed in row.seeds),
        values_SUM=np.concatenate([row.values_SUM for row in rows]),
    )


def write_variant_scores(path: Path, rows: Sequence[VariantScores]) -> None:
    """All rows as one Parquet file: ``row, mean, empty, seed, user, num_lists``, then a column per metric.

    Raises:
        DataError: two rows share a name, or rows were scored with different metrics or conventions.
    """
    import polars as pl

    if len({row.name for row in rows}) < len(rows) or len({_conventions(row) for row in rows}) > 1:
        raise DataError(
            f"rows of one file must have distinct names and the same metrics and conventions, got "
            f"{[(row.name, *_conventions(row)) for row in rows]}; write a file per convention"
        )
    frames = [
        pl.DataFrame(
            {
                "variant": [row.name] * len(row.user_U),
                "mean": [row.mean] * len(row.user_U),
                "empty": [row.empty] * len(row.user_U),
                "seed": np.full(len(row.user_U), seed, np.int64),
                "user": row.user_U,
                "num_lists": row.num_lists_U,
                **{metric: row.of(metric)[s] for metric in row.metrics},
            }
        )
        for row in rows
        for s, seed in enumerate(row.seeds)
    ]
    pl.concat(frames).write_parquet(path)


def read_variant_scores(path: Path) -> list[VariantScores]:
    """The rows that `write_variant_scores` wrote, in their order."""
    import polars as pl

    table = pl.read_parquet(path)
    metrics = tuple(table.columns[6:])
    rows: list[VariantScores] = []
    for part in table.partition_by("variant", maintain_order=True):
        by_seed = part.partition_by("seed", maintain_order=True)
        first = by_seed[0]
        rows.append(
            VariantScores(
                name=first["variant"][0],
                mean=first["mean"][0],
                empty=first["empty"][0],
                metrics=metrics,
                seeds=tuple(int(seed["seed"][0]) for seed in by_seed),
                user_U=first["user"].to_numpy(),
                num_lists_U=first["num_lists"].to_numpy(),
                values_SUM=np.stack([seed.select(metrics).to_numpy() for seed in by_seed]),
            )
        )
    return rows


def _conventions(row: VariantScores) -> tuple[str, str, tuple[str, ...]]:
    return row.mean, row.empty, row.metrics
