"""Test requests answered by every language model of a study, the tables they make, and the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from recloop.data.sessions import SessionTask
from recloop.evaluation.per_user_scores import VariantScores, join_seeds, read_variant_scores, write_variant_scores
from recloop.evaluation.report import write_report
from recloop.evaluation.report_sections import Chart, Curve, ReportData, VariantKind, VariantLabel, TableSection
from recloop.evaluation.significance import compare
from recloop.experiment.run_folder import METRICS
from recloop.files import atomic_write_json
from recloop.llm.cache import CompletionCache
from recloop.llm.language_model import Sampling
from recloop.llm.sampling import sample_completions
from recloop.llm.bundled import columns_fact
from recloop.methods.context import LmRef, derived_seed
from recloop.methods.dpo4rec.compare import RESULTS, Results, metric_rows, results_json
from recloop.methods.dpo4rec.generate import COMPLETIONS_FILE
from recloop.methods.dpo4rec.report import REPORT, stage_costs
from recloop.methods.re2llm.policies import ITEM_KNN, POPULARITY, SASREC
from recloop.methods.re2llm.policies import WORDS as HINT_WORDS
from recloop.methods.rerec.data import RequestTask, Study, TestSet
from recloop.methods.rerec.forgetting import evaluate_retention
from recloop.methods.rerec.next_item_eval import NEXT_METRICS
from recloop.methods.rerec.next_item_eval import next_item_rows, rank_next
from recloop.methods.rerec.train import SUPERVISED
from recloop.prompts.request_answer import AnswerStatus, read_answer
from recloop.records import Completion, Request
from recloop.rewards.request_reward import ndcg_of

CHANCE, SHIPPED, PLAIN, FULL = "chance", "shipped", "grpo_ndcg", "rerec"
ROWS, TEXTS = "rows.parquet", "answers.json"
ACCURACY = "hr@1"
MEASURED = (ACCURACY, "ndcg@5")
WORDS = {
    **{name: HINT_WORDS[name] for name in (POPULARITY, ITEM_KNN, SASREC)},
    CHANCE: VariantLabel("Chance", "One of the candidates, drawn blindly: its expected value.", VariantKind.WITHOUT_LM),
    SHIPPED: VariantLabel("As shipped", "The language model as it came.", VariantKind.METHOD),
    SUPERVISED: VariantLabel(
        "Supervised", "Fine-tuned on canonical answers to other users' requests.", VariantKind.METHOD
    ),
    PLAIN: VariantLabel(
        "GRPO, NDCG only", "Reinforced by the rank of the right item and the form alone.", VariantKind.CONTROL
    ),
    FULL: VariantLabel(
        "ReRec",
        "With query and preference alignment, reasoning-aware advantages, curriculum.",
        VariantKind.METHOD,
    ),
    "no_penalty": VariantLabel("ReRec, no penalty", "Every token of an answer is paid alike.", VariantKind.CONTROL),
    "published_penalty": VariantLabel(
        "ReRec, published penalty", "Wrong paragraphs are paid (1 - w) r.", VariantKind.CONTROL
    ),
    "no_qas": VariantLabel("ReRec, no QAS", "Without alignment on the item-attribute graph.", VariantKind.CONTROL),
    "no_pas": VariantLabel("ReRec, no PAS", "Without alignment of item embeddings.", VariantKind.CONTROL),
    "no_curriculum": VariantLabel("ReRec, no curriculum", "Every epoch asks everything.", VariantKind.CONTROL),
    "published_curriculum": VariantLabel(
        "ReRec, published curriculum",
        "Requests that nothing met do not sit out an epoch, and what is saved is not spent.",
        VariantKind.CONTROL,
    ),
}


@dataclass(frozen=True, slots=True)
class Answered:
    """What one language model of one seed did.

    stages: hold ROWS and TEXTS of the test requests, by name of the test set.
    kept: holds ROWS of the skills that were not trained; None when they were not looked at.
    next: holds the ranks of next items; None when they were not asked for.
    """

    row: str
    seed: int
    stages: Mapping[str, str]
    kept: str | None
    next: str | None


def answer_tests(
    study: Study, tests: Sequence[TestSet], next_items: SessionTask | None, lm: LmRef, seed: int
) -> Answered:
    """Have the model answer every test request, here and elsewhere, and look at what else it can do."""
    stages = {one.name: _answer(study, one, lm, seed) for one in tests}
    kept = _look_at_retention(study, lm, seed)
    return Answered(lm.label, seed, stages, kept, rank_next(study, next_items, lm, seed))


def _answer(study: Study, tests: TestSet, lm: LmRef, seed: int) -> str:
    """Answers scored by the written rule; the stage that holds them."""
    config, requests = study.config, tests.requests
    sampling = Sampling(
        config.answering.completions,
        config.answering.temperature,
        config.lm.top_p if config.answering.temperature else 1.0,
        config.lm.max_tokens,
        seed if config.answering.temperature else 0,  # the likeliest answer has no seed
    )
    key = ".".join(part for part in (f"{lm.label}.s{seed}", tests.name) if part)
    with study.stage("sample", key, {"lm": lm.digest, "requests": tests.digest}) as stage:
        if not stage.is_done:
            with CompletionCache(study.run.path / COMPLETIONS_FILE) as cache:
                prompts = [tests.prompts[request.number] for request in requests]
                lm_here = study.open_lm(lm.folder)
                completions = sample_completions(lm_here, prompts, sampling, cache, study.progress)
            by_number = dict(zip(completions.user_U.tolist(), completions.completions_UN, strict=True))
            answers_N = [by_number[request.number] for request in requests]
            statuses = write_answers(stage.folder, tests, answers_N, lm.label, seed)
            stage.note(
                tokens=sum(completion.num_tokens for row in answers_N for completion in row),
                statuses=dict(statuses),
            )
            counts = {f"num_{name}": n for name, n in statuses.items()}
            stage.log({"variant": lm.label, "seed": seed, "tests": tests.name, **counts})
    return stage.name


def _look_at_retention(study: Study, lm: LmRef, seed: int) -> str | None:
    """The stage that says what the model still can do; None when nobody asked."""
    config = study.config
    if not config.retention.tasks:
        return None
    with study.stage("sample", f"kept.{lm.label}.s{seed}", {"lm": lm.digest}) as stage:
        if not stage.is_done:
            kept = evaluate_retention(study.open_lm(lm.folder), config.retention, study.progress)
            values_SUM = kept.is_right_T.astype(np.float64)[None, :, None]
            tasks_T = np.arange(len(kept.is_right_T))
            row = VariantScores(
                lm.label, "user", "drop", (ACCURACY,), (seed,), tasks_T, np.ones_like(tasks_T), values_SUM
            )
            write_variant_scores(stage.folder / ROWS, [row])
            told = {"perplexity": kept.perplexity, "accuracy": float(kept.is_right_T.mean())}
            stage.note(**told)
            stage.log({"kept": lm.label, "seed": seed, **told})
    return stage.name


def write_answers(
    folder: Path, tests: TestSet, answers_UN: Sequence[Sequence[Completion]], label: str, seed: int
) -> Counter[str]:
    """Scores as a row of the table and answers as texts; how many have which status."""
    requests = tests.requests
    values = np.zeros((1, len(requests), len(MEASURED)))
    statuses: Counter[str] = Counter({status.value: 0 for status in AnswerStatus})
    texts: list[dict[str, Any]] = []
    for place, (request, completions_N) in enumerate(zip(requests, answers_UN, strict=True)):
        right = request.candidates.index(request.answer)
        for completion in completions_N:
            answer = read_answer(completion.text, tests.candidate_titles(request), is_finished=completion.is_finished)
            statuses[answer.status.value] += 1
            gains = (ndcg_of(answer.ranked, right, 1), ndcg_of(answer.ranked, right, 5))
            values[0, place] += np.array(gains) / len(completions_N)
            texts.append({"number": request.number, "text": completion.text, "status": answer.status.value})
    write_variant_scores(folder / ROWS, [variant_of(label, seed, requests, values)])
    atomic_write_json(folder / TEXTS, texts)
    return statuses


def variant_of(name: str, seed: int, requests: Sequence[Request], values_SUM: np.ndarray) -> VariantScores:
    """A row whose unit is the request."""
    numbers = np.array([request.number for request in requests], dtype=np.int64)
    return VariantScores(name, "user", "drop", MEASURED, (seed,), numbers, np.ones_like(numbers), values_SUM)


def chance_row(study: Study, requests: Sequence[Request]) -> VariantScores:
    """What a blind draw earns on average: one over the number of candidates, one item named."""
    share = np.array([[1 / len(request.candidates)] * len(MEASURED) for request in requests])
    rows = [variant_of(CHANCE, seed, requests, share[None]) for seed in study.config.seeds]
    return join_seeds(rows)


def compare_answers(
    study: Study, tests: Sequence[TestSet], next_items: SessionTask | None, answered: Sequence[Answered]
) -> Results:
    """Tables: all kinds, with tests; each kind; each test set elsewhere; what was kept; next items."""
    statistics, seed = study.config.statistics, derived_seed(study.config.data_seed, "statistics")
    tables: list[TableSection] = []
    for one in tests:
        requests = one.requests
        rows = [chance_row(study, requests), *_read_rows(study, [row.stages[one.name] for row in answered])]
        kinds = [None] if one.name else [None, *dict.fromkeys(request.kind for request in requests)]
        for kind in kinds:
            taken = np.array([kind is None or request.kind is kind for request in requests])
            part = [take_requests(row, taken) for row in rows]
            contrasts = contrasts_of([row.name for row in part]) if kind is None else ()
            here = "All kinds of requests" if kind is None else f"Kind: {kind.value.replace('_', ' ')}"
            main = compare(part, contrasts, ACCURACY, statistics, seed)
            others = tuple(compare(part, (), metric, statistics, seed) for metric in MEASURED[1:])
            title = f"Elsewhere: {one.name}" if one.name else here
            tables.append(TableSection(title, main, others, CHANCE, unit="request"))
    if kept := [one.kept for one in answered if one.kept is not None]:
        title = "Kept: invented sessions, ranked by the right hint"
        main = compare(_read_rows(study, kept), (), ACCURACY, statistics, seed)
        tables.append(TableSection(title, main, (), SHIPPED, unit="session"))
    words = {name: WORDS[name] for name in (CHANCE, *(one.row for one in answered))}
    if next_items is not None:
        ranked = {(one.row, one.seed): one.next for one in answered if one.next is not None}
        rows = in_order(next_item_rows(study, next_items, ranked))
        main, *others = (compare(rows, (), metric, statistics, seed) for metric in NEXT_METRICS.names)
        title = "Next item: the last of each test user's history"
        tables.append(TableSection(title, main, tuple(others), SHIPPED))
        words |= {row.name: WORDS[row.name] for row in rows}
    results = Results(tuple(tables), words)
    stages = [name for one in answered for name in (*one.stages.values(), one.kept, one.next) if name is not None]
    inputs = {name: study.run.digest(name) for name in stages}
    with study.stage("evaluate", "", inputs) as stage:
        if not stage.is_done:
            atomic_write_json(study.run.path / RESULTS, results_json(results))
            stage.log(*metric_rows(results))
    return results


def _read_rows(study: Study, stages: Sequence[str]) -> list[VariantScores]:
    """The rows that stages hold, seeds joined, in the order of the table."""
    by_name: dict[str, list[VariantScores]] = {}
    for stage in stages:
        (row,) = read_variant_scores(study.run.folder(stage) / ROWS)
        by_name.setdefault(row.name, []).append(row)
    return in_order([join_seeds(seeds) for seeds in by_name.values()])


def in_order(rows: Sequence[VariantScores]) -> list[VariantScores]:
    """As tables show them: by kind, then as `WORDS` names them."""
    order = list(WORDS)
    return sorted(rows, key=lambda row: (list(VariantKind).index(WORDS[row.name].kind), order.index(row.name)))


def take_requests(row: VariantScores, taken_U: np.ndarray) -> VariantScores:
    """The row over some of its requests."""
    return replace(
        row,
        user_U=row.user_U[taken_U],
        num_lists_U=row.num_lists_U[taken_U],
        values_SUM=row.values_SUM[:, taken_U],
    )


def contrasts_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """What is tested: ReRec against plain GRPO, supervision and its ablations; plain GRPO; supervision."""
    wanted = [(FULL, PLAIN), (FULL, SUPERVISED), (PLAIN, SUPERVISED), (SUPERVISED, SHIPPED), (FULL, SHIPPED)]
    wanted += [(FULL, name) for name in WORDS if WORDS[name].title.startswith("ReRec, ")]
    return [(name, against) for name, against in wanted if name in names and against in names]


def report_study(study: Study, task: RequestTask, results: Results) -> None:
    """Write ``report.html`` into the run folder."""
    with study.stage("report", "", {"evaluate": study.run.digest("evaluate")}) as stage:
        if not stage.is_done:
            write_report(study.run.path / REPORT, report_data(study, task, results))


def report_data(study: Study, task: RequestTask, results: Results) -> ReportData:
    """Everything the report shows."""
    text = (study.run.path / METRICS).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return ReportData(
        title=f"ReRec on {task.dataset.name}",
        summary=(
            "A user asks in words, and a language model reasons and names one of the candidates. The unit of "
            "every table is the request; HR@1 is the accuracy of the first item named. Answers that name no "
            "item, several or none of the candidates count as wrong. The last tables show what training did to "
            "skills that it was not for."
        ),
        facts=facts(study),
        words=results.words,
        tables=results.tables,
        fits=(),
        rewards=(),
        training=reward_charts(study, rows),
        users=(),
        lists=(),
        costs=stage_costs(study.run.manifest["stages"]),
        versions=tuple(study.run.manifest["versions"].items()),
    )


def facts(study: Study) -> tuple[tuple[str, str], ...]:
    """What was run, in a few lines."""
    stages: Mapping[str, Any] = study.run.manifest["stages"]
    made, embed = stages["prepare"], stages["embed"]
    recalls = (
        f"LightGCN {embed['recall']:.3f}, item neighbours {embed['knn_recall']:.3f}, over "
        f"{embed['num_held_out']:,} held-out items of train users"
    )
    counts = ", ".join(f"{num:,} {group}" for group, num in made["num_requests"].items())
    given_up = ", ".join(f"{kind} {num:,}" for kind, num in made["num_given_up"].items()) or "none"
    return (
        ("Requests", counts),
        *columns_fact(made),
        ("Requests not found", given_up),
        (f"Recall@{embed['recall_k']}", recalls),
        ("Answers", statuses_in_words(stages)),
        *_perplexities(stages),
        ("Seeds", ", ".join(map(str, study.config.seeds))),
    )


def statuses_in_words(stages: Mapping[str, Any]) -> str:
    """How many answers have which status, by model and test set; seeds together."""
    by_model: dict[str, Counter[str]] = {}
    for name, entry in stages.items():
        if "statuses" in entry:
            _, row, _, *place = name.split(".")
            model = ", ".join([WORDS[row].title, *place])
            by_model.setdefault(model, Counter()).update(entry["statuses"])
    shares = {
        model: [f"{name.replace('_', ' ')} {num / counts.total():.1%}" for name, num in counts.items() if num]
        for model, counts in by_model.items()
    }
    return "; ".join(f"{model}: {', '.join(told)}" for model, told in shares.items())


def _perplexities(stages: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Of canonical lists and reflections, by model; seeds averaged."""
    by_row: dict[str, list[float]] = {}
    for name, entry in stages.items():
        if "perplexity" in entry:
            by_row.setdefault(name.split(".")[2], []).append(entry["perplexity"])
    if not by_row:
        return ()
    told = ", ".join(f"{WORDS[row].title} {np.mean(found):.3f}" for row, found in by_row.items())
    return (("Perplexity of held-out lists and reflections", told),)


def reward_charts(study: Study, rows: Sequence[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """Of the first seed: reward, share of the side terms in the advantage, and answer length by step."""
    own = [row for row in rows if row.get("seed") == study.config.seeds[0] and "side_share" in row]
    charts: list[Chart] = []
    for name, label in (
        ("reward", "mean reward"),
        ("side_share", "share of QAS and PAS in the advantage"),
        ("answer_tokens", "tokens per answer"),
    ):
        curves: list[Curve] = []
        for variant in study.config.variants:
            values = tuple(row[name] for row in own if row["lm"] == variant)
            if values:
                curves.append(Curve(WORDS[variant].title, tuple(range(1, len(values) + 1)), values))
        if curves:
            charts.append(Chart(label.capitalize(), "optimiser step", label, tuple(curves)))
    return tuple(charts)
