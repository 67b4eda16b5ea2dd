"""What a tuned language model must beat: random labels, imitation of the best, mere entropy and length."""

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
    measure_row,
    row_after,
    score_judge,
)
from recloop.methods.dpo4rec.generate import (
    FIT,
    TEST,
    Knowledge,
    drafts_wanted,
    draw,
    encode_knowledge,
    read_knowledge,
    sample_knowledge,
    sampling_note,
    write_knowledge,
)
from recloop.methods.dpo4rec.train import align, imitate_best
from recloop.records import Draft, Group, Pair, UserDrafts
from recloop.rewards.preference_pairs import random_label_pairs

PROBE_USERS = 30  # train users on whom a sampling temperature is tried
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 1.6
BISECTIONS = 4  # leaves a temperature known to within 0.1
DRAFTS_PER_SLOT = 2  # of which the one nearest in length is taken


def measure_controls(
    loop: Loop,
    task: Task,
    judge: Sequence[str],
    anchor: LmRef,
    taught: Sequence[tuple[Pair, ...]],
    tuned: Knowledge,
    seed: int,
) -> list[Scored]:
    """The controls of the tuning, each with evaluators of its own; none where nothing was tuned or reported.

    Args:
        judge: stages of the frozen judge's fits.
        anchor: the language model before any tuning.
        taught: the pairs of every round.
        tuned: drafts of the language model after the last round.
    """
    num_rounds = len(taught)
    if not num_rounds or loop.config.rows == "tuned":
        return []
    random_lm = best_lm = anchor
    wants_all = loop.config.rows == "all"
    for r, pairs in enumerate(taught, start=1):
        coin_tosses = random_label_pairs(pairs, derived_seed(seed, f"{RANDOM_LABELS}_r{r}"))
        label = row_after(RANDOM_LABELS, r, num_rounds)
        random_lm = align(loop, task, random_lm, anchor, coin_tosses, seed, label)
        if wants_all:
            best_lm = imitate_best(loop, task, best_lm, pairs, seed, row_after(SFT_BEST_OF_N, r, num_rounds))
    wanted = drafts_wanted(loop.config.drafts, for_feedback=False)
    rivals = [sample_knowledge(loop, task, random_lm, wanted, seed)]
    if wants_all:
        rivals.append(sample_knowledge(loop, task, best_lm, wanted, seed))
        rivals.append(match_untuned(loop, task, anchor, tuned, seed))
    scored: list[Scored] = []
    for drafts in rivals:
        vectors = encode_knowledge(loop, drafts, seed)
        scored += measure_row(loop, task, vectors, seed, drafts.row)
        scored += score_judge(loop, task, judge, vectors, seed, drafts.row)
    return scored


def match_untuned(loop: Loop, task: Task, lm: LmRef, like: Knowledge, seed: int) -> Knowledge:
    """Drafts of the untuned language model at the entropy and the lengths of other drafts; no label is read.

    Entropy: the temperature is chosen at which the untuned model finds its own drafts as surprising, per
    token, as the other model found its own; surprisal is always that of the model at temperature 1.
    Length: of several drafts at that temperature the one nearest in tokens to the draft it stands for.

    Args:
        lm: the untuned language model.
        like: the drafts to be matched, of a tuned one.
    """
    inputs = {"prompts": task.digest, "lm": lm.digest, "like": like.digest}
    with loop.stage("sample", f"{MATCHED}.s{seed}", inputs) as stage:
        if not stage.is_done:
            target = surprisal_per_token(like.parts[FIT])
            temperature = matching_temperature(loop, task, lm, target, derived_seed(seed, "probe"))
            parts: dict[str, UserDrafts] = {}
            for part in (FIT, TEST):
                wanted = like.parts[part]
                num_drafts = DRAFTS_PER_SLOT * len(wanted.drafts_UN[0])
                drawn = draw(
                    loop,
                    task,
                    lm,
                    wanted.user_U,
                    num_drafts,
                    derived_seed(seed, MATCHED),
                    temperature,
                    stage.name,
                )
                parts[part] = nearest_in_length(drawn, wanted)
            tokens = write_knowledge(stage.folder, parts)
            stage.note(
                tokens=DRAFTS_PER_SLOT * tokens,
                temperature=temperature,
                surprisal_wanted=known(target),
                surprisal_got=known(surprisal_per_token(parts[FIT])),
                **sampling_note(loop, stage.name, parts),
            )
    return read_knowledge(loop, MATCHED, stage.name)


def matching_temperature(loop: Loop, task: Task, lm: LmRef, target: float, seed: int) -> float:
    """The temperature at which drafts of `lm` have the wanted surprisal per token, by bisection.

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


def surprisal_per_token(drafts: UserDrafts) -> float:
    """Mean negative log-probability per token, in nats, at temperature 1."""
    flat = [draft for drafts_N in drafts.drafts_UN for draft in drafts_N]
    num_tokens = sum(draft.num_tokens for draft in flat)
    return -sum(draft.logp_sum for draft in flat) / max(num_tokens, 1)


def known(value: float) -> float | None:
    """The value, or None for the NaN of a language model that tells no log-probabilities."""
    return None if np.isnan(value) else value


def nearest_in_length(drawn: UserDrafts, wanted: UserDrafts) -> UserDrafts:
    """For every wanted draft, in turn, the drawn draft of that user nearest in tokens; none is taken twice.

    Both hold the same users.
    """
    taken_U: list[tuple[Draft, ...]] = []
    for drawn_N, wanted_N in zip(drawn.drafts_UN, wanted.drafts_UN, strict=True):
        left = list(drawn_N)
        taken: list[Draft] = []
        for slot in wanted_N:
            nearest = min(left, key=lambda draft: (abs(draft.num_tokens - slot.num_tokens), draft.draft))
            left.remove(nearest)
            taken.append(replace(nearest, draft=slot.draft))
        taken_U.append(tuple(taken))
    return UserDrafts(wanted.user_U, tuple(taken_U))
