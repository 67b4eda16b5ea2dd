"""The tables and the report of a Re2LLM run: rows and tests, hints, and which sessions they help."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from recloop.data.sessions import Session
from recloop.evaluation.labels import metric_title, number, signed
from recloop.evaluation.latex import latex_table
from recloop.evaluation.per_user_scores import write_variant_scores
from recloop.evaluation.report import write_report
from recloop.evaluation.report_sections import (
    Chart,
    Curve,
    ExtraSection,
    PlainTable,
    ReportData,
    TableSection,
)
from recloop.evaluation.session_scores import metric_of_rank
from recloop.evaluation.significance import Verdict, compare
from recloop.experiment.run_folder import METRICS
from recloop.files import atomic_write_json, atomic_write_text
from recloop.llm.server.cost import describe_server_usage
from recloop.llm.bundled import columns_fact
from recloop.methods.context import derived_seed
from recloop.methods.dpo4rec.compare import (
    LATEX,
    OTHERS_IN_LATEX,
    RESULTS,
    Results,
    metric_rows,
    results_json,
)
from recloop.methods.dpo4rec.report import REPORT, stage_costs
from recloop.methods.re2llm.answers import Answers
from recloop.methods.re2llm.data import Questions, Study
from recloop.methods.re2llm.hint_base import HintBase
from recloop.methods.re2llm.policies import (
    CONTRASTS,
    KNOWN,
    NO_HINT,
    PPO,
    ROWS,
    SINGLE,
    WORDS,
    Chosen,
    score_rows,
)
from recloop.methods.re2llm.repeats import HINDSIGHT, ORACLE, Repeated

NUM_BANDS = 3


def compare_choices(study: Study, questions: Questions, answers: Answers, chosen: Chosen) -> Results:
    """Test every contrast; write rows, results.json and the LaTeX table."""
    config = study.config
    rows = score_rows(study, questions, answers, chosen)
    names = {row.name for row in rows}
    contrasts = [pair for pair in CONTRASTS if set(pair) <= names]
    seed = derived_seed(config.data_seed, "statistics")
    main = compare(rows, contrasts, config.primary_metric, config.statistics, seed)
    others = [metric for metric in config.metrics.names if metric != config.primary_metric]
    rest = tuple(compare(rows, (), metric, config.statistics, seed) for metric in others)
    title = "Test sessions"
    results = Results((TableSection(title, main, rest, NO_HINT),), {row.name: WORDS[row.name] for row in rows})
    inputs = {name: study.run.digest(name) for name in chosen.policies.values()}
    with study.stage("evaluate", "", {"answers": answers.digest, **inputs}) as stage:
        if not stage.is_done:
            write_variant_scores(stage.folder / ROWS, rows)
            atomic_write_json(study.run.path / RESULTS, results_json(results))
            table = latex_table(main, results.words, rest[:OTHERS_IN_LATEX])
            atomic_write_text(study.run.path / LATEX, table)
            stage.log(*metric_rows(results))
    return results


def report_choices(
    study: Study,
    questions: Questions,
    base: HintBase,
    answers: Answers,
    chosen: Chosen,
    results: Results,
    repeated: Sequence[Repeated],
) -> None:
    """Write ``report.html`` into the run folder."""
    with study.stage("report", "", {"evaluate": study.run.digest("evaluate")}) as stage:
        if not stage.is_done:
            stages = study.run.manifest["stages"]
            data = ReportData(
                title=f"Re2LLM on {questions.task.name}",
                summary=(
                    "A frozen language model ranks what comes next in a session. It studied its own mistakes "
                    "and left hints; an policy learnt which hint to give to which session. In tables a list "
                    "is a session, and a user is whoever the session belongs to."
                ),
                facts=facts(study, questions, base),
                words=results.words,
                tables=results.tables,
                fits=(),
                rewards=(),
                training=(),
                users=(),
                lists=(),
                costs=stage_costs(stages),
                versions=tuple(study.run.manifest["versions"].items()),
                extras=(
                    verdict_section(study, results),
                    *([repeats_section(study, repeated)] if repeated else []),
                    hint_section(study, questions, base, answers, chosen),
                    where_section(study, questions, base, answers, chosen),
                    learning_section(study),
                ),
            )
            write_report(study.run.path / REPORT, data)


def facts(study: Study, questions: Questions, base: HintBase) -> tuple[tuple[str, str], ...]:
    """What was run, in a few lines."""
    config, task = study.config, questions.task
    stages = study.run.manifest["stages"]
    notes = "; ".join(f"{what}: {count:,}" for what, count in task.notes)
    defects = ", ".join(f"{n[4:]} {c:,}" for n, c in stages["sample"]["defects"].items() if c) or "none"
    return (
        ("Data", f"{task.name}: {task.items.height:,} items" + (f" ({notes})" if notes else "")),
        *columns_fact(stages["prepare"]),
        ("Sessions", f"{len(task.train):,} for training, {len(task.test):,} for the test"),
        ("Candidates", f"{len(task.test[0].candidates)} a session, the answer among them"),
        ("Language model", f"{config.lm.name}, frozen, temperature {config.lm.temperature:g}"),
        ("Hints", f"{len(base.hints)} ({'; '.join(f'{k} {v}' for k, v in base.counts.items()) or 'given'})"),
        ("Distinct prompts", f"{stages['sample']['num_prompts']:,} beside those of exploration"),
        ("Defects of the answers", defects),
        ("Text encoder", config.encoder.name),
        ("Seeds", ", ".join(map(str, config.seeds))),
        *(("Sampling", line) for line in describe_server_usage(stages)),
    )


def verdict_section(study: Study, results: Results) -> ExtraSection:
    """Whether choosing per session beat one hint for all, and how much of the bound was reached."""
    table = results.tables[0].main
    base = table.row(NO_HINT).estimate.value
    gains = {row.name: row.estimate.value - base for row in table.rows}
    bound = KNOWN if KNOWN in gains else None
    rows = tuple(
        (
            results.words[name].title,
            signed(gain),
            f"{gain / gains[bound]:.0%}" if bound and gains[bound] > 0 else "not known",
        )
        for name, gain in gains.items()
    )
    contrast = next(c for c in table.contrasts if (c.name, c.against) == (PPO, SINGLE))
    metric = metric_title(study.config.primary_metric)
    if contrast.verdict is Verdict.BETTER:
        says = f"Choosing per session beats the best single hint ({signed(contrast.difference.value)} {metric})."
    else:
        says = (
            f"Choosing per session is not shown to beat the best single hint "
            f"({signed(contrast.difference.value)} {metric}, p {contrast.p_holm:.3f}): what there is "
            f"to win, the supervised row and the bounds tell."
        )
    columns = ("Row", f"Gain in {metric} over no hint", "Share of the known hint's gain")
    return ExtraSection("gain", "What choosing is worth", says, (PlainTable("Gains", columns, rows),))


def repeats_section(study: Study, repeated: Sequence[Repeated]) -> ExtraSection:
    """What the best hint of each session is worth, by repeated answers."""
    config, metric = study.config.repeats, metric_title(study.config.primary_metric)
    titles = {name: words.title for name, words in WORDS.items()} | {
        ORACLE: "Best hint by the other half of the answers",
        HINDSIGHT: "Best hint by the same answers",
    }
    rows = tuple(
        (titles[row.name], number(row.value), signed(row.gain), f"{signed(row.low)} to {signed(row.high)}")
        for row in repeated
    )
    note = (
        f"The first {config.max_sessions:,} test sessions, {config.answers} answers to each with every hint "
        f"at temperature {config.temperature:g}. A hint chosen by one half of the answers and scored by the "
        f"other is what a policy could reach that knew each session; chosen by the same answers, chance "
        f"flatters it."
    )
    columns = ("Row", metric, "Gain over no hint", "95% interval")
    return ExtraSection(
        "repeats", "What the best hint is worth", note, (PlainTable("Repeated answers", columns, rows),)
    )


def hint_section(study: Study, questions: Questions, base: HintBase, answers: Answers, chosen: Chosen) -> ExtraSection:
    """Every hint: where it came from, what it earns for all sessions, how often each way chooses it."""
    metric, tested = study.config.reward, slice(questions.test.start, questions.test.stop)
    rewards_SH = answers.rewards(metric)
    train_H, test_H = rewards_SH[: len(questions.train)].mean(axis=0), rewards_SH[tested].mean(axis=0)
    used = np.concatenate(list(chosen.hints[PPO].values()))
    rows: list[tuple[str, ...]] = []
    for h, text in enumerate(base.texts):
        origin = base.hints[h - 1].origin if h else None
        came = "" if origin is None else f"session {origin.session}, {origin.answer}"
        share = f"{(used == h).mean():.0%}"
        rows.append((text or "(no hint)", came, signed(train_H[h]), signed(test_H[h]), share))
    columns = ("Hint", "From the mistake in", "Gain, train", "Gain, test", "Chosen by the policy")
    note = (
        f"Gains are means over all sessions of {metric_title(metric)} with the hint minus without, had all "
        f"sessions been given it. The hints are in hints.json; edit them and run again with explore.file."
    )
    return ExtraSection("hints", "Hints", note, (PlainTable("The hint base", columns, tuple(rows)),))


def where_section(study: Study, questions: Questions, base: HintBase, answers: Answers, chosen: Chosen) -> ExtraSection:
    """The policy's gain by length of the session, by how often its answer was met, and by its attribute."""
    task, metric = questions.task, study.config.primary_metric
    ranks_SH = answers.ranks_SH[questions.test.start : questions.test.stop]
    values = {
        name: np.mean(
            [metric_of_rank(metric, ranks_SH[np.arange(len(ranks_SH)), h]) for h in chosen.hints[name].values()],
            axis=0,
        )
        for name in (NO_HINT, SINGLE, PPO)
    }
    met = np.bincount(
        [item for session in task.train for item in (*session.items, session.answer)],
        minlength=task.items.height,
    )
    chosen_NS = np.stack(list(chosen.hints[PPO].values()))
    tables = [
        _by_band("By items shown", task.test, lambda session: len(session.items), values),
        _by_band("By how often training sessions hold the answer", task.test, lambda s: int(met[s.answer]), values),
    ]
    if all(session.attribute for session in task.test):
        rows: list[tuple[str, ...]] = []
        for attribute in sorted({session.attribute for session in task.test}):
            is_in_S = np.array([session.attribute == attribute for session in task.test])
            hint = int(np.bincount(chosen_NS[:, is_in_S].ravel()).argmax())
            rows.append((attribute, *_cells(is_in_S, values), base.texts[hint] or "(no hint)"))
        columns = ("Attribute that decides", "Sessions", "No hint", "Best single", "Re2LLM", "Hint chosen most")
        tables.append(PlainTable("By what decides the session", columns, tuple(rows)))
    note = f"Means of {metric_title(metric)} over test sessions and seeds."
    return ExtraSection("where", "Which sessions gain", note, tuple(tables))


def _by_band(
    caption: str,
    sessions: Sequence[Session],
    value_of: Callable[[Session], int],
    values: dict[str, np.ndarray],
) -> PlainTable:
    """Sessions in up to `NUM_BANDS` bands of about the same size by a whole number."""
    told_S = np.array([value_of(session) for session in sessions])
    edges = np.unique(np.quantile(told_S, np.linspace(0, 1, NUM_BANDS + 1)[1:], method="higher"))
    rows: list[tuple[str, ...]] = []
    low = int(told_S.min())
    for edge in edges.astype(int).tolist():
        is_in_S = (told_S >= low) & (told_S <= edge)
        if is_in_S.any():
            label = str(low) if low == edge else f"{low} to {edge}"
            rows.append((label, *_cells(is_in_S, values)))
        low = edge + 1
    return PlainTable(caption, ("Number", "Sessions", "No hint", "Best single", "Re2LLM"), tuple(rows))


def _cells(is_in_S: np.ndarray, values: dict[str, np.ndarray]) -> tuple[str, ...]:
    return (
        f"{is_in_S.sum():,}",
        *(number(float(values[name][is_in_S].mean())) for name in (NO_HINT, SINGLE, PPO)),
    )


def learning_section(study: Study) -> ExtraSection:
    """How the policies learnt."""
    text = (study.run.path / METRICS).read_text(encoding="utf-8")
    logged = [row for row in map(json.loads, text.splitlines()) if row["stage"].startswith("train.")]
    seeds = sorted({row["seed"] for row in logged})

    def curves(what: str) -> tuple[Curve, ...]:
        return tuple(
            Curve(
                f"seed {seed}",
                tuple(row["step"] for row in logged if row["seed"] == seed),
                tuple(row[what] for row in logged if row["seed"] == seed),
            )
            for seed in seeds
        )

    charts = (
        (
            Chart("Gain of the likeliest hints, training sessions", "episode", "gain", curves("reward")),
            Chart("Entropy of the policy", "episode", "nats", curves("entropy")),
        )
        if seeds  # none where exploration left no hint
        else ()
    )
    note = "The policy meets each training session many times; all rewards were known before: no model is asked."
    return ExtraSection("learning", "How the policy learnt", note, (), charts)
