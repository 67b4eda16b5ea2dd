"""A small self-attentive recommender for sessions, trained on the few training sessions and nothing else.

Axis letters: ``B`` sessions in a batch, ``T`` places of a session, ``D`` width.

Source: SASRec, arXiv 1808.09781. Deviations: one block; the loss is a softmax over all items, for sessions
are few; the number of passes is fixed, so that no session is needed to choose it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from recloop.data.sessions import Session, SessionTask
from recloop.rerankers.session_baselines import rank_of_answer

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

# The defaults of a small data set; nobody changed them.
WIDTH, EPOCHS, LR, BATCH_SIZE, DROPOUT = 32, 30, 3e-3, 64, 0.2


def sasrec_ranks(task: SessionTask, seed: int) -> Int64[np.ndarray, " S"]:
    """The answer's rank, from 1, in every test session; equal scores keep the order of the candidates.

    Args:
        seed: of the weights, the dropout and the order of sessions; the state of torch's own generator is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Sasrec(task.items.height, max(len(s.items) for s in task.sessions) + 1)
        _train(network, task.train)
    network.eval()
    ranks: list[int] = []
    with torch.no_grad():
        for session in task.test:
            scores_I = network(network.padded([session.items]))[0, -1]
            ranks.append(rank_of_answer(session, scores_I[list(session.candidates)].numpy()))
    return np.array(ranks, dtype=np.int64)


class Sasrec(nn.Module):
    """Items and places added, one causal block of attention, scores by the items' own vectors."""

    def __init__(self, num_items: int, num_places: int) -> None:
        super().__init__()
        self.padding = num_items
        self.items = nn.Embedding(num_items + 1, WIDTH, padding_idx=num_items)
        self.places = nn.Embedding(num_places, WIDTH)
        nn.init.normal_(self.items.weight, std=WIDTH**-0.5)
        self.block = nn.TransformerEncoderLayer(WIDTH, 1, 2 * WIDTH, DROPOUT, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, items_BT: Int64[Tensor, "B T"]) -> Float[Tensor, "B T I"]:
        """Scores of all items as the next, at every place."""
        length = items_BT.shape[1]
        mask_TT = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
        x_BTD = self.items(items_BT) + self.places(torch.arange(length))
        return self.norm(self.block(x_BTD, src_mask=mask_TT)) @ self.items.weight[: self.padding].T

    def padded(self, rows: list[tuple[int, ...]]) -> Int64[Tensor, "B T"]:
        """Rows of item numbers, filled up on the right: what follows a place is never seen from it."""
        longest = max(map(len, rows))
        return torch.tensor([[*row, *[self.padding] * (longest - len(row))] for row in rows])


def _train(network: Sasrec, sessions: tuple[Session, ...]) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=LR)
    network.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(sessions)).tolist()
        for start in range(0, len(order), BATCH_SIZE):
            batch = [sessions[n] for n in order[start : start + BATCH_SIZE]]
            told_BT = network.padded([(*s.items, s.answer) for s in batch])
            logits_BTI, next_BT = network(told_BT[:, :-1]), told_BT[:, 1:]
            loss = nn.functional.cross_entropy(
                logits_BTI.flatten(0, 1), next_BT.flatten(), ignore_index=network.padding
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
