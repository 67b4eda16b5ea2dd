"""The variants of the main table: for each, how its texts come to be and how its evaluator reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from recloop.methods.dpo4rec import names
from recloop.methods.dpo4rec.ablations import match_untuned, random_label_texts, sft_texts, shuffled_vectors
from recloop.methods.dpo4rec.baselines import (
    best_template,
    history_texts,
    list_baselines,
    published_texts,
    rating_means,
)
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import Reading, evaluate_each, score_reward_model
from recloop.methods.dpo4rec.generate import UserTexts, UserTextVectors, encode_user_texts, sample_user_texts
from recloop.methods.dpo4rec.names import Scored, Trained
from recloop.methods.dpo4rec.reinforce import shuffled_reward_texts
from recloop.methods.study import Study

Asked = Literal["all", "fitted", "core", "trained", "without_lm"]
CORE: tuple[Asked, ...] = ("all", "fitted", "core")
FITTED: tuple[Asked, ...] = ("all", "fitted")
NO_LM: tuple[Asked, ...] = (*FITTED, "without_lm")


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the table. All share lists, users, evaluator settings and seeds: they differ by the text alone.

    name: as in results; `recloop.evaluation.labels` has what people are told.
    texts: makes them, of a seed's whole loop; None where it has nothing to make them from, and then there is no row.
        None in place of a function: the evaluator reads no text.
    asked: the values of the setting `variants` with which there is such a row.
    of_training: it is about this way of training, ``any`` about all: where nothing was trained so there is none, and
        the frozen reward model, which reads no ids, scores its texts too.
    uses_id_history: the evaluator reads the ids and ratings of the history.
    """

    name: str
    texts: Callable[[Study, Task, Any], UserTexts | UserTextVectors | None] | None
    asked: tuple[Asked, ...] = ("all",)
    of_training: Literal["dpo", "sft", "grpo", "any", ""] = ""
    uses_id_history: bool = False


def untuned_texts(study: Study, task: Task, trained: Trained) -> UserTexts:
    """What the language model wrote before any training."""
    with_rewards = trained.rounds > 0 and study.config.train != "grpo"
    return sample_user_texts(study, task, trained.reference_lm, trained.seed, with_rewards=with_rewards)


def trained_vectors(study: Study, task: Task, trained: Trained) -> UserTextVectors:  # noqa: ARG001
    """The encoded texts of the language model after the last round."""
    return trained.vectors


VARIANTS = (
    Variant(names.SHUFFLED, shuffled_vectors, CORE),
    Variant(names.RANDOM_LABELS_OF["dpo"], random_label_texts, CORE, of_training="dpo"),
    Variant(names.RANDOM_LABELS_OF["sft"], random_label_texts, CORE, of_training="sft"),
    Variant(names.RANDOM_LABELS_OF["grpo"], shuffled_reward_texts, CORE, of_training="grpo"),
    Variant(names.SFT_BEST_OF_N, sft_texts, of_training="dpo"),
    Variant(names.MATCHED, match_untuned, of_training="any"),
    Variant(names.NO_TEXT, None, NO_LM),
    Variant(names.ID_HISTORY, None, NO_LM, uses_id_history=True),
    Variant(names.UNTUNED_BESIDE_IDS, untuned_texts, FITTED, uses_id_history=True),
    Variant(names.TRAINED_BESIDE_IDS, trained_vectors, FITTED, of_training="any", uses_id_history=True),
    Variant(names.RATING_MEAN, rating_means, NO_LM),
    Variant(names.HISTORY_TEXT, history_texts, NO_LM),
    Variant(names.PUBLISHED_TEXT, published_texts, NO_LM),
)
"""Beside what the loop itself evaluates (untuned, trained) and the best fixed template, chosen among several."""


def evaluate_variants(study: Study, task: Task, seed: int, trained: Trained | None = None) -> list[Scored]:
    """Every variant that was asked for, of one seed; `trained` is its whole loop, None without a language model."""
    wanted, is_shown = study.config.variants, study.config.protocol.has_shown_tests
    scored = list_baselines(study, task, seed) if is_shown and wanted in NO_LM else []
    by_reward_model: dict[str, UserTextVectors] = {}  # what the frozen reward model scores too
    for rows in evaluate_each(study, task, seed, _readings(study, task, seed, trained, by_reward_model)):
        scored += rows
        name = rows[0].variant
        if trained and name in by_reward_model:
            scored += score_reward_model(study, task, trained.reward_model, by_reward_model[name], seed, name)
    return scored + (best_template(study, task, seed) if wanted in NO_LM else [])


def _readings(
    study: Study, task: Task, seed: int, trained: Trained | None, by_reward_model: dict[str, UserTextVectors]
) -> Iterator[Reading]:
    """What the evaluators of each variant read; texts are made when their turn comes."""
    for variant in VARIANTS:
        is_trained_so = trained and trained.rounds and variant.of_training in (study.config.train, "any")
        if study.config.variants not in variant.asked or (variant.of_training and not is_trained_so):
            continue
        vectors: UserTextVectors | None = None
        if variant.texts is not None:
            made = variant.texts(study, task, trained)
            if made is None:
                continue
            vectors = encode_user_texts(study, made, seed) if isinstance(made, UserTexts) else made
            if variant.of_training and not variant.uses_id_history:
                by_reward_model[variant.name] = vectors
        yield Reading(variant.name, vectors, variant.uses_id_history)
