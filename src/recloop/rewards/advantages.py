"""Reasoning-aware advantages: the part of an answer's reward that each of its tokens gets.

Axis letters: ``G`` answers of one request, ``T`` tokens, right-padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from recloop.errors import DataError
from recloop.prompts.request_answer import Answer
from recloop.settings import setting

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64

# Under LOWERED a reward nearer to 0 counts as this much. Times penalty_weight it must stay below
# reward.format_weight, or an endless answer is rewarded more than a wrong one.
PENALTY_FLOOR = 0.1


class Penalty(StrEnum):
    """The reward of a paragraph that argues for the wrong item, in place of its answer's r.

    PUBLISHED falls only on answers that choose an item, so the others get longer; and rewards are compared with the
    mean after penalties, so the rest of a wrong answer gains by its penalty.
    """

    NONE = "none"  # r, as in the rest of the answer: plain GRPO
    PUBLISHED = "published"  # (1 - w) r, which is more than the rest's when r is below 0
    LOWERED = "lowered"  # r - w max(|r|, PENALTY_FLOOR): always less than the rest's


class AdvantageConfig(BaseModel, frozen=True, extra="forbid"):
    """How answers' rewards become tokens' advantages."""

    penalty: Penalty = setting(Penalty.LOWERED, "of paragraphs that name the wrong item")
    penalty_weight: float = setting(0.3, "w_penalty", ge=0, le=1)
    std_floor: float = setting(
        0.1,
        "added to a group's standard deviation before rewards are divided by it; with TRL's 1e-4 "
        "a group of wrong answers moves the model as much as one with a right answer among them",
        gt=0,
    )


def wrong_spans(answer: Answer, right: int, *, undecided: bool = False) -> tuple[tuple[int, int], ...]:
    """Characters of the reasoning that names the chosen item, when that item is wrong; none when it is right.

    Whole paragraphs, up to the box: if the answer itself got less than reasoning without an answer, a model would
    learn not to answer (docs/log.md, "ReRec's penalty taught the model to go on").

    Args:
        right: position of the right candidate.
        undecided: where no item is chosen, the paragraphs that name others than the right one, with their boxes.
    """
    if answer.first is None and undecided:
        return tuple((p.start, p.end) for p in answer.paragraphs if p.named and right not in p.named)
    if answer.first is None or answer.first == right or answer.box is None:
        return ()
    box = answer.box[0]
    reasoning = (p for p in answer.paragraphs if p.start < box and answer.first in p.named)
    return tuple((p.start, min(p.end, box)) for p in reasoning)


def tokens_in(spans: Sequence[tuple[int, int]], token_starts_T: Int64[np.ndarray, " T"]) -> np.ndarray:
    """True for tokens whose first character is in one of these spans of the text, bool ``[T]``."""
    is_in_T = np.zeros(len(token_starts_T), dtype=bool)
    for start, end in spans:
        is_in_T |= (token_starts_T >= start) & (token_starts_T < end)
    return is_in_T


def penalised(reward: float, config: AdvantageConfig) -> float:
    """The reward of a token of a wrong paragraph, in place of `reward`.

    Source: ReRec's reasoning-aware advantage is `Penalty.PUBLISHED`, which does nothing where r is 0 and rewards the
    wrong paragraph below it.

    Example:
        >>> published, lowered = AdvantageConfig(penalty=Penalty.PUBLISHED), AdvantageConfig()
        >>> [round(penalised(r, published), 3) for r in (1.0, 0.0, -0.05)]
        [0.7, 0.0, -0.035]
        >>> [round(penalised(r, lowered), 3) for r in (1.0, 0.0, -0.05)]
        [0.7, -0.03, -0.08]
    """
    match config.penalty:
        case Penalty.NONE:
            return reward
        case Penalty.PUBLISHED:
            return (1 - config.penalty_weight) * reward
        case Penalty.LOWERED:
            return reward - config.penalty_weight * max(abs(reward), PENALTY_FLOOR)


def token_advantages(
    rewards_G: Float64[np.ndarray, " G"],
    is_wrong_GT: Bool[np.ndarray, "G T"],
    is_token_GT: Bool[np.ndarray, "G T"],
    config: AdvantageConfig,
) -> Float64[np.ndarray, "G T"]:
    """Token rewards, standardised over all tokens of the group; 0 at padding, and where all have the same reward.

    The variance over tokens is taken times G / (G - 1): without penalties and with answers of equal length this is
    GRPO's advantage of each answer.

    Args:
        rewards_G: of the answers.
        is_wrong_GT: True at tokens of paragraphs that name the wrong chosen item.
        is_token_GT: True at tokens of the answer, its end token included; False at padding.

    Raises:
        DataError: shapes disagree, a reward is not finite, or the group has fewer than two answers.
    """
    num_answers = len(rewards_G)
    if is_wrong_GT.shape != is_token_GT.shape or len(is_token_GT) != num_answers or num_answers < 2:
        raise DataError(
            f"a group needs two answers or more with masks alike, got {num_answers} rewards, wrong tokens "
            f"{is_wrong_GT.shape} and tokens {is_token_GT.shape}; pass one row per answer"
        )
    if not np.isfinite(rewards_G).all():
        raise DataError(f"rewards must be finite, got {rewards_G.tolist()}; look at the reward's terms")
    lowered_G = np.array([penalised(float(reward), config) for reward in rewards_G])
    rewards_GT = np.where(is_wrong_GT, lowered_G[:, None], rewards_G[:, None])
    rewards = rewards_GT[is_token_GT]
    if len(rewards) == 0 or np.ptp(rewards) == 0:
        return np.zeros(is_token_GT.shape)
    is_published = config.penalty is Penalty.PUBLISHED
    baseline_GT = rewards_GT if is_published else np.broadcast_to(rewards_G[:, None], rewards_GT.shape)
    mean = float(baseline_GT[is_token_GT].mean())
    variance = float(((rewards - mean) ** 2).mean()) * num_answers / (num_answers - 1)
    return np.where(is_token_GT, (rewards_GT - mean) / (np.sqrt(variance) + config.std_floor), 0.0)
