"""A fitted reranker with items that came after its fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from recloop.rerankers.features import item_texts, numbered_values, tfidf_vectors, value_numbers
from recloop.rerankers.list_tensors import VectorScaler
from recloop.rerankers.network import RerankNetwork

if TYPE_CHECKING:
    from recloop.records import Log
    from recloop.rerankers.fitted import FittedReranker


def with_more_items(reranker: FittedReranker, log: Log, more: Log, seed: int) -> FittedReranker:
    """The reranker for a longer catalogue; what it says of the items it was fitted on does not change.

    A new item is what its attributes and words say: its id embedding is zero, where rare items stay too, and a value
    or word that no old item has says nothing.

    Args:
        log: whose catalogue it was fitted on.
        more: the same log with further items at the end.
        seed: of the item vectors at the fit.
    """
    old, shape = reranker.network, reranker.shape
    num_items, new = log.num_items, more.items[log.num_items :]
    state = dict(old.state_dict())
    ids_IE = state["item_ids.weight"]
    state["item_ids.weight"] = torch.cat([ids_IE, ids_IE.new_zeros(new.height, ids_IE.shape[1])])
    places: list[int] = []
    for number, attribute in enumerate(log.attributes):
        name = f"attribute_{number}_IM"
        known = value_numbers(log.items[attribute].to_list())
        both = [state[name].numpy(), numbered_values(new[attribute].to_list(), known)]
        places.append(max(numbers_IM.shape[1] for numbers_IM in both))
        wide = [np.pad(numbers_IM, ((0, 0), (0, places[-1] - numbers_IM.shape[1]))) for numbers_IM in both]
        state[name] = torch.from_numpy(np.concatenate(wide))
    vectors_ID = state["item_vectors_ID"]
    if width := vectors_ID.shape[1]:
        texts = item_texts(more)
        raw_ID = tfidf_vectors(texts[:num_items], width, seed, texts[num_items:])
        new_ND = VectorScaler.fit(raw_ID[:num_items]).apply(raw_ID[num_items:])
        state["item_vectors_ID"] = torch.cat([vectors_ID, torch.from_numpy(new_ND)])
    else:
        state["item_vectors_ID"] = vectors_ID.new_zeros(more.num_items, 0)
    longer = replace(shape, num_items=more.num_items, attribute_places=tuple(places))
    network = RerankNetwork(reranker.config, longer, type(old.backbone)).eval()
    network.load_state_dict(state)
    return replace(reranker, shape=longer, network=network)
