"""The decode loop: N completions per prompt from one prefill, with every random number fixed beforehand.

A prompt's keys and values are held in one of two ways. `SharedPrefix` keeps them once: the N completions are
query columns of the prompt's row, and a mask lets each see the prompt and its own tokens. Prompts with a common
beginning share a row. `ExpandedPrefix` repeats keys and values N times and leaves masking to the model. It is
slower, and works with any architecture that the transformers cache can hold.

Axes here, beside those of `recloop.records`: ``R`` unfinished completions of the batch; ``M`` columns, the most
unfinished completions of one prompt; ``C`` cache slots; ``V`` tokens of the vocabulary; ``A`` attempts at a draw.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from packaging.version import Version
from torch import Tensor
from transformers import __version__ as transformers_version
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from recloop.errors import GenerationError
from recloop.llm.shared_prefix import Head, alone

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64, Int64

# What models call the cache, as an argument and in their output.
CACHE = "cache" if Version(transformers_version) >= Version("5.24") else "past_key_values"
ATTEMPTS = 8  # random numbers per token; all but the first serve draws that fall outside the nucleus
COMPACT_BELOW = 0.75  # guess: below this share of unfinished prompts, finished ones leave the cache


@dataclass(frozen=True, slots=True)
class RawCompletion:
    """One completion as token ids, without its end token, which `num_sampled` and `logp_sum` count."""

    tokens: tuple[int, ...]
    is_finished: bool  # it reached an end token, or was stopped since the rest is not read
    num_sampled: int
    logp_sum: float
    end: int | None = None  # the end token; None when it reached none


def decode(
    prefix: SharedPrefix | ExpandedPrefix,
    uniforms_BNTA: Float64[np.ndarray, "B N T A"],
    end_tokens: Sequence[int],
    temperature: float,
    top_p: float,
    stop: Callable[[Int64[np.ndarray, "R T"]], Bool[np.ndarray, " R"]] | None = None,
) -> list[list[RawCompletion]]:
    """The N completions of each prompt, up to their end token, to where `stop` ends them, or to T tokens.

    Args:
        uniforms_BNTA: random numbers in [0, 1), `ATTEMPTS` per prompt, completion and position.
        stop: says of the tokens so far which completions are over; None where only an end token ends one.
    """
    num_prompts, num_completions, max_tokens, _ = uniforms_BNTA.shape
    tokens_BNT = np.zeros((num_prompts, num_completions, max_tokens), dtype=np.int64)
    length_BN = np.full((num_prompts, num_completions), max_tokens)
    num_sampled_BN = length_BN.copy()
    is_finished_BN = np.zeros((num_prompts, num_completions), dtype=bool)
    logp_BN = np.zeros((num_prompts, num_completions))
    prompt_R, completion_R = (axis.ravel() for axis in np.indices((num_prompts, num_completions)))
    logits_RV = prefix.first_logits().repeat_interleave(num_completions, dim=0)
    for t in range(max_tokens):
        tokens_R, logps_R = sample_tokens(logits_RV, uniforms_BNTA[prompt_R, completion_R, t], temperature, top_p)
        logp_BN[prompt_R, completion_R] += logps_R
        tokens_BNT[prompt_R, completion_R, t] = tokens_R
        is_end_R = np.isin(tokens_R, end_tokens)
        is_done_R = is_end_R if stop is None else is_end_R | stop(tokens_BNT[prompt_R, completion_R, : t + 1])
        done = prompt_R[is_done_R], completion_R[is_done_R]
        length_BN[done] = t + ~is_end_R[is_done_R]
        num_sampled_BN[done], is_finished_BN[done] = t + 1, True
        tokens_R, prompt_R, completion_R = tokens_R[~is_done_R], prompt_R[~is_done_R], completion_R[~is_done_R]
        if t == max_tokens - 1 or not len(prompt_R):
            break
        logits_RV = prefix.next_logits(tokens_R, prompt_R, completion_R)
    return [
        [
            RawCompletion(
                tuple(tokens_BNT[b, n, :length].tolist()),
                bool(is_finished_BN[b, n]),
                int(num_sampled_BN[b, n]),
                logp_BN[b, n],
                int(tokens_BNT[b, n, length]) if length < num_sampled_BN[b, n] else None,
            )
            for n, length in enumerate(length_BN[b].tolist())
        ]
        for b in range(num_prompts)
    ]


def sample_tokens(
    logits_RV: Float[Tensor, "R V"], uniforms_RA: Float64[np.ndarray, "R A"], temperature: float, top_p: float
) -> tuple[Int64[np.ndarray, " R"], Float64[np.ndarray, " R"]]:
    """One token per row, and its log-probability at temperature 1 over the whole vocabulary.

    The cumulative distribution is inverted at the row's random number.

    Args:
        uniforms_RA: random numbers in [0, 1).
        temperature: divides the logits; 0 takes the largest.
        top_p: a token is drawn only if the tokens likelier than it hold less than this mass.

    Raises:
        GenerationError: a row has no probabilities, for its logits are not all numbers.
    """
    logits_RV = logits_RV.float()
    total_R = logits_RV.logsumexp(dim=-1)
    if total_R.isnan().any():
        raise GenerationError(
            "a language model must give every token a probability, got NaN; its weights hold some that are no numbers, "
            "or overflow in this precision: save or fetch them again"
        )
    if temperature == 0:
        tokens_R = logits_RV.argmax(dim=-1)
    else:
        probs_RV = (logits_RV if temperature == 1 else logits_RV / temperature).softmax(dim=-1)
        uniforms = torch.as_tensor(uniforms_RA, dtype=torch.float32, device=logits_RV.device)
        tokens_R = _draw_nucleus(probs_RV, uniforms, top_p)
    logps_R = logits_RV.gather(1, tokens_R[:, None])[:, 0] - total_R
    return tokens_R.cpu().numpy(), logps_R.double().cpu().numpy()


def _draw_nucleus(
    probs_RV: Float[Tensor, "R V"], uniforms_RA: Float[Tensor, "R A"], top_p: float
) -> Int64[Tensor, " R"]:
    """Draw from the whole vocabulary, and again where the token lies outside the nucleus."""
    # To sort the vocabulary takes longer than a small model itself: only rows outside at all but the last attempt are.
    cdf_RV = probs_RV.cumsum(dim=-1)
    tokens_R = _invert_cdf(cdf_RV, uniforms_RA[:, 0])
    if top_p == 1:
        return tokens_R
    rows = torch.arange(len(tokens_R), device=tokens_R.device)
    for attempt in range(1, uniforms_RA.shape[1]):
        likelier = probs_RV[rows] > probs_RV[rows, tokens_R[rows]][:, None]
        rows = rows[(probs_RV[rows] * likelier).sum(dim=-1) >= top_p]
        if not len(rows):
            return tokens_R
        tokens_R[rows] = _invert_cdf(cdf_RV[rows], uniforms_RA[rows, attempt])
    sorted_RV, ids_RV = probs_RV[rows].sort(dim=-1, descending=True)
    is_outside_RV = sorted_RV.cumsum(dim=-1) - sorted_RV >= top_p
    cdf_RV = sorted_RV.masked_fill(is_outside_RV, 0.0).cumsum(dim=-1)
    drawn_R1 = _invert_cdf(cdf_RV, uniforms_RA[rows, -1])[:, None]
    tokens_R[rows] = ids_RV.gather(1, drawn_R1)[:, 0]
    return tokens_R


def _places_within(group_R: np.ndarray) -> np.ndarray:
    """The rank of each entry within its group, from 0."""
    order_R = np.argsort(group_R, kind="stable")
    sorted_R, place_R = group_R[order_R], np.empty_like(order_R)
    place_R[order_R] = np.arange(len(group_R)) - np.searchsorted(sorted_R, sorted_R)
    return place_R


def _invert_cdf(cdf_RV: Float[Tensor, "R V"], uniforms_R: Float[Tensor, " R"]) -> Int64[Tensor, " R"]:
    total_R = cdf_RV[:, -1]
    # Below the total, so that rounding never reaches a token of probability 0.
    mass_R = torch.minimum(uniforms_R * total_R, total_R.nextafter(torch.zeros_like(total_R)))
    return torch.searchsorted(cdf_RV, mass_R[:, None], right=True)[:, 0]


class _RoomyLayer(DynamicLayer):
    """A cache layer that reserves its whole length at once, so that no token copies it."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0
        self._room: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        new = (key_states, value_states)
        if not self._room:
            self._room = [x.new_empty((*x.shape[:2], self.capacity, x.shape[3])) for x in new]
            self.is_initialized = True
        end = self.length + key_states.shape[2]
        for room, states in zip(self._room, new, strict=True):
            room[:, :, self.length : end] = states
        self.length = end
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length

    def keep_rows(self, rows: Tensor) -> None:
        self._room = [room[rows] for room in self._room]


class SharedPrefix:
    """Prompts of one batch; a common beginning is read and held once.

    A row of the cache is a head: the common beginning, the rest of each of its prompts (a tail), and the tokens
    of their completions. Each tail and completion is seen only by those it belongs to. This is right where
    attention is full and a token's place comes from `position_ids` alone: the Llama family.

    Axes: ``H`` heads; ``S`` slots, the most completions of one head; ``W`` columns of tails.

    Args:
        model: a causal LM with an inner ``model`` and a plain output embedding.
        prompts: token ids, at least one each.
        heads: prompts with a common beginning; None where each stands alone.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        num_completions: int,
        max_tokens: int,
        heads: Sequence[Head] | None = None,
    ) -> None:
        heads = alone(prompts) if heads is None else heads
        self._model = model
        self._position_B = np.array([len(ids) for ids in prompts])
        self._row_B, self._slot_B = np.zeros((2, len(prompts)), dtype=np.int64)
        for row, head in enumerate(heads):
            members = list(head.members)
            self._row_B[members], self._slot_B[members] = row, np.arange(len(members)) * num_completions
        self._num_rows = len(heads)
        width = max(head.length for head in heads)
        tail_width = max(sum(len(prompts[b]) - head.length for b in head.members) for head in heads)
        num_slots = max(len(head.members) for head in heads) * num_completions
        capacity = width + tail_width + num_slots * max_tokens
        self._layers = [_RoomyLayer(capacity) for _ in range(model.config.num_hidden_layers)]
        self._cache = Cache(layers=list(self._layers))
        is_seen_HSC = np.zeros((len(heads), num_slots, capacity), dtype=bool)
        # Padding is to the right of a head, where causal attention hides it from every real token.
        ids_HT = np.zeros((len(heads), width), dtype=np.int64)
        for row, head in enumerate(heads):
            ids_HT[row, : head.length] = prompts[head.members[0]][: head.length]
            is_seen_HSC[row, :, : head.length] = True
        hidden_HTD = self._read(ids_HT)
        last_B = np.array([head.length - 1 for head in heads])[self._row_B]
        self._last_BD = hidden_HTD[self._to_device(self._row_B), self._to_device(last_B)]
        if tail_width:
            self._read_tails(prompts, heads, num_completions, is_seen_HSC)
        self._mask_HSC = self._as_mask(is_seen_HSC)

    def first_logits(self) -> Float[Tensor, "B V"]:
        return self._model.get_output_embeddings()(self._last_BD)

    def next_logits(self, tokens_R: np.ndarray, prompt_R: np.ndarray, completion_R: np.ndarray) -> Float[Tensor, "R V"]:
        """Append one token to each named completion, sorted by prompt; a completion once left out stays out."""
        growing = np.unique(self._row_B[prompt_R])
        if len(growing) <= COMPACT_BELOW * self._num_rows:
            self._keep(growing)
        row_R, slot_R = self._row_B[prompt_R], self._slot_B[prompt_R] + completion_R
        column_R = _places_within(row_R)
        shape_HM = (self._num_rows, int(column_R.max()) + 1)
        ids_HM, slot_HM, position_HM = np.zeros((3, *shape_HM), dtype=np.int64)
        ids_HM[row_R, column_R], slot_HM[row_R, column_R] = tokens_R, slot_R
        position_HM[row_R, column_R] = self._position_B[prompt_R]
        self._position_B += 1
        rows, columns = self._to_device(row_R), self._to_device(column_R)
        length = self._layers[0].length
        self._mask_HSC[rows, self._to_device(slot_R), columns + length] = 0
        every_row_H1 = self._to_device(np.arange(self._num_rows)[:, None])
        mask_HMC = self._mask_HSC[every_row_H1, self._to_device(slot_HM), : length + shape_HM[1]]
        hidden_HMD = self._read(ids_HM, attention_mask=mask_HMC[:, None], position_ids=self._to_device(position_HM))
        return self._model.get_output_embeddings()(hidden_HMD[rows, columns])

    def _read_tails(
        self, prompts: Sequence[Sequence[int]], heads: Sequence[Head], num_completions: int, is_seen_HSC: np.ndarray
    ) -> None:
        """Read the tails side by side in their head's row; a tail's own completions see it."""
        start = self._layers[0].length
        where: list[tuple[int, int, int, int]] = []  # prompt, row, from column, to column
        for row, head in enumerate(heads):
            end = 0
            for b in head.members:
                where.append((b, row, end, end := end + len(prompts[b]) - head.length))
        shape_HW = (len(heads), max(end for *_, end in where))
        ids_HW, position_HW = np.zeros((2, *shape_HW), dtype=np.int64)
        is_seen_HWC = np.zeros((*shape_HW, start + shape_HW[1]), dtype=bool)
        for row, head in enumerate(heads):
            is_seen_HWC[row, :, : head.length] = True
        for b, row, first, end in where:
            tail = prompts[b][heads[row].length :]
            own = slice(start + first, start + end)
            ids_HW[row, first:end] = tail
            position_HW[row, first:end] = heads[row].length + np.arange(len(tail))
            is_seen_HWC[row, first:end, own] = np.tri(len(tail), dtype=bool)
            is_seen_HSC[row, self._slot_B[b] : self._slot_B[b] + num_completions, own] = True
        hidden_HWD = self._read(
            ids_HW, attention_mask=self._as_mask(is_seen_HWC)[:, None], position_ids=self._to_device(position_HW)
        )
        prompt_E, row_E, _, end_E = np.array([at for at in where if at[3] > at[2]]).T
        self._last_BD[self._to_device(prompt_E)] = hidden_HWD[self._to_device(row_E), self._to_device(end_E - 1)]

    def _read(self, ids_HT: np.ndarray, **where: Tensor) -> Float[Tensor, "H T D"]:
        seen = {CACHE: self._cache, "use_cache": True}
        output = self._model.model(input_ids=self._to_device(ids_HT), **seen, **where)
        return output.last_hidden_state

    def _keep(self, rows: np.ndarray) -> None:
        kept = self._to_device(rows)
        for layer in self._layers:
            layer.keep_rows(kept)
        self._mask_HSC = self._mask_HSC[kept]
        new_row_H = np.full(self._num_rows, -1)
        new_row_H[rows] = np.arange(len(rows))
        self._row_B, self._num_rows = new_row_H[self._row_B], len(rows)

    def _as_mask(self, is_seen: np.ndarray) -> Tensor:
        mask = torch.zeros(is_seen.shape, dtype=self._model.dtype, device=self._model.device)
        return mask.masked_fill_(self._to_device(~is_seen), -torch.inf)

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._model.device)


class ExpandedPrefix:
    """Prompts of one batch, read once and held once per completion. Arguments as for `SharedPrefix`."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], num_completions: int) -> None:
        self._model = model
        self._num_completions = num_completions
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        width = max(len(ids) for ids in prompts)
        # Padding is to the left, as the cache of any architecture expects it.
        ids_BT = torch.tensor([[0] * (width - len(ids)) + list(ids) for ids in prompts], device=model.device)
        lengths_B1 = torch.tensor([[len(ids)] for ids in prompts], device=model.device)
        self._is_token_RT = (torch.arange(width, device=model.device) >= width - lengths_B1).long()
        self._cache = DynamicCache(config=model.config)
        self._first_BV = self._read(ids_BT)
        self._cache.batch_repeat_interleave(num_completions)
        self._is_token_RT = self._is_token_RT.repeat_interleave(num_completions, dim=0)
        self._held_R = np.arange(len(prompts) * num_completions)

    def first_logits(self) -> Float[Tensor, "B V"]:
        return self._first_BV

    def next_logits(self, tokens_R: np.ndarray, prompt_R: np.ndarray, completion_R: np.ndarray) -> Float[Tensor, "R V"]:
        wanted_R = prompt_R * self._num_completions + completion_R
        if len(wanted_R) < len(self._held_R):
            rows = torch.from_numpy(np.searchsorted(self._held_R, wanted_R)).to(self._model.device)
            self._cache.batch_select_indices(rows)
            self._is_token_RT = self._is_token_RT[rows]
            self._held_R = wanted_R
        self._is_token_RT = torch.nn.functional.pad(self._is_token_RT, (0, 1), value=1)
        return self._read(torch.from_numpy(tokens_R[:, None]).to(self._model.device))

    def _read(self, ids_RT: Tensor) -> Float[Tensor, "R V"]:
        more: dict[str, Any] = {CACHE: self._cache, "use_cache": True, "logits_to_keep": 1}
        if self._takes_positions:
            position_RT = (self._is_token_RT.cumsum(dim=-1) - 1).clamp(min=0)
            more["position_ids"] = position_RT[:, -ids_RT.shape[1] :]
        output = self._model(input_ids=ids_RT, attention_mask=self._is_token_RT, **more)
        return output.logits[:, -1]
