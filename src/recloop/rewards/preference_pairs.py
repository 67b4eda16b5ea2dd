"""Preference pairs: of two completions for one user, the one with the higher reward is chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel

from recloop.errors import DataError, TrainingError
from recloop.records import Completion, CompletionStatus, Pair, Prompt, Rewards, UserCompletions
from recloop.rewards.function import RewardFunction, rewards_of
from recloop.settings import setting, shown_first, validate

if TYPE_CHECKING:
    from jaxtyping import Float32


class PairConfig(BaseModel, frozen=True, extra="forbid"):
    """Which differences in reward become preference pairs."""

    mode: Literal["best_worst", "all_pairs"] = shown_first(
        "best_worst",
        "best_worst: at most one pair a user, highest against lowest reward (DPO4Rec); all_pairs: every two "
        "completions of a user that differ in reward",
    )
    min_gap: float = setting(0.0, "least difference in reward, in the metric's unit; equal rewards never pair", ge=0.0)


_REMEDIES = {
    "num_unfinished": "raise lm.max_tokens, so that completions end before the limit",
    "num_tied": "draw more completions, or reward by a finer metric such as loglik",
    "num_below_gap": "lower pairs.min_gap",
    "num_duplicates": "draw more completions, or raise lm.temperature",
    "num_unusable": "see in completions.parquet why texts are of no use",
}


@dataclass(frozen=True, slots=True)
class PairSet:
    """Preference pairs, and how many candidates were dropped for which reason.

    A candidate is a user in ``best_worst`` mode, two completions of a user in ``all_pairs`` mode. It is kept, or
    dropped for the first reason below that applies.

    num_tied: equal rewards.
    num_below_gap: the rewards differ by less than `PairConfig.min_gap`.
    num_unfinished: the better completion was cut by the token limit; it would teach to stop mid-sentence.
    num_duplicates: the language model would see the same tokens.
    num_unusable: users with fewer than two completions that have a text; other completions without one are left out.
    prompts_U: of the users, where the completions had them.
    """

    pairs: tuple[Pair, ...]
    num_candidates: int
    num_tied: int
    num_below_gap: int
    num_unfinished: int
    num_duplicates: int
    num_unusable: int = 0
    prompts_U: tuple[Prompt, ...] = ()

    def __len__(self) -> int:
        return len(self.pairs)

    def require_some(self) -> PairSet:
        """Itself; TrainingError where it is empty, with what would mend the most frequent cause."""
        if self.pairs:
            return self
        most = max(_REMEDIES, key=lambda name: getattr(self, name))
        do = _REMEDIES[most] if getattr(self, most) else "give reward users completions and lists"
        raise TrainingError(f"training needs at least one pair, got {self}; {do}")

    @property
    def share_kept(self) -> float:
        """Share of the candidates that became a pair."""
        return len(self.pairs) / self.num_candidates if self.num_candidates else 0.0

    def __str__(self) -> str:
        unusable = f", {self.num_unusable} without usable texts" if self.num_unusable else ""
        return (
            f"{len(self.pairs)} pairs, {self.share_kept:.0%} of {self.num_candidates} candidates "
            f"(dropped: {self.num_tied} tied, {self.num_below_gap} below the gap, "
            f"{self.num_unfinished} unfinished, {self.num_duplicates} duplicate texts{unusable})"
        )


def preference_pairs(
    texts: UserCompletions,
    rewards: Rewards | RewardFunction,
    *,
    mode: Literal["best_worst", "all_pairs"] = "best_worst",
    min_gap: float = 0.0,
) -> PairSet:
    """Pairs of completions for the same user, with their prompts, for `train_dpo` and `train_sft`.

    Args:
        texts: completions as `recloop.generate` gives them, for at least the users with a reward.
        rewards: one per completion, or a reward function to call.
        mode, min_gap: see `PairConfig`.

    Raises:
        DataError: see `find_pairs`, `rewards_of`.
    """
    config = validate(PairConfig, {"mode": mode, "min_gap": min_gap})
    known = rewards if isinstance(rewards, Rewards) else rewards_of(rewards, texts)
    return find_pairs(texts, known, config, str.__eq__)


def find_pairs(
    completions: UserCompletions,
    rewards: Rewards,
    config: PairConfig,
    same_after_tokenising: Callable[[str, str], bool],
) -> PairSet:
    """Pairs of completions for the same user, sorted by user, then by chosen and rejected completion.

    Where several completions share the highest (lowest) reward, the lowest completion number that gives a usable pair
    is taken.

    Args:
        completions: of at least the users with a reward.
        same_after_tokenising: True when the trained model would see two texts as the same tokens;
            `recloop.training.dataset.reply_comparer` makes one.

    Raises:
        DataError: a rewarded user has no completions or another number of them, or a reward is not finite.

    Source: DPO4Rec (arXiv 2410.05939): highest against lowest reward. Dropping ties, duplicates and cut
    completions, and ``all_pairs``, are our decisions.
    """
    counts: Counter[str] = Counter()
    pairs: list[Pair] = []
    make_options = _best_worst if config.mode == "best_worst" else _all_pairs
    for completions_N, rewards_N in _aligned(completions, rewards):
        usable = np.flatnonzero([completion.status is CompletionStatus.OK for completion in completions_N])
        if len(usable) < 2:
            counts["unusable"] += 1
            continue
        for option in make_options(rewards_N, usable):
            found = _first_usable(
                option, completions_N, rewards_N, rewards.round, config.min_gap, same_after_tokenising
            )
            counts[found if isinstance(found, str) else "kept"] += 1
            if not isinstance(found, str):
                pairs.append(found)
    pairs.sort(key=lambda pair: (pair.user, pair.chosen_completion, pair.rejected_completion))
    dropped = [counts[reason] for reason in ("tied", "below_gap", "unfinished", "duplicates", "unusable")]
    return PairSet(tuple(pairs), counts.total(), *dropped, prompts_U=completions.prompts_U)


def random_label_pairs(pairs: Sequence[Pair], seed: int) -> tuple[Pair, ...]:
    """The same pairs with random labels: chosen and rejected are exchanged in about half of them.

    A pair whose rejected completion was cut by the token limit stays as it is. Exchanged, it would teach only the
    control to stop mid-sentence, and the comparison would measure more than the labels.
    """
    is_swapped = np.random.default_rng(seed).random(len(pairs)) < 0.5
    return tuple(
        _swapped(pair) if swap and pair.is_rejected_finished else pair
        for pair, swap in zip(pairs, is_swapped, strict=True)
    )


def best_of_n(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """One pair per user, the one whose chosen completion has the highest reward: the rows of SFT on best-of-N."""
    best: dict[int, Pair] = {}
    for pair in sorted(pairs, key=lambda pair: pair.chosen_reward, reverse=True):
        best.setdefault(pair.user, pair)
    return tuple(best[user] for user in sorted(best))


# Equally good pairs (chosen completion, rejected completion) for one candidate, in the order of preference.
_Option = list[tuple[int, int]]


def _best_worst(rewards_N: Float32[np.ndarray, " N"], usable: np.ndarray) -> list[_Option]:
    best = usable[rewards_N[usable] == rewards_N[usable].max()].tolist()
    worst = usable[rewards_N[usable] == rewards_N[usable].min()].tolist()
    return [[(chosen, rejected) for chosen in best for rejected in worst]]


def _all_pairs(rewards_N: Float32[np.ndarray, " N"], usable: np.ndarray) -> list[_Option]:
    return [
        [(first, second) if rewards_N[first] >= rewards_N[second] else (second, first)]
        for first, second in combinations(usable.tolist(), 2)
    ]


def _first_usable(
    option: _Option,
    completions_N: tuple[Completion, ...],
    rewards_N: Float32[np.ndarray, " N"],
    round: int,
    min_gap: float,
    same_after_tokenising: Callable[[str, str], bool],
) -> Pair | str:
    """The pair of one candidate, or why there is none."""
    chosen_reward, rejected_reward = (float(rewards_N[completion]) for completion in option[0])
    if chosen_reward == rejected_reward:
        return "tied"
    if chosen_reward - rejected_reward < min_gap:
        return "below_gap"
    finished = [(chosen, rejected) for chosen, rejected in option if completions_N[chosen].is_finished]
    for chosen, rejected in finished:
        better, worse = completions_N[chosen], completions_N[rejected]
        if not same_after_tokenising(better.text, worse.text):
            numbers, texts = (better.user, chosen, rejected), (better.text, worse.text)
            return Pair(round, *numbers, *texts, chosen_reward, rejected_reward, worse.is_finished)
    return "duplicates" if finished else "unfinished"


def _aligned(
    completions: UserCompletions, rewards: Rewards
) -> Iterator[tuple[tuple[Completion, ...], Float32[np.ndarray, " N"]]]:
    """Each rewarded user's completions and rewards."""
    completions_of = dict(zip(completions.user_U.tolist(), completions.completions_UN, strict=True))
    for user, rewards_N in zip(rewards.user_U.tolist(), rewards.rewards_UN, strict=True):
        completions_N = completions_of.get(user, ())
        if len(completions_N) != len(rewards_N):
            raise DataError(
                f"every reward needs its completion: user {user} has {len(rewards_N)} rewards, got "
                f"{len(completions_N)} completions; pair the completions that were rewarded"
            )
        if not np.isfinite(rewards_N).all():
            raise DataError(
                f"rewards must be finite, got {rewards_N.tolist()} for user {user}; leave out users without positives"
            )
        yield completions_N, rewards_N


def _swapped(pair: Pair) -> Pair:
    numbers, texts = (pair.rejected_completion, pair.chosen_completion), (pair.rejected, pair.chosen)
    return Pair(pair.round, pair.user, *numbers, *texts, pair.rejected_reward, pair.chosen_reward)
