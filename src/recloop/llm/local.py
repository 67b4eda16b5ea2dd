"""Language models that run in this process: any Hugging Face causal LM with a chat template."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.errors import GenerationError
from recloop.llm.chat import load_tokenizer, render_chat, render_prompt, takes_system_role, token_counter
from recloop.llm.completion_text import first_sentences
from recloop.llm.language_model import Sampling, completion_uniforms, prompt_digest
from recloop.llm.shared_prefix import Head, alone, share_heads
from recloop.llm.weights import (
    adapter_config,
    base_folder_of,
    find_model_folder,
    in_four_bits,
    reading,
    require_fit_sizes,
    weights_hash,
)
from recloop.records import Completion, Prompt

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64

# Their attention is full, a token's place comes from `position_ids`, and logits come from the output embedding.
SHARED_PREFIX_ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3"})
MARKS = (".", "!", "?")
MARK_BYTES = tuple(f"<0x{ord(mark):02X}>" for mark in MARKS)  # as tokens of a vocabulary with byte fallback


class TransformersLM:
    """A causal LM in this process, in float32 on the CPU and in its own precision on an accelerator.

    Each prompt is read once for all its completions. A completion depends on seed, prompt and number. The rest
    of the batch can change only the last bits of its logits, which changes about one token in a million.

    Args:
        folder_or_name: a folder that `save_pretrained` wrote (a model, or a peft adapter whose base can be
            found), or a Hugging Face name. Only safetensors are read, no code.
        device: ``auto`` takes CUDA where there is one; otherwise a torch device.
        batch_tokens: cache slots of one batch, over all its prompts and completions.
        load_in_4bit: keep the linear layers in 4 bits; needs bitsandbytes.

    Raises:
        SettingError: no bitsandbytes for `load_in_4bit`.
        GenerationError: no such model, or one that is damaged, needs its own code or has no chat template.
    """

    def __init__(
        self,
        folder_or_name: str | Path,
        *,
        device: str = "auto",
        batch_tokens: int = 24_576,
        load_in_4bit: bool = False,
    ) -> None:
        self.folder = find_model_folder(folder_or_name)
        import torch
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        self._batch_tokens = batch_tokens
        has_cuda = torch.cuda.is_available()
        self._device = torch.device(("cuda" if has_cuda else "cpu") if device == "auto" else device)
        with reading(self.folder, "causal LM"):
            self._model, self._tokenizer = _load(self.folder, self._device, load_in_4bit=load_in_4bit)
            takes_system_role(self._tokenizer)
            self._end_tokens = end_tokens_of(self._model, self._tokenizer)
            _require_usable(self._model, self._tokenizer, self._end_tokens)
        self._count_tokens = token_counter(self._tokenizer)
        layers = DynamicCache(config=self._model.config).layers
        self._shares_prefix = self._model.config.model_type in SHARED_PREFIX_ARCHITECTURES and all(
            type(layer) is DynamicLayer for layer in layers
        )
        size = f"{self._model.num_parameters() / 1e6:.1f}M" + ("-4bit" if load_in_4bit else "")
        self.name = f"{self._model.config.model_type}-{size}-{weights_hash(self.folder)[:16]}"

    def count_tokens(self, text: str) -> int:
        return self._count_tokens(text)

    def render(self, prompt: Prompt) -> str:
        """The prompt inside the chat template, up to where the answer begins."""
        return render_prompt(prompt, self._tokenizer)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yield (position in `prompts`, its completions), longest prompts first.

        Raises:
            GenerationError: a prompt is empty, or longer than the context leaves room for.
        """
        import torch

        for positions, ids_BT, heads in self._plan(prompts, sampling):
            with torch.inference_mode():
                completions_BN = self._decode([prompts[p] for p in positions], ids_BT, heads, sampling)
            yield from zip(positions, completions_BN, strict=True)

    def reply_logps(self, prompts: Sequence[Prompt], replies: Sequence[str]) -> Iterator[tuple[float, int]]:
        """Log-probability of each prompt's reply, end token included, and its number of tokens."""
        import torch

        texts = [self.render(prompt) for prompt in prompts]
        prompt_ids: list[list[int]] = self._tokenizer(texts, add_special_tokens=False).input_ids
        reply_ids: list[list[int]] = self._tokenizer(list(replies), add_special_tokens=False).input_ids
        end = self._end_of_reply()
        for ids, reply in zip(prompt_ids, reply_ids, strict=True):
            row, labels = torch.tensor([[*ids, *reply, end]]), torch.tensor([*reply, end])
            with torch.inference_mode():
                logits_TV = self._model(input_ids=row.to(self._device), logits_to_keep=len(labels) + 1).logits[0, :-1]
            logps_TV = logits_TV.float().log_softmax(dim=-1)
            yield float(logps_TV.gather(1, labels.to(self._device)[:, None]).sum()), len(labels)

    def _end_of_reply(self) -> int:
        """The end token with which the chat template closes a reply; some models have several."""
        talk = [{"role": "user", "content": "t"}, {"role": "assistant", "content": "r"}]
        text = render_chat(self._tokenizer, talk)
        ids: list[int] = self._tokenizer(text, add_special_tokens=False).input_ids
        return next((token for token in reversed(ids) if token in self._end_tokens), self._tokenizer.eos_token_id)

    def _plan(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> Iterator[tuple[list[int], list[tuple[int, ...]], list[Head]]]:
        """Batches: positions of their prompts, token ids, and heads by place in the batch."""
        texts = [self.render(prompt) for prompt in prompts]
        if not texts:
            return
        ids = [tuple(row) for row in self._tokenizer(texts, add_special_tokens=False).input_ids]
        for prompt, row in zip(prompts, ids, strict=True):
            self._check_length(prompt, len(row), sampling)
        heads = share_heads(ids, sampling.num_completions * sampling.max_tokens) if self._shares_prefix else alone(ids)
        num_slots = [self._slots(head, ids, sampling) for head in heads]
        order = sorted(range(len(heads)), key=lambda n: (-num_slots[n], heads[n].members))
        start = 0
        while start < len(order):
            end = start + max(1, self._batch_tokens // num_slots[order[start]])
            batch, place = [heads[n] for n in order[start:end]], count()
            positions = [position for head in batch for position in head.members]
            placed = [Head(head.length, tuple(islice(place, len(head.members)))) for head in batch]
            yield positions, [ids[position] for position in positions], placed
            start = end

    def _slots(self, head: Head, ids: Sequence[tuple[int, ...]], sampling: Sampling) -> int:
        tails = sum(len(ids[position]) - head.length for position in head.members)
        own = len(head.members) * sampling.num_completions * sampling.max_tokens
        return own + tails + head.length * (1 if self._shares_prefix else sampling.num_completions)

    def _check_length(self, prompt: Prompt, num_tokens: int, sampling: Sampling) -> None:
        limit: int | None = getattr(self._model.config, "max_position_embeddings", None)
        if num_tokens == 0:
            raise GenerationError(f"a prompt must not be empty, got an empty one for user {prompt.user}; write one")
        if limit is not None and num_tokens + sampling.max_tokens > limit:
            raise GenerationError(
                f"prompt and completion must fit into the {limit} tokens of {self.folder}, got {num_tokens} "
                f"for user {prompt.user} and max_tokens={sampling.max_tokens}; "
                f"lower the prompt's token budget or max_tokens"
            )

    def _decode(
        self, prompts: Sequence[Prompt], ids_BT: list[tuple[int, ...]], heads: list[Head], sampling: Sampling
    ) -> list[tuple[Completion, ...]]:
        from recloop.llm.decoding import ATTEMPTS, ExpandedPrefix, SharedPrefix, decode

        num_completions, max_tokens = sampling.num_completions, sampling.max_tokens
        if self._shares_prefix:
            prefix = SharedPrefix(self._model, ids_BT, num_completions, max_tokens, heads)
        else:
            prefix = ExpandedPrefix(self._model, ids_BT, num_completions)
        uniforms_BNTA = np.stack(
            [
                completion_uniforms(prompt_digest(prompt), sampling.seed, completion, max_tokens * ATTEMPTS)
                for prompt in prompts
                for completion in sampling.completion_numbers
            ]
        ).reshape(len(prompts), num_completions, max_tokens, ATTEMPTS)
        stop = None
        if sampling.sentences is not None:
            vocab_size = self._model.get_output_embeddings().weight.shape[0]
            stop = sentence_stop(self._tokenizer, vocab_size, sampling.sentences)
        raw_BN = decode(prefix, uniforms_BNTA, self._end_tokens, sampling.temperature, sampling.top_p, stop)
        tokens = [list(raw.tokens) for raw_N in raw_BN for raw in raw_N]
        texts = [text.strip() for text in self._tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        if sampling.sentences is not None:
            texts = [first_sentences(text, sampling.sentences) for text in texts]
        text = iter(texts)
        return [
            tuple(
                Completion(prompt.user, number, next(text), raw.num_sampled, raw.is_finished, raw.logp_sum)
                for number, raw in zip(sampling.completion_numbers, raw_N, strict=True)
            )
            for prompt, raw_N in zip(prompts, raw_BN, strict=True)
        ]


@lru_cache(maxsize=4)
def sentence_stop(
    tokenizer: Any, vocab_size: int, num_sentences: int
) -> Callable[[Int64[np.ndarray, "R T"]], Bool[np.ndarray, " R"]]:
    """Whether completions, as tokens without padding, have more than their first sentences.

    Only those with a sentence mark are turned into text. `vocab_size` is the model's, and may exceed the tokenizer's.
    """
    is_mark_V = np.zeros(max(vocab_size, len(tokenizer)), dtype=bool)
    for number, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        is_mark_V[number] = token in MARK_BYTES or any(mark in token for mark in MARKS)

    def is_over(tokens_RT: Int64[np.ndarray, "R T"]) -> Bool[np.ndarray, " R"]:
        is_over_R = np.zeros(len(tokens_RT), dtype=bool)
        rows = np.flatnonzero(is_mark_V[tokens_RT].any(axis=1))
        texts = tokenizer.batch_decode(tokens_RT[rows].tolist(), skip_special_tokens=True)
        is_over_R[rows] = [first_sentences(t.strip(), num_sentences) != t.strip() for t in texts]
        return is_over_R

    return is_over


def _load(folder: Path, device: Any, *, load_in_4bit: bool) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    adapter, base = adapter_config(folder), base_folder_of(folder)
    require_fit_sizes(base)
    loading: dict[str, Any] = {"dtype": torch.float32 if device.type == "cpu" else "auto", "use_safetensors": True}
    if load_in_4bit:
        loading |= {"quantization_config": in_four_bits(device.type), "device_map": {"": device}}
    model = AutoModelForCausalLM.from_pretrained(base, trust_remote_code=False, local_files_only=True, **loading)
    if adapter is not None and load_in_4bit:
        model.load_adapter(str(folder))  # merged, it would be rounded to 4 bits with the rest
    elif adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    return (model if load_in_4bit else model.to(device)).eval(), load_tokenizer(folder)


def _require_usable(model: Any, tokenizer: Any, end_tokens: Sequence[int]) -> None:
    """GenerationError where a first token has no finite score, or tokens have no place in the model."""
    import torch

    vocab_size = model.get_input_embeddings().weight.shape[0]
    tokenizer(["A probe."], add_special_tokens=False)
    beyond = max([*tokenizer.get_vocab().values(), *end_tokens], default=0)
    if beyond >= vocab_size or not end_tokens:
        raise GenerationError(
            f"tokens must end a text and be below the {vocab_size:,} of the model, got {beyond:,} as the largest and "
            f"{len(end_tokens)} that end; use the tokenizer that the model was trained with"
        )
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[end_tokens[0]]], device=model.device)).logits
    if not torch.isfinite(logits).all():
        raise GenerationError("its scores are no finite numbers; fetch or train the model again")


def end_tokens_of(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Ids at which a model stops: the tokenizer's and the generation configuration's."""
    listed = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = {tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [listed])}
    return tuple(sorted(token for token in ids if token is not None))
