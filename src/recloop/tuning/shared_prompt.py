"""A forward pass that runs a prompt once for all of its replies.

TRL puts ``prompt + chosen`` and ``prompt + rejected`` into one batch as separate rows and, without a GPU,
sends every prompt position through the output layer. With prompts of 448 tokens and replies of 40 that is
more than half of the work for nothing. Here the prompt runs once, both replies attend to its keys and values,
and only reply positions meet the output layer: the same losses and gradients, to rounding.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from trl.trainer.utils import FusedCausalLMOutput

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64
    from transformers import PreTrainedModel

# Model types whose attention takes a padded cache with given positions and has no window; checked by tests.
SHARING_TYPES = frozenset({"llama"})


def share_prompts(model: PreTrainedModel, temperature: float = 1.0) -> None:
    """Replace `model.forward` for calls that ask for TRL's fused output layer.

    Such a call carries rows of a prompt and a reply, padded on either side; labels are -100 at the prompt and
    the padding. Rows with the same prompt share it, wherever they stand. All other calls are untouched.

    Args:
        model: of a type in `SHARING_TYPES`, already given TRL's fused output layer.
        temperature: divides the logits.

    Source: ours; the outputs are those of `trl.trainer.utils.add_fused_lm_head` in TRL 1.16.0.
    """
    plain_forward = model.forward

    @functools.wraps(plain_forward)
    def forward(self: PreTrainedModel, *args: Any, fused_lm_head: bool = False, **inputs: Any) -> Any:
        if not fused_lm_head:
            return plain_forward(*args, **inputs)
        return _score_replies(
            self, inputs["input_ids"], inputs["attention_mask"], inputs["labels"], temperature
        )

    model.forward = types.MethodType(forward, model)


def _score_replies(
    model: PreTrainedModel,
    padded_ids_RT: Int64[Tensor, "R T"],
    is_token_RT: Int64[Tensor, "R T"],
    padded_labels_RT: Int64[Tensor, "R T"],
    temperature: float,
) -> FusedCausalLMOutput:
    """Log-probabilities of the labels, in the layout of TRL: ``[R, T - 1]``, zero where there is no label.

    The prompt without its last token is the shared part; that token begins every reply's own part, because it
    predicts the reply's first token.
    """
    ids_RT, labels_RT = _without_left_padding(is_token_RT, padded_ids_RT, padded_labels_RT)
    shared_len_R = (labels_RT != -100).int().argmax(dim=1) - 1
    own_ids_RS, is_own_RS, positions_RS = _own_parts(ids_RT, is_token_RT.sum(dim=1), shared_len_R)
    num_shared = int(shared_len_R.max())
    cache = None
    is_shared_RP = torch.arange(num_shared, device=ids_RT.device) < shared_len_R[:, None]
    if num_shared > 0:
        # B different prompts; -1 stands for padding, so that a prompt never equals the beginning of another.
        prompts_BP, prompt_of_R = (
            ids_RT[:, :num_shared].masked_fill(~is_shared_RP, -1).unique(dim=0, return_inverse=True)
        )
        cache = model.base_model(
            input_ids=prompts_BP.clamp(min=0), attention_mask=(prompts_BP >= 0).long(), use_cache=True
        ).cache
        cache.batch_select_indices(prompt_of_R)
    hidden_RSD = model.base_model(
        input_ids=own_ids_RS,
        attention_mask=torch.cat([is_shared_RP, is_own_RS], dim=1).long(),
        position_ids=positions_RS,
        cache=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    next_RS = (positions_RS + 1).clamp(max=ids_RT.shape[1] - 1)
    is_scored_RS = is_own_RS & (labels_RT.gather(1, next_RS) != -100) & (positions_RS + 1 < ids_RT.shape[1])
    # Row by row all masks pick the same tokens in the same order, those of the padded labels too.
    return _label_scores(model, hidden_RSD[is_scored_RS], padded_labels_RT[:, 1:], temperature)


def _without_left_padding(
    is_token_RT: Int64[Tensor, "R T"], ids_RT: Int64[Tensor, "R T"], labels_RT: Int64[Tensor, "R T"]
) -> tuple[Int64[Tensor, "R T"], Int64[Tensor, "R T"]]:
    """Ids and labels of rows moved to the left edge; what comes in at the right has no label."""
    num_tokens = is_token_RT.shape[1]
    padding_R1 = is_token_RT.int().argmax(dim=1, keepdim=True)
    places_RT = torch.arange(num_tokens, device=is_token_RT.device) + padding_R1
    is_beyond_RT = places_RT >= num_tokens
    places_RT = places_RT.clamp(max=num_tokens - 1)
    return ids_RT.gather(1, places_RT), labels_RT.gather(1, places_RT).masked_fill(is_beyond_RT, -100)


def _own_parts(
    ids_RT: Int64[Tensor, "R T"], row_len_R: Int64[Tensor, " R"], shared_len_R: Int64[Tensor, " R"]
) -> tuple[Int64[Tensor, "R S"], Bool[Tensor, "R S"], Int64[Tensor, "R S"]]:
    """Tokens after the shared part, moved to the left edge, their mask, their positions in the row."""
    own_len_R = row_len_R - shared_len_R
    offsets_S = torch.arange(int(own_len_R.max()), device=ids_RT.device)
    is_own_RS = offsets_S < own_len_R[:, None]
    positions_RS = (shared_len_R[:, None] + offsets_S).clamp(max=ids_RT.shape[1] - 1)
    return ids_RT.gather(1, positions_RS), is_own_RS, positions_RS


def _label_scores(
    model: PreTrainedModel,
    hidden_MD: Float[Tensor, "M D"],
    labels_RT: Int64[Tensor, "R T"],
    temperature: float,
) -> FusedCausalLMOutput:
    """Output layer at the M labelled positions, spread back to rows of T positions."""
    head: Any = model.get_output_embeddings()
    logits_MV: Tensor = head(hidden_MD).float() / temperature
    is_label_RT = labels_RT != -100
    labels_M = labels_RT[is_label_RT]
    logp_M = -F.cross_entropy(logits_MV, labels_M, reduction="none")

    def spread(values_M: Tensor) -> Tensor:
        return values_M.new_zeros(is_label_RT.shape).masked_scatter(is_label_RT, values_M)

    with torch.no_grad():
        log_probs_MV = logits_MV.log_softmax(dim=1)
        entropy_M = -(log_probs_MV.exp() * log_probs_MV).sum(dim=1)
        mean_logits_M = logits_MV.mean(dim=1)
        is_top1_M = logits_MV.argmax(dim=1) == labels_M
    return FusedCausalLMOutput(
        log_probs=spread(logp_M),
        entropy=spread(entropy_M),
        mean_logits=spread(mean_logits_M),
        is_top1=spread(is_top1_M),
        label_mask=is_label_RT,
    )
