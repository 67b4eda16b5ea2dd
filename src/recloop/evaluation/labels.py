"""The words of tables and reports: variants, metrics, conventions and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from recloop.errors import SettingError

if TYPE_CHECKING:
    from recloop.evaluation.significance import Comparison, Contrast, Estimate

CHANCE = "chance"  # candidates in random order
NEARNESS = "how much nearer the text is to liked candidates than to the others"  # `EmbeddingReward`
EMPTY_LISTS = {"drop": "left out", "zero": "counted as 0"}  # those without a positive, by the setting metrics.empty
NAMED = 4  # variants named in one sentence; the rest are counted
REWARD_MODEL_PREFIX = "reward_model_"  # of a variant that the reward model scores in place of an evaluator


class VariantKind(StrEnum):
    """Under which heading a variant stands; the value is the heading."""

    WITHOUT_LM = "Without a language model"
    CONTROL = "Controls: what a real gain has to beat"
    METHOD = "Language model"
    BOUND = "Knows more than is known in use"
    REWARD_MODEL = "Seen by the reward model that gave the rewards"


@dataclass(frozen=True, slots=True)
class VariantLabel:
    """A variant of a table in words.

    name: short and stable; files and contrasts refer to it.
    label: as tables print it.
    sentence: what it is, for a reader who has not seen the code.
    """

    name: str
    label: str
    sentence: str
    kind: VariantKind


_WITHOUT_LM = (
    (CHANCE, "Chance", "The candidates in random order: the expected value."),
    ("as_shown", "As shown", "The order that users were shown; clicks that fall with the place favour it."),
    ("first_stage", "First stage", "Candidates by the scores that came with the lists."),
    ("popularity", "Popularity", "Candidates by how often training users or sessions chose them."),
    ("item_knn", "Item kNN", "Candidates by the cosine of who chose them, in training, with who chose the history."),
    ("sasrec", "SASRec", "Self-attention over item ids, fitted on the same sessions."),
    ("no_text", "No text", "The reranker alone: item ids and attributes, no text, no history."),
    ("id_history", "ID history", "The reranker also reads ids and ratings of the items the language model is shown."),
    ("rating_mean", "Rating-weighted items", "The text is replaced by the rating-weighted mean of the item vectors."),
    ("history_text", "History as text", "The text is replaced by the history itself: titles and ratings, encoded."),
    ("best_template", "Best fixed template", "A summary by a fixed rule; its attributes were chosen on valid users."),
)
_CONTROLS = (
    ("shuffled", "Shuffled", "Every user gets another user's text and the reranker is fitted again."),
    (
        "random_label_dpo",
        "Random-label DPO",
        "Trained on the same pairs with chosen and rejected swapped at random: what training does by itself.",
    ),
    (
        "random_label_sft",
        "Random-label SFT",
        "Fine-tuned on each user's best or worst completion, by coin toss: what training does by itself.",
    ),
    (
        "random_label_grpo",
        "Random-label GRPO",
        "Reinforced by the same rewards, dealt out by chance: what training does by itself.",
    ),
    ("sft_best_of_n", "SFT on best-of-N", "Fine-tuned on each user's best completion instead of on pairs."),
    ("grpo_ndcg", "GRPO, NDCG only", "Reinforced by the rank of the right item and the format alone."),
    ("no_penalty", "ReRec, no penalty", "Every token of an answer gets the same advantage."),
    ("published_penalty", "ReRec, published penalty", "Tokens of wrong paragraphs get (1 - w) r."),
    ("no_qas", "ReRec, no QAS", "Without the query alignment score on the item-attribute graph."),
    ("no_pas", "ReRec, no PAS", "Without the preference alignment score of item embeddings."),
    ("no_curriculum", "ReRec, no curriculum", "Every epoch asks every request."),
    (
        "published_curriculum",
        "ReRec, published curriculum",
        "Requests without any reward are asked again at once, and the steps saved are not spent.",
    ),
    ("no_hint", "No hint", "The language model as it is; also the policy that never gives a hint."),
    ("random_hint", "Random hint", "A hint of the base, drawn at random."),
    ("best_single", "Best single hint", "The hint with the highest reward in the training sessions, for all."),
    ("lin_ucb", "LinUCB", "A linear bandit that met training sessions one by one."),
    ("neighbours", "Nearest sessions", "The hint with the highest reward in the nearest training sessions."),
    ("ridge", "Ridge regression", "Supervised: predicts the reward of every hint and takes the best."),
    (
        "untuned_matched",  # sampled from the base model: after those that are trained
        "Untuned, matched",
        "The base model sampled at the trained model's entropy and length: training changes both.",
    ),
)
_METHODS = (
    ("published_text", "Published text", "Texts that came with the data, written by another language model."),
    ("untuned", "Untuned (KAR)", "Texts of the base model, as in KAR."),
    ("trained", "Trained", "Texts of the language model trained on the rewards."),
    ("untuned_beside_ids", "Untuned and ID history", "The reranker reads the untuned text beside the ID history."),
    ("trained_beside_ids", "Trained and ID history", "The reranker reads the trained text beside the ID history."),
    ("base_model", "Base model", "The language model before any training."),
    ("supervised", "Supervised", "Fine-tuned on canonical answers to other users' requests."),
    ("rerec", "ReRec", "With query and preference alignment, reasoning-aware advantages and curriculum."),
    ("ppo", "Re2LLM (PPO)", "The policy reads the session's vector and chooses a hint."),
)
_BOUNDS = (
    (
        "best_of_n",
        "Best of N, cross-validated",
        "The untuned model's completion is chosen on half of a user's test lists and scored on the other half.",
    ),
    ("known_hint", "Known hint", "The hint that names the deciding attribute: known in simulated data only."),
    ("best_hint", "Best hint in hindsight", "Chosen by the answer it is scored with: no policy can reach it."),
)

LABELS = {
    name: VariantLabel(name, label, sentence, kind)
    for kind, group in (
        (VariantKind.WITHOUT_LM, _WITHOUT_LM),
        (VariantKind.CONTROL, _CONTROLS),
        (VariantKind.METHOD, _METHODS),
        (VariantKind.BOUND, _BOUNDS),
    )
    for name, label, sentence in group
}
"""Every built-in variant by name, in the order of tables."""


def base_variant(name: str) -> str:
    """The variant that a round's (``trained_r1``) or the reward model's (``reward_model_trained``) is a form of."""
    name = name.removeprefix(REWARD_MODEL_PREFIX)
    base, _, number = name.rpartition("_r")
    return base if number.isdigit() else name


def ranker_of(name: str, evaluator: str) -> str:
    """What ranks the lists of a variant: the reward model, or the evaluators of the table."""
    return "reward_model" if name.startswith(REWARD_MODEL_PREFIX) else evaluator


def variant_label(name: str, own: Iterable[VariantLabel] = ()) -> VariantLabel:
    """The label of a variant, also after some rounds or under the reward model.

    Args:
        own: labels of variants that are not built in.

    Raises:
        SettingError: nobody gave the variant a label.
    """
    known = LABELS | {one.name: one for one in own}
    found = known.get(base_variant(name))
    if found is None:
        raise SettingError(f"every variant of a table needs a label, got none for {name}; pass a VariantLabel for it")
    _, _, number = name.rpartition("_r")
    if number.isdigit():
        found = replace(found, label=f"{found.label}, round {number}")
    if name.startswith(REWARD_MODEL_PREFIX):
        sentence = f"The frozen reward model reads: {found.sentence[0].lower()}{found.sentence[1:]}"
        found = replace(found, label=f"Reward model: {found.label}", sentence=sentence, kind=VariantKind.REWARD_MODEL)
    return replace(found, name=name)


def in_table_order(names: Iterable[str], own: Iterable[VariantLabel] = ()) -> list[str]:
    """Names of variants by kind, then as `LABELS` and `own` list them; equals keep their order."""
    own = tuple(own)
    order = [*LABELS, *(one.name for one in own if one.name not in LABELS)]
    kinds = list(VariantKind)
    return sorted(names, key=lambda n: (kinds.index(variant_label(n, own).kind), order.index(base_variant(n))))


_METRICS = {  # title, meaning
    "ndcg": ("NDCG", "normalised discounted cumulative gain: how high the liked items stand, 1 when they come first"),
    "map": ("MAP", "average precision, divided by all liked items of the list (as trec_eval)"),
    "map_min": ("MAP-min", "average precision, divided by the liked items or the cut-off, whichever is smaller"),
    "map_kar": ("MAP-KAR", "average precision, divided by the hits found (KAR's code; only to compare with papers)"),
    "mrr": ("MRR", "one over the rank of the first liked item, 0 beyond the cut-off"),
    "hr": ("HR", "share of lists with a liked item before the cut-off"),
    "loglik": (
        "Log-likelihood",
        "mean natural log-probability of a liked item by the softmax over its list; at most 0",
    ),
}


def metric_title(metric: str) -> str:
    """``map_kar@5`` as a heading: ``MAP-KAR@5``."""
    from recloop.rerankers.metrics import MetricName

    name = MetricName.parse(metric)
    return _METRICS[name.kind][0] + ("" if name.k is None else f"@{name.k}")


def reward_title(metric: str, is_cross_fitted: bool) -> str:
    """What a completion is rewarded with: a metric, measured or predicted from others' completions, or a function."""
    try:
        title = metric_title(metric)
    except SettingError:  # a reward function's own name
        title = NEARNESS if metric == "embedding" else metric
    return title + (", predicted from other users' completions" if is_cross_fitted else "")


def metric_meaning(metric: str) -> str:
    """What the metric is, in half a sentence."""
    from recloop.rerankers.metrics import MetricName

    return _METRICS[MetricName.parse(metric).kind][1]


def conventions(table: Comparison, unit: str = "user") -> str:
    """What the means of a table are taken over, in one sentence."""
    seeds = "one seed" if table.num_seeds == 1 else f"{table.num_seeds} seeds"
    if unit != "user":
        return f"Mean over {table.num_users:,} test {unit}s; {seeds}."
    mean = "every user weighs the same" if table.mean == "user" else "every list weighs the same"
    empty = EMPTY_LISTS[table.empty]
    return (
        f"{table.mean.capitalize()} mean ({mean}) over {table.num_users:,} test users with "
        f"{table.num_lists:,} lists; lists without a liked item are {empty}; {seeds}."
    )


def number(value: float) -> str:
    """Four decimals, with a true minus sign."""
    return f"{value:.4f}".replace("-", "−")


def signed(value: float) -> str:
    """Four decimals, always with a sign."""
    return f"{value:+.4f}".replace("-", "−")


def short(value: float, *, sign: bool = False) -> str:
    """Three decimals without the leading zero, four where three are zeros: ``.024``."""
    decimals = 3 if abs(value) >= 0.0005 or value == 0 else 4
    text = f"{value:+.{decimals}f}" if sign and value else f"{value:.{decimals}f}"
    return re.sub(r"(?<!\d)0\.", ".", text).replace("-", "−")


def interval(estimate: Estimate) -> str:
    """``[.019, .028]``."""
    return f"[{short(estimate.low)}, {short(estimate.high)}]"


def at_most(names: Sequence[str]) -> list[str]:
    """The first `NAMED` names and the number of the others; all of them where one more is left."""
    more = len(names) - NAMED
    return list(names) if more < 2 else [*names[:NAMED], f"{more} others"]


def in_words(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([*([", ".join(names[:-1])] if names[:-1] else []), *names[-1:]])


def p_value(p: float) -> str:
    """A p-value as papers print it."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def seeds_agree(contrast: Contrast) -> str:
    """How many seeds lie on the side of the mean."""
    above = contrast.difference.value >= 0
    same = sum((seed > 0) if above else (seed < 0) for seed in contrast.difference.by_seed)
    return f"{same} of {contrast.num_seeds} {'above' if above else 'below'} 0"
