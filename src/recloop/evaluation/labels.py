"""The words of tables and reports: metrics, conventions, numbers, and the rows every study has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recloop.evaluation.report_sections import VariantKind, VariantLabel
from recloop.rerankers.metrics import MetricName

if TYPE_CHECKING:
    from recloop.evaluation.significance import Comparison, Contrast

ROW_WORDS = {
    "no_text": VariantLabel(
        "No knowledge",
        "The reranker alone: item ids and attributes, no text, no history.",
        VariantKind.WITHOUT_LM,
    ),
    "id_history": VariantLabel(
        "ID history",
        "The reranker also reads the ids and stars of exactly the items the language model is shown.",
        VariantKind.WITHOUT_LM,
    ),
    "star_mean": VariantLabel(
        "Star-weighted items",
        "In place of a text: the mean of the vectors of the items in the history, weighted by stars.",
        VariantKind.WITHOUT_LM,
    ),
    "history_text": VariantLabel(
        "History as text",
        "In place of a text about the user: the history itself, titles and stars, encoded as it is.",
        VariantKind.WITHOUT_LM,
    ),
    "published_text": VariantLabel(
        "Published text",
        "Texts that came with the data, written elsewhere by another language model.",
        VariantKind.METHOD,
    ),
    "best_template": VariantLabel(
        "Best fixed template",
        "A summary written by rule, not by a model; its attributes were chosen on validation users.",
        VariantKind.WITHOUT_LM,
    ),
    "shuffled": VariantLabel(
        "Shuffled",
        "Every user gets another user's text, the reranker is refitted: what still gains is not knowledge.",
        VariantKind.CONTROL,
    ),
    "random_label_dpo": VariantLabel(
        "Random-label DPO",
        "Trained on the same pairs, chosen and rejected swapped by coin toss: what training does by itself.",
        VariantKind.CONTROL,
    ),
    "sft_best_of_n": VariantLabel(
        "Best-of-N fine-training",
        "The language model imitates each user's best completion instead of learning from pairs.",
        VariantKind.CONTROL,
    ),
    "untuned": VariantLabel("Untuned (KAR)", "Texts of the language model as it came, as in KAR.", VariantKind.METHOD),
    "untuned_matched": VariantLabel(
        "Untuned, matched",
        "The untuned model sampled at the trained model's entropy and length: training changes both.",
        VariantKind.CONTROL,
    ),
    "trained": VariantLabel("Trained", "Texts of the language model after DPO on the rewards.", VariantKind.METHOD),
    "best_of_n": VariantLabel(
        "Best of N, cross-validated",
        "The completion is chosen on half of a user's lists and scored on the other half.",
        VariantKind.BOUND,
    ),
}
"""Rows by name."""

_METRIC_TITLES = {
    "ndcg": "NDCG",
    "map": "MAP",
    "map_min": "MAP-min",
    "map_kar": "MAP-KAR",
    "mrr": "MRR",
    "hr": "HR",
    "loglik": "Log-likelihood",
}

_METRIC_MEANINGS = {
    "ndcg": "normalised discounted cumulative gain: how high the liked items stand, 1 when they come first",
    "map": "average precision, divided by all liked items of the list (as trec_eval)",
    "map_min": "average precision, divided by the liked items or the cut-off, whichever is smaller",
    "map_kar": "average precision, divided by the hits found (KAR's code; only for comparison with papers)",
    "mrr": "one over the rank of the first liked item, 0 beyond the cut-off",
    "hr": "share of lists with a liked item before the cut-off",
    "loglik": "mean natural log-probability of a liked item by the softmax over its list; at most 0",
}


def metric_title(metric: str) -> str:
    """``map_kar@5`` as a heading: ``MAP-KAR@5``."""
    name = MetricName.parse(metric)
    return _METRIC_TITLES[name.kind] + ("" if name.k is None else f"@{name.k}")


def reward_title(metric: str, is_predicted: bool) -> str:
    """A metric as completions are paid by it: earned, or predicted from what other users' completions earned."""
    return metric_title(metric) + (", predicted from other users' completions" if is_predicted else "")


def metric_meaning(metric: str) -> str:
    """What the metric is, in half a sentence."""
    return _METRIC_MEANINGS[MetricName.parse(metric).kind]


def conventions(table: Comparison, unit: str = "user") -> str:
    """Whose mean the numbers of a table are, in one sentence."""
    seeds = "one seed" if table.num_seeds == 1 else f"{table.num_seeds} seeds"
    if unit != "user":
        return f"Mean over {table.num_users:,} test {unit}s; {seeds}."
    mean = "every user weighs the same" if table.mean == "user" else "every list weighs the same"
    empty = "left out" if table.empty == "drop" else "counted as 0"
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


def p_value(p: float) -> str:
    """A p-value as papers print it."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def seeds_agree(contrast: Contrast) -> str:
    """How many seeds lie on the side of the mean."""
    above = contrast.difference.value >= 0
    same = sum((seed > 0) if above else (seed < 0) for seed in contrast.difference.by_seed)
    return f"{same} of {contrast.num_seeds} {'above' if above else 'below'} 0"


def duration(wall_s: float) -> str:
    """Seconds as a reader says them."""
    if wall_s < 60:
        return f"{wall_s:.1f} s"
    minutes, seconds = divmod(round(wall_s), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
