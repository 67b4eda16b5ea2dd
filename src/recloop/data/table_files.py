"""Tables as files: CSV, TSV, Parquet or JSONL with named columns, read as text with the line of every row."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recloop.data.checks import bad_rows_of, no_bad_rows, read_lines, require_file
from recloop.data.json_files import read_objects, text_of
from recloop.errors import DataError


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
    """A file with a header, quoted as in RFC 4180. Rows with too many or too few cells are bad."""
    lines, odd = read_lines(path, what)
    reader = csv.reader(io.StringIO("\n".join(lines["text"])), delimiter=separator)
    numbers = lines["line"].to_list()
    header = [name.strip() for name in next(reader)]
    if len({*header, "line"}) < len(header) + 1:
        raise DataError(
            f"{what} must name each column once and none 'line', got {', '.join(header)} in "
            f"{path}; rename one"
        )
    cells: list[list[str]] = []
    cell_lines: list[int] = []
    ragged: list[tuple[int, str]] = []
    last = reader.line_num
    for row in reader:
        line = numbers[last]  # a quoted cell may span lines: the first counts
        last = reader.line_num
        if len(row) == len(header):
            cells.append(row)
            cell_lines.append(line)
        else:
            ragged.append((line, separator.join(row)))
    rows = pl.DataFrame(cells, schema=dict.fromkeys(header, pl.String), orient="row")
    reason = f"does not have the {len(header)} cells of the header"
    bad = bad_rows_of(path, ragged, reason, "restore the row from its source")
    return rows.select(pl.Series("line", cell_lines, dtype=pl.Int64), pl.all()), pl.concat([odd, bad])
