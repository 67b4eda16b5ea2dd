"""What a trained language model must beat: random labels, imitation of the best, mere entropy and length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recloop.methods.context import LmRef, Loop, derived_seed
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import (
    MATCHED,
    RANDOM_LABELS,
    SFT_BEST_OF_N,
    Scored,
    evaluate_variant,
    variant_after_rounds,
    score_reward_model,
)
from recloop.methods.dpo4rec.generate import (
    FIT,
    TEST,
    UserTexts,
    completions_wanted,
    draw,
    encode_user_texts,
    read_user_texts,
    sample_user_texts,
    sampling_note,
    write_user_texts,
)
from recloop.methods.dpo4rec.train import train_dpo_round, train_sft_round
from recloop.records import Completion, Group, Pair, UserCompletions
from recloop.rewards.preference_pairs import random_label_pairs

PROBE_USERS = 30  # train users on whom a sampling temperature is tried
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 1.6
BISECTIONS = 4  # leaves a temperature known to within 0.1
COMPLETIONS_PER_SLOT = 2  # of which the one nearest in length is taken


def evaluate_ablations(
    loop: Loop,
    task: Task,
    reward_model: Sequence[str],
    reference_lm: LmRef,
    taught: Sequence[tuple[Pair, ...]],
    trained: UserTexts,
    seed: int,
) -> list[Scored]:
    """The controls of the training, each with evaluators of its own; none where nothing was trained or reported.

    Args:
        reward model: stages of the frozen reward model's fits.
        reference model: the language model before any training.
        taught: the pairs of every round.
        trained: completions of the language model after the last round.
    """
    num_rounds = len(taught)
    if not num_rounds or loop.config.rows == "trained":
        return []
    random_lm = best_lm = reference_lm
    wants_all = loop.config.rows == "all"
    for r, pairs in enumerate(taught, start=1):
        coin_tosses = random_label_pairs(pairs, derived_seed(seed, f"{RANDOM_LABELS}_r{r}"))
        label = variant_after_rounds(RANDOM_LABELS, r, num_rounds)
        random_lm = train_dpo_round(loop, task, random_lm, reference_lm, coin_tosses, seed, label)
        if wants_all:
            best_lm = train_sft_round(
                loop, task, best_lm, pairs, seed, variant_after_rounds(SFT_BEST_OF_N, r, num_rounds)
            )
    wanted = completions_wanted(loop.config.completions, for_reward=False)
    baselines = [sample_user_texts(loop, task, random_lm, wanted, seed)]
    if wants_all:
        baselines.append(sample_user_texts(loop, task, best_lm, wanted, seed))
        baselines.append(match_untuned(loop, task, reference_lm, trained, seed))
    scored: list[Scored] = []
    for completions in baselines:
        vectors = encode_user_texts(loop, completions, seed)
        scored += evaluate_variant(loop, task, vectors, seed, completions.row)
        scored += score_reward_model(loop, task, reward_model, vectors, seed, completions.row)
    return scored


def match_untuned(loop: Loop, task: Task, lm: LmRef, like: UserTexts, seed: int) -> UserTexts:
    """Completions of the untuned language model at the entropy and the lengths of other completions; no label is read.

    Entropy: the temperature is chosen at which the untuned model finds its own completions as surprising, per
    token, as the other model found its own; surprisal is always that of the model at temperature 1.
    Length: of several completions at that temperature the one nearest in tokens to the completion it stands for.

    Args:
        lm: the untuned language model.
        like: the completions to be matched, of a trained one.
    """
    inputs = {"prompts": task.digest, "lm": lm.digest, "like": like.digest}
    with loop.stage("sample", f"{MATCHED}.s{seed}", inputs) as stage:
        if not stage.is_done:
            target = surprisal_per_token(like.parts[FIT])
            temperature = matching_temperature(loop, task, lm, target, derived_seed(seed, "probe"))
            parts: dict[str, UserCompletions] = {}
            for part in (FIT, TEST):
                wanted = like.parts[part]
                num_completions = COMPLETIONS_PER_SLOT * len(wanted.completions_UN[0])
                drawn = draw(
                    loop,
                    task,
                    lm,
                    wanted.user_U,
                    num_completions,
                    derived_seed(seed, MATCHED),
                    temperature,
                    stage.name,
                )
                parts[part] = nearest_in_length(drawn, wanted)
            tokens = write_user_texts(stage.folder, parts)
            stage.note(
                tokens=COMPLETIONS_PER_SLOT * tokens,
                temperature=temperature,
                surprisal_wanted=known(target),
                surprisal_got=known(surprisal_per_token(parts[FIT])),
                **sampling_note(loop, stage.name, parts),
            )
    return read_user_texts(loop, MATCHED, stage.name)


def matching_temperature(loop: Loop, task: Task, lm: LmRef, target: float, seed: int) -> float:
    """The temperature at which completions of `lm` have the wanted surprisal per token, by bisection.

    The configured one when the wanted surprisal is unknown (NaN).
    """
    if np.isnan(target):
        return loop.config.lm.temperature
    users = task.users_of(Group.TRAIN)[:PROBE_USERS]
    low, high = LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if surprisal_per_token(draw(loop, task, lm, users, 1, seed, middle)) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def surprisal_per_token(completions: UserCompletions) -> float:
    """Mean negative log-probability per token, in nats, at temperature 1."""
    flat = [completion for completions_N in completions.completions_UN for completion in completions_N]
    num_tokens = sum(completion.num_tokens for completion in flat)
    return -sum(completion.logp_sum for completion in flat) / max(num_tokens, 1)


def known(value: float) -> float | None:
    """The value, or None for the NaN of a language model that tells no log-probabilities."""
    return None if np.isnan(value) else value


def nearest_in_length(drawn: UserCompletions, wanted: UserCompletions) -> UserCompletions:
    """For every wanted completion, in turn, the drawn completion of that user nearest in tokens; none is taken twice.

    Both hold the same users.
    """
    taken_U: list[tuple[Completion, ...]] = []
    for drawn_N, wanted_N in zip(drawn.completions_UN, wanted.completions_UN, strict=True):
        left = list(drawn_N)
        taken: list[Completion] = []
        for slot in wanted_N:
            nearest = min(
                left, key=lambda completion: (abs(completion.num_tokens - slot.num_tokens), completion.completion)
            )
            left.remove(nearest)
            taken.append(replace(nearest, completion=slot.completion))
        taken_U.append(tuple(taken))
    return UserCompletions(wanted.user_U, tuple(taken_U))
