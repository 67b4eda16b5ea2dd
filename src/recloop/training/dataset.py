"""Prompts and replies as the trained model reads them: rendered, tokenised, checked, ordered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.errors import ContractError, DataError, SettingError, TrainingError
from recloop.llm.chat import load_tokenizer, messages_of
from recloop.llm.weights import base_folder_of
from recloop.records import Pair, Prompt
from recloop.training.result import TrainingBudget

if TYPE_CHECKING:
    from jaxtyping import Int64

    from recloop.rewards.preference_pairs import PairSet

# Batches within which rows are sorted by length: little padding, and a different mix every epoch.
SORTED_BATCHES = 16


@dataclass(frozen=True, slots=True)
class Row:
    """One pair as it will be trained on, with its length in tokens: prompt plus the longer reply."""

    pair: Pair
    prompt: Prompt
    num_tokens: int


def reply_of(text: str) -> list[dict[str, str]]:
    """A reply as the turn that follows a prompt."""
    return [{"role": "assistant", "content": text}]


def reply_comparer(lm_folder: Path, max_reply_tokens: int) -> Callable[[str, str], bool]:
    """A function that tells whether a model reads two replies as the same tokens, up to `max_reply_tokens`."""
    tokenizer = load_tokenizer(lm_folder)

    @lru_cache(maxsize=100_000)
    def tokens_of(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"][:max_reply_tokens])

    return lambda first, second: tokens_of(first) == tokens_of(second)


@dataclass(frozen=True, slots=True)
class RowSet:
    """The pairs to train on, and how many were left out and why (see `TrainedModel`)."""

    rows: tuple[Row, ...]
    num_thinned: int
    num_too_long: int

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.rows), self.num_thinned, self.num_too_long


def require_short(lm_folder: Path, prompts: Sequence[Prompt], max_prompt_tokens: int) -> None:
    """SettingError where a prompt has more tokens inside the chat template, up to where the reply begins."""
    reader = _Reader.of(lm_folder)
    for prompt in prompts:
        reader.opening(prompt, max_prompt_tokens)


def prompts_of(pairs: PairSet) -> dict[int, Prompt]:
    """The prompts of pairs, by user; DataError when the pairs hold none."""
    prompts = {prompt.user: prompt for prompt in pairs.prompts_U}
    if pairs.pairs and not prompts:
        raise DataError("pairs to train on must hold their prompts, got none; make them from recloop.generate's texts")
    return prompts


def select_rows(
    lm_folder: Path, prompts: Mapping[int, Prompt], pairs: Sequence[Pair], budget: TrainingBudget, seed: int
) -> RowSet:
    """The pairs that fit the model and the budget, in their order.

    Args:
        lm_folder: holds tokenizer, chat template and model configuration.
        prompts: by user number.
        seed: chooses which pairs stay when there are too many.

    Raises:
        DataError: a pair's user has no prompt.
        SettingError: a prompt exceeds its limit, or a row the model's context.
        ContractError: the chat template does not continue the prompt with the reply, or does not end it.
        TrainingError: no row is left.
    """
    reader = _Reader.of(lm_folder)
    fitting: list[Row] = []
    for pair in pairs:
        if pair.user not in prompts:
            raise DataError(f"every pair needs its prompt, got none for user {pair.user}; pass all prompts")
        prompt = prompts[pair.user]
        prompt_ids = reader.opening(prompt, budget.max_prompt_tokens)
        lengths = [reader.reply_length(prompt, prompt_ids, text) for text in (pair.chosen, pair.rejected)]
        if max(lengths) <= budget.max_reply_tokens + 1:  # the end token
            fitting.append(Row(pair, prompt, len(prompt_ids) + max(lengths)))
    num_too_long = len(pairs) - len(fitting)
    if not fitting:
        raise TrainingError(
            f"training needs at least one pair, got none ({num_too_long} with a reply above "
            f"{budget.max_reply_tokens} tokens); lower min_gap, draw more completions or raise max_reply_tokens"
        )
    longest = max(row.num_tokens for row in fitting)
    if reader.context is not None and longest > reader.context:
        raise SettingError(
            f"prompt and reply must fit the model's context of {reader.context} tokens, got {longest}; build prompts "
            f"with a smaller budget"
        )
    kept = np.arange(len(fitting))
    if len(fitting) > budget.max_pairs:
        kept = np.sort(np.random.default_rng(seed).choice(kept, budget.max_pairs, replace=False))
    return RowSet(tuple(fitting[index] for index in kept), len(fitting) - len(kept), num_too_long)


def training_order(num_tokens: Sequence[int], budget: TrainingBudget, seed: int) -> Int64[np.ndarray, " E"]:
    """Row numbers in the order of training: every row once an epoch, rows of similar length side by side.

    Shuffle; sort by length within groups of `SORTED_BATCHES` batches; shuffle the batches of each group.
    """
    rng = np.random.default_rng(seed)
    lengths, batch = np.asarray(num_tokens), budget.batch_size
    order: list[np.ndarray] = []
    for _ in range(budget.epochs):
        shuffled = rng.permutation(len(lengths))
        for start in range(0, len(shuffled), batch * SORTED_BATCHES):
            group = shuffled[start : start + batch * SORTED_BATCHES]
            group = group[np.argsort(-lengths[group], kind="stable")]
            batches = np.split(group, range(batch, len(group), batch))
            full, rest = batches[: len(group) // batch], batches[len(group) // batch :]
            order.extend(full[index] for index in rng.permutation(len(full)))
            order.extend(rest)
    return np.concatenate(order).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Reader:
    """How a model reads: tokenizer, tokens at which it stops, longest text in tokens (None: no limit)."""

    tokenizer: Any
    end_ids: frozenset[int]
    context: int | None

    @classmethod
    def of(cls, lm_folder: Path) -> _Reader:
        from transformers import AutoConfig, GenerationConfig

        tokenizer: Any = load_tokenizer(lm_folder)
        base = base_folder_of(lm_folder)
        end_ids: set[int] = set() if tokenizer.eos_token_id is None else {int(tokenizer.eos_token_id)}
        if (base / "generation_config.json").is_file():
            more: Any = GenerationConfig.from_pretrained(base).eos_token_id
            end_ids.update(more if isinstance(more, list) else [] if more is None else [more])
        config: Any = AutoConfig.from_pretrained(base)
        return cls(tokenizer, frozenset(end_ids), getattr(config, "max_position_embeddings", None))

    def render(self, messages: list[dict[str, str]], *, opens_reply: bool = False) -> list[int]:
        tokenizer: Any = self.tokenizer
        return tokenizer.apply_chat_template(messages, add_generation_prompt=opens_reply, return_dict=True)["input_ids"]

    def opening(self, prompt: Prompt, max_tokens: int) -> list[int]:
        """The prompt, up to where the reply begins."""
        ids = self.render(messages_of(prompt, self.tokenizer), opens_reply=True)
        if len(ids) > max_tokens:
            raise SettingError(
                f"a prompt may have {max_tokens} tokens with its chat template, got {len(ids)} for {prompt.user}; "
                f"lower prompt.max_prompt_tokens or raise the max_prompt_tokens of training"
            )
        return ids

    def reply_length(self, prompt: Prompt, prompt_ids: list[int], text: str) -> int:
        """Tokens of a rendered reply up to and including its end token."""
        whole_ids = self.render([*messages_of(prompt, self.tokenizer), *reply_of(text)])
        if whole_ids[: len(prompt_ids)] != prompt_ids:
            raise ContractError(
                f"a chat template must render the prompt alike with and without a reply, got other tokens for user "
                f"{prompt.user}; use a template whose generation prompt opens the assistant's turn"
            )
        reply_ids = whole_ids[len(prompt_ids) :]
        length = next((place + 1 for place, token in enumerate(reply_ids) if token in self.end_ids), None)
        if length is not None:
            return length
        raise ContractError(
            f"a chat template must close the reply with an end token ({sorted(self.end_ids)}), got "
            f"{reply_ids[-3:]} as its last tokens; a model trained with it never stops: repair the template"
        )
