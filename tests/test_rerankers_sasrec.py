"""The self-attentive baseline learns an order where there is one, and leaves torch's generator alone."""

import numpy as np
import polars as pl
import pytest

from recloop.data.sessions import Session, SessionTask
from recloop.records import Domain
from recloop.rerankers import sasrec
from recloop.rerankers.sasrec import sasrec_ranks

NUM_ITEMS = 20


def task(seed: int, *, signal: bool) -> SessionTask:
    """With signal each item is followed by the next number, around a ring; otherwise by any."""
    rng = np.random.default_rng(seed)
    sessions: list[Session] = []
    for number in range(260):
        start = int(rng.integers(NUM_ITEMS))
        told = [(start + n) % NUM_ITEMS for n in range(4)] if signal else rng.permutation(NUM_ITEMS)[:4].tolist()
        *shown, answer = told
        others = rng.permutation([i for i in range(NUM_ITEMS) if i not in told])[:9]
        candidates = tuple(rng.permutation([answer, *others]).tolist())
        sessions.append(Session(number, number, tuple(shown), answer, candidates))
    items = pl.DataFrame({"item": range(NUM_ITEMS), "item_id": [""] * NUM_ITEMS, "title": [""] * NUM_ITEMS})
    return SessionTask("ring", Domain.MOVIES, items, (), tuple(sessions[:160]), tuple(sessions[160:]))


@pytest.mark.slow
def test_it_learns_an_order_and_nothing_from_none(monkeypatch) -> None:
    import torch

    for name, value in (("EPOCHS", 12), ("WIDTH", 16), ("LR", 1e-2)):
        monkeypatch.setattr(sasrec, name, value)

    before = torch.random.get_rng_state()
    with_order = sasrec_ranks(task(0, signal=True), seed=1)
    assert (torch.random.get_rng_state() == before).all()
    assert (with_order == 1).mean() > 0.9
    without = sasrec_ranks(task(0, signal=False), seed=1)
    # By chance the mean rank of ten is 5.5, with a standard error of .29 over 100 sessions.
    assert 4.5 < without.mean() < 6.5
    assert (sasrec_ranks(task(0, signal=True), seed=1) == with_order).all()
