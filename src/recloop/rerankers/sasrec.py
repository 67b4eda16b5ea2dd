"""A small self-attentive recommender for sessions, trained on the few training sessions and nothing else.

Axis letters: ``B`` sessions in a batch, ``T`` places of a session, ``D`` width.

Source: SASRec, arXiv 1808.09781. Deviations: one block; the loss is a softmax over all items, for sessions
are few; the number of passes is fixed, so that no session is needed to choose it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recloop.data.sessions import Session, SessionTask

if TYPE_CHECKING:
    from jaxtyping import Int64


class SasrecConfig(BaseModel):
    """The self-attentive baseline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=32, ge=4, description="width of the vectors")
    epochs: int = Field(default=30, ge=1, description="passes over the training sessions")
    lr: float = Field(default=3e-3, gt=0, description="learning rate")
    batch_size: int = Field(default=64, ge=1, description="sessions per step")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="share of values dropped in training")


def sasrec_ranks(task: SessionTask, config: SasrecConfig, seed: int) -> Int64[np.ndarray, " S"]:
    """The answer's rank, from 1, in every test session; equal scores keep the order of the candidates.

    Args:
        seed: of the weights, the dropout and the order of sessions; the state of torch's own is left alone.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(task.items.height, max(len(s.items) for s in task.sessions) + 1, config)
        _train(network, task.train, config)
        return _rank(network, task.test)


def _network(num_items: int, num_places: int, config: SasrecConfig) -> Any:
    import torch

    class Network(torch.nn.Module):
        """Items and places added, one causal block of attention, scores by the items' own vectors."""

        def __init__(self) -> None:
            super().__init__()
            self.items = torch.nn.Embedding(num_items + 1, config.width, padding_idx=num_items)
            self.places = torch.nn.Embedding(num_places, config.width)
            torch.nn.init.normal_(self.items.weight, std=config.width**-0.5)
            self.block = torch.nn.TransformerEncoderLayer(
                config.width, 1, 2 * config.width, config.dropout, batch_first=True, norm_first=True
            )
            self.norm = torch.nn.LayerNorm(config.width)
            self.padding = num_items

        def forward(self, items_BT: torch.Tensor) -> torch.Tensor:
            """Scores of all items as the next, at every place ``[B, T, I]``."""
            length = items_BT.shape[1]
            mask = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
            x = self.items(items_BT) + self.places(torch.arange(length))
            x = self.norm(self.block(x, src_mask=mask))
            return x @ self.items.weight[:num_items].T

    return Network()


def _train(network: Any, sessions: tuple[Session, ...], config: SasrecConfig) -> None:
    import torch

    optimiser = torch.optim.Adam(network.parameters(), lr=config.lr)
    network.train()
    for _ in range(config.epochs):
        order = torch.randperm(len(sessions)).tolist()
        for start in range(0, len(order), config.batch_size):
            batch = [sessions[n] for n in order[start : start + config.batch_size]]
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
