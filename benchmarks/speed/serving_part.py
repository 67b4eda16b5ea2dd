"""One request: thirty candidates of one user whose text is already encoded.

`RequestScorer.score` is timed with its checks, without HTTP; the catalogue and the users' texts are computed before.
Both implementations have one thread, as a service has for each of the requests that it answers in parallel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.speed.bench import Bench
from benchmarks.speed.figures import Check, Figure, Findings, Growth, Side, Target
from benchmarks.speed.measuring import growth_line, profile
from benchmarks.speed.per_list_alternative import PerListNetwork
from benchmarks.speed.rerank_task import RerankTask, rerank_task
from benchmarks.speed.training_part import SEED, fit_once, settings, teachable
from recloop.records import Group, Lists
from recloop.rerankers.fitted import FittedReranker
from recloop.rerankers.request_scorer import ListRequest, prepare_requests

CANDIDATES, REQUESTS = 30, 600
WANTED_P99_MS = 2.0


@contextmanager
def one_thread() -> Generator[None]:
    """One thread of the mathematics library inside the block."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def measure(bench: Bench) -> Findings:
    """Time requests of random users one after another, all by one implementation and then all by the other."""
    task = rerank_task(bench.config)
    figures: list[Figure] = []
    first = None
    with bench.progress.stage("serving", 2, "rerankers") as step:
        for kind in ("prm", "dlcm"):
            train = teachable(task.train)
            few = train.take(np.arange(min(len(train), 1_000)))
            wide = _widened(few, CANDIDATES)
            fitted = fit_once(
                replace(task, valid=_widened(task.valid, CANDIDATES)),
                wide,
                settings(kind, with_items=True),
                SEED,
            )
            figures.append(_figure(kind.upper(), fitted, task, bench))
            first = first or fitted
            step()
    assert first is not None
    score, lists = scoring(first, task), request(task, first, CANDIDATES, seed=1)
    return Findings(
        figures=tuple(figures),
        growths=(_growth(first, task),),
        profiles=(profile("one request", lambda: [score(lists) for _ in range(50)]),),
        bound=(
            "A request is so small that the calls decide its cost: about thirty operations of a few microseconds "
            "each. The experts' products on the user and thirty films, most of the arithmetic, are computed once, "
            "when the scorer is made. A second thread makes it slower, since waking it takes longer than its share "
            "of the work."
        ),
    )


def request(task: RerankTask, fitted: FittedReranker, num: int, seed: int) -> Lists:
    """A list of different random items for a random user."""
    rng = np.random.default_rng(seed)
    user = int(rng.choice(task.vectors.user_U))
    items = rng.choice(fitted.shape.num_items, min(num, fitted.shape.num_items), replace=False)
    shape = (1, len(items))
    return Lists(
        Group.TEST,
        np.array([user]),
        items[None].astype(np.int64),
        np.zeros(shape, np.float32),
        np.ones(shape, bool),
    )


def scoring(fitted: FittedReranker, task: RerankTask) -> Callable[[Lists], np.ndarray]:
    """A function that scores one list, of users whose texts are adapted."""
    ready, histories = prepare_requests(fitted), task.histories
    users, vectors = task.vectors.user_U.tolist(), task.vectors.vectors_UND[:, 0]
    adapted_of = {user: ready.adapt(vector_D) for user, vector_D in zip(users, vectors, strict=True)}

    def score(lists: Lists) -> np.ndarray:
        user = int(lists.user_B[0])
        return ready.score([ListRequest(lists.items_BL[0], adapted_of[user], histories.of(user))])[0]

    return score


def plain_request(fitted: FittedReranker) -> Callable[[Lists, Any], np.ndarray]:
    """A function that gives the same scores by a plain eager forward pass that adapts at every position."""
    import torch

    model = PerListNetwork(fitted.network).eval()
    vectors_ID = fitted.network.get_buffer("item_vectors_ID")

    def score(lists: Lists, vectors: Any) -> np.ndarray:
        tensors = fitted.tensors(lists, vectors)
        assert tensors.texts_UND is not None
        batch = {
            "items": tensors.items_BL,
            "is_item": tensors.is_item_BL,
            "text": tensors.texts_UND[:, 0],
            "item_vectors": vectors_ID[tensors.items_BL],
        }
        with torch.inference_mode():
            return model(batch).numpy()

    return score


def _figure(name: str, fitted: FittedReranker, task: RerankTask, bench: Bench) -> Figure:
    score = scoring(fitted, task)
    plain, num = plain_request(fitted), bench.amount(REQUESTS, 20)
    ours_s, theirs_s = np.empty((bench.repetitions, num)), np.empty((bench.repetitions, num))
    requests = [request(task, fitted, CANDIDATES, seed) for seed in range(num)]
    scores: list[np.ndarray] = []
    theirs: list[np.ndarray] = []
    for repetition in range(-1, bench.repetitions):  # the first round warms up and is overwritten
        scores, ours_s[repetition] = _timed(score, requests)
        theirs, theirs_s[repetition] = _timed(lambda lists: plain(lists, task.vectors)[0], requests)
    gap = max(float(np.abs(one - other).max()) for one, other in zip(scores, theirs, strict=True))
    p50_ms, p99_ms = 1e3 * np.percentile(ours_s, (50, 99))
    their_p50_ms, their_p99_ms = 1e3 * np.percentile(theirs_s, (50, 99))
    return Figure(
        name=f"{name}, one request of {CANDIDATES} candidates",
        unit="requests",
        ours=Side(name="RequestScorer.score", amount=num, wall_s=tuple(ours_s.sum(axis=1).tolist())),
        against=Side(
            name="torch eager, adaptor at every position",
            amount=num,
            wall_s=tuple(theirs_s.sum(axis=1).tolist()),
        ),
        checks=(Check(what="largest difference of a score", value=gap, most=1e-4),),
        targets=(Target(what="p99", wanted="at most", limit=WANTED_P99_MS, value=float(p99_ms), unit="ms"),),
        notes=(
            f"median {p50_ms:.2f} ms, p99 {p99_ms:.2f}; alternative {their_p50_ms:.2f}, {their_p99_ms:.2f}",
            "the forward pass with its checks, without HTTP; the alternative reads the same vectors",
        ),
    )


def _timed(answer: Callable[[Lists], np.ndarray], requests: list[Lists]) -> tuple[list[np.ndarray], np.ndarray]:
    """The answers to all requests, one after another, and the seconds of each."""
    answers, seconds = [], []
    for lists in requests:
        start_s = time.perf_counter()
        answers.append(answer(lists))
        seconds.append(time.perf_counter() - start_s)
    return answers, np.array(seconds)


def _growth(fitted: FittedReranker, task: RerankTask) -> Growth:
    score = scoring(fitted, task)
    sizes = tuple(size for size in (5, 10, 20, CANDIDATES) if size <= fitted.shape.num_items)

    def work_of(size: int) -> Callable[[], Any]:
        lists = request(task, fitted, size, seed=0)
        return lambda: [score(lists) for _ in range(100)]

    line = growth_line("recloop", sizes, work_of)
    per_request = line.model_copy(update={"y": tuple(10 * wall_s for wall_s in line.y)})
    return Growth(
        title="One request: cost by candidates",
        x_label="candidates",
        y_label="milliseconds",
        lines=(per_request,),
    )


def _widened(lists: Lists, num_columns: int) -> Lists:
    """The same lists padded to more columns, so that the reranker has positions for longer ones."""
    more = ((0, 0), (0, num_columns - lists.items_BL.shape[1]))
    return replace(
        lists,
        items_BL=np.pad(lists.items_BL, more),
        labels_BL=np.pad(lists.labels_BL, more),
        is_item_BL=np.pad(lists.is_item_BL, more),
    )
