"""ALTERNATIVE that recloop does not use: a reranker computed as knowledge-augmented ones are commonly released.

Each list is one item of a data set, with its own copy of the user's vector and one vector per candidate. Every expert
of the adaptor is a layer of its own. The adaptor runs at every list position, also on the user's vector, which is the
same at all of them. The weights are those of the given network, so both compute the same scores and learn alike.
Written from that description, not from anyone's code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

from recloop.rerankers.adaptor import Experts, HybridExpertAdaptor, Tower
from recloop.rerankers.backbones import softmax_loss
from recloop.rerankers.list_batch import ListBatch
from recloop.rerankers.train import FINAL_LR_SHARE, WEIGHT_DECAY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from recloop.rerankers.config import RerankerConfig
    from recloop.rerankers.list_tensors import ListTensors
    from recloop.rerankers.network import RerankNetwork


class PerListData(Dataset[dict[str, Any]]):
    """Lists one by one, each with all its inputs.

    completion: which completion of each user.
    """

    def __init__(self, lists: ListTensors, network: RerankNetwork, completion: int) -> None:
        self.lists, self.completion = lists, completion
        self.item_vectors_ID = network.get_buffer("item_vectors_ID")

    def __len__(self) -> int:
        return len(self.lists.items_BL)

    def __getitem__(self, index: int) -> dict[str, Any]:
        lists = self.lists
        items_L = lists.items_BL[index]
        found = {"items": items_L, "labels": lists.labels_BL[index], "is_item": lists.is_item_BL[index]}
        if lists.texts_UND is not None:
            found["text"] = lists.texts_UND[lists.user_row_B[index], self.completion]
        if self.item_vectors_ID.shape[1]:
            found["item_vectors"] = self.item_vectors_ID[items_L]
        return found


class PerListNetwork(nn.Module):
    """A network with the weights of a `RerankNetwork` without history that computes every position by itself."""

    def __init__(self, network: RerankNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Scores ``[B, L]``."""
        network, items_BL = self.network, batch["items"]
        numbers = [network.get_buffer(f"attribute_{f}_IM")[items_BL] for f in range(len(network.attributes))]
        attributes = [
            embed(numbers_BLM.flatten(0, 1)).unflatten(0, items_BL.shape)
            for embed, numbers_BLM in zip(network.attributes, numbers, strict=True)
        ]
        parts = [network.item_ids(items_BL), *attributes]
        places = range(items_BL.shape[1])
        if "item_vectors" in batch:
            vectors_BLD = batch["item_vectors"]
            adapted = [self._adapt(vectors_BLD[:, place], Tower.ITEM) for place in places]
            parts.append(torch.stack(adapted, dim=1))
        x_BLW = torch.cat(parts, dim=-1)
        if "text" in batch:
            text_BLA = torch.stack([self._adapt(batch["text"], Tower.USER) for _ in places], dim=1)
            text_BLA = network.text_dropout(text_BLA)
            matched = [] if network.match is None else [text_BLA * network.match(x_BLW)]
            x_BLW = torch.cat([x_BLW, text_BLA, *matched], dim=-1)
        return network.backbone(ListBatch(network.dropout(x_BLW), batch["is_item"]))

    def _adapt(self, x_BD: Tensor, tower: Tower) -> Tensor:
        adaptor = self.network.adaptor
        assert isinstance(adaptor, HybridExpertAdaptor)
        private = adaptor.private[tower]
        assert isinstance(private, Experts)
        outputs = [*_one_by_one(adaptor.shared, x_BD), *_one_by_one(private, x_BD)]
        weights_BE = torch.softmax(adaptor.gate[tower](x_BD), dim=-1)
        return (weights_BE[:, :, None] * torch.stack(outputs, dim=1)).sum(dim=1)


def _one_by_one(experts: Experts, x_BD: Tensor) -> list[Tensor]:
    num_experts, hidden, _ = experts.weight_EHW.shape
    found: list[Tensor] = []
    for expert in range(num_experts):
        rows = slice(expert * hidden, (expert + 1) * hidden)
        hidden_BH = torch.relu(F.linear(x_BD, experts.enter.weight[rows], experts.enter.bias[rows]))
        found.append(torch.relu(hidden_BH @ experts.weight_EHW[expert] + experts.bias_E1W[expert]))
    return found


def fit_per_list(
    network: RerankNetwork, lists: ListTensors, order: Sequence[np.ndarray], config: RerankerConfig
) -> None:
    """Train the network's own weights for one epoch.

    Args:
        order: the lists of each step.
        config: its rates, as `fit_network` uses them.
    """
    model = PerListNetwork(network).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, FINAL_LR_SHARE, len(order))
    loader = DataLoader(PerListData(lists, network, completion=0), batch_sampler=[rows_B.tolist() for rows_B in order])
    for batch in loader:
        loss = softmax_loss(model(batch), batch["labels"], batch["is_item"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()


def score_per_list(network: RerankNetwork, lists: ListTensors, batch: int) -> np.ndarray:
    """Scores ``[B, N, L]`` from one pass over the lists per completion, with nothing cached."""
    model = PerListNetwork(network).eval()
    num_completions = 1 if lists.texts_UND is None else lists.texts_UND.shape[1]
    by_completion: list[Tensor] = []
    with torch.inference_mode():
        for completion in range(num_completions):
            loader = DataLoader(PerListData(lists, network, completion), batch_size=batch)
            scores = [model(found).masked_fill(~found["is_item"], -torch.inf) for found in loader]
            by_completion.append(torch.cat(scores))
    return torch.stack(by_completion, dim=1).numpy()
