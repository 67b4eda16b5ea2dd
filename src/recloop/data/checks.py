"""Row checks: what is wrong with which line of which file, and what becomes of it.

A reader collects the bad rows of all its files and settles them once: either one error that lists them, or
one quarantine file that holds them and a line that counts them.
"""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recloop.errors import DataError

BAD_ROWS_SHOWN = 5
GZIP_ERRORS = (gzip.BadGzipFile, EOFError, zlib.error)
_BAD_ROW_SCHEMA = {
    "file": pl.String,
    "line": pl.Int64,
    "value": pl.String,
    "reason": pl.String,
    "do": pl.String,
}


def _silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class BadRowPolicy:
    """What becomes of bad rows.

    quarantine: file that takes them, one JSON object a line; None makes any bad row an error.
    say: takes the line that counts what was quarantined, and those on what a reader leaves unread.
    """

    quarantine: Path | None = None
    say: Callable[[str], None] = _silent


STRICT = BadRowPolicy()


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that can be wrong with a row.

    is_bad: True where it is wrong; null counts as wrong.
    value: what to show of the row.
    reason: what is wrong, continuing "line 7: '9' ...".
    do: what the reader of the message should do.
    compares_rows: `is_bad` looks at several rows, and only those count that pass the checks of single rows.
    """

    is_bad: pl.Expr
    value: pl.Expr
    reason: str
    do: str
    compares_rows: bool = False


def split_bad_rows(rows: pl.DataFrame, file: Path, checks: Sequence[Check]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that pass every check, and the others with the first check each of them fails.

    Args:
        rows: has a column ``line`` (1 for the first line of the file).
        file: where the rows are from.
        checks: tried in this order, those that compare rows after all others.

    Returns:
        The good rows unchanged, and a frame of ``file, line, value, reason, do``.
    """
    good, bad = _split(rows, file, [check for check in checks if not check.compares_rows])
    good, repeated = _split(good, file, [check for check in checks if check.compares_rows])
    return good, pl.concat([bad, repeated]).sort("line", maintain_order=True)


def _split(rows: pl.DataFrame, file: Path, checks: Sequence[Check]) -> tuple[pl.DataFrame, pl.DataFrame]:
    if not checks:
        return rows, no_bad_rows()
    failed = pl.lit(None, dtype=pl.Int32)
    for number, check in reversed(list(enumerate(checks))):
        failed = pl.when(check.is_bad.fill_null(True)).then(pl.lit(number, dtype=pl.Int32)).otherwise(failed)
    which = rows.select(failed=failed).to_series()
    if which.null_count() == rows.height:
        return rows, no_bad_rows()  # a copy of a large log is gigabytes
    good = rows.filter(which.is_null())
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
    return good, pl.concat(parts)


def no_bad_rows() -> pl.DataFrame:
    """The empty frame of bad rows."""
    return pl.DataFrame(schema=_BAD_ROW_SCHEMA)


def bad_rows_of(file: Path, found: Sequence[tuple[int, str]], reason: str, do: str) -> pl.DataFrame:
    """A frame of bad rows from (line, value) pairs that share one reason."""
    return pl.DataFrame(
        {
            "file": [str(file)] * len(found),
            "line": [line for line, _ in found],
            "value": [value for _, value in found],
            "reason": [reason] * len(found),
            "do": [do] * len(found),
        },
        schema=_BAD_ROW_SCHEMA,
    )


def settle_bad_rows(found: Sequence[pl.DataFrame], policy: BadRowPolicy) -> None:
    """Raise one error for all bad rows, or set them aside, as the policy says.

    Args:
        found: frames from `split_bad_rows`, in the order the files were read.
        policy: error or quarantine.

    Raises:
        DataError: there are bad rows and the policy has no quarantine file.
    """
    bad = pl.concat([no_bad_rows(), *found])
    if policy.quarantine is None:
        if bad.height:
            raise DataError(_describe(bad))
        return
    _write_lines(policy.quarantine, [json.dumps(row, ensure_ascii=False) for row in bad.iter_rows(named=True)])
    if bad.height:
        counts = bad.group_by("reason", maintain_order=True).len().iter_rows()
        reasons = "; ".join(f"{count} {reason}" for reason, count in counts)
        policy.say(f"{bad.height} bad rows set aside in {policy.quarantine}: {reasons}")


def _describe(bad: pl.DataFrame) -> str:
    shown = [
        f"  {file} line {line}: {value[:80]!r} {reason}; {do}"
        for file, line, value, reason, do in bad.head(BAD_ROWS_SHOWN).iter_rows()
    ]
    more = bad.height - len(shown)
    head = "1 row is bad:" if bad.height == 1 else f"{bad.height} rows are bad:"
    tail = [f"  and {more} more"] if more else []
    advice = "repair the rows, or set them aside and go on with --data.on-bad-rows quarantine"
    return "\n".join([head, *shown, *tail, advice])


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    beside.replace(path)


def require_file(path: Path, what: str) -> Path:
    """The path if it is a file with content.

    Raises:
        DataError: absent, not a file, or empty.
    """
    if path.is_dir():
        raise DataError(f"{what} must be a file, got {path} which is a folder; give the file in it")
    if not path.is_file():
        raise DataError(f"{what} must be a file, got {path} which is not there; check the path")
    if path.stat().st_size == 0:
        raise DataError(f"{what} must hold rows, got {path} which is empty; fetch the file again")
    return path


def refuse_utf16(start: bytes, path: Path, what: str) -> None:
    """Raise where a file begins with the mark of UTF-16.

    Raises:
        DataError: it does.
    """
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{what} must be UTF-8, got {path} which is marked as UTF-16; save it as UTF-8")


def damaged_gzip(path: Path, what: str, error: Exception) -> DataError:
    """What to raise when a file called ``.gz`` cannot be unpacked."""
    return DataError(f"{what} must be gzip as its name says, got {path} with: {error}; fetch the file again")


def read_lines(path: Path, what: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The lines of a UTF-8 or Latin-1 text file, plain or ``.gz``.

    A file is Latin-1 when most of its lines with other than ASCII characters are not UTF-8. Lines in the
    other encoding are bad rows: they would be read as wrong letters. Blank lines are left out.

    Args:
        path: the file.
        what: its name in messages, e.g. ``ratings``.

    Returns:
        Frame of ``line`` (1 for the first), ``text``; frame of bad rows.

    Raises:
        DataError: absent, empty, in UTF-16, or not gzip though named so.
    """
    raw = require_file(path, what).read_bytes()
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except GZIP_ERRORS as error:
            raise damaged_gzip(path, what, error) from error
    refuse_utf16(raw[:2], path, what)
    raw = raw.removeprefix(codecs.BOM_UTF8)
    bad = no_bad_rows()
    try:
        texts = raw.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        texts, bad = _decode_mixed(path, raw.split(b"\n"))
    lines = pl.DataFrame({"text": texts}, schema={"text": pl.String}).with_row_index("line", offset=1)
    lines = lines.with_columns(pl.col("text").str.strip_suffix("\r")).filter(
        pl.col("text").str.len_bytes() > 0, ~pl.col("line").is_in(bad["line"].implode())
    )
    if lines.is_empty() and bad.is_empty():
        raise DataError(f"{what} must hold rows, got {path} which has only blank lines; fetch the file again")
    return lines, bad


def _decode_mixed(path: Path, raw_lines: list[bytes]) -> tuple[list[str], pl.DataFrame]:
    utf8_lines: list[int] = []
    latin1_lines: list[int] = []
    for number, raw in enumerate(raw_lines, start=1):
        if raw.isascii():
            continue
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            latin1_lines.append(number)
        else:
            utf8_lines.append(number)
    encoding, odd = ("latin-1", utf8_lines) if len(latin1_lines) >= len(utf8_lines) else ("utf-8", latin1_lines)
    texts = [raw.decode(encoding, errors="replace") for raw in raw_lines]
    found = [(number, texts[number - 1]) for number in odd]
    reason = f"is not in the encoding of the other lines ({encoding})"
    return texts, bad_rows_of(path, found, reason, "save the whole file as UTF-8")


def split_fields(lines: pl.DataFrame, separator: str, names: Sequence[str]) -> pl.DataFrame:
    """Columns ``line, text``, one per name, and ``num_fields``: the fields of each line as text."""
    fields = pl.col("text").str.split_exact(separator, len(names) - 1).struct.rename_fields(list(names))
    return lines.with_columns(
        fields.alias("fields"),
        num_fields=pl.col("text").str.count_matches(separator, literal=True) + 1,
    ).unnest("fields")


def field_count_check(names: Sequence[str], separator: str) -> Check:
    """Every line has exactly these fields."""
    return Check(
        pl.col("num_fields") != len(names),
        pl.col("text"),
        f"does not have the {len(names)} fields {separator.join(names)}",
        "restore the line from its source",
    )


def duplicate_check(columns: Sequence[str], what: str) -> Check:
    """No two rows agree in these one or two columns of text; the first that is good otherwise is kept."""
    # One number a row instead of texts: that takes a seventh of the memory, gigabytes on a large log.
    codes = [pl.col(column).cast(pl.Categorical).to_physical().cast(pl.UInt64) for column in columns]
    return Check(
        ~(codes[0] if len(codes) == 1 else codes[0] * 2**32 + codes[1]).is_first_distinct(),
        pl.concat_str([pl.col(column) for column in columns], separator=", "),
        f"repeats the {what} of an earlier line",
        "keep one of the two lines",
        compares_rows=True,
    )
