"""An invented study, for tests of the report; `python tests/made_up_report.py FOLDER` to look at it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from recloop.evaluation.labels import variant_label
from recloop.evaluation.per_user_scores import VariantScores
from recloop.evaluation.report import write_report
from recloop.evaluation.report_sections import (
    Chart,
    Charts,
    CompletionView,
    Costs,
    Curve,
    ListView,
    Note,
    RankedItem,
    Report,
    RewardSummary,
    Section,
    StepCost,
    UserView,
    closing_sections,
    in_page_order,
    opening_sections,
)
from recloop.evaluation.significance import StatisticsConfig
from recloop.evaluation.tables import TableSettings, VariantTable, make_table, results_json
from recloop.records import Pair, Rewards
from recloop.rewards.preference_pairs import PairSet
from recloop.rewards.reliability import Reliability

LEVELS = {
    "no_text": 0.655,
    "id_history": 0.668,
    "rating_mean": 0.671,
    "history_text": 0.664,
    "best_template": 0.676,
    "shuffled": 0.654,
    "untuned_matched": 0.671,
    "sft_best_of_n": 0.680,
    "random_label_dpo": 0.672,
    "untuned": 0.673,
    "trained": 0.686,
    "best_of_n": 0.697,
    "reward_model_untuned": 0.670,
    "reward_model_trained": 0.685,
}
CONTRASTS = [
    ("trained", "random_label_dpo"),
    ("trained", "untuned"),
    ("trained", "shuffled"),
    ("trained", "untuned_matched"),
    ("trained", "sft_best_of_n"),
    ("trained", "rating_mean"),
    ("untuned", "no_text"),
    ("untuned", "shuffled"),
    ("shuffled", "no_text"),
    ("history_text", "trained"),
]
METRICS = (
    "ndcg@5",
    "map_min@5",
    "mrr@10",
    "hr@1",
    "ndcg@1",
    "ndcg@3",
    "ndcg@10",
    "map@5",
    "map_kar@5",
    "hr@3",
)
TRUTH = {
    "untuned": {"num_texts": 400, "true": 0.86, "titles_true": None},
    "trained": {"num_texts": 400, "true": 0.87, "titles_true": None},
}
LONG_TITLE = "Midnight at the Orchard, or How the Long Summer of the Travelling Players Ended"
EVIL_TITLE = "<script>alert('title')</script>"
FILMS = (
    *("The Lantern Keeper", "Glass Harbour", "A Winter for Two", "Nine Rivers West", "Paper Moons"),
    *("The Quiet Engine", "Salt and Ember", LONG_TITLE, "Falling Upwards", "The Cartographer"),
    *("Ode to a Tin Roof", "Brass Monkeys", EVIL_TITLE),
)


def made_up_table(num_seeds: int, num_users: int = 400) -> VariantTable:
    rng = np.random.default_rng(7)
    easy_U = rng.beta(6, 3, num_users) - 6 / 9
    scores = []
    for name, level in LEVELS.items():
        seed_SU = rng.normal(0, 0.0015, (num_seeds, 1)) + rng.normal(0, 0.05, (num_seeds, num_users))
        values_SU = level + easy_U + seed_SU
        values_SUM = np.stack([values_SU * (1 - 0.03 * m) for m in range(len(METRICS))], axis=2)
        seeds, user_U, num_lists_U = tuple(range(num_seeds)), np.arange(num_users), np.full(num_users, 9)
        scores.append(VariantScores(name, "user", "drop", METRICS, seeds, user_U, num_lists_U, values_SUM))
    settings = TableSettings(METRICS, METRICS[0], StatisticsConfig(num_resamples=2_000, num_flips=20_000), seed=0)
    return make_table("PRM, one new evaluator per variant", scores, CONTRASTS, settings, "untuned", reranker="prm")


def made_up_report(num_seeds: int) -> Report:
    tables = [made_up_table(num_seeds)]
    costs = (
        StepCost("prepare", 3.2, None, 410),
        StepCost("sample", 95.0, 412_880, 890),
        StepCost("encode", 31.4, None, 720),
        StepCost("reward_model", 12.9, None, 800),
        StepCost("train", 140.2, 1_203_112, 2_310),
        StepCost("evaluate", 61.0, None, 905),
    )
    facts = (
        ("Data", "Simulated log, 2,000 users, 300 films, signal 0.7"),
        ("Users", "1,000 train · 500 reward · 100 valid · 400 test"),
        ("Lists", "kar: 10 candidates, up to 4 liked or seen"),
        ("Language model", "bundled, 3 M parameters"),
        ("Encoder", "all-MiniLM-L6-v2, 0 of 8,000 texts cut"),
        ("Seeds", ", ".join(str(seed) for seed in range(num_seeds))),
    )
    metrics, run, _, words = closing_sections(tables, {}, facts)
    return Report(
        title="DPO4Rec on an invented film catalogue",
        summary=(
            "A language model writes what each user seems to like; a reranker that reads it is measured "
            "per user; the measurements train the language model. Does training make its texts more useful?"
        ),
        sections=in_page_order(
            *opening_sections(tables, results_json(tables, TRUTH)),
            Section("rewards", "Rewards", (reward_summary(),)),
            Section("training", "Training", (Note("Log-probabilities of completions."), Charts(training_charts()))),
            Section("fits", "Learning curves", (Charts(fit_charts()),)),
            Section("completions", "What the language model wrote", user_views()),
            Section("lists", "Lists before and after", list_views()),
            metrics,
            run,
            Section("cost", "Cost", (Costs(costs),)),
            words,
        ),
        versions={"recloop": "0.2.0", "torch": "2.13.0", "trl": "1.16.0", "Python": "3.11.7"},
    )


def fit_charts() -> tuple[Chart, ...]:
    epochs = tuple(float(epoch) for epoch in range(1, 9))
    curves = [
        Curve(title, epochs, tuple(level + 0.02 * (1 - np.exp(-epoch / 2)) for epoch in epochs))
        for title, level in (
            ("No text", 0.636),
            ("Untuned (KAR)", 0.652),
            ("Shuffled", 0.633),
            ("Trained", 0.664),
        )
    ]
    return (Chart("PRM, seed 0", "epoch", "NDCG@5 of validation users", tuple(curves)),)


def training_charts() -> tuple[Chart, ...]:
    steps = tuple(float(step) for step in range(0, 90, 3))
    rng = np.random.default_rng(3)

    def wavy(start: float, end: float) -> tuple[float, ...]:
        return tuple(start + (end - start) * step / 90 + rng.normal(0, 0.6) for step in steps)

    return tuple(
        Chart(
            title,
            "step",
            "log-probability",
            (Curve("chosen", steps, wavy(-41, chosen)), Curve("rejected", steps, wavy(-42, rejected))),
        )
        for title, chosen, rejected in (("DPO on the rewards", -38, -51), ("DPO on random labels", -43, -44))
    )


def reward_summary() -> RewardSummary:
    rng = np.random.default_rng(4)
    rewards_UN = np.clip(rng.beta(5, 3, (500, 1)) + rng.normal(0, 0.05, (500, 10)), 0, 1).astype(np.float32)
    pairs = tuple(Pair(0, user, 0, 1, "better", "worse", 0.8, 0.6) for user in range(448))
    return RewardSummary(
        Rewards(0, "ndcg@5", np.arange(500), rewards_UN),
        Reliability("ndcg@5", 0.21, 0.35, 0.24, 0.44, 480, 20),
        PairSet(pairs, 500, 31, 12, 0, 9),
    )


def user_views() -> tuple[UserView, ...]:
    rng = np.random.default_rng(5)
    texts = (
        "By genre: likes Drama, Mystery; dislikes Comedy. By director: likes Ada Marsh.",
        "By era: likes 1990s. By genre: likes Thriller; dislikes Musical. By director: likes Tom Oke.",
        "By director: likes Tom Oke.",
        "No clear preference.",
        "<b>Genre</b>: likes Drama & Romance.",
        "By era: likes 1970s, 1980s; dislikes 2000s. By genre: likes Western.",
    )
    views = []
    for user in ("1047", "233", "5120"):
        rewards = np.sort(rng.beta(5, 3, len(texts)))[::-1]
        marks = ["chosen", *[""] * (len(texts) - 2), "rejected"]
        order = rng.permutation(len(texts))
        completions = tuple(
            CompletionView(texts[order[n]], float(rewards[n]), marks[n]) for n in rng.permutation(len(texts))
        )
        history = tuple((film, float(rng.integers(1, 6))) for film in FILMS)
        views.append(UserView(user, history, "ndcg@5", completions))
    return tuple(views)


def list_views() -> tuple[ListView, ...]:
    rng = np.random.default_rng(6)
    views = []
    for user in ("88", "3021"):
        films = rng.permutation(FILMS)[:10].tolist()
        after = rng.permutation(10) + 1
        items = tuple(
            RankedItem(film, bool(after[n] <= 2 or n == 6), n + 1, int(after[n])) for n, film in enumerate(films)
        )
        views.append(
            ListView(
                user, variant_label("untuned").label, variant_label("trained").label, "ndcg@5", 0.4121, 0.8772, items
            )
        )
    return tuple(views)


if __name__ == "__main__":
    write_report(Path(sys.argv[1]), made_up_report(int(sys.argv[2]) if len(sys.argv) > 2 else 3))
