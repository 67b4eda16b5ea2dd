"""What the steps of DPO4Rec hand to each other: names of variants, scores, and what a seed's loop leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recloop.methods.dpo4rec.generate import UserTexts, UserTextVectors
from recloop.methods.study import LmRef
from recloop.records import Pair

NO_TEXT, ID_HISTORY, RATING_MEAN, HISTORY_TEXT = "no_text", "id_history", "rating_mean", "history_text"
AS_SHOWN, FIRST_STAGE, POPULARITY, ITEM_KNN = "as_shown", "first_stage", "popularity", "item_knn"
SHUFFLED, BEST_TEMPLATE, UNTUNED, MATCHED = "shuffled", "best_template", "untuned", "untuned_matched"
PUBLISHED_TEXT = "published_text"
SFT_BEST_OF_N, RANDOM_LABELS, TRAINED, BEST_OF_N = "sft_best_of_n", "random_label_dpo", "trained", "best_of_n"
UNTUNED_BESIDE_IDS, TRAINED_BESIDE_IDS = "untuned_beside_ids", "trained_beside_ids"
REWARD_MODEL = "reward_model"
RANDOM_LABELS_OF = {"dpo": RANDOM_LABELS, "sft": "random_label_sft", "grpo": "random_label_grpo"}  # by `train`


@dataclass(frozen=True, slots=True)
class Scored:
    """One variant under one reranker: where its scores of the test users are.

    ranker: the evaluator's backbone, or ``reward_model``.
    step: its folder holds SCORES and ROWS; in ROWS the variant is called `stored_as`.
    """

    variant: str
    ranker: str
    seed: int
    step: str
    stored_as: str


@dataclass(frozen=True, slots=True)
class Trained:
    """What the loop of one seed leaves for the variants that it is compared with.

    reward_model: steps of the frozen reward model's fits.
    reference_lm: the language model before any training.
    rounds: of training.
    pairs: of every round; none where completions were reinforced as they were written.
    texts, vectors: of the language model after the last round.
    """

    seed: int
    reward_model: Sequence[str]
    reference_lm: LmRef
    rounds: int
    pairs: Sequence[tuple[Pair, ...]]
    texts: UserTexts
    vectors: UserTextVectors


def variant_after_rounds(variant: str, rounds_done: int, num_rounds: int) -> str:
    """Name of a way of training after some of its rounds: its own after the last, else with the number."""
    return variant if rounds_done == num_rounds else f"{variant}_r{rounds_done}"
