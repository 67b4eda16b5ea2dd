"""A fitted reranker: scoring, and its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recloop.errors import ContractError, DataError
from recloop.records import Histories
from recloop.rerankers.backbones import BACKBONES
from recloop.rerankers.config import RerankerConfig
from recloop.rerankers.list_tensors import VectorScaler, list_tensors
from recloop.rerankers.network import NetworkShape, RerankNetwork

if TYPE_CHECKING:
    from pathlib import Path

    from jaxtyping import Float32

    from recloop.records import Lists, UserVectors
    from recloop.rerankers.list_tensors import ListTensors
    from recloop.rerankers.protocol import Backbone

# Candidate positions scored at once: what one layer writes is still in the cache when the next reads it.
# Beside other work one core of an EPYC scored 12,500 lists/s at 40,000, 15,200 at 10,000 (medians).
MAX_POSITIONS = 10_000
WEIGHTS_FILE = "reranker.safetensors"
CONFIG_FILE = "reranker.json"


@dataclass(frozen=True, slots=True)
class EpochScore:
    """One pass over the train lists: the mean training loss and the valid users' mean NDCG@5 after it."""

    epoch: int
    train_loss: float
    valid_ndcg: float


@dataclass(frozen=True, slots=True)
class FittedReranker:
    """A network with all it needs to score lists: windows, scaling, settings, and its learning curve.

    scaler: None for a reranker without texts.
    curve: every epoch of the fit; the weights are those of the best one on valid users.
    """

    config: RerankerConfig
    shape: NetworkShape
    network: RerankNetwork
    histories: Histories
    rating_edges: tuple[float, ...]
    scaler: VectorScaler | None
    curve: tuple[EpochScore, ...]

    def score(self, lists: Lists, user_vectors: UserVectors | None) -> Float32[np.ndarray, "B N L"]:
        """Scores of every list under every completion of its user; labels are not read.

        Higher is better, ``-inf`` at padding; N is 1 when `user_vectors` is None.

        Args:
            lists: any group's lists over the catalogue the reranker was fitted on.
            user_vectors: texts of at least these users; None for a reranker fitted without.

        Raises:
            ContractError: texts given to a reranker fitted without, or the other way round.
            DataError: an unknown item, a user without a text, vectors of another width.
        """
        return score_tensors(self.network, self.tensors(lists, user_vectors))

    def tensors(self, lists: Lists, user_vectors: UserVectors | None) -> ListTensors:
        """Lists as the network takes them: scaled texts, windows with bucketed ratings."""
        if (user_vectors is None) != (self.scaler is None):
            fitted, got = ("without", "some") if self.scaler is None else ("with", "none")
            raise ContractError(
                f"this reranker was fitted {fitted} user vectors, got {got}; score with the same kind of input"
            )
        texts = None if user_vectors is None or self.scaler is None else (user_vectors, self.scaler)
        history = (self.histories, self.rating_edges) if self.network.tokens is not None else None
        with_scores = self.config.use_scores
        return list_tensors(lists, self.shape.num_items, texts, history, with_scores=with_scores)

    def save(self, folder: Path) -> None:
        """Write ``reranker.safetensors`` and ``reranker.json`` into a folder, made if absent."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors["histories.offsets"] = torch.from_numpy(self.histories.offsets_U1.astype(np.int64))
        tensors["histories.items"] = torch.from_numpy(self.histories.items.astype(np.int64))
        tensors["histories.rating"] = torch.from_numpy(self.histories.rating.astype(np.float32))
        if self.scaler is not None:
            tensors["scaler.centre"] = torch.from_numpy(self.scaler.centre_D)
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS_FILE)
        about = {
            "config": self.config.model_dump(mode="json"),
            "own": own_name(self),
            "shape": asdict(self.shape),
            "rating_edges": self.rating_edges,
            "scale": None if self.scaler is None else self.scaler.scale,
            "curve": [asdict(epoch) for epoch in self.curve],
        }
        (folder / CONFIG_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, own: Backbone | None = None) -> FittedReranker:
        """What `save` wrote; it scores exactly as the one saved.

        Args:
            own: the class it was fitted with, where that is not one of recloop's.

        Raises:
            DataError: the folder does not hold a whole reranker of this version.
            ContractError: `own` is missing, or another class.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            about: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            tensors = load_file(folder / WEIGHTS_FILE)
            config, name = RerankerConfig.model_validate(about["config"]), about["own"]
            sizes: dict[str, Any] = {
                key: tuple(size) if isinstance(size, list) else size for key, size in about["shape"].items()
            }
            shape, edges = NetworkShape(**sizes), tuple(about["rating_edges"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DataError(
                f"{folder} must hold {CONFIG_FILE} and {WEIGHTS_FILE} of this version, got {error!r}; fit it again"
            ) from error
        if (name is None) != (own is None):
            raise ContractError(
                f"{folder} was fitted with {name or config.kind}, got {'no class' if own is None else own}; "
                f"pass the class of your own that it was fitted with, and none for recloop's"
            )
        network = RerankNetwork(config, shape, own or BACKBONES[config.kind]).eval()
        if name not in (None, type(network.backbone).__qualname__):
            raise ContractError(
                f"{folder} was fitted with {name}, got {type(network.backbone).__qualname__}; pass {name}"
            )
        state = {key.removeprefix("network."): v for key, v in tensors.items() if key.startswith("network.")}
        network.load_state_dict(state)
        parts = [tensors[f"histories.{part}"].numpy() for part in ("offsets", "items", "rating")]
        scaler = None if about["scale"] is None else VectorScaler(tensors["scaler.centre"].numpy(), about["scale"])
        curve = tuple(EpochScore(**epoch) for epoch in about["curve"])
        return cls(config, shape, network, Histories(*parts), edges, scaler, curve)


def own_name(reranker: FittedReranker) -> str | None:
    """The class name of a backbone of the user's own; None for recloop's."""
    backbone = type(reranker.network.backbone)
    return None if backbone in BACKBONES.values() else backbone.__qualname__


def name_of(reranker: FittedReranker) -> str:
    """The backbone in words."""
    return own_name(reranker) or reranker.config.kind


def score_tensors(network: RerankNetwork, lists: ListTensors) -> Float32[np.ndarray, "B N L"]:
    """Scores of all lists under all completions, in evaluation mode; ``-inf`` at padding.

    Lists of one length are scored together, so that a short one costs what it costs among its like. Equal texts of a
    user are scored once and have the same scores to the last bit.
    """
    num_lists, list_len = lists.items_BL.shape
    num_completions = 1 if lists.texts_UND is None else lists.texts_UND.shape[1]
    scores_BNL = torch.full((num_lists, num_completions, list_len), -torch.inf)
    network.eval()
    with torch.inference_mode():
        for row_B, place_BN, distinct in _lists_by_distinct_texts(lists):
            for chosen, longest in _rows_of_like_length(lists.is_item_BL[row_B], place_BN):
                rows = row_B[chosen]
                is_item_B1L = lists.is_item_BL[rows, :longest][:, None]
                found_BKL = network(distinct, rows, None).masked_fill(~is_item_B1L, -torch.inf)
                scores_BNL[rows, :, :longest] = found_BKL.take_along_dim(place_BN[chosen, :, None], dim=1)
    return scores_BNL.numpy()


def _lists_by_distinct_texts(lists: ListTensors) -> Iterator[tuple[torch.Tensor, torch.Tensor, ListTensors]]:
    """Rows whose users have equally many distinct texts; where each completion's text is among these; the lists."""
    texts_UND = lists.texts_UND
    if texts_UND is None or texts_UND.shape[1] == 1:
        yield torch.arange(len(lists.user_row_B)), torch.zeros((len(lists.user_row_B), 1), dtype=torch.int64), lists
        return
    first_UN = _first_of_equals(texts_UND.numpy())
    is_first_UN = first_UN == np.arange(first_UN.shape[1])
    place_UN = np.take_along_axis(is_first_UN.cumsum(axis=1) - 1, first_UN, axis=1)
    order_UN = np.argsort(~is_first_UN, axis=1, kind="stable")
    distinct_UND = texts_UND.take_along_dim(torch.from_numpy(order_UN)[:, :, None], dim=1)
    count_B = torch.from_numpy(is_first_UN.sum(axis=1))[lists.user_row_B]
    place_BN = torch.from_numpy(place_UN)[lists.user_row_B]
    for count in torch.unique(count_B).tolist():
        row_B = torch.nonzero(count_B == count)[:, 0]
        yield row_B, place_BN[row_B], replace(lists, texts_UND=distinct_UND[:, :count])


def _first_of_equals(texts_UND: Float32[np.ndarray, "U N D"]) -> np.ndarray:
    """For each text the number ``[U, N]`` of the user's first one that has the same bits."""
    bits_UND = np.ascontiguousarray(texts_UND).view(np.uint32).astype(np.uint64)
    weights_D = np.random.default_rng(0).integers(1, 2**63, texts_UND.shape[2], dtype=np.uint64) | np.uint64(1)
    digest_UN = bits_UND @ weights_D  # modulo 2^64
    first_UN = (digest_UN[:, :, None] == digest_UN[:, None]).argmax(axis=2)
    is_equal_UN = (bits_UND == np.take_along_axis(bits_UND, first_UN[:, :, None], axis=1)).all(axis=2)
    return np.where(is_equal_UN, first_UN, np.arange(first_UN.shape[1]))


def _rows_of_like_length(is_item_BL: torch.Tensor, place_BN: torch.Tensor) -> Iterator[tuple[torch.Tensor, int]]:
    """Rows to score at once, at most `MAX_POSITIONS` with their texts and padding, and their longest length."""
    length_B, order_B = torch.sort(is_item_BL.sum(dim=1), stable=True)
    most = max(1, MAX_POSITIONS // (int(place_BN.max()) + 1)) if len(place_BN) else 1
    start = 0
    while start < len(order_B):
        next_R = length_B[start : start + most]
        fitting = int((next_R * torch.arange(1, len(next_R) + 1) <= most).sum())
        end = start + max(1, fitting)
        yield order_B[start:end], int(length_B[end - 1])
        start = end
