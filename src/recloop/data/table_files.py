"""Tables as files: CSV, TSV, Parquet or JSONL with named columns, read as text with the line of every row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl

from recloop.data import checks
from recloop.data.checks import Rows
from recloop.data.text_files import read_lines, read_object_table, require_file
from recloop.errors import DataError

END = "\x00 end of table"  # no line of a table


def read_table(
    path: Path,
    what: str,
    columns: Sequence[str],
    *,
    with_others: bool = False,
    joined_by: Mapping[str, str] | None = None,
) -> tuple[Rows, tuple[str, ...]]:
    """``line`` (in Parquet the row's number, from 1) and the columns of a table, as text; the names of all its columns.

    Args:
        columns: that it must have.
        with_others: read its other columns too, those that hold text or numbers.
        joined_by: columns of Parquet and JSONL that may hold lists, with what joins the values in a cell.

    Raises:
        DataError: absent, empty, of unknown kind or damaged, or a column is missing, not text or ``line``.
    """
    require_file(path, what)
    wanted = None if with_others else columns
    match Path(path.name.removesuffix(".gz")).suffix.lower().removeprefix("."):
        case "csv" | "tsv" as kind:
            rows = _read_separated(path, what, "," if kind == "csv" else "\t")
            names = tuple(rows.good.columns[1:])
        case "parquet":
            rows, names = _read_parquet(path, what, wanted, joined_by or {})
        case "jsonl" | "ndjson":
            rows, names = read_object_table(path, what, wanted, joined_by or {})
        case kind:
            got = f".{kind}" if kind else "a name without an ending"
            raise DataError(
                f"{what} must be a .csv, .tsv, .parquet or .jsonl file, got {got} in {path}; convert it, or "
                f"give the file the ending of what it is"
            )
    missing = [name for name in columns if name not in names]
    if missing:
        raise DataError(
            f"{what} must have a column {missing[0]!r}, got {', '.join(names)} in {path}; "
            f"say in the table settings what the column is called"
        )
    if "line" in (names if with_others else columns):
        raise DataError(f"{what} must have no column 'line', got {', '.join(names)} in {path}; rename it")
    if rows.good.is_empty() and rows.bad.is_empty():
        raise DataError(f"{what} must hold rows, got {path} with a header only; fetch the file again")
    unreadable = [name for name in columns if name not in rows.good.columns]
    if unreadable:
        raise DataError(
            f"{what} must hold text or numbers in column {unreadable[0]!r}, got none in {path}; "
            f"write the column as text in UTF-8"
        )
    return rows if with_others else rows.select("line", *dict.fromkeys(columns)), names


def _read_parquet(
    path: Path, what: str, wanted: Sequence[str] | None, joined_by: Mapping[str, str]
) -> tuple[Rows, tuple[str, ...]]:
    """``line`` and what can be read as text of the wanted columns, None for all; the names of all columns."""
    try:
        found = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{what} must be Parquet, got {path} with: {error}; write it again") from error
    texts = [pl.int_range(1, found.height + 1, eager=True).alias("line")]
    for column in found.get_columns():
        is_list = isinstance(column.dtype, pl.List | pl.Array) and column.name in joined_by
        is_wanted = column.name != "line" and (wanted is None or column.name in wanted)
        if not is_wanted or (column.dtype.is_nested() and not is_list):
            continue
        with suppress(pl.exceptions.PolarsError):  # bytes that are not UTF-8, or a type that has no text
            plain = column.cast(pl.List(pl.String) if is_list else pl.String)
            texts.append(plain.list.join(joined_by[column.name], ignore_nulls=True) if is_list else plain)
    return Rows(path, pl.DataFrame(texts)), tuple(found.columns)


def _read_separated(path: Path, what: str, separator: str) -> Rows:
    """A file with a header, quoted as in RFC 4180. Rows of other lengths are bad; one that spans lines is an error."""
    lines = read_lines(path, what)
    odd = lines.bad
    records = _records(lines.good, path, what, separator)
    header_line, names = next(records)
    header = [name.strip() for name in names]
    if len({*header, "line"}) < len(header) + 1:
        raise DataError(
            f"{what} must name each column once and none 'line', got {', '.join(header)} in {path}; rename one"
        )
    if (odd["line"] < header_line).any():
        raise DataError(
            f"{what} must begin with a header, got {path} with line {odd['line'].min()} that "
            f"{odd['reason'][0]}; save the whole file as UTF-8"
        )
    cells: list[list[str]] = []
    cell_lines: list[int] = []
    ragged: list[tuple[int, str]] = []
    for line, row in records:
        if len(row) == len(header):
            cells.append(row)
            cell_lines.append(line)
        else:
            if any("\n" in cell for cell in row):
                raise _quote_error(path, what, line, f"{len(row)} cells for {len(header)} columns")
            ragged.append((line, separator.join(row)))
    rows = pl.DataFrame(cells, schema=dict.fromkeys(header, pl.String), orient="row")
    reason = f"does not have the {len(header)} cells of the header"
    bad = checks.bad_rows(path, ragged, reason, "restore the row from its source")
    rows = rows.select(pl.Series("line", cell_lines, dtype=pl.Int64), pl.all())
    return Rows(path, rows, pl.concat([odd, bad]))


def _records(lines: pl.DataFrame, path: Path, what: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The line each record begins on, and its cells."""
    numbers = lines["line"].to_list()
    # The module takes a quote that is never closed for a cell that ends with the file. A last row of ours,
    # which that cell would take in, tells the two apart.
    reader = csv.reader(io.StringIO("\n".join([*lines["text"], END])), delimiter=separator)
    last, is_over = 0, False
    while not is_over:
        line = numbers[last] if last < len(numbers) else 0
        try:
            row = next(reader)
        except csv.Error as error:
            is_cr = "\r" in lines["text"][min(reader.line_num, len(numbers)) - 1]
            if is_cr and reader.line_num == last + 1:
                raise DataError(
                    f"{what} must end its lines with a line feed, got {path} with a carriage return inside "
                    f"line {line}; save it with other line ends"
                ) from error
            raise _quote_error(path, what, line, str(error)) from error
        is_over = reader.line_num > len(numbers)
        if is_over and row != [END]:
            raise _quote_error(path, what, line, "the rest of the file in one cell")
        last = reader.line_num
        if not is_over:
            yield line, row


def _quote_error(path: Path, what: str, line: int, got: str) -> DataError:
    return DataError(
        f"{what} must close each quote that opens a cell, got {path} with {got} in the row that begins on "
        f"line {line}; double or remove the stray quote"
    )
