"""The whole reranker as one network: item features, adapted texts, history, backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from recloop.rerankers.adaptor import HybridExpertAdaptor, MlpAdaptor, Tower
from recloop.rerankers.config import PRIVATE_EXPERTS, SHARED_EXPERTS
from recloop.rerankers.history import HistoryAttention, HistoryTokens
from recloop.rerankers.list_batch import BatchShape, ListBatch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64
    from torch import Tensor

    from recloop.rerankers.config import RerankerConfig
    from recloop.rerankers.features import ItemFeatures
    from recloop.rerankers.list_tensors import ListTensors
    from recloop.rerankers.protocol import Backbone

# IDs start near zero, so that rare items stay where nothing is known of them. Attribute values start apart, so that
# texts and histories can tell them from the first step. In simulated data with 200 train users an ATTRIBUTE_STD of
# 0.05 costs the ID-history reranker .21 of test NDCG@5 (two seeds), texts .03.
ID_STD = 0.05
ATTRIBUTE_STD = 0.5

_Embedding = TypeVar("_Embedding", nn.Embedding, nn.EmbeddingBag)


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """What a network's layers depend on in the data.

    attribute_places: the most values an item has, per attribute. A width of 0 means no such vectors.
    """

    num_items: int
    num_attribute_values: tuple[int, ...]
    attribute_places: tuple[int, ...]
    item_vector_width: int
    user_vector_width: int
    num_rating_buckets: int
    max_list_len: int


class RerankNetwork(nn.Module):
    """Scores lists; adapted vectors of the batch's distinct users and items are computed once.

    A candidate's features are ``[id ; attributes ; what it reads in the history ; item vector ; first stage's score ;
    text ; match]``, all but the first two where the configuration asks for them.
    """

    def __init__(self, config: RerankerConfig, shape: NetworkShape, backbone: Backbone) -> None:
        super().__init__()
        self.has_texts = shape.user_vector_width > 0
        self.item_ids = _start(nn.Embedding(shape.num_items, config.embed), ID_STD)
        self.attributes = nn.ModuleList(
            _start(nn.EmbeddingBag(count + 1, config.embed, mode="mean", padding_idx=0), ATTRIBUTE_STD)
            for count in shape.num_attribute_values
        )
        for attribute, places in enumerate(shape.attribute_places):
            numbers_IM = torch.zeros(shape.num_items, places, dtype=torch.int64)
            self.register_buffer(f"attribute_{attribute}_IM", numbers_IM)
        self.register_buffer("item_vectors_ID", torch.zeros(shape.num_items, shape.item_vector_width))
        self.adaptor = _adaptor(config, shape)
        item_width = config.embed * (1 + len(shape.num_attribute_values))
        width = item_width + config.adapted * (bool(shape.item_vector_width) + bool(shape.user_vector_width))
        self.tokens: HistoryTokens | None = None
        self.read_history: HistoryAttention | None = None
        if config.use_id_history or getattr(backbone, "reads_history", False):
            self.tokens = HistoryTokens(item_width, shape.num_rating_buckets, config.embed)
        if config.use_id_history:
            self.read_history = HistoryAttention(item_width, config.embed)
            width += config.embed
        width += config.use_scores
        self.match: nn.Linear | None = None
        if self.has_texts:
            self.match = nn.Linear(width - config.adapted, config.adapted)
            width += config.adapted
        self.dropout = nn.Dropout(config.dropout)
        self.text_dropout = nn.Dropout(config.text_dropout)
        self.backbone = backbone(BatchShape(width, config.embed, shape.max_list_len), config)

    def forward(
        self, lists: ListTensors, row_B: Int64[Tensor, " B"], completion_B: Int64[Tensor, " B"] | None
    ) -> Float[Tensor, "B N L"]:
        """Scores of some of the lists, as long as the longest of these: padding beyond it costs nothing.

        Args:
            lists: texts and histories present exactly as the network was built for them.
            row_B: which lists.
            completion_B: one completion for each of them (N is 1); None for all completions.
        """
        is_item_BL = lists.is_item_BL[row_B]
        is_item_BL = is_item_BL[:, : int(is_item_BL.sum(dim=1).max())]
        history = self.history_tokens(lists, row_B)
        item_I, row_BL = torch.unique(lists.items_BL[row_B, : is_item_BL.shape[1]], return_inverse=True)
        items_IW, adapted_IA = self.item_table(item_I)
        adapted_BLA = None if adapted_IA is None else rows_of(adapted_IA, row_BL)
        x_BLW = self.candidates(rows_of(items_IW, row_BL), adapted_BLA, history)
        if lists.score_BL is not None:
            x_BLW = torch.cat([x_BLW, lists.score_BL[row_B, : is_item_BL.shape[1], None]], dim=-1)
        texts_BNA = self.adapted_texts(lists, row_B, completion_B)
        return self.score_inputs(x_BLW, texts_BNA, is_item_BL, history)

    def score_inputs(
        self,
        x_BLW: Float[Tensor, "B L W"],
        texts_BNA: Float[Tensor, "B N A"] | None,
        is_item_BL: Bool[Tensor, "B L"],
        history: tuple[Tensor, Tensor] | None,
    ) -> Float[Tensor, "B N L"]:
        """Scores of lists whose item features and texts are computed.

        Args:
            x_BLW: as `candidates` gives them.
            history: tokens and their mask, `[B, H, E]` and `[B, H]`, where the network reads them.
        """
        match_BNLA = None
        if texts_BNA is not None and self.match is not None:
            match_BNLA = texts_BNA[:, :, None] * self.match(x_BLW)[:, None]
        batch = ListBatch(x_BLW, is_item_BL, texts_BNA, match_BNLA, *(history or ()))
        num_completions = batch.num_completions
        if self.training or num_completions == 1:
            features_XLW = self.dropout(batch.features())
            batch = ListBatch(features_XLW, batch.is_item_XL, None, None, *(batch.history() if history else ()))
        return self.backbone(batch).unflatten(0, (-1, num_completions))

    def item_table(self, item_I: Tensor) -> tuple[Float[Tensor, "I W"], Float[Tensor, "I A"] | None]:
        """What is known of some items for all users: embeddings, and adapted vectors if there are any."""
        vectors_ID = self.get_buffer("item_vectors_ID")
        adapted_IA = None
        if self.adaptor is not None and vectors_ID.shape[1]:
            adapted_IA = self.adaptor(vectors_ID[item_I], Tower.ITEM)
        return self._items(item_I), adapted_IA

    def candidates(
        self, items_BLW: Tensor, adapted_BLA: Tensor | None, history: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, "B L W"]:
        """Rows of `item_table` with what each reads in the user's history."""
        parts = [items_BLW]
        if self.read_history is not None and history is not None:
            parts.append(self.read_history(items_BLW, *history))
        if adapted_BLA is not None:
            parts.append(adapted_BLA)
        return torch.cat(parts, dim=-1)

    def _items(self, item_I: Tensor) -> Tensor:
        """``[id ; mean embedding of each attribute's values]`` of some items."""
        numbers = [self.get_buffer(f"attribute_{f}_IM")[item_I] for f in range(len(self.attributes))]
        attributes = [embed(numbers_IM) for embed, numbers_IM in zip(self.attributes, numbers, strict=True)]
        return torch.cat([self.item_ids(item_I), *attributes], dim=-1)

    def history_tokens(self, lists: ListTensors, row_B: Tensor) -> tuple[Tensor, Tensor] | None:
        """History tokens and their mask, ``[B, H, E]`` and ``[B, H]``; encoded once per distinct user."""
        if self.tokens is None:
            return None
        history = lists.history
        assert history is not None
        user_U, row_B = torch.unique(lists.user_row_B[row_B], return_inverse=True)
        item_I, row_UH = torch.unique(history.items_UH[user_U], return_inverse=True)
        tokens_UHE, is_token_UH = self.tokens(
            rows_of(self._items(item_I), row_UH), history.rating_UH[user_U], history.is_real_UH[user_U]
        )
        return tokens_UHE.index_select(0, row_B), is_token_UH[row_B]

    def adapted_texts(self, lists: ListTensors, row_B: Tensor, completion_B: Tensor | None) -> Tensor | None:
        """Adapted texts, ``[B, N, A]``; each distinct (user, completion) adapted once."""
        if not self.has_texts or self.adaptor is None:
            return None
        texts_UND = lists.texts_UND
        assert texts_UND is not None
        num_completions = texts_UND.shape[1]
        completion_BN = torch.arange(num_completions)[None] if completion_B is None else completion_B[:, None]
        text_T, row_BN = torch.unique(
            lists.user_row_B[row_B][:, None] * num_completions + completion_BN, return_inverse=True
        )
        adapted_TA = self.adaptor(texts_UND.flatten(0, 1)[text_T], Tower.USER)
        return self.text_dropout(rows_of(adapted_TA, row_BN))


def rows_of(table_RW: Tensor, row_X: Tensor) -> Tensor:
    """``table_RW[row_X]`` with a gradient that sums in one order.

    With two threads and more, PyTorch adds up the gradient of plain indexing on the CPU in whatever order
    the threads come: the same seed gave other weights in 16 of 20 trials (docs/log.md, 2026-11-21).
    """
    return nn.functional.embedding(row_X, table_RW)


def build_network(
    config: RerankerConfig, shape: NetworkShape, features: ItemFeatures, backbone: Backbone
) -> RerankNetwork:
    """A network with fresh weights (from torch's global generator) that knows these items.

    Args:
        features: item vectors already scaled; read only when the configuration asks for them.
    """
    network = RerankNetwork(config, shape, backbone)
    for attribute, numbers_IM in enumerate(features.attribute_values_IM):
        network.get_buffer(f"attribute_{attribute}_IM").copy_(torch.from_numpy(numbers_IM))
    if config.use_item_knowledge and features.item_vectors_ID is not None:
        network.get_buffer("item_vectors_ID").copy_(torch.from_numpy(features.item_vectors_ID))
    return network


def _adaptor(config: RerankerConfig, shape: NetworkShape) -> HybridExpertAdaptor | MlpAdaptor | None:
    widths = {Tower.USER: shape.user_vector_width, Tower.ITEM: shape.item_vector_width}
    dims = {tower: width for tower, width in widths.items() if width}
    if not dims:
        return None
    if config.adaptor == "mlp":
        return MlpAdaptor(dims, config.expert_hidden, config.adapted)
    return HybridExpertAdaptor(dims, SHARED_EXPERTS, PRIVATE_EXPERTS, config.expert_hidden, config.adapted)


def _start(embedding: _Embedding, std: float) -> _Embedding:
    nn.init.normal_(embedding.weight, std=std)
    return embedding
