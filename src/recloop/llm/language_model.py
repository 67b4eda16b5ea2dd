"""What a language model is to recloop: an object with a name that answers prompts with N completions each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from recloop.errors import SettingError
from recloop.records import Completion, Prompt

if TYPE_CHECKING:
    from jaxtyping import Float64


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn.

    num_completions: N, completions per prompt.
    temperature: 0 takes the likeliest token each time, and then N must be 1.
    top_p: share of the probability mass sampled from, largest tokens first; 1 for all of it.
    max_tokens: longest completion, its end token included.
    seed: every completion is a function of seed, prompt and completion number, whatever else is in its batch.
    first_completion: number of the first completion; 4 with ``num_completions=6`` continues where ``num_completions=4`` ended.
    sentences: no more than so many of a completion are read, so a model need not write on; None for all.
    """

    num_completions: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    first_completion: int = 0
    sentences: int | None = None

    def __post_init__(self) -> None:
        checks: tuple[tuple[str, float, bool, str], ...] = (
            (
                "num_completions",
                self.num_completions,
                self.num_completions >= 1,
                "at least 1; use 1 for a single completion",
            ),
            ("temperature", self.temperature, 0 <= self.temperature <= 100, "from 0 to 100; 1 is population rate"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1; use 1 to sample from all"),
            ("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1; 64 is population rate"),
            ("seed", self.seed, self.seed >= 0, "0 or more; any whole number will do"),
            (
                "first_completion",
                self.first_completion,
                self.first_completion >= 0,
                "0 or more; 0 is the first completion",
            ),
        )
        for name, value, is_right, do in checks:
            if not is_right:
                raise SettingError(f"{name} must be {do}; got {value}")
        if self.sentences is not None and self.sentences < 1:
            raise SettingError(f"sentences must be at least 1, or None for all; got {self.sentences}")
        if self.temperature == 0 and self.num_completions > 1:
            raise SettingError(
                f"at temperature 0 all completions of a prompt are the same, got num_completions={self.num_completions}; "
                f"use num_completions=1 or a temperature above 0"
            )

    @property
    def completion_numbers(self) -> range:
        return range(self.first_completion, self.first_completion + self.num_completions)

    def only(self, completions: range) -> Sampling:
        """The same, for these consecutive completions."""
        return replace(self, first_completion=completions.start, num_completions=len(completions))


class LanguageModel(Protocol):
    """Anything that answers prompts. `recloop.testing.check_language_model` tells whether an object fits."""

    @property
    def name(self) -> str:
        """Identity, weights included: two models that could answer differently have different names."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yield (position in `prompts`, its N completions) as prompts finish, in any order, each once."""
        ...

    def count_tokens(self, text: str) -> int:
        """How many tokens the model reads `text` as, without any chat template around it."""
        ...


def prompt_digest(prompt: Prompt) -> bytes:
    """SHA-256 of what the model is shown; whose prompt it is does not enter."""
    digest = hashlib.sha256()
    for part in (prompt.system, prompt.text):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


def completion_uniforms(digest: bytes, seed: int, completion: int, num: int) -> Float64[np.ndarray, " num"]:
    """The random numbers of one completion, one per token position, from a counter-based generator.

    They depend on seed, prompt and completion number only, so neither the batch a prompt falls into nor the
    order of the work can change a completion.

    Args:
        digest: `prompt_digest` of the prompt.

    Returns:
        Uniform on [0, 1).
    """
    key = hashlib.sha256(digest + seed.to_bytes(16, "big") + completion.to_bytes(8, "big")).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big"))).random(num)


def chat_messages(prompt: Prompt, *, has_system_role: bool = True) -> list[dict[str, str]]:
    """The prompt as chat messages; for templates without a system role both parts become one message."""
    if not has_system_role:
        return [{"role": "user", "content": f"{prompt.system}\n\n{prompt.text}".strip()}]
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*messages, {"role": "user", "content": prompt.text}]
