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


def share_prompts(model: PreTrainedModel, num_replies: int) -> None:
    """Replace `model.forward` for calls that ask for TRL's fused output layer.

    Such a call carries `num_replies` rows per prompt, in the order reply 0 of all prompts, reply 1 of all
    prompts, ...; right-padded; labels are -100 at the prompt and the padding. All other calls are untouched.

    Args:
        model: of a type in `SHARING_TYPES`, already given TRL's fused output layer.
        num_replies: 2 for DPO (chosen, rejected), 1 for supervised fine-tuning.

    Source: ours; the outputs are those of `trl.trainer.utils.add_fused_lm_head` in TRL 1.16.0.
    """
    plain_forward = model.forward

    @functools.wraps(plain_forward)
    def forward(self: PreTrainedModel, *args: Any, fused_lm_head: bool = False, **inputs: Any) -> Any:
        if not fused_lm_head:
            return plain_forward(*args, **inputs)
        return _score_replies(
            self, inputs["input_ids"], inputs["attention_mask"], inputs["labels"], num_replies
        )

    model.forward = types.MethodType(forward, model)


def _score_replies(
    model: PreTrainedModel,
    ids_RT: Int64[Tensor, "R T"],
    is_token_RT: Int64[Tensor, "R T"],
    labels_RT: Int64[Tensor, "R T"],
    num_replies: int,
) -> FusedCausalLMOutput:
    """Log-probabilities of the labels, in the layout of TRL: ``[R, T - 1]``, zero where there is no label.

    The prompt without its last token is the shared part; that token begins every reply's own part, because it
    predicts the reply's first token.
    """
    shared_len_R = (labels_RT != -100).int().argmax(dim=1) - 1
    num_prompts = len(ids_RT) // num_replies
    own_ids_RS, is_own_RS, positions_RS = _own_parts(ids_RT, is_token_RT, shared_len_R)
    num_shared = int(shared_len_R.max())
    cache = None
    is_shared_RP = torch.arange(num_shared, device=ids_RT.device) < shared_len_R[:, None]
    if num_shared > 0:
        cache = model.base_model(
            input_ids=ids_RT[:num_prompts, :num_shared],
            attention_mask=is_shared_RP[:num_prompts].long(),
            use_cache=True,
        ).past_key_values
        cache.batch_select_indices(torch.arange(num_prompts, device=ids_RT.device).repeat(num_replies))
    hidden_RSD = model.base_model(
        input_ids=own_ids_RS,
        attention_mask=torch.cat([is_shared_RP, is_own_RS], dim=1).long(),
        position_ids=positions_RS,
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    is_label_RT = labels_RT[:, 1:] != -100
    next_RS = (positions_RS + 1).clamp(max=ids_RT.shape[1] - 1)
    is_scored_RS = is_own_RS & (labels_RT.gather(1, next_RS) != -100) & (positions_RS + 1 < ids_RT.shape[1])
    # Row by row both masks pick the same tokens in the same order.
    return _label_scores(model, hidden_RSD[is_scored_RS], labels_RT[:, 1:], is_label_RT)


def _own_parts(
    ids_RT: Int64[Tensor, "R T"], is_token_RT: Int64[Tensor, "R T"], shared_len_R: Int64[Tensor, " R"]
) -> tuple[Int64[Tensor, "R S"], Bool[Tensor, "R S"], Int64[Tensor, "R S"]]:
    """Tokens after the shared part, moved to the left edge, their mask, their positions in the row."""
    own_len_R = is_token_RT.sum(dim=1) - shared_len_R
    offsets_S = torch.arange(int(own_len_R.max()), device=ids_RT.device)
    is_own_RS = offsets_S < own_len_R[:, None]
    positions_RS = (shared_len_R[:, None] + offsets_S).clamp(max=ids_RT.shape[1] - 1)
    return ids_RT.gather(1, positions_RS), is_own_RS, positions_RS


def _label_scores(
    model: PreTrainedModel,
    hidden_MD: Float[Tensor, "M D"],
    labels_RT: Int64[Tensor, "R T"],
    is_label_RT: Bool[Tensor, "R T"],
) -> FusedCausalLMOutput:
    """Output layer at the M labelled positions, spread back to rows of T positions."""
    head: Any = model.get_output_embeddings()
    logits_MV: Tensor = head(hidden_MD).float()
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
