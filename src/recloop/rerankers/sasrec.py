"""A small self-attentive recommender for sessions, trained on the few training sessions and nothing else.

Axis letters: ``B`` sessions in a batch, ``T`` places of a session, ``D`` width.

Source: SASRec, arXiv 1808.09781. Deviations: one block; the loss is a softmax over all items, for sessions
are few; the number of passes is fixed, so that no session is needed to choose it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.data.sessions import Session, SessionTask

if TYPE_CHECKING:
    from jaxtyping import Int64


# The defaults of a small data set; nobody changed them.
WIDTH, EPOCHS, LR, BATCH_SIZE, DROPOUT = 32, 30, 3e-3, 64, 0.2


def sasrec_ranks(task: SessionTask, seed: int) -> Int64[np.ndarray, " S"]:
    """The answer's rank, from 1, in every test session; equal scores keep the order of the candidates.

    Args:
        seed: of the weights, the dropout and the order of sessions; the state of torch's own generator is left alone.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(task.items.height, max(len(s.items) for s in task.sessions) + 1)
        _train(network, task.train)
        return _rank(network, task.test)


def _network(num_items: int, num_places: int) -> Any:
    import torch

    class Network(torch.nn.Module):
        """Items and places added, one causal block of attention, scores by the items' own vectors."""

        def __init__(self) -> None:
            super().__init__()
            self.items = torch.nn.Embedding(num_items + 1, WIDTH, padding_idx=num_items)
            self.places = torch.nn.Embedding(num_places, WIDTH)
            torch.nn.init.normal_(self.items.weight, std=WIDTH**-0.5)
            self.block = torch.nn.TransformerEncoderLayer(
                WIDTH, 1, 2 * WIDTH, DROPOUT, batch_first=True, norm_first=True
            )
            self.norm = torch.nn.LayerNorm(WIDTH)
            self.padding = num_items

        def forward(self, items_BT: torch.Tensor) -> torch.Tensor:
            """Scores of all items as the next, at every place ``[B, T, I]``."""
            length = items_BT.shape[1]
            mask = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
            x = self.items(items_BT) + self.places(torch.arange(length))
            x = self.norm(self.block(x, src_mask=mask))
            return x @ self.items.weight[:num_items].T

    return Network()


def _train(network: Any, sessions: tuple[Session, ...]) -> None:
    import torch

    optimiser = torch.optim.Adam(network.parameters(), lr=LR)
    network.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(sessions)).tolist()
        for start in range(0, len(order), BATCH_SIZE):
            batch = [sessions[n] for n in order[start : start + BATCH_SIZE]]
            told = _padded([(*s.items, s.answer) for s in batch], network.padding)
            loss = torch.nn.functional.cross_entropy(
                network(told[:, :-1]).flatten(0, 1), told[:, 1:].flatten(), ignore_index=network.padding
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def _rank(network: Any, sessions: tuple[Session, ...]) -> Int64[np.ndarray, " S"]:
    import torch

    network.eval()
    ranks: list[int] = []
    with torch.no_grad():
        for session in sessions:
            scores = network(_padded([session.items], network.padding))[0, -1]
            offered = scores[list(session.candidates)].numpy()
            order = np.argsort(-offered, kind="stable")
            ranks.append(int(np.flatnonzero(order == session.answer_place)[0]) + 1)
    return np.array(ranks, dtype=np.int64)


def _padded(rows: list[tuple[int, ...]], padding: int) -> Any:
    """Rows of item numbers, filled up on the right: what follows a place is never seen from it."""
    import torch

    longest = max(map(len, rows))
    return torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows])
