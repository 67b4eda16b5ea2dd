"""Reward functions, in the shape of TRL's `reward_funcs`, and the way between the two.

Axis letters: ``P`` prompts, ``N`` completions of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from recloop.errors import ContractError, DataError
from recloop.records import Prompt, Rewards, UserCompletions

if TYPE_CHECKING:
    from jaxtyping import Float, Float64

TrlReward = Callable[..., Sequence[float | None]]
"""TRL's form: one value per row of the keywords ``prompts`` and ``completions``; dataset columns are keywords too."""


class RewardFunction(Protocol):
    """Rewards of completions, higher is better; `recloop.testing.check_reward` tells whether an object fits.

    Example:
        >>> def brevity(prompts, completions, /, **context):
        ...     return np.array([[-len(text) for text in completions_N] for completions_N in completions])
    """

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]], /, **context: Any
    ) -> Float[np.ndarray, "P N"]:
        """The reward of each completion, N for each prompt, whatever the others of the call.

        Args:
            context: further columns by name, one value per prompt. A function takes those it knows and ``**_``.
        """
        ...


class RewardSum:
    """The sum of several reward functions, as one."""

    def __init__(self, *rewards: RewardFunction) -> None:
        self._rewards = rewards
        self.name = "+".join(map(name_of_reward, rewards))

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]], /, **context: Any
    ) -> Float64[np.ndarray, "P N"]:
        return np.sum([reward(prompts, completions, **context) for reward in self._rewards], axis=0)


def rewards_of(reward: RewardFunction, completions: UserCompletions) -> Rewards:
    """The rewards that a reward function gives to completions that hold their prompts.

    Raises:
        DataError: the completions hold no prompts.
        ContractError: the rewards are not one finite number per completion.
    """
    if len(completions.prompts_U) != len(completions.user_U):
        raise DataError(
            f"a reward function reads the prompts, got {len(completions.prompts_U)} for {len(completions.user_U)} "
            f"users; take completions from recloop.generate"
        )
    texts = [[one.text for one in completions_N] for completions_N in completions.completions_UN]
    rewards_UN = checked_rewards(reward(completions.prompts_U, texts), texts)
    return Rewards(0, name_of_reward(reward), completions.user_U, rewards_UN.astype(np.float32))


def checked_rewards(rewards: Any, completions: Sequence[Sequence[str]]) -> Float64[np.ndarray, "P N"]:
    """The rewards as float64; ContractError when they are not one finite number per completion."""
    rewards_PN = np.asarray(rewards, dtype=np.float64)
    expected = (len(completions), len(completions[0]) if completions else 0)
    if rewards_PN.shape != expected or not np.isfinite(rewards_PN).all():
        raise ContractError(
            f"a reward function must give one finite number per completion, in shape {expected}, got "
            f"{int((~np.isfinite(rewards_PN)).sum())} that are not finite in shape {rewards_PN.shape}; "
            f"check it with recloop.testing.check_reward"
        )
    return rewards_PN


def name_of_reward(reward: RewardFunction) -> str:
    """What a reward is called in files: its ``name``, or the name of its function or class."""
    return str(getattr(reward, "name", None) or getattr(reward, "__name__", None) or type(reward).__name__)


def from_trl(function: TrlReward) -> RewardFunction:
    """A reward function for recloop from one written for TRL's `reward_funcs`, which gets conversations."""

    def reward(
        prompts: Sequence[Prompt], completions: Sequence[Sequence[str]], /, **context: Any
    ) -> Float64[np.ndarray, "P N"]:
        count = len(completions[0]) if completions else 0
        rows = [(prompt, text) for prompt, texts in zip(prompts, completions, strict=True) for text in texts]
        columns = {name: [value for value in values for _ in range(count)] for name, values in context.items()}
        values = function(
            prompts=[messages_of_prompt(prompt) for prompt, _ in rows],
            completions=[[{"role": "assistant", "content": text}] for _, text in rows],
            **{"user": [prompt.user for prompt, _ in rows], **columns},
        )
        told = [np.nan if value is None else float(value) for value in values]
        if len(told) != len(rows):
            raise ContractError(
                f"a reward for TRL must give one number per row, got {len(told)} for {len(rows)}; check the function"
            )
        return checked_rewards(np.reshape(told, (len(prompts), count)), completions)

    reward.name = getattr(function, "__name__", type(function).__name__)  # pyright: ignore[reportFunctionMemberAccess]
    return reward


def to_trl(reward: RewardFunction) -> TrlReward:
    """A reward function as TRL's trainers take it in `reward_funcs`.

    The dataset's column ``user``, if any, says whose prompt a row is. Other columns, and what TRL adds, are context.
    """

    def function(*, prompts: Sequence[Any], completions: Sequence[Any], **context: Any) -> list[float]:
        users = context.get("user", range(len(prompts)))
        asked = [_prompt_from(prompt, int(user)) for prompt, user in zip(prompts, users, strict=True)]
        texts = [[one if isinstance(one, str) else str(one[-1]["content"])] for one in completions]
        return checked_rewards(reward(asked, texts, **context), texts)[:, 0].tolist()

    function.__name__ = name_of_reward(reward)
    return function


def messages_of_prompt(prompt: Prompt) -> list[dict[str, str]]:
    """The prompt as a conversation."""
    return [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.text}]


def _prompt_from(asked: Any, user: int) -> Prompt:
    if isinstance(asked, str):
        return Prompt(user, "", asked, 0, 0)
    said = {message["role"]: message["content"] for message in asked}
    return Prompt(user, said.get("system", ""), said.get("user", ""), 0, 0)
