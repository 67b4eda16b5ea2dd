"""Rerankers measured on users they have not seen, and compared user by user: for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from recloop.evaluation.score import MetricsConfig, score_variant
from recloop.evaluation.significance import StatisticsConfig, compare
from recloop.settings import validate

if TYPE_CHECKING:
    from recloop.evaluation.per_user_scores import VariantScores
    from recloop.records import Lists, UserVectors
    from recloop.rerankers.protocol import Reranker


def evaluate(
    reranker: Reranker | Mapping[int, Reranker],
    lists: Lists,
    vectors: UserVectors | None = None,
    *,
    metrics: Sequence[str],
    empty: str,
    mean: str = "user",
    name: str = "variant",
) -> VariantScores:
    """The scores of each user of some lists under a reranker: `values_SUM` by seed, user and metric.

    Args:
        reranker: fitted; several that differ by their seed alone as a mapping by seed.
        lists: of valid or test users.
        vectors: encoded texts of these users, for a reranker that reads texts.
        metrics: e.g. ``("ndcg@5", "map@5")``. There is no default, since the field disagrees.
        empty: what a list without a positive is worth: it is left out (``drop``) or counts as 0 (``zero``).
        mean: every user weighs the same (``user``), or every list does (``list``).
        name: of the variant, in comparisons.

    Raises:
        LeakageError: the lists belong to train or reward users.
        SettingError: an unknown metric or convention.

    Example:
        scores = recloop.evaluate(model, lists.test, vectors, metrics=("ndcg@5",), empty="drop")
        scores.of("ndcg@5").mean()
    """
    config = validate(MetricsConfig, {"names": tuple(metrics), "empty": empty, "mean": mean})
    by_seed = reranker if isinstance(reranker, Mapping) else {0: reranker}
    return score_variant(name, by_seed, lists, vectors, config)


def compare_variants(
    variants: Sequence[VariantScores], contrasts: Sequence[tuple[str, str]], metric: str, *, seed: int = 0
) -> pl.DataFrame:
    """Each contrast of two variants, user by user, with its 95% interval, p, and p corrected by Holm.

    Args:
        variants: evaluated on the same lists with the same conventions.
        contrasts: pairs of names; each is tested as the first minus the second.
        metric: one of the metrics they were evaluated with.
        seed: of the bootstrap resamples and the random sign flips.

    Returns:
        Columns ``variant, against, metric, value, low, high, p, p_holm, verdict``, as `Results.contrasts`.

    Raises:
        DataError: variants differ in users, lists or conventions.
        SettingError: an unknown name or metric.

    Source: paired sign-flip test over users (Fisher 1935), Holm 1979, percentile bootstrap (Efron 1979).
    """
    found = compare(variants, contrasts, metric, StatisticsConfig(), seed)
    return pl.DataFrame(
        [
            {
                "variant": one.name,
                "against": one.against,
                "metric": metric,
                "value": one.difference.value,
                "low": one.difference.low,
                "high": one.difference.high,
                "p": one.p,
                "p_holm": one.p_holm,
                "verdict": one.verdict.value,
            }
            for one in found.contrasts
        ]
    )
