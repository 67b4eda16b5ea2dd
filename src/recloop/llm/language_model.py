"""The protocol of a language model: an object with a name that answers each prompt with N completions."""

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
    top_p: share of the probability mass sampled from, likeliest tokens first; 1 for all of it.
    max_tokens: longest completion, its end token included.
    seed: a completion depends on seed, prompt and completion number, and on nothing else in its batch.
    first_completion: number of the first completion. From 4 with N = 6 continues where N = 4 ended.
    sentences: how many sentences of a completion are read, so a model may stop there; None for all.
    """

    num_completions: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    first_completion: int = 0
    sentences: int | None = None

    def __post_init__(self) -> None:
        checks = (
            ("num_completions", self.num_completions >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature <= 100, "from 0 to 100; 1 is the model's own distribution"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1; 1 samples from all tokens"),
            ("max_tokens", self.max_tokens >= 1, "at least 1, for example 64"),
            ("seed", self.seed >= 0, "0 or more"),
            ("first_completion", self.first_completion >= 0, "0 or more"),
            ("sentences", self.sentences is None or self.sentences >= 1, "at least 1, or None for all"),
        )
        for name, is_right, rule in checks:
            if not is_right:
                raise SettingError(f"{name} must be {rule}; got {getattr(self, name)}")
        if self.temperature == 0 and self.num_completions > 1:
            raise SettingError(
                f"at temperature 0 all completions of a prompt are the same, got "
                f"num_completions={self.num_completions}; use 1, or a temperature above 0"
            )

    @property
    def completion_numbers(self) -> range:
        return range(self.first_completion, self.first_completion + self.num_completions)

    def only(self, completions: range) -> Sampling:
        """The same settings for these consecutive completions."""
        return replace(self, first_completion=completions.start, num_completions=len(completions))


class LanguageModel(Protocol):
    """Anything that answers prompts. `recloop.testing.check_language_model` says whether an object fits."""

    @property
    def name(self) -> str:
        """Identity, weights included: two models that could answer differently have different names."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yield (position in `prompts`, its N completions) as prompts finish, in any order, each once."""
        ...

    def count_tokens(self, text: str) -> int:
        """Number of tokens of `text`, without a chat template around it."""
        ...


def prompt_digest(prompt: Prompt) -> bytes:
    """SHA-256 of the system message and the text; whose prompt it is does not enter."""
    digest = hashlib.sha256()
    for part in (prompt.system, prompt.text):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.digest()


def completion_uniforms(digest: bytes, seed: int, completion: int, num: int) -> Float64[np.ndarray, " num"]:
    """The random numbers of one completion, uniform on [0, 1), from a counter-based generator.

    They depend on seed, prompt and number only, so that neither batch nor order of the work can change a completion.
    """
    key = hashlib.sha256(digest + seed.to_bytes(16, "big") + completion.to_bytes(8, "big")).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big"))).random(num)


def chat_messages(prompt: Prompt, *, has_system_role: bool = True) -> list[dict[str, str]]:
    """The prompt as chat messages; one message where the chat template has no system role."""
    if not has_system_role:
        return [{"role": "user", "content": f"{prompt.system}\n\n{prompt.text}".strip()}]
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*messages, {"role": "user", "content": prompt.text}]
