"""The report of a run, filled from what its steps left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from safetensors.numpy import load_file

from recloop.evaluation import report_sections as parts
from recloop.evaluation.labels import EMPTY_LISTS, metric_title, reward_title, variant_label
from recloop.evaluation.report import report_step
from recloop.evaluation.report_sections import (
    Chart,
    Charts,
    Note,
    RewardSummary,
    Section,
    curve_of,
    logged_rows,
)
from recloop.evaluation.slices import bands, slices_section
from recloop.evaluation.tables import VariantTable
from recloop.evaluation.terminal import read_results
from recloop.llm.bundled import columns_fact
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import SCORES
from recloop.methods.dpo4rec.generate import REWARD, read_user_texts
from recloop.methods.dpo4rec.names import NO_TEXT, RANDOM_LABELS_OF, SHUFFLED, TRAINED, UNTUNED
from recloop.methods.dpo4rec.reward import COUNTS, PAIRS, RELIABILITY, REWARDS, read_pairs, read_rewards, reward_name
from recloop.methods.dpo4rec.truth import said_of_test_users, truth_section
from recloop.methods.study import Study
from recloop.prompts.text_truth import SAYS
from recloop.rerankers.metrics import compute_metric
from recloop.rewards.preference_pairs import PairSet
from recloop.rewards.reliability import Reliability

T = TypeVar("T")
Row = Mapping[str, Any]

FITS_SHOWN = (NO_TEXT, SHUFFLED, UNTUNED, *RANDOM_LABELS_OF.values(), TRAINED)
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
    truth = read_results(study.run.path, study.run.manifest).get("truth", {})  # a run made before has none
    found = (truth_section(truth, task), where_section(study, task, tables))
    sections = (*found, Section("rewards", "Rewards", rewards), *training, *examples)
    return parts.run_report(
        study.run, f"DPO4Rec on {task.log.name}", summary, facts(study, task, tables[0]), tables, sections
    )


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


def where_section(study: Study, task: Task, tables: Sequence[VariantTable]) -> Section:
    """Which test users gain in the first table: by history, by what they went on to like, by what their texts say."""
    table, test = tables[0], task.lists.test
    if not {TRAINED, UNTUNED} <= table.main.estimates.keys():
        return Section("where", "Where it helps", ())
    histories, user_U = task.lists.histories, table.scores[0].user_U
    taken_I = np.bincount(histories.items, minlength=task.log.num_items)
    is_met_I = np.isin(np.arange(task.log.num_items), task.lists.train.items_BL[task.lists.train.is_item_BL])

    def mean_of_liked(value_I: np.ndarray) -> np.ndarray:
        """Rounded, by user: over the items liked in the user's lists; 0 for a user who liked none."""
        row_n, place_n = np.nonzero(test.labels_BL > 0)
        user_n, value_n = test.user_B[row_n], value_I[test.items_BL[row_n, place_n]]
        sums, counts = (np.bincount(user_n, weights, task.log.num_users) for weights in (value_n, None))
        return np.rint(sums / np.maximum(counts, 1)).astype(np.int64)[user_U]

    said_U = said_of_test_users(study, task, TRAINED)[user_U]
    says = [(label, said_U == place) for place, label in enumerate(SAYS)]
    by = (
        ("By items in the history", bands(np.diff(histories.offsets_U1)[user_U])),
        ("By how many histories hold what the user went on to like", bands(mean_of_liked(taken_I))),
        ("By how much of it no train list holds, in percent", bands(mean_of_liked(100 * ~is_met_I))),
        ("By what the trained texts say", [group for group in says if group[1].any()]),
    )
    return slices_section(table, (TRAINED, UNTUNED), by)


def example_sections(study: Study, task: Task, summary: RewardSummary) -> tuple[Section, ...]:
    """Some users' completions and some test lists."""
    users, lists = user_views(study, task, summary), list_views(study, task)
    about_users = Note(
        "The history the model was shown, oldest first, and its completions, best reward first; the pair that trains "
        "the model is marked. These reward users are not picked. They stand at a quarter, half and three quarters "
        "of all, ordered by the gap between their best and worst completion."
    )
    about_lists = Note(
        "A dot marks what the user went on to like. These lists of test users, under one completion, are not picked. "
        "They stand at a quarter, half and three quarters of the lists that changed, ordered by the change."
    )
    return (
        Section("completions", "What the language model wrote", (about_users, *users) if users else ()),
        Section("lists", "Lists before and after", (about_lists, *lists) if lists else ()),
    )


def facts(study: Study, task: Task, table: VariantTable) -> tuple[tuple[str, str], ...]:
    """What was run, in a few lines."""
    config, made = study.config, study.run.manifest["steps"]["prepare"]
    counts = zip(made["num_users_with_lists"].items(), made["num_lists"].values(), strict=True)
    empty = ", ".join(f"{num:,} {group}" for group, num in made["num_lists_without_positive"].items() if num)
    groups = "; ".join(f"{group} {users:,} with {lists:,} lists" for (group, users), lists in counts)
    fits = f" ({config.reward.num_models} fits)" if config.reward.num_models > 1 else ""
    reward_model = f"reward model {config.reranker.kind}{fits}, " if config.uses_lm else ""
    return (
        ("Data", f"{task.log.name}: {task.log.num_users:,} users, {task.log.num_items:,} items"),
        *columns_fact(made),
        ("Users", groups),
        ("Lists without a positive", f"{empty}: {EMPTY_LISTS[config.metrics.empty]}" if empty else "none"),
        ("Candidates", f"{config.protocol.kind} protocol"),
        (
            "Chance",
            f"{metric_title(config.primary_metric)} {table.chance:.4f} with the test candidates in random order",
        ),
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
        curve_of(variant_label(name).label, [row for row in fits if row["variant"] == name], "epoch", "valid_ndcg")
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
