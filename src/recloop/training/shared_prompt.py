"""A forward pass that runs a prompt once for all of its replies.

TRL puts ``prompt + chosen`` and ``prompt + rejected`` into one batch as separate rows and, without a GPU, sends every
prompt position through the output layer. With prompts of 448 tokens and replies of 40 that is more than half of the
work. Here all replies attend to the keys and values of one prompt, and only reply positions meet the output layer: the
same losses and gradients, to rounding.
"""

from __future__ import annotations

import copy
import functools
import types
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from trl.trainer.utils import FusedCausalLMOutput

from recloop.llm.decoding import CACHE

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64
    from transformers import PreTrainedModel

# Model types whose attention takes a padded cache with given positions and has no window; checked by tests.
SHARING_TYPES = frozenset({"llama"})
ROWS_TOGETHER = 8  # replies in one pass, sorted by length


def share_prompts(model: PreTrainedModel, temperature: float = 1.0) -> None:
    """Replace `model.forward` for calls that ask for TRL's fused output layer.

    Such a call carries rows of a prompt and a reply, padded on either side; labels are -100 at the prompt and the
    padding. Rows with the same prompt share it, wherever they stand. All other calls are untouched.

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
        return _score_replies(self, inputs["input_ids"], inputs["attention_mask"], inputs["labels"], temperature)

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
    predicts the reply's first token. Replies of similar length run together, so that one endless reply does not pad
    all others.
    """
    ids_RT, labels_RT = _without_left_padding(is_token_RT, padded_ids_RT, padded_labels_RT)
    shared_len_R = (labels_RT != -100).int().argmax(dim=1) - 1
    own_len_R = is_token_RT.sum(dim=1) - shared_len_R
    order_R = own_len_R.argsort(stable=True)
    num_shared = int(shared_len_R.max())
    cache, prompt_of_R = None, torch.zeros_like(order_R)
    is_shared_RP = torch.arange(num_shared, device=ids_RT.device) < shared_len_R[:, None]
    if num_shared > 0:
        # B different prompts; -1 stands for padding, so that a prompt never equals the beginning of another.
        shared_RP = ids_RT[:, :num_shared].masked_fill(~is_shared_RP, -1)
        prompts_BP, prompt_of_R = shared_RP.unique(dim=0, return_inverse=True)
        is_read_BP = (prompts_BP >= 0).long()
        seen = model.base_model(input_ids=prompts_BP.clamp(min=0), attention_mask=is_read_BP, use_cache=True)
        cache = getattr(seen, CACHE)
    parts = [
        _read_replies(model, ids_RT[n], labels_RT[n], own_len_R[n], is_shared_RP[n], _rows_of(cache, prompt_of_R[n]))
        for n in order_R.split(ROWS_TOGETHER)
    ]
    hidden_MD = torch.cat(parts)
    # Row by row all masks pick the same tokens in the same order, those of the padded labels too.
    found = _label_scores(model, hidden_MD, padded_labels_RT[order_R, 1:], temperature)
    place_R = order_R.argsort()
    return FusedCausalLMOutput(**{name: values_RT[place_R] for name, values_RT in found.items()})


def _rows_of(cache: Any, prompt_of_R: Int64[Tensor, " R"]) -> Any:
    """What was read of each row's prompt; the cache itself stays as it is.

    By `index_select`, whose gradient is summed in one order by any number of threads.
    """
    if cache is None:
        return None
    own = copy.copy(cache)
    own.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in own.layers:
        layer.keys, layer.values = (x.index_select(0, prompt_of_R) for x in (layer.keys, layer.values))
    return own


def _read_replies(
    model: PreTrainedModel,
    ids_RT: Int64[Tensor, "R T"],
    labels_RT: Int64[Tensor, "R T"],
    own_len_R: Int64[Tensor, " R"],
    is_shared_RP: Bool[Tensor, "R P"],
    cache: Any,
) -> Float[Tensor, "M D"]:
    """The last hidden states from which the labels are predicted, row by row."""
    offsets_S = torch.arange(int(own_len_R.max()), device=ids_RT.device)
    is_own_RS = offsets_S < own_len_R[:, None]
    last_place = ids_RT.shape[1] - 1
    positions_RS = (is_shared_RP.sum(dim=1)[:, None] + offsets_S).clamp(max=last_place)
    hidden_RSD = model.base_model(
        input_ids=ids_RT.gather(1, positions_RS),
        attention_mask=torch.cat([is_shared_RP, is_own_RS], dim=1).long(),
        position_ids=positions_RS,
        use_cache=cache is not None,
        **{CACHE: cache},
    ).last_hidden_state
    next_RS = (positions_RS + 1).clamp(max=last_place)
    is_scored_RS = is_own_RS & (labels_RT.gather(1, next_RS) != -100) & (positions_RS < last_place)
    return hidden_RSD[is_scored_RS]


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


def _label_scores(
    model: PreTrainedModel, hidden_MD: Float[Tensor, "M D"], labels_RT: Int64[Tensor, "R T"], temperature: float
) -> FusedCausalLMOutput:
    """Output layer at the M labelled positions, spread back to rows of T positions."""
    head: Any = model.get_output_embeddings()
    logits_MV: Tensor = head(hidden_MD / temperature).float()
    is_label_RT = labels_RT != -100
    labels_M = labels_RT[is_label_RT]
    logp_M = -F.cross_entropy(logits_MV, labels_M, reduction="none")

    def spread(values_M: Tensor) -> Tensor:
        return values_M.new_zeros(is_label_RT.shape).masked_scatter(is_label_RT, values_M)

    with torch.no_grad():
        label_logits_M = logits_MV.gather(1, labels_M[:, None])[:, 0]
        mean_of_probs_M = torch.einsum("mv,mv->m", logits_MV.softmax(dim=1), logits_MV)
        entropy_M = label_logits_M - logp_M - mean_of_probs_M  # the first two: the logarithm of the sum
        mean_logits_M = logits_MV.mean(dim=1)
        is_top1_M = label_logits_M == logits_MV.amax(dim=1)
    return FusedCausalLMOutput(
        log_probs=spread(logp_M),
        entropy=spread(entropy_M),
        mean_logits=spread(mean_logits_M),
        is_top1=spread(is_top1_M),
        label_mask=is_label_RT,
    )
