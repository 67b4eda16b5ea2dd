"""The tables and the report of a Re2LLM run: variants and tests, hints, and which sessions they help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from recloop.evaluation.labels import metric_title, number, signed, variant_label
from recloop.evaluation.per_user_scores import SCORES_FILE, write_variant_scores
from recloop.evaluation.report import report_step
from recloop.evaluation.report_sections import (
    Chart,
    Charts,
    Note,
    PlainTable,
    Report,
    Section,
    curve_of,
    logged_rows,
    run_report,
)
from recloop.evaluation.significance import Verdict
from recloop.evaluation.slices import bands
from recloop.evaluation.tables import COMPLETION_COLUMNS, TableSettings, Units, VariantTable, make_table, write_results
from recloop.experiment.step import StepKind
from recloop.llm.bundled import columns_fact
from recloop.methods.re2llm.answers import ANSWERS, Answers
from recloop.methods.re2llm.data import Questions
from recloop.methods.re2llm.hint_base import HintBase
from recloop.methods.re2llm.policies import CONTRASTS, KNOWN, NO_HINT, PPO, SINGLE, Chosen, score_choices
from recloop.methods.re2llm.repeats import HINDSIGHT, ORACLE, TEMPERATURE, Repeated
from recloop.methods.study import Study, derived_seed
from recloop.rerankers.metrics import metric_of_rank

WAYS = (NO_HINT, SINGLE, PPO)  # compared where sessions are looked at in groups
COLUMNS = ("Sessions", "No hint", "Best single", "Re2LLM")
EVALUATE = StepKind("evaluate", is_cheap=True)


def compare_choices(study: Study, questions: Questions, answers: Answers, chosen: Chosen) -> tuple[VariantTable, ...]:
    """The table, every contrast tested; writes its files."""
    config = study.config
    scores = score_choices(study, questions, answers, chosen)
    seed, units = derived_seed(config.data_seed, "statistics"), Units("user", questions.task.id_of_user)
    settings = TableSettings(config.metrics.names, config.primary_metric, config.statistics, seed, units)
    tables = (make_table("Test sessions", scores, CONTRASTS, settings, NO_HINT),)
    inputs = {name: study.run.digest(name) for name in chosen.policies.values()}
    with study.step(EVALUATE, "", {"answers": answers.digest, **inputs}) as step:
        if not step.is_done:
            write_variant_scores(step.folder / SCORES_FILE, tables[0].scores)
            write_results(study.run.path, step, tables, [completions_of(study, questions, answers)])
    return tables


def completions_of(study: Study, questions: Questions, answers: Answers) -> pl.DataFrame:
    """Every answer with its hint's number; the reward is the gain of the hint in that session."""
    task, gains_SH = questions.task, answers.rewards(study.config.reward)
    table = pl.read_parquet(study.run.folder("sample") / ANSWERS)
    user_S = [task.id_of_user[session.user] for session in task.sessions]
    told = table.with_columns(
        user_id=pl.Series([user_S[s] for s in table["session"]]),
        variant=pl.when(pl.col("hint") == 0).then(pl.lit(NO_HINT)).otherwise(pl.lit("hint")),
        seed=pl.lit(study.config.data_seed),
        number=pl.lit(0),
        reward=pl.Series(gains_SH[table["session"].to_numpy(), table["hint"].to_numpy()]),
    )
    return told.select(*COMPLETION_COLUMNS, "session", "hint")


@dataclass(frozen=True, slots=True)
class Findings:
    """What the report shows beside the tables: hints, every answer with every hint, choices, repeated answers."""

    base: HintBase
    answers: Answers
    chosen: Chosen
    repeated: Sequence[Repeated]


def report_choices(study: Study, questions: Questions, tables: Sequence[VariantTable], found: Findings) -> None:
    """Write ``report.html`` into the run folder."""
    summary = (
        "A frozen language model ranks what comes next in a session. It reflected on its mistakes and left hints; a "
        "policy learnt which hint to give to which session. In tables a list is a session, and a user is whoever the "
        "session belongs to."
    )

    def make() -> Report:
        sections = (
            gain_section(study, tables[0]),
            repeats_section(study, found.repeated),
            hint_section(study, questions, found),
            where_section(study, questions, found),
            learning_section(study),
        )
        told = facts(study, questions, found.base)
        return run_report(study.run, f"Re2LLM on {questions.task.name}", summary, told, tables, sections)

    report_step(study, make)


def facts(study: Study, questions: Questions, base: HintBase) -> tuple[tuple[str, str], ...]:
    """What was run, in a few lines."""
    config, task, steps = study.config, questions.task, study.run.manifest["steps"]
    notes = "; ".join(f"{what}: {count:,}" for what, count in task.notes)
    defects = ", ".join(f"{n[4:]} {c:,}" for n, c in steps["sample"]["defects"].items() if c) or "none"
    return (
        ("Data", f"{task.name}: {task.items.height:,} items" + (f" ({notes})" if notes else "")),
        *columns_fact(steps["prepare"]),
        ("Sessions", f"{len(task.train):,} for training, {len(task.test):,} for the test"),
        ("Candidates", f"{len(task.test[0].candidates)} a session, the answer among them"),
        ("Language model", f"{config.lm.name}, frozen, temperature {config.lm.temperature:g}"),
        ("Hints", f"{len(base.hints)} ({'; '.join(f'{k} {v}' for k, v in base.counts.items()) or 'given'})"),
        ("Distinct prompts", f"{steps['sample']['num_prompts']:,} beside those of exploration"),
        ("Defects of the answers", defects),
        ("Text encoder", config.encoder.name),
    )


def gain_section(study: Study, table: VariantTable) -> Section:
    """Whether choosing per session beat one hint for all, and how much of the bound was reached."""
    metric = metric_title(study.config.primary_metric)
    base = table.main.estimates[NO_HINT].value
    gains = {name: estimate.value - base for name, estimate in table.main.estimates.items()}
    bound = gains.get(KNOWN, 0.0)
    rows = tuple(
        (table.labels[name].label, signed(gain), f"{gain / bound:.0%}" if bound > 0 else "not known")
        for name, gain in gains.items()
    )
    contrast = next(c for c in table.main.contrasts if (c.name, c.against) == (PPO, SINGLE))
    difference = f"{signed(contrast.difference.value)} {metric}"
    if contrast.verdict is Verdict.BETTER:
        says = f"Choosing per session beats the best single hint ({difference})."
    else:
        says = (
            f"Choosing per session is not shown to beat the best single hint ({difference}, p {contrast.p_holm:.3f}). "
            f"The ridge regression and the bounds say how much there is to gain."
        )
    columns = ("Variant", f"Gain in {metric} over no hint", "Share of the known hint's gain")
    return Section("gain", "What choosing is worth", (Note(says), PlainTable("Gains", columns, rows)))


def repeats_section(study: Study, repeated: Sequence[Repeated]) -> Section:
    """What the best hint of each session is worth, by repeated answers."""
    config, metric = study.config.repeats, metric_title(study.config.primary_metric)
    labels = {ORACLE: "Best hint by the other half of the answers", HINDSIGHT: "Best hint by the same answers"}
    rows = tuple(
        (
            labels.get(one.name) or variant_label(one.name).label,
            number(one.value),
            signed(one.gain),
            f"{signed(one.low)} to {signed(one.high)}",
        )
        for one in repeated
    )
    note = Note(
        f"The first {config.max_sessions:,} test sessions, {config.answers} answers to each with every hint at "
        f"temperature {TEMPERATURE:g}. A hint chosen by one half of the answers and scored by the other is what a "
        f"policy could reach that knew each session. Chosen by the same answers, chance raises its score."
    )
    columns = ("Variant", metric, "Gain over no hint", "95% interval")
    parts = (note, PlainTable("Repeated answers", columns, rows)) if repeated else ()
    return Section("repeats", "What the best hint is worth", parts)


def hint_section(study: Study, questions: Questions, found: Findings) -> Section:
    """Every hint: where it came from, its mean gain over all sessions, how often the policy chooses it."""
    metric, tested = study.config.reward, slice(questions.test.start, questions.test.stop)
    rewards_SH = found.answers.rewards(metric)
    train_H, test_H = rewards_SH[: len(questions.train)].mean(axis=0), rewards_SH[tested].mean(axis=0)
    used = np.concatenate(list(found.chosen.hints[PPO].values()))
    rows: list[tuple[str, ...]] = []
    for h, text in enumerate(found.base.texts):
        origin = found.base.hints[h - 1].origin if h else None
        came = "" if origin is None else f"session {origin.session}, {origin.answer}"
        share = f"{(used == h).mean():.0%}"
        rows.append((text or "(no hint)", came, signed(train_H[h]), signed(test_H[h]), share))
    columns = ("Hint", "From the mistake in", "Gain, train", "Gain, test", "Chosen by the policy")
    note = Note(
        f"Gains are means over all sessions of {metric_title(metric)} with the hint minus without. The hints are in "
        f"hints.json; edit them and begin another run with explore.file."
    )
    return Section("hints", "Hints", (note, PlainTable("The hint base", columns, tuple(rows))))


def where_section(study: Study, questions: Questions, found: Findings) -> Section:
    """The policy's gain by length of the session, by how often its answer was met, and by its attribute."""
    task, metric, hints = questions.task, study.config.primary_metric, found.chosen.hints
    ranks_SH = found.answers.ranks_SH[questions.test.start : questions.test.stop]
    values = {
        name: np.mean(
            [metric_of_rank(metric, ranks_SH[np.arange(len(ranks_SH)), h]) for h in hints[name].values()], axis=0
        )
        for name in WAYS
    }
    met = np.bincount(
        [item for session in task.train for item in (*session.items, session.answer)], minlength=task.items.height
    )
    chosen_NS = np.stack(list(hints[PPO].values()))
    shown_S, met_S = (np.array(told) for told in zip(*((len(s.items), met[s.answer]) for s in task.test), strict=True))
    tables = [
        PlainTable(
            caption, ("Number", *COLUMNS), tuple((label, *_cells(mask_S, values)) for label, mask_S in bands(told_S))
        )
        for caption, told_S in (
            ("By items shown", shown_S),
            ("By how often training sessions hold the answer", met_S),
        )
    ]
    if all(session.attribute for session in task.test):
        rows: list[tuple[str, ...]] = []
        for attribute in sorted({session.attribute for session in task.test}):
            is_in_S = np.array([session.attribute == attribute for session in task.test])
            hint = int(np.bincount(chosen_NS[:, is_in_S].ravel()).argmax())
            rows.append((attribute, *_cells(is_in_S, values), found.base.texts[hint] or "(no hint)"))
        columns = ("Attribute that decides", *COLUMNS, "Hint chosen most")
        tables.append(PlainTable("By what decides the session", columns, tuple(rows)))
    note = Note(f"Means of {metric_title(metric)} over test sessions and seeds.")
    return Section("where", "Where it helps", (note, *tables), is_open=True)


def _cells(is_in_S: np.ndarray, values: dict[str, np.ndarray]) -> tuple[str, ...]:
    return (f"{is_in_S.sum():,}", *(number(float(values[name][is_in_S].mean())) for name in WAYS))


def learning_section(study: Study) -> Section:
    """How the policies learnt."""
    logged = [row for row in logged_rows(study.run) if row["run_step"].startswith("train.")]
    by_seed = {seed: [row for row in logged if row["seed"] == seed] for seed in sorted({row["seed"] for row in logged})}
    if not by_seed:  # exploration left no hint
        return Section("learning", "How the policy learnt", ())
    note = Note("The policy meets each training session many times. All rewards are known before: it asks no model.")

    def chart(title: str, y_label: str, what: str) -> Chart:
        curves = (curve_of(f"seed {seed}", rows, "step", what) for seed, rows in by_seed.items())
        return Chart(title, "episode", y_label, tuple(curves))

    gain = chart("Gain of the likeliest hints, training sessions", "gain", "reward")
    charts = Charts((gain, chart("Entropy of the policy", "nats", "entropy")))
    return Section("learning", "How the policy learnt", (note, charts))
