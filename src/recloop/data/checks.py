"""Row checks: which line of which file is wrong, why, and what happens to it.

A reader settles the bad rows of all its files at once: one error lists them, or one quarantine file takes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from recloop.data.frames import TableSource
from recloop.errors import DataError, shown
from recloop.files import atomic_write_text
from recloop.progress import SILENT

BAD_ROWS_SHOWN = 5
_BAD_ROW_SCHEMA = {"file": pl.String, "line": pl.Int64, "value": pl.String, "reason": pl.String, "do": pl.String}


@dataclass(frozen=True, slots=True)
class BadRowPolicy:
    """What happens to bad rows.

    quarantine: file that takes them, one JSON object a line; None makes any bad row an error.
    say: takes the line that counts what was quarantined, and those on what a reader leaves unread.
    """

    quarantine: Path | None = None
    say: Callable[[str], None] = SILENT.say
    instead: str = "set them aside with --data.on-bad-rows quarantine"  # of repairing them, where that is an error


STRICT = BadRowPolicy()


@dataclass(frozen=True, slots=True)
class Heard:
    """A listener that passes on what it is told, fit for a terminal, and keeps it."""

    say: Callable[[str], None]
    lines: list[str] = field(default_factory=list[str])

    def __call__(self, line: str) -> None:
        line = shown(line)
        self.lines.append(line)
        self.say(line)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that can be wrong with a row.

    is_bad: True where it is wrong; null counts as wrong.
    value: what to show of the row.
    reason: what is wrong, continuing "line 7: '9' ...".
    do: what the reader of the message should do.
    compares_rows: `is_bad` looks at several rows, and only those count that pass the checks of single rows.
    is_any_bad: one value, the same as of `is_bad` and faster; None where there is nothing faster.
    """

    is_bad: pl.Expr
    value: pl.Expr
    reason: str
    do: str
    compares_rows: bool = False
    is_any_bad: pl.Expr | None = None


def no_bad_rows() -> pl.DataFrame:
    """The empty frame of bad rows."""
    return pl.DataFrame(schema=_BAD_ROW_SCHEMA)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a file: those that passed every check so far, and those that did not.

    file: where they are from.
    good: has a column ``line`` (1 for the first line of the file) until `select` leaves it out.
    bad: ``file, line, value, reason, do``, of the first check that each row failed.
    """

    file: TableSource
    good: pl.DataFrame
    bad: pl.DataFrame = field(default_factory=no_bad_rows)

    def check(self, *checks: Check) -> Rows:
        """The rows after these checks, tried in this order, those that compare rows after all others."""
        good, bad = _split(self.good, self.file, [check for check in checks if not check.compares_rows])
        good, repeated = _split(good, self.file, [check for check in checks if check.compares_rows])
        failed = pl.concat([bad, repeated]).sort("line", maintain_order=True)
        return Rows(self.file, good, pl.concat([self.bad, failed]))

    def select(self, *columns: pl.Expr | str, **named: pl.Expr) -> Rows:
        """The good rows with these columns alone."""
        return replace(self, good=self.good.select(*columns, **named))

    def with_columns(self, *columns: pl.Expr | pl.Series, **named: pl.Expr) -> Rows:
        """The good rows with these columns beside or in place of their own."""
        return replace(self, good=self.good.with_columns(*columns, **named))


def _split(rows: pl.DataFrame, file: TableSource, checks: Sequence[Check]) -> tuple[pl.DataFrame, pl.DataFrame]:
    if not checks:
        return rows, no_bad_rows()
    any_bad = rows.select(
        (check.is_bad.fill_null(True).any() if check.is_any_bad is None else check.is_any_bad).alias(str(number))
        for number, check in enumerate(checks)
    )
    if not any(any_bad.row(0)):
        return rows, no_bad_rows()  # a copy of a large log is gigabytes
    failed = pl.lit(None, dtype=pl.Int32)
    for number, check in reversed(list(enumerate(checks))):
        failed = pl.when(check.is_bad.fill_null(True)).then(pl.lit(number, dtype=pl.Int32)).otherwise(failed)
    which = rows.select(failed=failed).to_series()
    parts = [
        rows.filter(which == number).select(
            file=pl.lit(str(file)),
            line=pl.col("line").cast(pl.Int64),
            value=check.value.cast(pl.String).fill_null("(missing)"),
            reason=pl.lit(check.reason),
            do=pl.lit(check.do),
        )
        for number, check in enumerate(checks)
    ]
    return rows.filter(which.is_null()), pl.concat(parts)


def bad_rows(file: Path, found: Iterable[tuple[int, str]], reason: str, do: str) -> pl.DataFrame:
    """A frame of bad rows from (line, value) pairs that share one reason."""
    rows = [(str(file), line, value, reason, do) for line, value in found]
    return pl.DataFrame(rows, schema=_BAD_ROW_SCHEMA, orient="row")


def missing(column: str, shown: str, reason: str, do: str = "give it one") -> Check:
    """Every cell of a column of text holds something; `shown` is the column that a message shows."""
    return Check(is_blank(column), pl.col(shown), reason, do)


def is_blank(column: str) -> pl.Expr:
    """Whether a cell holds nothing that is seen: spaces, control characters and joiners alone, or null."""
    return ~pl.col(column).str.contains(r"[^\p{C}\p{Z}]").fill_null(value=False)


def known(column: str, ids: pl.Series, reason: str, do: str) -> Check:
    """Every cell of a column is one of these ids."""
    return Check(~pl.col(column).is_in(ids.implode()), pl.col(column), reason, do)


def duplicate(columns: Sequence[str], what: str, setting: str = "") -> Check:
    """No two rows agree in these one or two columns of text; the first that is good otherwise is kept.

    `setting` says, if there is such, which of the rows count.
    """
    # One number a row instead of texts: that takes a seventh of the memory, gigabytes on a large log.
    codes = [pl.col(column).cast(pl.Categorical).to_physical().cast(pl.UInt64) for column in columns]
    code = codes[0] if len(codes) == 1 else codes[0] * 2**32 + codes[1]
    return Check(
        ~code.is_first_distinct(),
        pl.concat_str([pl.col(column) for column in columns], separator=", "),
        f"repeats the {what} of an earlier line",
        "keep one of the two lines" + (f", or say with {setting} which count: first, last or all" if setting else ""),
        compares_rows=True,
        is_any_bad=code.n_unique() < pl.len(),
    )


def settle(found: Sequence[Rows], policy: BadRowPolicy) -> None:
    """Set the bad rows of these files aside; one DataError for all of them if the policy has no quarantine file."""
    bad = pl.concat([no_bad_rows(), *(rows.bad for rows in found)])
    if policy.quarantine is None:
        if bad.height:
            raise DataError(_describe(bad, policy.instead))
        return
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in bad.iter_rows(named=True)]
    if policy.quarantine.is_dir():
        raise DataError(f"data.quarantine must be a file, got the folder {policy.quarantine}; name a file in it")
    try:
        policy.quarantine.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(policy.quarantine, "".join(lines))
    except OSError as error:
        raise DataError(f"bad rows cannot be set aside ({error}); name another file as data.quarantine") from error
    if bad.height:
        counts = bad.group_by("reason", maintain_order=True).len().iter_rows()
        reasons = "; ".join(f"{count} {reason}" for reason, count in counts)
        policy.say(f"{bad.height} bad rows set aside in {policy.quarantine}: {reasons}")


def _describe(bad: pl.DataFrame, instead: str) -> str:
    shown = [
        f"  {file} line {line}: {value[:80]!r} {reason}; {do}"
        for file, line, value, reason, do in bad.head(BAD_ROWS_SHOWN).iter_rows()
    ]
    more = bad.height - len(shown)
    head = "1 row is bad:" if bad.height == 1 else f"{bad.height} rows are bad:"
    shown += [f"  and {more} more"] if more else []
    return "\n".join([head, *shown, f"repair the rows, or {instead}"])
