"""The scores of one variant, per seed and user: the record every comparison starts from.

Axis letters: ``S`` seeds, ``U`` users, ``M`` metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

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
        if self.values_SUM.shape != shape or self.num_lists_U.shape != self.user_U.shape:
            raise DataError(
                f"scores of variant {self.name!r} must be [seeds, users, metrics] = {list(shape)}, "
                f"got {list(self.values_SUM.shape)}; make them with recloop.evaluation.score.score_variant"
            )
        if min(shape) == 0:
            raise DataError(
                f"variant {self.name!r} needs at least one seed, user and metric, got {list(shape)}; "
                f"is there any list with a positive label?"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise SettingError(
                f"seeds of variant {self.name!r} must differ, got {list(self.seeds)}; fit one reranker per seed"
            )
        if not np.isfinite(self.values_SUM).all():
            raise DataError(f"scores of variant {self.name!r} must be finite, got NaN or infinity; did a fit diverge?")

    @property
    def weights_U(self) -> Float64[np.ndarray, " U"]:
        """What each user weighs in the mean."""
        counts = self.num_lists_U if self.mean == "list" else np.ones_like(self.num_lists_U)
        return counts.astype(np.float64)

    def of(self, metric: str) -> Float64[np.ndarray, "S U"]:
        """The values of one metric; SettingError when it was not scored."""
        if metric not in self.metrics:
            raise SettingError(
                f"variant {self.name!r} has no metric {metric!r}, got {', '.join(self.metrics)}; "
                f"name it among the metrics to score"
            )
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
        same_users = np.array_equal(one.user_U, first.user_U) and np.array_equal(one.num_lists_U, first.num_lists_U)
        if _conventions(one) != _conventions(first) or one.name != first.name or not same_users:
            raise DataError(
                f"seeds of one variant must share its name, users, metrics and conventions, got {one.name!r} "
                f"{_conventions(one)} after {first.name!r} {_conventions(first)}; "
                f"score them on the same lists"
            )
    return replace(
        first,
        seeds=tuple(seed for one in parts for seed in one.seeds),
        values_SUM=np.concatenate([one.values_SUM for one in parts]),
    )


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
    import polars as pl

    if len({one.name for one in variants}) < len(variants) or len({_conventions(one) for one in variants}) > 1:
        raise DataError(
            f"variants of one file must have distinct names and the same metrics and conventions, got "
            f"{[(one.name, *_conventions(one)) for one in variants]}; write a file per convention"
        )
    frames = [
        pl.DataFrame(
            {
                "variant": [one.name] * len(one.user_U),
                "mean": [one.mean] * len(one.user_U),
                "empty": [one.empty] * len(one.user_U),
                "seed": np.full(len(one.user_U), seed, np.int64),
                "user": one.user_U,
                "num_lists": one.num_lists_U,
                **{metric: one.of(metric)[s] for metric in one.metrics},
            }
        )
        for one in variants
        for s, seed in enumerate(one.seeds)
    ]
    pl.concat(frames).write_parquet(path)


def read_variant_scores(path: Path) -> list[VariantScores]:
    """The variants that `write_variant_scores` wrote, in their order."""
    import polars as pl

    table = pl.read_parquet(path)
    metrics = tuple(table.columns[6:])
    found: list[VariantScores] = []
    for part in table.partition_by("variant", maintain_order=True):
        by_seed = part.partition_by("seed", maintain_order=True)
        first = by_seed[0]
        found.append(
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
    return found


def _conventions(one: VariantScores) -> tuple[str, str, tuple[str, ...]]:
    return one.mean, one.empty, one.metrics
