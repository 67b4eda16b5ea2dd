"""Initial weights that can already copy: an induction circuit set by hand in the first two layers.

A small model spends most of a CPU budget on learning one circuit: "what came after the last token like this one?"
(Olsson et al., arXiv 2209.11895). Here half of the heads of layers 0 and 1 start as that circuit, so the model can read
from the first step. All other weights start as usual, and nothing is frozen.

- Every embedding has the same first coordinate. A tied output layer ignores it, since it shifts all logits equally,
  and attention can form scores from it that depend on position alone.
- Layer 0, previous-token heads: queries and keys read only that constant; the rotary angles of the fastest
  frequencies peak one token back. They write what they read (projection `P`) into another subspace (`Q`).
- Layer 1, matching heads: queries read `P` of the present token, keys read `Q`, which is each token's predecessor.
  They write the token they find back into the residual stream.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

EMBEDDING_STD = 0.07
CONSTANT = 0.3  # first coordinate of every embedding
NUM_FREQUENCIES = 3  # the fastest rotary frequencies; slower ones hardly separate neighbours
PREVIOUS_SCORE = 8.0  # attention logit per frequency of "one token back"
MAX_ANGLE = 0.02  # radians per token; faster rotary pairs cannot match over 100 tokens
MATCH_SCORE = 8.0  # expected attention logit of a match
WRITE_GAIN = 0.12
COPY_GAIN = 0.24


def start_as_a_reader(model: LlamaForCausalLM) -> None:
    """Set the initial embedding and the circuit of `model`, drawn from the global torch generator.

    Args:
        model: at least two layers, tied embeddings, as many key heads as query heads.
    """
    import torch

    width, num_heads = model.config.hidden_size, model.config.num_attention_heads
    head_width, reading_heads = width // num_heads, num_heads // 2
    carried = reading_heads * head_width
    basis = torch.linalg.qr(torch.randn(width, width))[0]
    basis[0, :] = 0  # the constant is neither carried nor written
    read_P, write_Q = basis[:, :carried].T, torch.linalg.qr(torch.randn(width, width))[0][:, :carried]
    write_Q[0, :] = 0
    rms = math.sqrt((CONSTANT**2 + (width - 1) * EMBEDDING_STD**2) / width)
    with torch.no_grad():
        embeddings: Any = model.model.embed_tokens
        embedding = embeddings.weight
        embedding.normal_(0, EMBEDDING_STD)
        embedding[:, 0] = CONSTANT
        layers: Any = model.model.layers
        first, second = layers[0].self_attn, layers[1].self_attn
        for head in range(reading_heads):
            rows = slice(head * head_width, (head + 1) * head_width)
            _look_back(first.q_proj.weight[rows], first.k_proj.weight[rows], CONSTANT / rms, _theta(model))
            first.v_proj.weight[rows] = read_P[rows]
            first.o_proj.weight[:, rows] = WRITE_GAIN * write_Q[:, rows]
            mix = torch.linalg.qr(torch.randn(carried, head_width))[0].T
            mix[_fast_rows(head_width, _theta(model))] *= 0.1
            scale = _match_scale(width, head_width, rms)
            second.q_proj.weight[rows] = scale * mix @ read_P
            second.k_proj.weight[rows] = scale * mix @ write_Q.T
            copied = torch.linalg.qr(torch.randn(width, head_width))[0].T
            copied[:, 0] = 0
            second.v_proj.weight[rows] = copied
            second.o_proj.weight[:, rows] = COPY_GAIN * copied.T


def _theta(model: LlamaForCausalLM) -> float:
    settings: Any = model.config.rope_parameters
    return float(settings["rope_theta"])


def _fast_rows(head_width: int, theta: float) -> torch.Tensor:
    """True at the rows of a head whose rotary angle is too fast to compare distant tokens."""
    import torch

    half = head_width // 2
    angles = theta ** (-torch.arange(half) / half)
    return (angles > MAX_ANGLE).repeat(2)


def _look_back(query_HD: torch.Tensor, key_HD: torch.Tensor, constant: float, theta: float) -> None:
    """Set one head's rows so that its score peaks one token back, for any tokens."""
    import torch

    head_width = query_HD.shape[0]
    half = head_width // 2
    query_HD.zero_()
    key_HD.zero_()
    amplitude = math.sqrt(PREVIOUS_SCORE * math.sqrt(head_width)) / constant
    for i in range(NUM_FREQUENCIES):
        angle = torch.tensor(theta ** (-i / half))
        key_HD[i, 0] = amplitude
        query_HD[i, 0] = amplitude * torch.cos(angle)
        query_HD[half + i, 0] = -amplitude * torch.sin(angle)


def _match_scale(width: int, head_width: int, rms: float) -> float:
    """The factor on queries and keys that makes a match score `MATCH_SCORE` on average.

    After layer 0 the residual is the embedding plus `WRITE_GAIN` times the (normalised) predecessor; a head
    compares `head_width` of `width` directions of both.
    """
    written = WRITE_GAIN * EMBEDDING_STD / rms
    residual_rms = math.sqrt(rms**2 + written**2 / 2)
    query, key = EMBEDDING_STD / residual_rms, written / residual_rms
    return math.sqrt(MATCH_SCORE * math.sqrt(head_width) / (query * key * head_width * head_width / width * 2))
