"""Controls of the training: random labels, imitation of the best, mere entropy and length, other users' texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recloop.experiment.step import StepKind
from recloop.methods.dpo4rec import generate
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.generate import FIT, GROUPS, SAMPLE, TEST, UserTexts, UserTextVectors
from recloop.methods.dpo4rec.names import (
    MATCHED,
    RANDOM_LABELS,
    RANDOM_LABELS_OF,
    SFT_BEST_OF_N,
    SHUFFLED,
    Trained,
    variant_after_rounds,
)
from recloop.methods.dpo4rec.train import train_on_pairs, train_sft_round
from recloop.methods.study import LmRef, Study, derived_seed
from recloop.records import Completion, Group, UserCompletions, UserVectors
from recloop.rewards.preference_pairs import random_label_pairs

PROBE_USERS = 30  # train users on whom a sampling temperature is tried
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.1, 1.6
BISECTIONS = 4  # leaves a temperature known to within 0.1
COMPLETIONS_PER_SLOT = 2  # of which the one nearest in length is taken
SAMPLE_MATCHED = StepKind("sample", reads=SAMPLE.reads, part=MATCHED)


def random_label_texts(study: Study, task: Task, trained: Trained) -> UserTexts:
    """Texts of a model trained on the same pairs, chosen and rejected swapped by coin toss."""
    lm = reference_lm = trained.reference_lm
    name = RANDOM_LABELS_OF[study.config.train]
    for r, pairs in enumerate(trained.pairs, start=1):
        coin_tosses = random_label_pairs(pairs, derived_seed(trained.seed, f"{RANDOM_LABELS}_r{r}"))
        label = variant_after_rounds(name, r, trained.rounds)
        lm = train_on_pairs(study, task.prompts, lm, reference_lm, coin_tosses, trained.seed, label)
    return generate.sample_user_texts(study, task, lm, trained.seed)


def sft_texts(study: Study, task: Task, trained: Trained) -> UserTexts:
    """Texts of a model that imitates the best completions, on the same budget."""
    lm = trained.reference_lm
    for r, pairs in enumerate(trained.pairs, start=1):
        label = variant_after_rounds(SFT_BEST_OF_N, r, trained.rounds)
        lm = train_sft_round(study, task.prompts, lm, pairs, trained.seed, label)
    return generate.sample_user_texts(study, task, lm, trained.seed)


def shuffled_vectors(study: Study, task: Task, trained: Trained) -> UserTextVectors:  # noqa: ARG001
    """The trained texts given to other users of the same group; not to make choices."""
    rng = np.random.default_rng(derived_seed(trained.seed, SHUFFLED))
    parts = {
        part: exchange_texts(trained.vectors.parts[part], [task.users_of(group) for group in GROUPS[part]], rng)
        for part in (FIT, TEST)
    }
    return UserTextVectors(SHUFFLED, trained.vectors.digest, parts)


def exchange_texts(vectors: UserVectors, groups: Sequence[np.ndarray], rng: np.random.Generator) -> UserVectors:
    """Every user of a group gets the texts of another user of that group."""
    row_U = np.arange(len(vectors.user_U))
    for users in groups:
        rows = vectors.rows_of(users)
        row_U[rows] = rows[derangement(len(rows), rng)]
    return UserVectors(vectors.user_U, vectors.vectors_UND[row_U])


def derangement(num: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation that leaves nothing in its place: one random cycle through all (`num` of at least 2)."""
    order = rng.permutation(num)
    places = np.empty(num, dtype=np.int64)
    places[order] = np.roll(order, 1)
    return places


def match_untuned(study: Study, task: Task, trained: Trained) -> UserTexts:
    """Completions of the untuned model at the entropy and the lengths of the trained one's; no label is read.

    Entropy: the temperature is chosen at which the untuned model finds its own completions as surprising, per
    token, as the trained model found its own; surprisal is always that of the model at temperature 1.
    Length: of several completions at that temperature the one nearest in tokens to the completion it stands for.
    """
    lm, seed, like = trained.reference_lm, trained.seed, trained.texts
    inputs = {"prompts": task.digest, "lm": lm.digest, "like": like.digest}
    with study.step(SAMPLE_MATCHED, f"{MATCHED}.s{seed}", inputs) as step:
        if not step.is_done:
            target = surprisal_per_token(like.parts[FIT])
            temperature = matching_temperature(study, task, lm, target, derived_seed(seed, "probe"))
            parts: dict[str, UserCompletions] = {}
            for part in (FIT, TEST):
                wanted, draw_seed = like.parts[part], derived_seed(seed, MATCHED)
                num = COMPLETIONS_PER_SLOT * len(wanted.completions_UN[0])
                drawn = generate.sample_for(study, task, lm, wanted.user_U, num, draw_seed, temperature, step.name)
                parts[part] = nearest_in_length(drawn, wanted)
            generate.write_user_texts(study, step, parts, num_drawn=COMPLETIONS_PER_SLOT)
            got = surprisal_per_token(parts[FIT])
            step.note(temperature=temperature, surprisal_wanted=_known(target), surprisal_got=_known(got))
    return generate.read_user_texts(study, MATCHED, step.name)


def matching_temperature(study: Study, task: Task, lm: LmRef, target: float, seed: int) -> float:
    """The temperature of the wanted surprisal per token, by bisection; the configured one where that is NaN."""
    if np.isnan(target):
        return study.config.lm.temperature
    users = task.users_of(Group.TRAIN)[:PROBE_USERS]
    low, high = LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if surprisal_per_token(generate.sample_for(study, task, lm, users, 1, seed, middle)) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def surprisal_per_token(completions: UserCompletions) -> float:
    """Mean negative log-probability per token, in nats, at temperature 1."""
    flat = [one for completions_N in completions.completions_UN for one in completions_N]
    num_tokens = sum(one.num_tokens for one in flat)
    return -sum(one.logp_sum for one in flat) / max(num_tokens, 1)


def nearest_in_length(drawn: UserCompletions, wanted: UserCompletions) -> UserCompletions:
    """For every wanted completion, in turn, the drawn one of the same user nearest in tokens; none is taken twice."""
    chosen_U: list[tuple[Completion, ...]] = []
    for drawn_N, wanted_N in zip(drawn.completions_UN, wanted.completions_UN, strict=True):
        left = list(drawn_N)
        chosen: list[Completion] = []
        for slot in wanted_N:
            nearest = min(left, key=lambda one: (abs(one.num_tokens - slot.num_tokens), one.completion))
            left.remove(nearest)
            chosen.append(replace(nearest, completion=slot.completion))
        chosen_U.append(tuple(chosen))
    return UserCompletions(wanted.user_U, tuple(chosen_U))


def _known(value: float) -> float | None:
    """The value, or None for the NaN of a language model that tells no log-probabilities."""
    return None if np.isnan(value) else value
