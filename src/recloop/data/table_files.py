"""Tables as files: CSV, TSV, Parquet or JSONL with named columns, read as text with the line of every row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from recloop.data.checks import bad_rows_of, no_bad_rows, read_lines, require_file
from recloop.data.json_files import read_objects, text_of
from recloop.errors import DataError

END = "\x00 end of table"  # no line of a table


def read_table(path: Path, what: str, columns: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A table as text, with the line of every row.

    Returns:
        Frame of ``line`` and at least `columns` (of a JSONL file exactly these); frame of bad rows.

    Raises:
        DataError: absent, empty, of unknown kind, damaged, or a column is missing.
    """
    require_file(path, what)
    match path.name.removesuffix(".gz").rpartition(".")[2].lower():
        case "csv":
            rows, bad = _read_separated(path, what, ",")
        case "tsv":
            rows, bad = _read_separated(path, what, "\t")
        case "parquet":
            rows, bad = _read_parquet(path, what), no_bad_rows()
        case "jsonl" | "ndjson":
            rows, bad = read_objects(path, what, {name: (text_of(name), pl.String()) for name in columns})
            missing = [name for name in columns if rows[name].null_count() == rows.height]
            rows = rows.drop(missing)
        case kind:
            raise DataError(
                f"{what} must be a .csv, .tsv, .parquet or .jsonl file, got .{kind} in {path}; convert it"
            )
    missing = [name for name in columns if name not in rows.columns]
    if missing:
        has = ", ".join(name for name in rows.columns if name != "line")
        raise DataError(
            f"{what} must have a column {missing[0]!r}, got {has} in {path}; "
            f"say in the table settings what the column is called"
        )
    if rows.is_empty() and bad.is_empty():
        raise DataError(f"{what} must hold rows, got {path} with a header only; fetch the file again")
    return rows, bad


def _read_parquet(path: Path, what: str) -> pl.DataFrame:
    try:
        rows = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{what} must be Parquet, got {path} with: {error}; write it again") from error
    plain = [name for name, dtype in rows.schema.items() if not dtype.is_nested()]
    return rows.select(pl.int_range(1, pl.len() + 1).alias("line"), pl.col(plain).cast(pl.String))


def _read_separated(path: Path, what: str, separator: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A file with a header, quoted as in RFC 4180. Rows with too many or too few cells are bad.

    Such a row that spans lines is an error of the file: a stray quote took the lines after it for one cell.
    """
    lines, odd = read_lines(path, what)
    records = _records(lines, path, what, separator)
    header_line, names = next(records)
    header = [name.strip() for name in names]
    if len({*header, "line"}) < len(header) + 1:
        raise DataError(
            f"{what} must name each column once and none 'line', got {', '.join(header)} in "
            f"{path}; rename one"
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
    bad = bad_rows_of(path, ragged, reason, "restore the row from its source")
    return rows.select(pl.Series("line", cell_lines, dtype=pl.Int64), pl.all()), pl.concat([odd, bad])


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
