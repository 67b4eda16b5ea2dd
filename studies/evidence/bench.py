"""`recloop bench quality`: the evidence that the feedback helps, unit by unit, and the page made of it.

Without ``--run`` it merges the units that are there and names those that are missing. A unit leaves one file
of numbers in ``OUT/results``; its run folder stays under ``--runs`` and is gone on with after a kill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from recloop.encoders.sentence import TextEncoder
from recloop.experiment.manifest import MANIFEST
from recloop.experiment.reuse import reuse_from, source_run_of
from recloop.experiment.run_folder import REUSED, RunFolder
from recloop.llm.load import lm_digest
from recloop.methods.context import Loop, open_loop
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.data import Task, prepare
from recloop.methods.dpo4rec.recipe import run
from recloop.progress import SILENT, Progress, format_seconds
from studies.evidence.extras import evaluate_transfer, measure_leak_on_purpose
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
from studies.evidence.study import (
    StudyRun,
    changed_settings,
    chosen_runs,
    read_studies,
    study_runs,
    with_data_folder,
)
from studies.evidence.tables import (
    costs,
    groups_of,
    test_tables,
    valid_tables,
)
from studies.evidence.writing import writing

RESULTS = "results"  # inside the output folder; the page results.md lies beside it
QUICK_STUDIES, QUICK_FOLDER = Path("studies/quality-quick"), Path("runs/quality-quick")


class QualityConfig(BaseModel):
    """Which studies, where their data is, and which units are to be done now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    studies: Path = Field(default=Path("studies/quality"), description="folder of studies, a TOML file each")
    data: Path = Field(default=Path("data"), description="folder with the data sets; the studies' paths start there")
    run: tuple[str, ...] = Field(
        default=(), description="units to do now, by name or pattern (* and ?); empty: only merge"
    )
    again: bool = Field(default=False, description="do a unit even where its file is there and has the same settings")
    runs: Path = Field(
        default=Path("runs/quality"), description="run folders, one a unit; they hold texts and stay private"
    )


def quick(config: QualityConfig) -> QualityConfig:
    """A small complete study on the built-in simulated data instead: every unit, nothing needed, nothing committed."""
    return config.model_copy(update={"studies": QUICK_STUDIES, "run": ("*",), "runs": QUICK_FOLDER / "runs"})


def bench_quality(
    config: QualityConfig, out: Path, progress: Progress = SILENT, *, encoder: TextEncoder | None = None
) -> str:
    """Do the units that are asked for, then write the page of all there are; returns what is missing.

    Args:
        out: takes ``results.md`` and, in ``results``, the figures and a file of numbers per unit.
        encoder: another encoder than the configured ones.

    Raises:
        SettingError: a study is wrong, or no unit has such a name.
        DataError: a file in ``results`` is no unit's.
    """
    studies = read_studies(config.studies)
    units = study_runs(studies)
    (out / RESULTS).mkdir(parents=True, exist_ok=True)
    for unit in chosen_runs(units, config.run) if config.run else ():
        state = state_of(unit, out / RESULTS)
        if state.result is not None and not config.again:
            progress.say(f"{unit.name} is done; --again true does it again")
            continue
        progress.say(f"{unit.name}: about {unit.minutes:.0f} minutes on two cores")
        write_numbers(out / RESULTS / f"{unit.name}.json", do_run(unit, config, progress, encoder))
        write_page(out, Evidence(studies, states_of(units, out / RESULTS)))
    evidence = Evidence(studies, states_of(units, out / RESULTS))
    return f"{write_page(out, evidence)}\n{what_is_missing(evidence)}"


def do_run(
    unit: StudyRun, config: QualityConfig, progress: Progress = SILENT, encoder: TextEncoder | None = None
) -> RunNumbers:
    """One run of DPO4Rec, or the rest of it, and its numbers."""
    settings = with_data_folder(unit.config, config.data)
    folder = config.runs / unit.name
    with RunFolder.open(folder, settings.model_dump(mode="json")) as opened:
        if unit.reuses_from is not None and (config.runs / unit.reuses_from / MANIFEST).is_file():
            reuse_from(opened, config.runs / unit.reuses_from)
        run(settings, opened, progress, encoder=encoder)
        loop = open_loop(settings, opened, progress, None, None, encoder)
        return measure_run(unit, loop, config.runs)


def measure_run(unit: StudyRun, loop: Loop, runs: Path) -> RunNumbers:
    """The numbers of a finished run; what its study measures beside the table is done first."""
    task, seed = prepare(loop), unit.fold
    if "transfer" in unit.extras:
        assert unit.transfer_from is not None
        evaluate_transfer(loop, task, seed, runs / unit.transfer_from)
    leakage = measure_leak_on_purpose(loop, task, seed) if "leakage" in unit.extras else None
    written, changes, shown = writing(loop, task, seed)
    assessed = scored_completions(loop, task, seed)
    return RunNumbers(
        unit=unit.name,
        study=unit.study,
        variant=unit.setting,
        fold=unit.fold,
        config=unit.settings,
        dataset=task.dataset.name,
        num_users=task.dataset.num_users,
        num_items=task.dataset.num_items,
        groups=groups_of(task),
        tables=(*test_tables(loop, seed), *valid_tables(loop, task, seed)),
        reliability=reliabilities(assessed) if assessed else (),
        predicted=predicted_rewards(loop, assessed) if assessed else (),
        predicted_by_source=measure_by_source(unit, loop, task, runs),
        rewards=reward_numbers(loop, task, seed),
        writing=written,
        writing_changes=changes,
        leakage=leakage,
        costs=costs(loop),
        reused_from=source_run_of(loop.run),
        examples=shown,
        versions=loop.run.manifest["versions"],
        lm_digest=loop.first_lm.digest,
    )


def measure_by_source(unit: StudyRun, loop: Loop, task: Task, runs: Path) -> dict[str, Moments]:
    """`predicted_by` of the run that this one took its log from; empty where it took none, or that is gone."""
    folder = runs / (unit.reuses_from or "")
    if REUSED not in loop.run.manifest["stages"]["prepare"] or not (folder / MANIFEST).is_file():
        return {}
    run = RunFolder.look(folder)
    config = Dpo4RecConfig.model_validate(run.config)
    source = open_loop(config, run, loop.progress, None, None, None)
    if config.encoder == loop.config.encoder:  # the same one, which may have been passed as an object
        source = replace(source, open_encoder=loop.open_encoder, encoder=loop.encoder)
    return predicted_by(source, loop, task, unit.fold)


def states_of(units: Sequence[StudyRun], folder: Path) -> tuple[RunState, ...]:
    """What there is of every unit; the time of a missing one from its siblings where one is done."""
    states = [state_of(unit, folder) for unit in units]
    measured: dict[tuple[str, str], float] = {}
    for state in states:
        if state.result is not None:
            measured[state.unit.study, state.unit.setting] = state.result.wall_s / 60
    return tuple(
        RunState(s.unit, s.result, s.why, measured.get((s.unit.study, s.unit.setting), s.minutes)) for s in states
    )


def state_of(unit: StudyRun, folder: Path) -> RunState:
    """A unit's numbers, if they were made with the settings and the language model of today."""
    file = folder / f"{unit.name}.json"
    if not file.is_file():
        return RunState(unit, None, "not run yet", unit.minutes)
    result = read_numbers(file)
    changed = changed_settings(result.config, unit)
    if changed:
        return RunState(unit, None, f"run with other settings ({'; '.join(changed)})", unit.minutes)
    if unit.config.lm.name.startswith("bundled") and result.lm_digest != lm_digest(unit.config.lm):
        return RunState(unit, None, "run with another bundled language model", unit.minutes)
    return RunState(unit, result, "", unit.minutes)


def what_is_missing(evidence: Evidence) -> str:
    """A line per missing unit with its time, and all of them together."""
    missing = evidence.missing
    done = len(evidence.states) - len(missing)
    if not missing:
        return f"all {done} units are there"
    lines = [f"{done} of {len(evidence.states)} units are there; missing, with minutes on two cores:"]
    lines += [f"  {state.minutes:5.0f}  {state.unit.name:<36} {state.why}" for state in missing]
    total = format_seconds(60 * sum(state.minutes for state in missing))
    return "\n".join([*lines, f"{total.strip()} in all; recloop bench quality --run UNIT,UNIT or a pattern"])
