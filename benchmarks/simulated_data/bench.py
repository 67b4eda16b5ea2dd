"""Does training help where texts can help, and does nothing help where nothing can?

Each run is a whole DPO4Rec run on its own simulated log. In half of the logs the users' tastes decide what they click
(`signal`), in the other half chance does. The users of all logs of a kind are tested together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from recloop.evaluation.per_user_scores import read_variant_scores
from recloop.evaluation.significance import holm, sign_flip_p
from recloop.experiment.run_folder import RunFolder
from recloop.files import atomic_write_json
from recloop.methods.dpo4rec.config import CompletionsConfig, Dpo4RecConfig
from recloop.methods.dpo4rec.evaluate import ROWS
from recloop.methods.dpo4rec.names import RANDOM_LABELS, SHUFFLED, TRAINED, UNTUNED
from recloop.methods.method import run_method
from recloop.methods.registry import method_named
from recloop.methods.shared_config import complete_sections
from recloop.progress import SILENT, Progress

VARIANTS = (SHUFFLED, UNTUNED, RANDOM_LABELS, TRAINED)
WITH_SIGNAL, WITHOUT_SIGNAL = "signal", "no-signal"
CONTRASTS = {
    WITH_SIGNAL: ((TRAINED, RANDOM_LABELS), (TRAINED, UNTUNED), (TRAINED, SHUFFLED), (UNTUNED, SHUFFLED)),
    WITHOUT_SIGNAL: ((TRAINED, SHUFFLED), (UNTUNED, SHUFFLED), (RANDOM_LABELS, SHUFFLED)),
}
WANTED = {
    WITH_SIGNAL: "trained above random labels and above untuned",
    WITHOUT_SIGNAL: "nothing above shuffled",
}


class SimulatedBenchConfig(BaseModel):
    """Which simulated logs, and the run on each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1, description="one simulated log and run each")
    signal: float = Field(
        default=1.0, gt=0, le=1, description="data.simulated.signal of the simulated logs with signal"
    )
    alpha: float = Field(default=0.01, gt=0, lt=1, description="largest p, after Holm, of a difference")
    run: Dpo4RecConfig = Field(
        default=Dpo4RecConfig(variants="core", completions=CompletionsConfig(fit=4)),
        description="the run; seeds, data_seed and data.simulated.signal are set for each log",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete_sections(cls, given: Any) -> Any:
        return complete_sections(cls, given)


def bench_simulated(config: SimulatedBenchConfig, out: Path, progress: Progress = SILENT) -> str:
    """The tables of all runs, and whether they are as they should be; runs that are not done are done first.

    Args:
        out: a folder per run, and beside it a small JSON file once the run is done; a killed run resumes.
    """
    out.mkdir(parents=True, exist_ok=True)
    kinds = {WITH_SIGNAL: config.signal, WITHOUT_SIGNAL: 0.0}
    with progress.stage("simulated", len(kinds) * len(config.seeds), "simulated") as step:
        runs: dict[str, list[Mapping[str, Any]]] = {kind: [] for kind in kinds}
        for seed in config.seeds:
            for kind, signal in kinds.items():
                runs[kind].append(do_run(config.run, out / f"{kind}-s{seed}", seed, signal, progress))
                step()
    return "\n\n".join(verdict(kind, runs[kind], config) for kind in kinds)


def do_run(base: Dpo4RecConfig, folder: Path, seed: int, signal: float, progress: Progress) -> Mapping[str, Any]:
    """One run's settings and, by variant, the primary metric of every test user."""
    settings = base.model_dump(mode="json")
    settings |= {"seeds": [seed], "data_seed": seed}
    settings["data"]["simulated"]["signal"] = signal
    config = Dpo4RecConfig.model_validate(settings)
    file = folder.with_name(f"{folder.name}.json")
    if file.is_file():
        done: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if done["config"] == config.model_dump(mode="json"):
            return done
    with RunFolder.open(folder, config.model_dump(mode="json")) as opened:
        run_method(method_named("dpo4rec"), config, opened, progress)
        values: dict[str, list[float]] = {}
        for name in VARIANTS:
            fit = opened.folder(f"fit.{name}.{config.backbones[0]}.s{seed}")
            scores = next(found for found in read_variant_scores(fit / ROWS) if found.name == name)
            values[name] = scores.of(config.primary_metric)[0].tolist()
    done = {"config": config.model_dump(mode="json"), "seed": seed, "signal": signal, "variants": values}
    atomic_write_json(file, done)
    return done


def verdict(kind: str, runs: Sequence[Mapping[str, Any]], config: SimulatedBenchConfig) -> str:
    """Variants and contrasts of one kind of log over all its users, and whether they are as wanted."""
    contrasts = CONTRASTS[kind]
    by_log = [
        [np.subtract(run["variants"][name], run["variants"][against]) for name, against in contrasts] for run in runs
    ]
    differences_UC = np.concatenate([np.stack(columns, axis=1) for columns in by_log])
    rng = np.random.default_rng(0)
    p_C = sign_flip_p(differences_UC, config.run.statistics, rng)
    holm_C = holm(p_C)
    lines = [
        f"{kind}: {config.run.primary_metric}, {len(runs)} simulated logs, {len(differences_UC)} test users",
        *(f"  {name:<18}{variant_mean(runs, name):.4f}" for name in VARIANTS),
    ]
    is_shown: dict[tuple[str, str], bool] = {}
    for c, (name, against) in enumerate(contrasts):
        means = [float(columns[c].mean()) for columns in by_log]
        is_shown[name, against] = holm_C[c] < config.alpha and min(means) > 0
        lines.append(
            f"  {name + ' - ' + against:<36}{differences_UC[:, c].mean():+.4f}  p {p_C[c]:.5f}  "
            f"Holm {holm_C[c]:.5f}  by log {' '.join(f'{mean:+.4f}' for mean in means)}"
        )
    wanted = [pair for pair in contrasts if pair[0] == TRAINED and pair[1] != SHUFFLED]
    holds = all(is_shown[pair] for pair in wanted) if kind == WITH_SIGNAL else not any(is_shown.values())
    return "\n".join([*lines, f"  {WANTED[kind]}: {'holds' if holds else 'DOES NOT HOLD'}"])


def variant_mean(runs: Sequence[Mapping[str, Any]], name: str) -> float:
    """A variant's mean over the users of all logs."""
    return float(np.mean(np.concatenate([run["variants"][name] for run in runs])))
