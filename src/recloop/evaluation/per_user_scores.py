"""The scores of one variant, per seed and user: the record every comparison starts from.

Axis letters: ``S`` seeds, ``U`` users, ``M`` metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl

from recloop.errors import DataError, SettingError

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float64, Int64

    from recloop.rerankers.metrics import Empty

SCORES_FILE = "variant_scores.parquet"
Mean = Literal["user", "list"]


@dataclass(frozen=True, slots=True)
class VariantScores:
    """One variant of a table before it is averaged.

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
        who = f"variant {self.name!r}"
        if self.values_SUM.shape != shape or self.num_lists_U.shape != self.user_U.shape:
            got = list(self.values_SUM.shape)
            raise DataError(
                f"scores of {who} must be [seeds, users, metrics] = {list(shape)}, got {got}; use recloop.evaluate"
            )
        if min(shape) == 0:
            raise DataError(
                f"{who} needs at least one seed, user and metric, got {list(shape)}; "
                f"is there any list with a positive label?"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise SettingError(f"seeds of {who} must differ, got {list(self.seeds)}; fit one reranker per seed")
        if not np.isfinite(self.values_SUM).all():
            raise DataError(f"scores of {who} must be finite, got NaN or infinity; did a fit diverge?")

    @property
    def weights_U(self) -> Float64[np.ndarray, " U"]:
        """What each user weighs in the mean."""
        counts = self.num_lists_U if self.mean == "list" else np.ones_like(self.num_lists_U)
        return counts.astype(np.float64)

    def has_users_of(self, other: VariantScores) -> bool:
        """Whether both were scored on the same users, with as many lists each."""
        return np.array_equal(self.user_U, other.user_U) and np.array_equal(self.num_lists_U, other.num_lists_U)

    def take(self, rows_U: np.ndarray) -> VariantScores:
        """The scores of some of its users."""
        users = {"user_U": self.user_U[rows_U], "num_lists_U": self.num_lists_U[rows_U]}
        return replace(self, **users, values_SUM=self.values_SUM[:, rows_U])

    def of(self, metric: str) -> Float64[np.ndarray, "S U"]:
        """The values of one metric; SettingError when it was not scored."""
        if metric not in self.metrics:
            have = ", ".join(self.metrics)
            raise SettingError(f"variant {self.name!r} has no metric {metric!r}, got {have}; name it among the metrics")
        return self.values_SUM[:, :, self.metrics.index(metric)]

    def seed_means(self, metric: str) -> Float64[np.ndarray, " S"]:
        """The table's number of each seed."""
        return self.of(metric) @ self.weights_U / self.weights_U.sum()

    def average(self, metric: str) -> float:
        """The table's number: the mean of the seeds' numbers."""
        return float(self.seed_means(metric).mean())


def join_seeds(parts: Sequence[VariantScores]) -> VariantScores:
    """One variant from several of the same name and users that were scored with different seeds.

    For loops in which every seed has its own completions or its own trained language model.

    Raises:
        DataError: names, users, metrics or conventions differ, or `parts` is empty.
        SettingError: two of them share a seed.
    """
    if not parts:
        raise DataError("joining seeds needs at least one variant, got none")
    first = parts[0]
    for one in parts[1:]:
        if _conventions(one) != _conventions(first) or one.name != first.name or not one.has_users_of(first):
            raise DataError(
                f"seeds of one variant must share its name, users, metrics and conventions, got {one.name!r} "
                f"{_conventions(one)} after {first.name!r} {_conventions(first)}; score them on the same lists"
            )
    seeds = tuple(seed for one in parts for seed in one.seeds)
    return replace(first, seeds=seeds, values_SUM=np.concatenate([one.values_SUM for one in parts]))


def join_by_name(parts: Iterable[VariantScores]) -> list[VariantScores]:
    """`join_seeds` for each name, in the order in which names appear."""
    by_name: dict[str, list[VariantScores]] = {}
    for one in parts:
        by_name.setdefault(one.name, []).append(one)
    return [join_seeds(seeds) for seeds in by_name.values()]


def write_variant_scores(path: Path, variants: Sequence[VariantScores]) -> None:
    """All variants as one Parquet file: ``variant, mean, empty, seed, user, num_lists``, then a column per metric.

    Raises:
        DataError: two variants share a name, or were scored with different metrics or conventions.
    """
    if len({one.name for one in variants}) < len(variants) or len({_conventions(one) for one in variants}) > 1:
        raise DataError(
            f"variants of one file must have distinct names and the same metrics and conventions, got "
            f"{[(one.name, *_conventions(one)) for one in variants]}; write a file per convention"
        )
    frames: list[pl.DataFrame] = []
    for one in variants:
        for s, seed in enumerate(one.seeds):
            told = {"variant": one.name, "mean": one.mean, "empty": one.empty, "seed": seed}
            columns = {name: [value] * len(one.user_U) for name, value in told.items()}
            values = {metric: one.of(metric)[s] for metric in one.metrics}
            frames.append(pl.DataFrame({**columns, "user": one.user_U, "num_lists": one.num_lists_U, **values}))
    pl.concat(frames).write_parquet(path)


def read_variant_scores(path: Path) -> list[VariantScores]:
    """The variants that `write_variant_scores` wrote, in their order."""
    table = pl.read_parquet(path)
    metrics = tuple(table.columns[6:])
    found: list[VariantScores] = []
    for part in table.partition_by("variant", maintain_order=True):
        by_seed = part.partition_by("seed", maintain_order=True)
        name, mean, empty = by_seed[0].select("variant", "mean", "empty").row(0)
        seeds = tuple(int(seed["seed"][0]) for seed in by_seed)
        user_U, num_lists_U = (by_seed[0][column].to_numpy() for column in ("user", "num_lists"))
        values_SUM = np.stack([seed.select(metrics).to_numpy() for seed in by_seed])
        found.append(VariantScores(name, mean, empty, metrics, seeds, user_U, num_lists_U, values_SUM))
    return found


def _conventions(one: VariantScores) -> tuple[str, str, tuple[str, ...]]:
    return one.mean, one.empty, one.metrics
