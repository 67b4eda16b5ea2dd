"""The report of a run, filled from what its steps left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from safetensors.numpy import load_file

from recloop.evaluation import report_sections as parts
from recloop.evaluation.labels import EMPTY_LISTS, in_table_order, metric_title, reward_title, variant_label
from recloop.evaluation.report import report_step
from recloop.evaluation.report_sections import (
    Chart,
    Charts,
    Note,
    PlainTable,
    RewardSummary,
    Section,
    curve_of,
    logged_rows,
)
from recloop.evaluation.score import chance_of_lists
from recloop.evaluation.tables import VariantTable
from recloop.llm.bundled import columns_fact
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import SCORES
from recloop.methods.dpo4rec.generate import REWARD, TEST, fixed_texts, read_user_texts
from recloop.methods.dpo4rec.names import NO_TEXT, PUBLISHED_TEXT, RANDOM_LABELS_OF, SHUFFLED, TRAINED, UNTUNED
from recloop.methods.dpo4rec.reward import COUNTS, PAIRS, RELIABILITY, REWARDS, read_pairs, read_rewards, reward_name
from recloop.methods.study import Study
from recloop.prompts.text_truth import assess_texts
from recloop.records import UserCompletions
from recloop.rerankers.metrics import compute_metric
from recloop.rewards.preference_pairs import PairSet
from recloop.rewards.reliability import Reliability

T = TypeVar("T")
Row = Mapping[str, Any]

FITS_SHOWN = (NO_TEXT, SHUFFLED, UNTUNED, *RANDOM_LABELS_OF.values(), TRAINED)
TRUTH = (
    "", "Texts", "Words", "Values named", "in the history", "true", "Titles named", "in the history", "true",
    "Canonical form", "Repeating", "Same text",
)  # fmt: skip
LIKED_BY_RATING = (
    "A value is liked if at least two items carry it and their mean rating is above the user's mean, disliked below it "
    "(without ratings: liked if two items carry it). A title is liked if it was rated above the mean."
)
LIKED_BY_SHARE = (
    "A value is liked if clearly more items carry it than in train users' histories, disliked if clearly fewer do. "
    "A title is liked if it was rated above the user's mean, or if there are no ratings."
)
HOW_TRAINED = {
    "dpo": "The best and worst completion of a user make a preference pair, and the pairs train the language model in "
    "{} of DPO.",
    "sft": "The language model is fine-tuned on the best completion of each user in {}.",
    "grpo": "The language model is reinforced by the rewards of what it writes in {} of GRPO.",
}
SHARES = (0.25, 0.5, 0.75)  # places of a ranking at which examples are taken, so that nobody picks them


def report_run(study: Study, task: Task, tables: Sequence[VariantTable]) -> None:
    """Write ``report.html`` into the run folder."""
    report_step(study, lambda: make_report(study, task, tables))


def make_report(study: Study, task: Task, tables: Sequence[VariantTable]) -> parts.Report:
    """Everything the report shows; what only one seed can show is the first seed's."""
    config = study.config
    rounds = "1 round" if config.rounds == 1 else f"{config.rounds} rounds"
    own_rows = [row for row in logged_rows(study.run) if row.get("seed") == config.seeds[0]]
    num_rewarded = 0 if config.train == "grpo" else config.rounds  # GRPO rewards what it samples itself
    rewards = tuple(reward_summary(study, task, round) for round in range(num_rewarded))
    rewarded_by = reward_title(reward_name(study), config.reward.cross_fit)
    source = "A frozen reward model" if study.own.reward is None and config.reward.by == "reranker" else "A function"
    summary = (
        "A language model writes what it infers about each user, and a reranker reads it. "
        f"{source} gives each completion a reward ({rewarded_by}). {HOW_TRAINED[config.train].format(rounds)}"
    )
    if not config.uses_lm:
        summary = "Rerankers of the same lists and users, compared without a language model."
    examples = example_sections(study, task, rewards[0]) if rewards else ()
    training = training_sections(study, own_rows)
    sections = (Section("rewards", "Rewards", rewards), *training, truth_section(study, task), *examples)
    return parts.run_report(study.run, f"DPO4Rec on {task.log.name}", summary, facts(study, task), tables, sections)


def training_sections(study: Study, rows: Sequence[Row]) -> tuple[Section, ...]:
    """How the language model and the evaluators were trained."""
    note = Note(
        {
            "dpo": "Log-probabilities the model gives to chosen and rejected completions while it is trained. They "
            "should part. When both fall far together, the model is forgetting how to write.",
            "sft": "How well the model predicts the best completions while it is trained.",
            "grpo": "Rewards of the completions that the model writes while it is trained, and their length.",
        }[study.config.train]
    )
    curves = Note("Rerankers while they are fitted, on validation users; the best epoch is kept.")
    fits = Charts(tuple(fit_chart(rows, backbone) for backbone in study.config.backbones))
    return (
        Section(
            "training",
            "Training",
            (note, Charts(training_charts(study.config.train, rows))) if study.config.rounds else (),
        ),
        Section("fits", "Learning curves", (curves, fits)),
    )


def truth_section(study: Study, task: Task) -> Section:
    """What the texts about test users name, and how much of it is true, before and after training."""
    rates, histories = task.population_rates, task.lists.histories
    texts = texts_of_test_users(study, task)
    found = {name: assess_texts(task.log, histories, texts[name], rates) for name in in_table_order(texts)}
    note = Note(
        "Values and titles are found in the texts about test users by their words. One is in the history if an item "
        "of the user's whole history carries it. It is true if the history supports what the text says: likes or "
        f"dislikes. {LIKED_BY_SHARE if rates else LIKED_BY_RATING} What a text names without saying either counts as "
        "named only. Likes and dislikes are read by cue words: in prose about one in ten of those read is wrong, and "
        "some are missed. Same text: share of users with a text that another user has too."
    )
    rows = tuple(
        (
            variant_label(name).label, f"{one.num_texts:,}", f"{one.words:.0f}", f"{one.values:.1f}",
            *map(percent, (one.grounded, one.true)), f"{one.titles:.1f}",
            *map(percent, (one.titles_grounded, one.titles_true, one.in_form, one.repeating, one.same_text)),
        )
        for name, one in found.items()
    )  # fmt: skip
    return Section(
        "truth", "What the texts say", (note, PlainTable("Texts about test users", TRUTH, rows)) if rows else ()
    )


def texts_of_test_users(study: Study, task: Task) -> dict[str, UserCompletions]:
    """By variant, the texts about test users that a language model wrote; the first seed's."""
    texts: dict[str, UserCompletions] = {}
    for step in study.run.manifest["steps"]:
        verb, _, key = step.partition(".")
        variant, _, seed = key.rpartition(".s")
        if verb == "sample" and seed == str(study.config.seeds[0]):
            texts[variant] = read_user_texts(study, variant, step).parts[TEST]
        elif verb == "encode" and variant == PUBLISHED_TEXT and task.log.user_knowledge is not None:
            written = dict(task.log.user_knowledge.select("user", "text").iter_rows())
            texts[variant] = fixed_texts(variant, written, task).parts[TEST]
    return {name: own for name, own in texts.items() if any(one.text for row_N in own.completions_UN for one in row_N)}


def percent(share: float) -> str:
    """As in ``83%``; a dash where nothing was counted."""
    return "\u2013" if np.isnan(share) else f"{share:.0%}"


def example_sections(study: Study, task: Task, summary: RewardSummary) -> tuple[Section, ...]:
    """Some users' completions and some test lists."""
    users, lists = user_views(study, task, summary), list_views(study, task)
    about_users = Note(
        "The history the model was shown, oldest first, and its completions, best reward first; the pair that trains "
        "the model is marked. These reward users are not picked: they stand at a quarter, half and three quarters "
        "of all, ordered by the gap between their best and worst completion."
    )
    about_lists = Note(
        "A dot marks what the user went on to like. These lists of test users, under one completion, are not picked: "
        "they stand at a quarter, half and three quarters of the lists that changed, ordered by the change."
    )
    return (
        Section("completions", "What the language model wrote", (about_users, *users) if users else ()),
        Section("lists", "Lists before and after", (about_lists, *lists) if lists else ()),
    )


def facts(study: Study, task: Task) -> tuple[tuple[str, str], ...]:
    """What was run, in a few lines."""
    config, made = study.config, study.run.manifest["steps"]["prepare"]
    counts = zip(made["num_users_with_lists"].items(), made["num_lists"].values(), strict=True)
    empty = ", ".join(f"{num:,} {group}" for group, num in made["num_lists_without_positive"].items() if num)
    chance = chance_of_lists(task.lists.test, config.primary_metric, config.metrics, config.data_seed)
    groups = "; ".join(f"{group} {users:,} with {lists:,} lists" for (group, users), lists in counts)
    fits = f" ({config.reward.num_models} fits)" if config.reward.num_models > 1 else ""
    reward_model = f"reward model {config.reranker.kind}{fits}, " if config.uses_lm else ""
    return (
        ("Data", f"{task.log.name}: {task.log.num_users:,} users, {task.log.num_items:,} items"),
        *columns_fact(made),
        ("Users", groups),
        ("Lists without a positive", f"{empty}: {EMPTY_LISTS[config.metrics.empty]}" if empty else "none"),
        ("Candidates", f"{config.protocol.kind} protocol"),
        ("Chance", f"{metric_title(config.primary_metric)} {chance:.4f} with the test candidates in random order"),
        ("Language model", config.lm.name if config.uses_lm else "none"),
        ("Text encoder", config.encoder.name),
        ("Rerankers", f"{reward_model}evaluators {', '.join(config.backbones)}"),
        *(training_facts(config) if config.uses_lm else ()),
    )


def training_facts(config: Dpo4RecConfig) -> tuple[tuple[str, str], ...]:
    """What was sampled and how it trained."""
    num, dpo, grpo = config.completions, config.dpo, config.grpo
    room = "" if num.sentences is None else f"; sentences read of each: {num.sentences}"
    rewarded = grpo.num_generations if config.train == "grpo" else num.reward
    sampled = ("Completions per user", f"{rewarded} for rewards, {num.test} for test{room}")
    if not config.rounds:
        return (sampled,)
    if config.train == "sft":
        return (sampled, ("SFT", f"learning rate {dpo.learning_rate:g}, epochs {dpo.epochs}"))
    reference = ("Reference model", f"the model before {'round 1' if config.reference == 'first' else 'each round'}")
    if config.train == "grpo":
        told = f"beta {grpo.beta:g}, learning rate {grpo.learning_rate:g}, epochs {grpo.epochs}"
        return (sampled, ("GRPO", f"{told}, temperature {grpo.temperature:g}"), reference)
    beside = f", SFT weight {dpo.sft_weight:g}" if dpo.sft_weight else ""
    return (
        sampled,
        ("DPO", f"beta {dpo.beta:g}, learning rate {dpo.learning_rate:g}, epochs {dpo.epochs}{beside}"),
        (f"DPO's {reference[0].lower()}", reference[1]),
    )


def fit_chart(rows: Sequence[Row], backbone: str) -> Chart:
    """How the evaluators of the main variants were fitted."""
    fits = [row for row in rows if row["run_step"].startswith("fit.") and row["ranker"] == backbone]
    curves = [
        curve_of(name, [row for row in fits if row["variant"] == name], "epoch", "valid_ndcg")
        for name in FITS_SHOWN
        if any(row["variant"] == name for row in fits)
    ]
    return Chart(f"Evaluators: {backbone.upper()}", "epoch", "NDCG@5 of valid users", tuple(curves))


def training_charts(train: str, rows: Sequence[Row]) -> tuple[Chart, ...]:
    """How training moved the language model, with true labels and, where they were tried, with random ones."""
    labels = (TRAINED, RANDOM_LABELS_OF[train])
    trained, random = ([row for row in rows if row.get("lm") == label] for label in labels)
    both = [(name, found) for name, found in (("trained", trained), ("random labels", random)) if found]

    def of_both(title: str, y: str, value: str) -> Chart:
        return Chart(title, "step", y, tuple(curve_of(name, found, "step", value) for name, found in both))

    entropy = of_both("Entropy", "nats per token", "entropy")
    if train == "sft":
        return (of_both("Tokens predicted", "share of the best completion's", "accuracy"), entropy)
    if train == "grpo":
        return (
            of_both("Reward", "mean of a step's completions", "reward"),
            of_both("Length", "tokens per completion", "answer_tokens"),
            entropy,
        )
    logps = tuple(curve_of(name, trained, "step", f"{name}_logp") for name in ("chosen", "rejected"))
    return (
        Chart("Log-probabilities under the trained model", "step", "nats per completion", logps),
        of_both("Implicit reward margin, chosen over rejected", "beta times log-ratio", "reward_margin"),
        entropy,
    )


def reward_summary(study: Study, task: Task, round: int) -> RewardSummary:
    """Rewards, reliability and pairs of one round of the first seed."""
    key = f"r{round}.s{study.config.seeds[0]}"
    reward, pairs = study.run.folder(f"reward.{key}"), study.run.folder(f"pairs.{key}")
    reliability = reward / RELIABILITY
    return RewardSummary(
        read_rewards(reward / REWARDS, task.log, reward_name(study)),
        Reliability(**json.loads(reliability.read_text())) if reliability.is_file() else None,
        PairSet(read_pairs(pairs / PAIRS, task.log), **json.loads((pairs / COUNTS).read_text())),
        is_cross_fitted=study.config.reward.cross_fit,
    )


def user_views(study: Study, task: Task, summary: RewardSummary) -> tuple[parts.UserView, ...]:
    """Three reward users of round 0, at the quartiles of the gap between their best and worst completion."""
    step = f"sample.{UNTUNED}.s{study.config.seeds[0]}"
    completions = read_user_texts(study, UNTUNED, step).parts[REWARD]
    titles, user_ids = task.log.items["title"].to_list(), task.log.users["user_id"].to_list()
    gaps = {pair: (pair.chosen_reward - pair.rejected_reward, pair.user) for pair in summary.pairs.pairs}
    widest = {pair.user: pair for pair in sorted(gaps, key=gaps.__getitem__)}  # of a user with several
    by_gap = sorted(widest.values(), key=gaps.__getitem__)
    views: list[parts.UserView] = []
    for pair in at_shares(by_gap):
        items, rating = task.lists.histories.of(pair.user)
        history = ((titles[i], None if np.isnan(r) else float(r)) for i, r in zip(items, rating, strict=True))
        rewards_N = summary.rewards.rewards_UN[np.searchsorted(summary.rewards.user_U, pair.user)]
        completions_N = completions.completions_UN[np.searchsorted(completions.user_U, pair.user)]
        marks: dict[int, Literal["chosen", "rejected", ""]] = {
            pair.chosen_completion: "chosen",
            pair.rejected_completion: "rejected",
        }
        shown = tuple(
            parts.CompletionView(completion.text, float(reward), marks.get(completion.completion, ""))
            for completion, reward in zip(completions_N, rewards_N, strict=True)
        )
        metric = summary.rewards.metric
        views.append(parts.UserView(user_ids[pair.user], tuple(history), metric, shown, summary.is_cross_fitted))
    return tuple(views)


def list_views(study: Study, task: Task) -> tuple[parts.ListView, ...]:
    """Three test lists before and after training, at the quartiles of the change among lists that changed."""
    config, test = study.config, task.lists.test
    scores: dict[str, np.ndarray] = {}
    for row in (UNTUNED, TRAINED):
        folder = study.run.folder(f"fit.{row}.{config.backbones[0]}.s{config.seeds[0]}")
        scores[row] = load_file(folder / SCORES)["scores_BNL"][:, 0]
    before_B, after_B = (compute_metric(config.primary_metric, scores[row], test) for row in (UNTUNED, TRAINED))
    changed = np.flatnonzero(np.nan_to_num(after_B - before_B) != 0)
    changed = changed[np.argsort((after_B - before_B)[changed], kind="stable")]
    titles, user_ids = task.log.items["title"].to_list(), task.log.users["user_id"].to_list()
    before, after = variant_label(UNTUNED).label, variant_label(TRAINED).label
    views: list[parts.ListView] = []
    for row in at_shares(changed.tolist()):
        before_L, after_L = (ranks(scores[name][row], test.is_item_BL[row]) for name in (UNTUNED, TRAINED))
        items = tuple(
            parts.RankedItem(
                titles[test.items_BL[row, i]], test.labels_BL[row, i] > 0, int(before_L[i]), int(after_L[i])
            )
            for i in np.flatnonzero(test.is_item_BL[row])
        )
        user = user_ids[test.user_B[row]]
        views.append(
            parts.ListView(user, before, after, config.primary_metric, float(before_B[row]), float(after_B[row]), items)
        )
    return tuple(views)


def ranks(scores_L: np.ndarray, is_item_L: np.ndarray) -> np.ndarray:
    """Place of every item, from 1; ties keep the input order."""
    order = np.argsort(np.where(is_item_L, -scores_L.astype(np.float64), np.inf), kind="stable")
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(1, len(order) + 1)
    return places


def at_shares(ordered: Sequence[T]) -> list[T]:
    """What stands at a quarter, half and three quarters of a sequence; fewer where it is short."""
    places = sorted({int(share * (len(ordered) - 1)) for share in SHARES}) if ordered else []
    return [ordered[place] for place in places]
