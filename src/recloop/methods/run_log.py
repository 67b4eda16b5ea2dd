"""The log of a run or of a plan: bad rows that are set aside lie in the run's folder, and a plan writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from recloop.data.assemble import sample_users
from recloop.data.load import DataConfig, read_log
from recloop.progress import SILENT, Progress
from recloop.records import Log

DEFAULT = DataConfig.model_fields["quarantine"].default
PLAN_USERS, PROMPT_USERS = 1_000, 200  # of a larger log a plan counts the lists, and makes the prompts, of so many
MAX_ROWS_WHOLE = 5_000_000  # of a Parquet table with more, a plan reads the rows of some users alone


@dataclass(frozen=True, slots=True)
class PlanLog:
    """A log for a plan.

    log: whole, or the part of some users, drawn, where the whole would take too long to read.
    num_users, num_items: of the whole.
    """

    log: Log
    num_users: int
    num_items: int

    @classmethod
    def of(cls, log: Log) -> PlanLog:
        return cls(log, log.num_users, log.num_items)

    def sample(self, most: int, seed: int) -> Log:
        """The log, or that of `most` of its users, drawn, where there are more."""
        return self.log if self.log.num_users <= most else sample_users(self.log, most, seed)


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


def read_plan_sample(data: DataConfig, seed: int) -> PlanLog:
    """As `read_plan_log`; of a large Parquet table only the rows of about `PLAN_USERS` users are read and checked."""
    counted = _count_large_table(data)
    if counted is None:
        return PlanLog.of(read_plan_log(data, seed))
    num_rows, num_users, num_items = counted
    kept = data.users or num_users
    with TemporaryDirectory() as folder:
        some = Path(folder) / "some.parquet"
        drawn = pl.col(data.table.user).hash(seed) < int(2**64 * min(PLAN_USERS, kept) / num_users)
        pl.scan_parquet(data.path or "").filter(drawn).sink_parquet(some)
        log = read_plan_log(data.model_copy(update={"path": some, "users": None}), seed)
    told = (
        f"reader table: {num_rows:,} rows of {num_users:,} users with {num_items:,} items; those of {log.num_users:,} "
        f"users, drawn, were read and checked"
    )
    log = replace(log, name=(data.path or some).name.split(".")[0], reading=(told, *log.reading[1:]))
    return PlanLog(log, kept, num_items)


def _count_large_table(data: DataConfig) -> tuple[int, int, int] | None:
    """Rows, users and items of a Parquet table that is large enough to read it in part; None for any other log."""
    table, path = data.table, data.path
    is_plain = data.name == "table" and table.impressions is None and not data.min_item_ratings
    if not is_plain or path is None or not path.is_file() or path.suffix != ".parquet":
        return None
    try:
        rows = pl.scan_parquet(path)
        num_rows = rows.select(pl.len()).collect().item()
        if num_rows <= MAX_ROWS_WHOLE or not {table.user, table.item} <= set(rows.collect_schema().names()):
            return None
        counts = rows.select(pl.col(table.user).n_unique().alias("users"), pl.col(table.item).n_unique().alias("items"))
        num_users, num_items = counts.collect(engine="streaming").row(0)
    except (pl.exceptions.PolarsError, OSError):
        return None  # the reader says what is wrong
    is_enough = num_users > 2 * PLAN_USERS and (data.users or 0) <= num_users  # else the reader says what is wrong
    return (num_rows, num_users, num_items) if is_enough else None
