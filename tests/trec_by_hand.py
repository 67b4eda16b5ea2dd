"""TREC files read back, and the numbers of a table recomputed from them alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from recloop.evaluation.score import MetricsConfig, variant_from_lists
from recloop.records import Group, Lists
from recloop.rerankers.metrics import compute_metric


def read_run(run_path: Path, qrels_path: Path) -> tuple[Lists, np.ndarray]:
    """The lists of a qrels file with the scores a run gave them; ranks are ignored, as by trec_eval."""
    qrels, run = _read(qrels_path, ["query", "_", "item", "label"]), _read(run_path, ["query", "_", "item", *"rst"])
    assert run.height == qrels.height
    joined = qrels.join(
        run.select("query", "item", score="s"), on=["query", "item"], validate="1:1", maintain_order="left"
    )
    assert joined.height == qrels.height
    assert not joined.select(pl.struct("query", "score").is_duplicated().any()).item()
    user = as_numbers(joined["query"].str.replace(r"\.\d+$", ""))
    number = joined["query"].str.extract(r"(\d+)$").cast(pl.Int64)
    queries = joined.with_columns(as_numbers(joined["item"]), user=user, number=number)
    queries = queries.sort("user", "number", maintain_order=True)
    lists = queries.partition_by("query", maintain_order=True)
    shape = (len(lists), max(part.height for part in lists))
    items_BL, labels_BL = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    scores_BL, is_item_BL = np.full(shape, -np.inf, np.float32), np.zeros(shape, bool)
    for b, part in enumerate(lists):
        items_BL[b, : part.height], labels_BL[b, : part.height] = part["item"], part["label"]
        scores_BL[b, : part.height], is_item_BL[b, : part.height] = part["score"], True
    user_B = np.array([part["user"][0] for part in lists])
    return Lists(Group.TEST, user_B, items_BL, labels_BL, is_item_BL), scores_BL


def as_numbers(ids: pl.Series) -> pl.Series:
    """Ids that are numbers as such; others by the order in which they come."""
    return ids.cast(pl.Int64) if ids.str.contains(r"^\d+$").all() else ids.rank("dense").cast(pl.Int64)


def recompute(run_paths: Sequence[Path], qrels_path: Path, metrics: MetricsConfig) -> dict[str, float]:
    """The table's number of each metric: `run_paths` are every seed and completion of one variant."""
    found: dict[str, list[float]] = {metric: [] for metric in metrics.names}
    for path in run_paths:
        lists, scores_BL = read_run(path, qrels_path)
        values_BM = np.stack([compute_metric(metric, scores_BL, lists) for metric in metrics.names], axis=1)
        variant = variant_from_lists(path.stem, {0: values_BM}, lists.user_B, metrics)
        for metric in metrics.names:
            found[metric].append(variant.average(metric))
    return {metric: float(np.mean(numbers)) for metric, numbers in found.items()}


def _read(path: Path, columns: list[str]) -> pl.DataFrame:
    types = {"query": pl.String, "item": pl.String, "label": pl.Int64, "s": pl.Float32}
    schema = {column: types.get(column, pl.String) for column in columns}
    return pl.read_csv(path, has_header=False, separator=" ", schema=schema)
