"""Fits PRM and DLCM with vectors of width 384, against the same fit computed position by position."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.speed.bench import Bench
from benchmarks.speed.figures import Check, Figure, Findings, Growth, Target
from benchmarks.speed.measuring import growth_line, products_of, profile, race
from benchmarks.speed.per_list_alternative import fit_per_list
from benchmarks.speed.rerank_task import RerankTask, rerank_task
from recloop.rerankers.backbones import BACKBONES
from recloop.rerankers.config import RerankerConfig, RerankerKind
from recloop.rerankers.fitted import FittedReranker, score_tensors
from recloop.rerankers.metrics import compute_metric
from recloop.rerankers.network import build_network
from recloop.rerankers.train import LISTS_PER_USER, MIN_BATCH, MIN_STEPS_PER_PASS, FitData, epoch_order, fit_network

if TYPE_CHECKING:
    from recloop.records import Lists
    from recloop.rerankers.list_tensors import ListTensors

BATCH = 512
STEPS = 30  # of one repetition
COUNTED = 16  # of those whose operations are counted
SEED = 0
KINDS: tuple[tuple[RerankerKind, bool], ...] = (("prm", True), ("dlcm", True), ("prm", False))
WANTED_RATIO, WANTED_RATE, WANTED_GAP = 50.0, 10_000.0, 0.002


def measure(bench: Bench) -> Findings:
    """Time one epoch with the same first weights and the same lists in every step."""
    task = rerank_task(bench.config)
    train = teachable(task.train).take(np.arange(bench.amount(STEPS * BATCH, 4 * BATCH)))
    fit_once(task, train, settings("prm", with_items=True), SEED)  # loads what is loaded once
    figures: list[Figure] = []
    with bench.progress.stage("training", len(KINDS) * bench.repetitions, "repetitions") as step:
        for kind, with_items in KINDS:
            figures.append(_figure(task, train, kind, with_items, bench, step))
    part = train.take(np.arange(min(len(train), COUNTED * BATCH)))
    config = settings("prm", with_items=True)
    return Findings(
        figures=tuple(figures),
        growths=tuple(_growths(task, part)),
        profiles=(profile("fitting PRM with texts and item knowledge", lambda: fit_once(task, part, config, SEED)),),
        bound=(
            "Matrix products. Vectors are adapted once per distinct user and item of the step: a user's lists come "
            "four at a time, and 5,120 positions contain about 2,800 distinct films. The rest is the experts on "
            "those (0.74 million multiplications each, forwards) and the backbone at every position. The alternative "
            "runs the experts twice at every position, also as matrix products. So it cannot be slower by more than "
            "the ratio of the products below, times the cost of its Python."
        ),
    )


def settings(kind: RerankerKind, *, with_items: bool) -> RerankerConfig:
    """recloop's defaults in steps of 512 lists, one epoch."""
    return RerankerConfig(kind=kind, batch_size=BATCH, max_epochs=1, min_epoch_steps=1, use_item_knowledge=with_items)


def teachable(lists: Lists) -> Lists:
    """The lists with both labels, from which a list loss learns."""
    share_B = lists.labels_BL.mean(axis=1)
    return lists.take(np.flatnonzero((share_B > 0) & (share_B < 1)))


def fit_once(task: RerankTask, train: Lists, config: RerankerConfig, seed: int) -> FittedReranker:
    """One epoch of `fit_network`; few valid users, so that fitting is what is timed."""
    valid = task.valid.take(np.arange(min(len(task.valid), 100)))
    return fit_network(config, FitData(task.features, task.histories, train, valid, task.vectors), seed)


def fit_alternative(fitted: FittedReranker, task: RerankTask, train: Lists, seed: int) -> FittedReranker:
    """The reranker of the per-list fit, from the same start through the same steps as `fitted`."""
    config = fitted.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        scaled = fitted.network.get_buffer("item_vectors_ID").numpy()
        features = replace(task.features, item_vectors_ID=scaled if scaled.shape[1] else None)
        network = build_network(config, fitted.shape, features, BACKBONES[config.kind])
    lists: ListTensors = fitted.tensors(train, task.vectors)
    order_B = epoch_order(train.user_B, LISTS_PER_USER, np.random.default_rng(seed))
    batch = min(config.batch_size, max(MIN_BATCH, len(train) // MIN_STEPS_PER_PASS))
    steps = [order_B[start : start + batch] for start in range(0, len(order_B), batch)]
    fit_per_list(network, lists, steps, config)
    return replace(fitted, network=network)


def _figure(task: RerankTask, train: Lists, kind: RerankerKind, with_items: bool, bench: Bench, step: Any) -> Figure:
    config = settings(kind, with_items=with_items)
    template = fit_once(task, train, config, SEED)
    found = race(
        ("fit_network", len(train), lambda: fit_once(task, train, config, SEED)),
        ("adaptor at every list position", len(train), lambda: fit_alternative(template, task, train, SEED)),
        bench.repetitions,
        step,
    )
    ours, theirs = (mean_ndcg(reranker, task) for reranker in (found.our_result, found.their_result))
    part = train.take(np.arange(min(len(train), COUNTED * BATCH)))
    figure = Figure(
        name=f"fit {kind.upper()}, {'texts and item knowledge' if with_items else 'texts'}",
        unit="lists",
        ours=found.ours,
        against=found.against,
        checks=(Check(what="difference of NDCG@5 on valid lists", value=abs(ours - theirs), most=WANTED_GAP),),
        notes=(
            f"{task.name}; one epoch of {len(train):,} lists in steps of {BATCH}",
            f"NDCG@5 {ours:.4f}, alternative {theirs:.4f}",
        ),
        products=products_of(
            lambda: fit_once(task, part, config, SEED),
            lambda: fit_alternative(template, task, part, SEED),
            len(part),
        ),
    )
    assert figure.ratios is not None
    targets = [
        Target(what="ratio", wanted="at least", limit=WANTED_RATIO, value=float(np.median(figure.ratios))),
        Target(
            what="rate",
            wanted="at least",
            limit=WANTED_RATE,
            value=float(np.median(found.ours.rates)),
            unit="lists/s",
        ),
    ]
    return figure.model_copy(update={"targets": tuple(targets)})


def mean_ndcg(reranker: FittedReranker, task: RerankTask) -> float:
    """Mean NDCG@5 of all valid lists that have a positive."""
    scores_BNL = score_tensors(reranker.network, reranker.tensors(task.valid, task.vectors))
    return float(np.nanmean(compute_metric("ndcg@5", scores_BNL[:, 0], task.valid)))


def _growths(task: RerankTask, train: Lists) -> list[Growth]:
    """Cost of one epoch by vector width and by the number of items in the lists."""
    config = settings("prm", with_items=True)

    def by_width(width: int) -> Any:
        features = replace(task.features, item_vectors_ID=_first(task.features.item_vectors_ID, width))
        vectors = replace(task.vectors, vectors_UND=task.vectors.vectors_UND[..., :width])
        narrow = replace(task, features=features, vectors=vectors)
        return lambda: fit_once(narrow, train, config, SEED)

    def by_items(num_items: int) -> Any:
        few = replace(train, items_BL=train.items_BL % num_items)
        return lambda: fit_once(task, few, config, SEED)

    num_items = task.features.num_items
    sizes = tuple(num_items // part for part in (8, 4, 2, 1))
    return [
        Growth(
            title=f"Fitting PRM on {len(train):,} lists: cost by {label}",
            x_label=label,
            y_label="seconds",
            lines=(growth_line("recloop", xs, work_of),),
        )
        for label, xs, work_of in (
            ("width of a vector (D)", (48, 96, 192, 384), by_width),
            ("items in the lists", sizes, by_items),
        )
    ]


def _first(vectors_ID: np.ndarray | None, width: int) -> np.ndarray | None:
    return None if vectors_ID is None else vectors_ID[:, :width]
