"""Test requests answered by every language model of a study, the tables they make, and the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recloop.data.sessions import SessionTask
from recloop.evaluation.labels import CHANCE, variant_label
from recloop.evaluation.per_user_scores import (
    SCORES_FILE,
    VariantScores,
    join_by_name,
    join_seeds,
    read_variant_scores,
    write_variant_scores,
)
from recloop.evaluation.report import report_step
from recloop.evaluation.report_sections import (
    Chart,
    Charts,
    Curve,
    Note,
    PlainTable,
    Report,
    Section,
    logged_rows,
    run_report,
)
from recloop.evaluation.slices import slices_section
from recloop.evaluation.tables import COMPLETION_COLUMNS, TableSettings, Units, VariantTable, make_table, write_results
from recloop.experiment.step import StepKind
from recloop.files import atomic_write_json
from recloop.llm.bundled import columns_fact
from recloop.llm.cache import CompletionCache
from recloop.llm.language_model import Sampling
from recloop.llm.sampling import sample_completions
from recloop.methods.rerec.data import BASE_MODEL, RequestStudy, RequestTask, TestSet
from recloop.methods.rerec.forgetting import CHANCE_OF_TASKS, evaluate_retention
from recloop.methods.rerec.next_item_eval import NEXT_METRICS, next_item_scores, rank_next
from recloop.methods.rerec.train import SUPERVISED
from recloop.methods.study import COMPLETIONS_FILE, LmRef, derived_seed
from recloop.prompts.request_answer import AnswerStatus, read_answer
from recloop.records import Completion, Request
from recloop.rewards.request_reward import ndcg_of

PLAIN, FULL = "grpo_ndcg", "rerec"
ABLATIONS = ("no_penalty", "published_penalty", "no_qas", "no_pas", "no_curriculum", "published_curriculum")
CONTRASTS = (
    (FULL, PLAIN), (FULL, SUPERVISED), (PLAIN, SUPERVISED), (SUPERVISED, BASE_MODEL), (FULL, BASE_MODEL),
    *((FULL, name) for name in ABLATIONS),
)  # fmt: skip
TEXTS = "answers.json"
ACCURACY = "hr@1"
MEASURED = (ACCURACY, "ndcg@5")
ANSWER = StepKind("sample", reads=("answering",))
RETENTION = StepKind("sample", reads=("retention",), part="retention")
EVALUATE = StepKind("evaluate", is_cheap=True)


@dataclass(frozen=True, slots=True)
class AnsweredTests:
    """What one language model of one seed did.

    steps: hold SCORES_FILE and TEXTS of the test requests, by name of the test set.
    retention: holds SCORES_FILE of the skills that were not trained; None when they were not looked at.
    next: holds the ranks of next items; None when they were not asked for.
    """

    variant: str
    seed: int
    steps: Mapping[str, str]
    retention: str | None
    next: str | None


def answer_tests(
    study: RequestStudy, tests: Sequence[TestSet], next_items: SessionTask | None, lm: LmRef, seed: int
) -> AnsweredTests:
    """Have the model answer every test request, here and elsewhere, and look at what else it can do."""
    steps = {one.name: _answer(study, one, lm, seed) for one in tests}
    retention = _look_at_retention(study, lm, seed)
    return AnsweredTests(lm.label, seed, steps, retention, rank_next(study, next_items, lm, seed))


def _answer(study: RequestStudy, tests: TestSet, lm: LmRef, seed: int) -> str:
    """Answers scored by the written rule; the step that holds them."""
    config, requests = study.config, tests.requests
    temperature = config.answering.temperature
    top_p, drawn_by = (config.lm.top_p, seed) if temperature else (1.0, 0)  # the likeliest answer has no seed
    sampling = Sampling(config.answering.completions, temperature, top_p, config.lm.max_tokens, drawn_by)
    key = ".".join(part for part in (f"{lm.label}.s{seed}", tests.name) if part)
    with study.step(ANSWER, key, {"lm": lm.digest, "requests": tests.digest}) as step:
        if not step.is_done:
            with CompletionCache(study.run.path / COMPLETIONS_FILE) as cache:
                prompts = [tests.prompts[request.number] for request in requests]
                lm_here = study.open_lm(lm.folder)
                completions = sample_completions(lm_here, prompts, sampling, cache, study.progress)
            by_number = dict(zip(completions.user_U.tolist(), completions.completions_UN, strict=True))
            answers_N = [by_number[request.number] for request in requests]
            statuses = write_answers(step.folder, tests, answers_N, lm.label, seed)
            tokens = sum(completion.num_tokens for row in answers_N for completion in row)
            step.note(tokens=tokens, statuses=dict(statuses))
            counts = {f"num_{name}": n for name, n in statuses.items()}
            step.log({"variant": lm.label, "seed": seed, "tests": tests.name, **counts})
    return step.name


def _look_at_retention(study: RequestStudy, lm: LmRef, seed: int) -> str | None:
    """The step that says what the model still can do; None when it was not asked for."""
    config = study.config
    if not config.retention.tasks:
        return None
    with study.step(RETENTION, f"retention.{lm.label}.s{seed}", {"lm": lm.digest}) as step:
        if not step.is_done:
            kept = evaluate_retention(study.open_lm(lm.folder), config.retention, study.progress)
            values_SUM = kept.is_right_T.astype(np.float64)[None, :, None]
            tasks_T = np.arange(len(kept.is_right_T))
            units = (tasks_T, np.ones_like(tasks_T))
            row = VariantScores(lm.label, "user", "drop", (ACCURACY,), (seed,), *units, values_SUM)
            write_variant_scores(step.folder / SCORES_FILE, [row])
            told = {"perplexity": kept.perplexity, "accuracy": float(kept.is_right_T.mean())}
            step.note(**told)
            step.log({"retention": lm.label, "seed": seed, **told})
    return step.name


def write_answers(
    folder: Path, tests: TestSet, answers_UN: Sequence[Sequence[Completion]], label: str, seed: int
) -> Counter[str]:
    """How many answers have which status; scores and texts are written into the folder."""
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
            told = {"request": request.number, "number": completion.completion}
            texts.append({**told, "text": completion.text, "status": answer.status.value})
    write_variant_scores(folder / SCORES_FILE, [request_scores(label, seed, requests, values)])
    atomic_write_json(folder / TEXTS, texts)
    return statuses


def request_scores(name: str, seed: int, requests: Sequence[Request], values_SUM: np.ndarray) -> VariantScores:
    """The scores of a variant whose unit is the request."""
    numbers = np.array([request.number for request in requests], dtype=np.int64)
    return VariantScores(name, "user", "drop", MEASURED, (seed,), numbers, np.ones_like(numbers), values_SUM)


def chance_of_requests(study: RequestStudy, requests: Sequence[Request]) -> VariantScores:
    """The expected scores of a random draw: one over the number of candidates, one item named."""
    share = np.array([[1 / len(request.candidates)] * len(MEASURED) for request in requests])
    return join_seeds([request_scores(CHANCE, seed, requests, share[None]) for seed in study.config.seeds])


def compare_answers(
    study: RequestStudy, tests: Sequence[TestSet], next_items: SessionTask | None, answered: Sequence[AnsweredTests]
) -> tuple[VariantTable, ...]:
    """Tables: all kinds, with tests; each kind; each test set elsewhere; retention; next items. Writes their files."""
    statistics, seed = study.config.statistics, derived_seed(study.config.data_seed, "statistics")
    settings = TableSettings(MEASURED, ACCURACY, statistics, seed)
    tables: list[VariantTable] = []
    for one in tests:
        tables += _request_tables(study, one, answered, settings)
    if retention := [one.retention for one in answered if one.retention is not None]:
        title = "Retention: invented sessions, ranked by the right hint"
        accuracy = replace(settings, metrics=(ACCURACY,), units=Units("session"))
        rows = _read_scores(study, retention)
        chance = replace(rows[0], name=CHANCE, values_SUM=np.full_like(rows[0].values_SUM, CHANCE_OF_TASKS))
        tables.append(make_table(title, [chance, *rows], (), accuracy, BASE_MODEL))
    if next_items is not None:
        ranked = {(one.variant, one.seed): one.next for one in answered if one.next is not None}
        rows = next_item_scores(study, next_items, ranked)
        title = "Next item: the last of each test user's history"
        settings = replace(settings, metrics=NEXT_METRICS.names, units=Units("user", next_items.id_of_user))
        tables.append(make_table(title, rows, (), settings, BASE_MODEL))
    steps = [name for one in answered for name in (*one.steps.values(), one.retention, one.next) if name is not None]
    with study.step(EVALUATE, "", {name: study.run.digest(name) for name in steps}) as step:
        if not step.is_done:
            write_results(study.run.path, step, tables, completions_of(study, tests, answered))
    return tuple(tables)


def completions_of(
    study: RequestStudy, tests: Sequence[TestSet], answered: Sequence[AnsweredTests]
) -> list[pl.DataFrame]:
    """Every answer to a test request, here and elsewhere; no reward is given for them."""
    frames: list[pl.DataFrame] = []
    for tests_of_log in tests:
        user_of = {request.number: tests_of_log.asker_of(request) for request in tests_of_log.requests}
        for one in answered:
            file = study.run.folder(one.steps[tests_of_log.name]) / TEXTS
            rows = json.loads(file.read_text(encoding="utf-8"))
            frame = pl.DataFrame(rows).with_columns(
                user_id=pl.Series([user_of[row["request"]] for row in rows]),
                variant=pl.lit(one.variant),
                seed=pl.lit(one.seed),
                reward=pl.lit(None, pl.Float64),
                tests=pl.lit(tests_of_log.name),
            )
            frames.append(frame.select(*COMPLETION_COLUMNS, "request", "tests"))
    return frames


def _request_tables(
    study: RequestStudy, tests: TestSet, answered: Sequence[AnsweredTests], settings: TableSettings
) -> list[VariantTable]:
    """All requests of a test set, tested; of the run's own also those of each kind."""
    requests = tests.requests
    rows = [chance_of_requests(study, requests), *_read_scores(study, [one.steps[tests.name] for one in answered])]
    numbers = {request.number: tests.asker_of(request) for request in requests}
    units = Units("request", [numbers.get(number, "") for number in range(1 + max(numbers))])
    settings = replace(settings, units=units)
    tables: list[VariantTable] = []
    for kind in [None] if tests.name else [None, *dict.fromkeys(request.kind for request in requests)]:
        wanted_U = np.array([kind is None or request.kind is kind for request in requests])
        part = [row.take(wanted_U) for row in rows]
        here = "All kinds of requests" if kind is None else f"Kind: {kind.value.replace('_', ' ')}"
        title = f"Elsewhere: {tests.name}" if tests.name else here
        contrasts = CONTRASTS if kind is None else ()
        tables.append(make_table(title, part, contrasts, settings, CHANCE))
    return tables


def _read_scores(study: RequestStudy, steps: Sequence[str]) -> list[VariantScores]:
    """The variants that steps hold, seeds joined."""
    return join_by_name([one for step in steps for one in read_variant_scores(study.run.folder(step) / SCORES_FILE)])


def report_study(study: RequestStudy, task: RequestTask, tables: Sequence[VariantTable]) -> None:
    """Write ``report.html`` into the run folder."""
    summary = (
        "A user asks in words, and a language model reasons and names one of the candidates. The unit of every table "
        "is the request; HR@1 is the accuracy of the first item named. Answers that name no item, several or none of "
        "the candidates count as wrong. The last tables show what training did to skills that it was not for."
    )

    def make() -> Report:
        charts = reward_charts(study, logged_rows(study.run))
        sections = (
            answers_section(study.run.manifest["steps"]),
            where_section(task, tables[0]),
            Section("training", "Training", (Charts(charts),) if charts else ()),
        )
        return run_report(study.run, f"ReRec on {task.dataset.name}", summary, facts(study), tables, sections)

    report_step(study, make)


def facts(study: RequestStudy) -> tuple[tuple[str, str], ...]:
    """What was run, in a few lines."""
    steps: Mapping[str, Any] = study.run.manifest["steps"]
    made, embed = steps["prepare"], steps["embed"]
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
        *_perplexities(steps),
    )


def answers_section(steps: Mapping[str, Any]) -> Section:
    """Which share of the answers has which status, by model and test set; seeds together."""
    by_model: dict[str, Counter[str]] = {}
    for name, entry in steps.items():
        if "statuses" in entry:
            _, row, _, *place = name.split(".")
            model = ", ".join([variant_label(row).label, *place])
            by_model.setdefault(model, Counter()).update(entry["statuses"])
    rows = tuple(
        (model, f"{counts.total():,}", *(f"{counts[status] / counts.total():.1%}" for status in AnswerStatus))
        for model, counts in by_model.items()
    )
    columns = ("Model", "Answers", *(status.value.replace("_", " ") for status in AnswerStatus))
    note = Note(
        "Only answers of the form can be right. Others name no candidate, have no box or two of them, or did not end."
    )
    parts = (PlainTable("Answers to test requests", columns, rows), note) if rows else ()
    return Section("answers", "What the answers are like, before and after", parts, is_open=True)


def where_section(task: RequestTask, table: VariantTable) -> Section:
    """Which kinds of requests gain by training."""
    if not {FULL, BASE_MODEL} <= table.main.estimates.keys():
        return Section("where", "Where it helps", ())
    kind_of = {request.number: request.kind for request in task.tests.requests}
    kind_U = np.array([kind_of[number].value for number in table.scores[0].user_U.tolist()])
    groups = [(kind.replace("_", " "), kind_U == kind) for kind in dict.fromkeys(kind_U.tolist())]
    return slices_section(table, (FULL, BASE_MODEL), [("By kind of request", groups)])


def _perplexities(steps: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Of canonical lists and reflections, by model; seeds averaged."""
    by_row: dict[str, list[float]] = {}
    for name, entry in steps.items():
        if "perplexity" in entry:
            by_row.setdefault(name.split(".")[2], []).append(entry["perplexity"])
    if not by_row:
        return ()
    told = ", ".join(f"{variant_label(row).label} {np.mean(found):.3f}" for row, found in by_row.items())
    return (("Perplexity of held-out lists and reflections", told),)


def reward_charts(study: RequestStudy, rows: Sequence[Mapping[str, Any]]) -> tuple[Chart, ...]:
    """Of the first seed: reward, share of the side terms in the advantage, and answer length by step."""
    own = [row for row in rows if row.get("seed") == study.config.seeds[0] and "side_share" in row]
    found = {one: [row for row in own if row["lm"] == one] for one in study.config.variants}
    charts: list[Chart] = []
    for name, label in (
        ("reward", "mean reward"),
        ("side_share", "share of QAS and PAS in the advantage"),
        ("answer_tokens", "tokens per answer"),
    ):
        curves = tuple(
            Curve(variant_label(one).label, tuple(range(1, len(steps) + 1)), tuple(row[name] for row in steps))
            for one, steps in found.items()
            if steps
        )
        charts += [Chart(label.capitalize(), "optimiser step", label, curves)] if curves else []
    return tuple(charts)
