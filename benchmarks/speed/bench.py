"""The parts of the speed bench, one after another; each leaves its own file, and all files make one page.

A part can be measured alone, in another minute, and takes its place beside the parts measured before:
every ratio was taken within one part, and each part says on which machine.
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

from benchmarks.speed.figures import ALL_PARTS, FOLDER, Findings, PartName, PartResult
from recloop.errors import SettingError
from recloop.files import atomic_write_text
from recloop.progress import SILENT, Progress, format_seconds

# About how long each takes at the full amount on two cores, for the line that says so.
EXPECTED_S: dict[PartName, float] = {
    "metrics": 60,
    "training": 240,
    "rewards": 240,
    "sampling": 180,
    "encoding": 330,
    "dpo": 240,
    "reading": 90,
    "large-log": 180,
    "serving": 60,
    "commands": 40,
    "threads": 150,
}


class SpeedConfig(BaseModel):
    """What is measured, how often and with how much."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: tuple[PartName, ...] = Field(default=ALL_PARTS, min_length=1, description="which paths")
    repetitions: int = Field(default=3, ge=1, description="of each contestant; the median and the range are reported")
    threads: int | None = Field(
        default=None, ge=1, description="of the mathematics library, for both contestants; None for all cores"
    )
    share: float = Field(
        default=1.0, gt=0, le=1, description="of the amounts of work; less is a trial and marked as one"
    )
    data_path: Path | None = Field(
        default=None,
        description="the ml-1m folder; None simulates a log of about its size where that will do",
    )
    ranx_python: Path | None = Field(
        default=None,
        description="a Python that has ranx, whose needs may conflict with ours; None leaves it out",
    )

    @model_validator(mode="after")
    def _each_part_once(self) -> SpeedConfig:
        if len(set(self.parts)) < len(self.parts):
            raise SettingError(f"parts must differ, got {', '.join(self.parts)}; drop the repeated")
        return self


@dataclass(frozen=True, slots=True)
class Bench:
    """What a part is given.

    scratch: an empty folder, removed afterwards.
    threads: resolved.
    """

    config: SpeedConfig
    threads: int
    scratch: Path
    progress: Progress

    def amount(self, full: int, least: int) -> int:
        """The configured share of an amount of work."""
        return max(least, round(full * self.config.share))

    @property
    def repetitions(self) -> int:
        return self.config.repetitions


def bench_speed(config: SpeedConfig, out: Path, progress: Progress = SILENT) -> str:
    """Measure the parts, write each to ``out/benchmarks/PART.json``, then make ``out/benchmarks.md`` again.

    Args:
        out: parts measured earlier are kept and stand on the page too.

    Returns:
        The table of the parts just measured.
    """
    import torch

    from benchmarks.speed.page import read_parts, table, write_page

    threads = config.threads or _all_cores()
    torch.set_num_threads(threads)
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    left_s = sum(EXPECTED_S[part] for part in config.parts) * config.share
    for part in config.parts:
        progress.say(f"{part}: {format_seconds(left_s)} left for all parts, by experience on two cores")
        left_s -= EXPECTED_S[part] * config.share
        result = measure_part(part, config, threads, progress)
        atomic_write_text(out / FOLDER / f"{part}.json", result.model_dump_json(indent=1) + "\n")
        write_page(out)
    return table([result for result in read_parts(out / FOLDER) if result.part in config.parts])


def measure_part(part: PartName, config: SpeedConfig, threads: int, progress: Progress) -> PartResult:
    """One part, in a scratch folder of its own."""
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
    """``measure`` of the module named after the part."""
    return import_module(f"benchmarks.speed.{part.replace('-', '_')}_part").measure


def _all_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
