"""Training must help where texts can help, and nothing may help where nothing can.

Every unit is a whole DPO4Rec run in a simulated log of its own: in half of them the users' tastes decide what they
click (`signal`), in the other half chance does. The users of all simulated logs of a kind are tested together.
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
from recloop.methods.dpo4rec.config import Dpo4RecConfig, CompletionsConfig
from recloop.methods.dpo4rec.evaluate import RANDOM_LABELS, ROWS, SHUFFLED, TRAINED, UNTUNED
from recloop.methods.dpo4rec.recipe import run
from recloop.methods.shared_config import complete_sections
from recloop.progress import SILENT, Progress

BENCH_ROWS = (SHUFFLED, UNTUNED, RANDOM_LABELS, TRAINED)
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
    """Which simulated logs, and the run in each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1, description="one simulated log and run each")
    signal: float = Field(
        default=1.0, gt=0, le=1, description="data.simulated.signal of the simulated logs with signal"
    )
    alpha: float = Field(default=0.01, gt=0, lt=1, description="largest p, after Holm, of a difference")
    run: Dpo4RecConfig = Field(
        default=Dpo4RecConfig(rows="core", completions=CompletionsConfig(fit=4)),
        description="the run; its seeds, data_seed and data.simulated.signal are set by each unit",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete_sections(cls, given: Any) -> Any:
        return complete_sections(cls, given)


def bench_simulated(config: SimulatedBenchConfig, out: Path, progress: Progress = SILENT) -> str:
    """Do all units that are not done, then test; returns the tables and whether they are as they should be.

    Args:
        out: a folder per unit with its run, and beside it a small JSON file once the unit is done; a run that
            was killed is gone on with.
    """
    out.mkdir(parents=True, exist_ok=True)
    kinds = {WITH_SIGNAL: config.signal, WITHOUT_SIGNAL: 0.0}
    with progress.stage("simulated", len(kinds) * len(config.seeds), "simulated") as step:
        units: dict[str, list[Mapping[str, Any]]] = {kind: [] for kind in kinds}
        for seed in config.seeds:
            for kind, signal in kinds.items():
                units[kind].append(do_unit(config.run, out / f"{kind}-s{seed}", seed, signal, progress))
                step()
    return "\n\n".join(verdict(kind, units[kind], config) for kind in kinds)


def do_unit(base: Dpo4RecConfig, folder: Path, seed: int, signal: float, progress: Progress) -> Mapping[str, Any]:
    """One run; per row, the primary metric of every test user."""
    settings = base.model_dump(mode="json")
    settings |= {"seeds": [seed], "data_seed": seed}
    settings["data"]["simulated"]["signal"] = signal
    config = Dpo4RecConfig.model_validate(settings)
    file = folder.with_name(f"{folder.name}.json")
    if file.is_file():
        unit: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if unit["config"] == config.model_dump(mode="json"):
            return unit
    with RunFolder.open(folder, config.model_dump(mode="json")) as opened:
        run(config, opened, progress)
        values: dict[str, list[float]] = {}
        for row in BENCH_ROWS:
            stage = opened.folder(f"fit.{row}.{config.backbones[0]}.s{seed}")
            scores = next(found for found in read_variant_scores(stage / ROWS) if found.name == row)
            values[row] = scores.of(config.primary_metric)[0].tolist()
    unit = {"config": config.model_dump(mode="json"), "seed": seed, "signal": signal, "rows": values}
    atomic_write_json(file, unit)
    return unit


def verdict(kind: str, units: Sequence[Mapping[str, Any]], config: SimulatedBenchConfig) -> str:
    """Rows and contrasts of one kind of simulated log, all its users together, and whether they are as wanted."""
    contrasts = CONTRASTS[kind]
    by_unit = [
        [np.subtract(unit["rows"][name], unit["rows"][against]) for name, against in contrasts] for unit in units
    ]
    differences_UC = np.concatenate([np.stack(columns, axis=1) for columns in by_unit])
    rng = np.random.default_rng(0)
    p_C = sign_flip_p(differences_UC, config.run.statistics, rng)
    holm_C = holm(p_C)
    lines = [
        f"{kind}: {config.run.primary_metric}, {len(units)} simulated logs, {len(differences_UC)} test users",
        *(f"  {row:<18}{row_mean(units, row):.4f}" for row in BENCH_ROWS),
    ]
    is_shown: dict[tuple[str, str], bool] = {}
    for c, (name, against) in enumerate(contrasts):
        means = [float(columns[c].mean()) for columns in by_unit]
        is_shown[name, against] = holm_C[c] < config.alpha and min(means) > 0
        lines.append(
            f"  {name + ' - ' + against:<36}{differences_UC[:, c].mean():+.4f}  p {p_C[c]:.5f}  "
            f"Holm {holm_C[c]:.5f}  by simulated log {' '.join(f'{mean:+.4f}' for mean in means)}"
        )
    wanted = [pair for pair in contrasts if pair[0] == TRAINED and pair[1] != SHUFFLED]
    holds = all(is_shown[pair] for pair in wanted) if kind == WITH_SIGNAL else not any(is_shown.values())
    return "\n".join([*lines, f"  {WANTED[kind]}: {'holds' if holds else 'DOES NOT HOLD'}"])


def row_mean(units: Sequence[Mapping[str, Any]], row: str) -> float:
    """Mean over the users of all simulated logs."""
    return float(np.mean(np.concatenate([unit["rows"][row] for unit in units])))
