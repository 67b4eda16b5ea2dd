"""The whole reranker as one network: item side, knowledge side, history, backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from recloop.errors import ContractError, SettingError
from recloop.ranking.adaptor import HybridExpertAdaptor, MlpAdaptor, Tower
from recloop.ranking.history import HistoryAttention, HistoryTokens
from recloop.ranking.rerankers import Dlcm, Mir, Prm, SetRank

if TYPE_CHECKING:
    from jaxtyping import Float, Int64
    from torch import Tensor

    from recloop.ranking.features import ItemFeatures
    from recloop.ranking.list_tensors import ListTensors
    from recloop.ranking.reranker_config import RerankerConfig

# IDs start near zero, so that rare items stay where nothing is known of them; facet values start apart, so
# that texts and histories can tell them from the first step. In a simulated world of 200 train users a
# FACET_STD of 0.05 instead costs the ID-history reranker .21 of test NDCG@5 (two seeds), texts .03.
ID_STD = 0.05
FACET_STD = 0.5

_Embedding = TypeVar("_Embedding", nn.Embedding, nn.EmbeddingBag)
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """Everything about the data that a network's layers depend on.

    facet_places: how many values an item can have per facet. A width of 0 means no such vectors.
    """

    num_items: int
    num_facet_values: tuple[int, ...]
    facet_places: tuple[int, ...]
    item_vector_width: int
    user_vector_width: int
    num_star_buckets: int
    max_list_len: int


class RerankNetwork(nn.Module):
    """Scores lists; adapted vectors of the batch's distinct users and items are computed once.

    A candidate's input is ``[id ; facets ; what it reads in the history ; v_user ; v_item]``, the last
    three where the configuration asks for them.
    """

    def __init__(self, config: RerankerConfig, shape: NetworkShape) -> None:
        super().__init__()
        self.has_texts = shape.user_vector_width > 0
        self.item_ids = _start(nn.Embedding(shape.num_items, config.embed), ID_STD)
        self.facets = nn.ModuleList(
            _start(nn.EmbeddingBag(count + 1, config.embed, mode="mean", padding_idx=0), FACET_STD)
            for count in shape.num_facet_values
        )
        for facet, places in enumerate(shape.facet_places):
            numbers_IM = torch.zeros(shape.num_items, places, dtype=torch.int64)
            self.register_buffer(f"facet_{facet}_IM", numbers_IM)
        self.register_buffer("item_vectors_ID", torch.zeros(shape.num_items, shape.item_vector_width))
        self.adaptor = _adaptor(config, shape)
        item_width = config.embed * (1 + len(shape.num_facet_values))
        width = item_width + config.adapted * (bool(shape.item_vector_width) + bool(shape.user_vector_width))
        self.tokens: HistoryTokens | None = None
        self.read_history: HistoryAttention | None = None
        if reads_history(config):
            self.tokens = HistoryTokens(item_width, shape.num_star_buckets, config.embed)
        if config.use_id_history:
            self.read_history = HistoryAttention(item_width, config.embed, config.heads)
            width += config.embed
        self.match: nn.Linear | None = None
        if self.has_texts and config.match_texts:
            self.match = nn.Linear(width - config.adapted, config.adapted)
            width += config.adapted
        self.dropout = nn.Dropout(config.dropout)
        self.backbone = _backbone(config, shape, width)

    def forward(
        self, lists: ListTensors, row_B: Int64[Tensor, " B"], draft_B: Int64[Tensor, " B"] | None
    ) -> Float[Tensor, "B N L"]:
        """Score some of the lists.

        Args:
            lists: texts and histories present exactly as the network was built for them.
            row_B: which lists.
            draft_B: one draft for each of them (N is 1); None for all drafts.
        """
        history = self._history(lists, row_B)
        x_BLW = self._candidates(lists.items_BL[row_B], history)
        texts_BNA = self._texts(lists, row_B, draft_B)
        num_drafts = 1 if texts_BNA is None else texts_BNA.shape[1]
        matching_BLA = None if self.match is None else self.match(x_BLW).repeat_interleave(num_drafts, dim=0)
        x_BLW = x_BLW.repeat_interleave(num_drafts, dim=0)
        is_item_BL = lists.is_item_BL[row_B].repeat_interleave(num_drafts, dim=0)
        if texts_BNA is not None:
            texts_BLA = texts_BNA.flatten(0, 1)[:, None].expand(-1, x_BLW.shape[1], -1)
            matched = [] if matching_BLA is None else [texts_BLA * matching_BLA]
            x_BLW = torch.cat([x_BLW, texts_BLA, *matched], dim=-1)
        x_BLW = self.dropout(x_BLW)
        if isinstance(self.backbone, Mir) and history is not None:
            tokens_BHE, is_token_BH = (part.repeat_interleave(num_drafts, dim=0) for part in history)
            scores_BL = self.backbone(x_BLW, is_item_BL, tokens_BHE, is_token_BH)
        else:
            scores_BL = self.backbone(x_BLW, is_item_BL)
        return scores_BL.unflatten(0, (-1, num_drafts))

    def _candidates(self, items_BL: Tensor, history: tuple[Tensor, Tensor] | None) -> Tensor:
        """What is known of each candidate without the user's text, ``[B, L, W]``."""
        item_I, row_BL = torch.unique(items_BL, return_inverse=True)
        items_BLW = rows_of(self._items(item_I), row_BL)
        parts = [items_BLW]
        if self.read_history is not None and history is not None:
            parts.append(self.read_history(items_BLW, *history))
        vectors_ID = self.get_buffer("item_vectors_ID")
        if self.adaptor is not None and vectors_ID.shape[1]:
            parts.append(rows_of(self.adaptor(vectors_ID[item_I], Tower.ITEM), row_BL))
        return torch.cat(parts, dim=-1)

    def _items(self, item_I: Tensor) -> Tensor:
        """``[id ; mean embedding of each facet's values]`` of some items."""
        numbers = [self.get_buffer(f"facet_{f}_IM")[item_I] for f in range(len(self.facets))]
        facets = [embed(numbers_IM) for embed, numbers_IM in zip(self.facets, numbers, strict=True)]
        return torch.cat([self.item_ids(item_I), *facets], dim=-1)

    def _history(self, lists: ListTensors, row_B: Tensor) -> tuple[Tensor, Tensor] | None:
        """History tokens and their mask, ``[B, H, E]`` and ``[B, H]``; encoded once per distinct user."""
        if self.tokens is None:
            return None
        history = _present(lists.history, "history")
        user_U, row_B = torch.unique(lists.user_row_B[row_B], return_inverse=True)
        item_I, row_UH = torch.unique(history.items_UH[user_U], return_inverse=True)
        tokens_UHE, is_token_UH = self.tokens(
            rows_of(self._items(item_I), row_UH), history.stars_UH[user_U], history.is_real_UH[user_U]
        )
        return tokens_UHE.index_select(0, row_B), is_token_UH[row_B]

    def _texts(self, lists: ListTensors, row_B: Tensor, draft_B: Tensor | None) -> Tensor | None:
        """Adapted texts, ``[B, N, A]``; each distinct (user, draft) adapted once."""
        if not self.has_texts or self.adaptor is None:
            return None
        texts_UND = _present(lists.texts_UND, "texts")
        num_drafts = texts_UND.shape[1]
        draft_BN = torch.arange(num_drafts)[None] if draft_B is None else draft_B[:, None]
        text_T, row_BN = torch.unique(
            lists.user_row_B[row_B][:, None] * num_drafts + draft_BN, return_inverse=True
        )
        return rows_of(self.adaptor(texts_UND.flatten(0, 1)[text_T], Tower.USER), row_BN)


def rows_of(table_RW: Tensor, row_X: Tensor) -> Tensor:
    """``table_RW[row_X]`` with a gradient that sums in one order.

    With two threads and more, PyTorch adds up the gradient of plain indexing on the CPU in whatever order
    the threads come: the same seed gave other weights in 16 of 20 trials (docs/log.md, 2026-11-21).
    """
    return nn.functional.embedding(row_X, table_RW)


def reads_history(config: RerankerConfig) -> bool:
    """MIR reads the knowledge window by its nature, the others when asked to."""
    return config.use_id_history or config.kind == "mir"


def build_network(config: RerankerConfig, shape: NetworkShape, features: ItemFeatures) -> RerankNetwork:
    """A network with fresh weights (from torch's global generator) that knows these items.

    Args:
        features: item vectors already scaled; read only when the configuration asks for them.
    """
    network = RerankNetwork(config, shape)
    for facet, numbers_IM in enumerate(features.facet_values_IM):
        network.get_buffer(f"facet_{facet}_IM").copy_(torch.from_numpy(numbers_IM))
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
    if len(set(dims.values())) > 1:
        raise SettingError(
            f"the hybrid-expert adaptor shares experts between users and items, so their vectors must be "
            f"equally wide, got {shape.user_vector_width} and {shape.item_vector_width}; "
            f"encode both with one encoder, or use adaptor = mlp"
        )
    return HybridExpertAdaptor(
        next(iter(dims.values())),
        dims,
        config.shared_experts,
        config.private_experts,
        config.expert_hidden,
        config.adapted,
    )


def _backbone(config: RerankerConfig, shape: NetworkShape, width: int) -> Dlcm | Prm | SetRank | Mir:
    match config.kind:
        case "dlcm":
            return Dlcm(width, config)
        case "prm":
            return Prm(width, shape.max_list_len, config)
        case "setrank":
            return SetRank(width, config)
        case "mir":
            return Mir(width, config.embed, config)


def _start(embedding: _Embedding, std: float) -> _Embedding:
    nn.init.normal_(embedding.weight, std=std)
    return embedding


def _present(value: _Value | None, what: str) -> _Value:
    if value is None:
        raise ContractError(f"the network was built with {what}, got lists without; pass them")
    return value
