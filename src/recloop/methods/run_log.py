"""The log of a run or of a plan: bad rows that are set aside lie in the run's folder, and a plan writes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from recloop.data.assemble import sample_users
from recloop.data.load import DataConfig, read_log
from recloop.progress import SILENT, Progress
from recloop.records import Log

DEFAULT = DataConfig.model_fields["quarantine"].default
PLAN_USERS, PROMPT_USERS = 10_000, 1_000  # of a larger log a plan counts the lists, and makes the prompts, of so many


def read_run_log(data: DataConfig, seed: int, progress: Progress, folder: Path, name: str = "") -> Log:
    """The configured log. Bad rows that are set aside go into the run's folder, unless a setting names a file.

    Args:
        name: of the log, where the run has several.
    """
    if data.quarantine == DEFAULT:
        file = DEFAULT if not name else DEFAULT.with_stem(f"{DEFAULT.stem}-{name}")
        data = data.model_copy(update={"quarantine": folder / file})
    return read_log(data, seed, progress)


def read_plan_log(data: DataConfig, seed: int) -> Log:
    """The configured log, for a plan: bad rows that would be set aside are counted, and written nowhere."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / DEFAULT
        log = read_log(data.model_copy(update={"quarantine": file}), seed, SILENT)
    told = (line.replace(f" in {file}", "") for line in log.reading)
    return replace(log, reading=tuple(told))


def plan_sample(log: Log, most: int, seed: int) -> Log:
    """The log, or that of `most` of its users, drawn, where there are more."""
    return log if log.num_users <= most else sample_users(log, most, seed)
