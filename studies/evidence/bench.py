"""Does the reward help? Runs the studies one run at a time and writes the page made of their numbers.

Without ``--run`` it merges the runs that are done and names those that are missing. A run leaves one file of numbers
in ``OUT/results``. Its run folder stays under ``--runs``, so that a killed run resumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from recloop.encoders.sentence import TextEncoder
from recloop.experiment.manifest import MANIFEST
from recloop.experiment.reuse import source_run_of
from recloop.experiment.run_folder import REUSED, RunFolder
from recloop.llm.load import lm_folder
from recloop.llm.weights import weights_hash
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.data import Task, prepare
from recloop.methods.method import run_method
from recloop.methods.registry import method_named
from recloop.methods.run import reuse_run
from recloop.methods.study import OwnParts, open_study
from recloop.methods.study import Study as Loop
from recloop.progress import SILENT, Progress, format_seconds
from studies.evidence.extras import evaluate_checked, evaluate_transfer, measure_leak_on_purpose
from studies.evidence.numbers import RunNumbers, read_numbers, write_numbers
from studies.evidence.page import write_page
from studies.evidence.pooling import Evidence, RunState
from studies.evidence.reward_quality import (
    predicted_by,
    predicted_rewards,
    reliabilities,
    reward_numbers,
    scored_completions,
)
from studies.evidence.statistics import Moments
from studies.evidence.study import StudyRun, changed_settings, chosen_runs, read_studies, study_runs, with_data_folder
from studies.evidence.tables import costs, groups_of, test_tables, valid_tables
from studies.evidence.writing import writing

RESULTS = "results"  # inside the output folder, beside the page results.md
QUICK_STUDIES, QUICK_FOLDER = Path("studies/quality-quick"), Path("runs/quality-quick")


class QualityConfig(BaseModel):
    """Which studies, where their data is, and which runs to do now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    studies: Path = Field(default=Path("studies/quality"), description="folder of studies, one TOML file each")
    data: Path = Field(default=Path("data"), description="folder with the data sets; the studies' paths start there")
    run: tuple[str, ...] = Field(default=(), description="runs to do now, by name or pattern (* and ?); empty: none")
    again: bool = Field(default=False, description="repeat a run whose file exists and has the same settings")
    runs: Path = Field(default=Path("runs/quality"), description="the run folders; they contain texts and stay private")
    quick: bool = Field(
        default=False, description="the small studies of simulated data instead, into runs/quality-quick"
    )


def quick(config: QualityConfig) -> QualityConfig:
    """The small studies of the built-in simulated data instead, with all their runs; they need nothing else."""
    return config.model_copy(update={"studies": QUICK_STUDIES, "run": ("*",), "runs": QUICK_FOLDER / "runs"})


def bench_quality(
    config: QualityConfig, out: Path, progress: Progress = SILENT, *, encoder: TextEncoder | None = None
) -> str:
    """Do the chosen runs, then write the page of all runs that are done; returns which are missing.

    Args:
        out: takes ``results.md`` and, in ``results``, the figures and one file of numbers per run.
        encoder: used in place of the configured ones.

    Raises:
        SettingError: a study is wrong, or no run matches a pattern.
        DataError: a file in ``results`` does not hold the numbers of a run.
    """
    studies = read_studies(config.studies)
    runs = study_runs(studies)
    (out / RESULTS).mkdir(parents=True, exist_ok=True)
    for one in chosen_runs(runs, config.run) if config.run else ():
        if state_of(one, out / RESULTS).numbers is not None and not config.again:
            progress.say(f"{one.name} is done; --again true repeats it")
            continue
        progress.say(f"{one.name}: about {one.minutes:.0f} minutes on two cores")
        write_numbers(out / RESULTS / f"{one.name}.json", do_run(one, config, progress, encoder))
        write_page(out, Evidence(studies, states_of(runs, out / RESULTS)))
    evidence = Evidence(studies, states_of(runs, out / RESULTS))
    return f"{write_page(out, evidence)}\n{what_is_missing(evidence)}"


def do_run(
    study_run: StudyRun, config: QualityConfig, progress: Progress = SILENT, encoder: TextEncoder | None = None
) -> RunNumbers:
    """The numbers of a run of DPO4Rec, which is done first or resumed."""
    settings = with_data_folder(study_run.config, config.data)
    with RunFolder.open(config.runs / study_run.name, settings.model_dump(mode="json")) as opened:
        source = config.runs / (study_run.reuses_from or "")
        if study_run.reuses_from is not None and (source / MANIFEST).is_file():
            reuse_run(opened, source)
        run_method(method_named("dpo4rec"), settings, opened, progress, encoder=encoder)
        loop = open_study(settings, opened, progress, None, OwnParts(encoder=encoder))
        return measure_run(study_run, loop, config.runs)


def measure_run(study_run: StudyRun, loop: Loop, runs: Path) -> RunNumbers:
    """The numbers of a finished run, after the extra measurements of its study."""
    task, seed = prepare(loop), study_run.fold
    if "transfer" in study_run.extras:
        assert study_run.transfer_from is not None
        evaluate_transfer(loop, task, seed, runs / study_run.transfer_from)
    if "checked" in study_run.extras:
        evaluate_checked(loop, task, seed)
    leakage = measure_leak_on_purpose(loop, task, seed) if "leakage" in study_run.extras else None
    written, changes, examples = writing(loop, task, seed)
    scored = scored_completions(loop, task, seed)
    return RunNumbers(
        run=study_run.name,
        study=study_run.study,
        setting=study_run.setting,
        fold=study_run.fold,
        config=study_run.config_json,
        dataset=task.log.name,
        num_users=task.log.num_users,
        num_items=task.log.num_items,
        groups=groups_of(task),
        tables=(*test_tables(loop, task, seed), *valid_tables(loop, task, seed)),
        reliability=reliabilities(scored) if scored else (),
        predicted=predicted_rewards(loop, scored) if scored else (),
        predicted_by_source=measure_by_source(study_run, loop, task, runs),
        rewards=reward_numbers(loop, task, seed),
        writing=written,
        writing_changes=changes,
        leakage=leakage,
        costs=costs(loop),
        reused_from=source_run_of(loop.run),
        examples=examples,
        versions=loop.run.manifest["versions"],
        lm_digest=loop.first_lm.digest,
    )


def measure_by_source(study_run: StudyRun, loop: Loop, task: Task, runs: Path) -> dict[str, Moments]:
    """`predicted_by` of the source run whose log this one reuses; empty where there is none any more."""
    folder = runs / (study_run.reuses_from or "")
    if REUSED not in loop.run.manifest["steps"]["prepare"] or not (folder / MANIFEST).is_file():
        return {}
    opened = RunFolder.look(folder)
    config = Dpo4RecConfig.model_validate(opened.config)
    source = open_study(config, opened, loop.progress, None)
    if config.encoder == loop.config.encoder:  # the same one, which may have been passed as an object
        source = replace(source, open_encoder=loop.open_encoder, encoder=loop.encoder)
    return predicted_by(source, loop, task, study_run.fold)


def states_of(runs: Sequence[StudyRun], folder: Path) -> tuple[RunState, ...]:
    """The state of every run; a missing one takes the time of a done run of the same setting."""
    states = [state_of(one, folder) for one in runs]
    measured: dict[tuple[str, str], float] = {}
    for state in states:
        if state.numbers is not None:
            measured[state.run.study, state.run.setting] = state.numbers.wall_s / 60
    return tuple(
        replace(state, minutes=measured.get((state.run.study, state.run.setting), state.minutes)) for state in states
    )


def state_of(study_run: StudyRun, folder: Path) -> RunState:
    """A run's numbers, if they were made with today's settings and language model."""
    file = folder / f"{study_run.name}.json"
    if not file.is_file():
        return RunState(study_run, None, "not run yet", study_run.minutes)
    numbers = read_numbers(file)
    changed = changed_settings(numbers.config, study_run)
    if changed:
        return RunState(study_run, None, f"run with other settings ({'; '.join(changed)})", study_run.minutes)
    lm = study_run.config.lm
    if lm.name.startswith("bundled") and numbers.lm_digest != weights_hash(lm_folder(lm)):
        return RunState(study_run, None, "run with another bundled language model", study_run.minutes)
    return RunState(study_run, numbers, "", study_run.minutes)


def what_is_missing(evidence: Evidence) -> str:
    """A line per missing run with its time, and their sum."""
    missing = evidence.missing
    done = len(evidence.states) - len(missing)
    if not missing:
        return f"all {done} study runs are done"
    lines = [f"{done} of {len(evidence.states)} study runs are done; missing, with minutes on two cores:"]
    lines += [f"  {state.minutes:5.0f}  {state.run.name:<36} {state.why}" for state in missing]
    total = format_seconds(60 * sum(state.minutes for state in missing))
    return "\n".join([*lines, f"{total.strip()} in all; do them with --run NAME,NAME or a pattern"])
