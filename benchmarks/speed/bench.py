"""How fast is each code path against a named alternative? Measures the parts and writes the page of all.

Each part leaves its own file, and all files make one page. A part can be measured alone and at another time, since
every ratio is taken within one part and each part names its machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel, ConfigDict, Field, model_validator

from benchmarks.speed.figures import FOLDER, USUAL_PARTS, Findings, PartName, PartResult
from recloop.errors import SettingError
from recloop.files import atomic_write_text
from recloop.progress import SILENT, Progress, format_seconds

# Rough time of each part at the full amount on two cores, for the progress line.
EXPECTED_S: dict[PartName, float] = {
    "metrics": 60,
    "training": 240,
    "rewards": 240,
    "sampling": 180,
    "encoding": 330,
    "dpo": 240,
    "smollm2": 400,
    "reading": 90,
    "large-log": 180,
    "many-users": 1800,
    "serving": 60,
    "commands": 40,
    "threads": 150,
}


class SpeedConfig(BaseModel):
    """What is measured, how often and with how much work."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: tuple[PartName, ...] = Field(
        default=USUAL_PARTS,
        min_length=1,
        description="which parts to measure; smollm2 wants the model fetched, many-users takes half an hour",
    )
    repetitions: int = Field(default=3, ge=1, description="of each implementation; median and range are reported")
    threads: int | None = Field(
        default=None, ge=1, description="of the mathematics library, for both implementations; None for all cores"
    )
    share: float = Field(
        default=1.0, gt=0, le=1, description="of the full amount of work; below 1 it is marked as a trial"
    )
    data_path: Path | None = Field(
        default=None,
        description="the ml-1m folder; None simulates a log of about its size where that is enough",
    )
    ranx_python: Path | None = Field(
        default=None,
        description="a Python with ranx, whose dependencies may conflict with ours; None leaves it out",
    )

    @model_validator(mode="after")
    def _each_part_once(self) -> SpeedConfig:
        if len(set(self.parts)) < len(self.parts):
            raise SettingError(f"parts must differ, got {', '.join(self.parts)}; drop the repeated ones")
        return self


@dataclass(frozen=True, slots=True)
class Bench:
    """The inputs of a part.

    scratch: an empty folder, removed afterwards.
    threads: the number in use.
    """

    config: SpeedConfig
    threads: int
    scratch: Path
    progress: Progress

    def amount(self, full: int, least: int) -> int:
        """The configured share of a full amount of work."""
        return max(least, round(full * self.config.share))

    @property
    def repetitions(self) -> int:
        return self.config.repetitions


def bench_speed(config: SpeedConfig, out: Path, progress: Progress = SILENT) -> str:
    """The table of the measured parts, which are written to ``out/benchmarks/PART.json`` and ``out/benchmarks.md``.

    Args:
        out: parts measured earlier stay there and are on the page too.
    """
    import torch

    from benchmarks.speed.page import read_parts, table, write_page

    threads = config.threads or _all_cores()
    torch.set_num_threads(threads)
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    left_s = sum(EXPECTED_S[part] for part in config.parts) * config.share
    for part in config.parts:
        progress.say(f"{part}: {format_seconds(left_s)} left for all parts, roughly, on two cores")
        left_s -= EXPECTED_S[part] * config.share
        result = measure_part(part, config, threads, progress)
        atomic_write_text(out / FOLDER / f"{part}.json", result.model_dump_json(indent=1) + "\n")
        write_page(out)
    return table([result for result in read_parts(out / FOLDER) if result.part in config.parts])


def measure_part(part: PartName, config: SpeedConfig, threads: int, progress: Progress) -> PartResult:
    """The result of one part, measured in its own scratch folder."""
    from benchmarks.speed.measuring import describe_machine

    machine = describe_machine(threads)
    start_s = time.perf_counter()
    with TemporaryDirectory(prefix="recloop-bench-") as scratch:
        findings = _measure_of(part)(Bench(config, threads, Path(scratch), progress))
    return PartResult(
        part=part,
        taken=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        wall_s=time.perf_counter() - start_s,
        repetitions=config.repetitions,
        share=config.share,
        machine=machine,
        findings=findings,
    )


def _measure_of(part: PartName) -> Callable[[Bench], Findings]:
    """The function ``measure`` of the module named after the part."""
    return import_module(f"benchmarks.speed.{part.replace('-', '_')}_part").measure


def _all_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
