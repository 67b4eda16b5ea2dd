"""The report of a run, filled from what its stages left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from safetensors.numpy import load_file

from recloop.evaluation.labels import metric_title
from recloop.evaluation.report import write_report
from recloop.evaluation.report_sections import (
    Chart,
    CompletionView,
    Curve,
    ListView,
    RankedItem,
    ReportData,
    RewardSection,
    StageCost,
    UserView,
)
from recloop.experiment.reuse import own_stages, reused_in_words
from recloop.experiment.run_folder import METRICS
from recloop.llm.server.usage_text import describe_server_usage
from recloop.llm.shown_columns import columns_fact
from recloop.methods.dpo4rec.compare import Results
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import NO_TEXT, RANDOM_LABELS, SCORES, SHUFFLED, TRAINED, UNTUNED
from recloop.methods.dpo4rec.generate import REWARD, read_user_texts
from recloop.methods.dpo4rec.reward import COUNTS, PAIRS, RELIABILITY, REWARDS, read_pairs, read_rewards
from recloop.methods.study import Study
from recloop.rerankers.metrics import compute_metric
from recloop.rewards.preference_pairs import PairSet
from recloop.rewards.reliability import Reliability

T = TypeVar("T")
Row = Mapping[str, Any]

REPORT = "report.html"
FITS_SHOWN = (NO_TEXT, SHUFFLED, UNTUNED, RANDOM_LABELS, TRAINED)
SHARES = (
    0.25,
    0.5,
    0.75,
)  # which users and lists are shown: at these places of the ranking, not the best ones


def report_run(study: Study, task: Task, results: Results) -> None:
    """Write ``report.html`` into the run folder."""
    with study.stage("report", "", {"evaluate": study.run.digest("evaluate")}) as step:
        if not step.is_done:
            write_report(study.run.path / REPORT, report_data(study, task, results))


def report_data(study: Study, task: Task, results: Results) -> ReportData:
    """Everything the report shows; what only one seed can show is the first seed's."""
    config = study.config
    rounds = "1 round" if config.rounds == 1 else f"{config.rounds} rounds"
    rows = [json.loads(line) for line in (study.run.path / METRICS).read_text(encoding="utf-8").splitlines()]
    own_rows = [row for row in rows if row.get("seed") == config.seeds[0]]
    return ReportData(
        title=f"DPO4Rec on {task.log.name}",
        summary=(
            "A language model writes what it infers about each user, and a reranker reads it. What a frozen "
            f"reward model earns with each completion ({metric_title(config.reward.metric)} of the user's lists"
            + ("; as far as other users' completions predicts it" if config.reward.cross_fit else "")
            + f") makes preference pairs, and these trained the language model in {rounds} of DPO."
        ),
        facts=facts(study, task),
        words=results.words,
        tables=results.tables,
        fits=tuple(fit_chart(own_rows, backbone) for backbone in config.backbones),
        rewards=tuple(reward_section(study, task, round) for round in range(config.rounds)),
        training=training_charts(own_rows) if config.rounds else (),
        users=user_views(study, task) if config.rounds else (),
        lists=list_views(study, task) if config.rounds else (),
        costs=stage_costs(study.run.manifest["steps"]),
        versions=tuple(study.run.manifest["versions"].items()),
    )


def facts(study: Study, task: Task) -> tuple[tuple[str, str], ...]:
    """What was run, in a few lines."""
    config, made = study.config, study.run.manifest["steps"]["prepare"]
    counts = zip(made["num_users_with_lists"].items(), made["num_lists"].values(), strict=True)
    groups = "; ".join(f"{group} {users:,} with {lists:,} lists" for (group, users), lists in counts)
    dpo = config.dpo
    fits = f" ({config.reward.num_models} fits)" if config.reward.reward_models > 1 else ""
    room = "" if config.completions.sentences is None else f"; sentences read of each: {config.completions.sentences}"
    beside = f", likelihood {dpo.sft_weight:g}" if dpo.sft_weight else ""
    return (
        ("Data", f"{task.log.name}: {task.log.num_users:,} users, {task.log.num_items:,} items"),
        ("Users", groups),
        *columns_fact(made),
        ("Candidates", f"{config.protocol.kind} protocol"),
        ("Language model", config.lm.name),
        ("Text encoder", config.encoder.name),
        ("Rerankers", f"reward model {config.reranker.kind}{fits}, evaluators {', '.join(config.backbones)}"),
        ("Completions per user", f"{config.completions.reward} for feedback, {config.completions.test} for test{room}"),
        ("DPO", f"beta {dpo.beta:g}, learning rate {dpo.lr:g}, epochs {dpo.epochs}{beside}"),
        ("DPO's reference model", f"the model before {'round 1' if config.reference == 'first' else 'each round'}"),
        ("Seeds", ", ".join(map(str, config.seeds))),
        *(("Taken over", line) for line in reused_in_words(study.run.manifest["steps"])),
        *(("Sampling", line) for line in describe_server_usage(own_stages(study.run.manifest["steps"]))),
    )


def fit_chart(rows: Sequence[Row], backbone: str) -> Chart:
    """How the main rows' evaluators learnt."""
    fits = [row for row in rows if row["stage"].startswith("fit.") and row["ranker"] == backbone]
    curves = [
        curve(name, [row for row in fits if row["variant"] == name], "epoch", "valid_ndcg")
        for name in FITS_SHOWN
        if any(row["variant"] == name for row in fits)
    ]
    return Chart(f"Evaluators: {backbone.upper()}", "epoch", "NDCG@5 of valid users", tuple(curves))


def training_charts(rows: Sequence[Row]) -> tuple[Chart, ...]:
    """How DPO moved the log-probabilities, with true labels and, where they were tried, with random ones."""
    trained, random = ([row for row in rows if row.get("lm") == label] for label in (TRAINED, RANDOM_LABELS))
    logps = [curve(name, trained, "step", f"{name}_logp") for name in ("chosen", "rejected")]
    both = [(name, found) for name, found in (("trained", trained), ("random labels", random)) if found]
    margins = [curve(name, found, "step", "reward_margin") for name, found in both]
    entropies = [curve(name, found, "step", "entropy") for name, found in both]
    return (
        Chart("Log-probabilities under the trained model", "step", "nats per completion", tuple(logps)),
        Chart("Implicit reward margin, chosen over rejected", "step", "beta times log-ratio", tuple(margins)),
        Chart("Entropy", "step", "nats per token", tuple(entropies)),
    )


def curve(name: str, rows: Sequence[Row], x: str, y: str) -> Curve:
    """One line of a chart from rows of metrics.jsonl."""
    return Curve(name, tuple(row[x] for row in rows), tuple(row[y] for row in rows))


def reward_section(study: Study, task: Task, round: int) -> RewardSection:
    """Rewards, reliability and pairs of one round of the first seed."""
    key = f"r{round}.s{study.config.seeds[0]}"
    reward, pairs = study.run.folder(f"reward.{key}"), study.run.folder(f"pairs.{key}")
    return RewardSection(
        read_rewards(reward / REWARDS, task, study.config.reward.metric),
        Reliability(**json.loads((reward / RELIABILITY).read_text())),
        PairSet(read_pairs(pairs / PAIRS, task), **json.loads((pairs / COUNTS).read_text())),
        is_predicted=study.config.reward.cross_fit,
    )


def user_views(study: Study, task: Task) -> tuple[UserView, ...]:
    """Three reward users of round 0, at the quartiles of the gap between their best and worst completion."""
    section = reward_section(study, task, 0)
    completions = read_user_texts(study, UNTUNED, f"sample.{UNTUNED}.s{study.config.seeds[0]}").parts[REWARD]
    titles = task.log.items["title"].to_list()
    user_ids = task.log.users["user_id"].to_list()
    by_gap = sorted(section.pairs.pairs, key=lambda pair: (pair.chosen_reward - pair.rejected_reward, pair.user))
    views: list[UserView] = []
    for pair in at_shares(by_gap):
        items, rating = task.lists.histories.of(pair.user)
        history = ((titles[i], None if np.isnan(s) else float(s)) for i, s in zip(items, rating, strict=True))
        rewards_N = section.rewards.rewards_UN[np.searchsorted(section.rewards.user_U, pair.user)]
        completions_N = completions.completions_UN[np.searchsorted(completions.user_U, pair.user)]
        marks: dict[int, Literal["chosen", "rejected", ""]] = {
            pair.chosen_completion: "chosen",
            pair.rejected_completion: "rejected",
        }
        shown = (
            CompletionView(completion.text, float(reward), marks.get(completion.completion, ""))
            for completion, reward in zip(completions_N, rewards_N, strict=True)
        )
        views.append(
            UserView(
                user_ids[pair.user],
                tuple(history),
                section.rewards.metric,
                tuple(shown),
                is_predicted=section.is_predicted,
            )
        )
    return tuple(views)


def list_views(study: Study, task: Task) -> tuple[ListView, ...]:
    """Three test lists before and after training, at the quartiles of the change among lists that changed."""
    config, test = study.config, task.lists.test
    scores: dict[str, np.ndarray] = {}
    for row in (UNTUNED, TRAINED):
        folder = study.run.folder(f"fit.{row}.{config.backbones[0]}.s{config.seeds[0]}")
        scores[row] = load_file(folder / SCORES)["scores_BNL"][:, 0]
    before_B, after_B = (compute_metric(config.primary_metric, scores[row], test) for row in (UNTUNED, TRAINED))
    changed = np.flatnonzero(np.nan_to_num(after_B - before_B) != 0)
    changed = changed[np.argsort((after_B - before_B)[changed], kind="stable")]
    titles = task.log.items["title"].to_list()
    user_ids = task.log.users["user_id"].to_list()
    views: list[ListView] = []
    for row in at_shares(changed.tolist()):
        before_L, after_L = (ranks(scores[name][row], test.is_item_BL[row]) for name in (UNTUNED, TRAINED))
        items = tuple(
            RankedItem(titles[test.items_BL[row, i]], test.labels_BL[row, i] > 0, int(before_L[i]), int(after_L[i]))
            for i in np.flatnonzero(test.is_item_BL[row])
        )
        user = user_ids[test.user_B[row]]
        views.append(
            ListView(user, UNTUNED, TRAINED, config.primary_metric, float(before_B[row]), float(after_B[row]), items)
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


def stage_costs(stages: Mapping[str, Mapping[str, Any]]) -> tuple[StageCost, ...]:
    """Time, tokens and memory by verb, all seeds and rows together; without what another run did."""
    costs: dict[str, StageCost] = {}
    for name, entry in own_stages(stages).items():
        verb = name.partition(".")[0]
        old = costs.get(verb, StageCost(verb, 0.0, None, 0.0))
        tokens = entry.get("tokens")
        costs[verb] = StageCost(
            verb,
            old.wall_s + entry["wall_s"],
            old.num_tokens if tokens is None else (old.num_tokens or 0) + tokens,
            max(old.peak_memory_mib or 0.0, entry["peak_memory_bytes"] / 2**20),
        )
    return tuple(costs.values())
