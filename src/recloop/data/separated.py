"""Tables whose cells are separated: CSV, TSV and their kin, with the line of every row.

Polars reads a file whose lines are one row each; the csv module reads any other, and finds the rows that are bad.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from recloop.data import checks
from recloop.data.checks import Rows
from recloop.data.text_files import ENCODING, is_utf8, numbered, open_bytes, plain_name, require_short_lines
from recloop.errors import DataError
from recloop.progress import SILENT

SEPARATORS = {"\t": "tabs", "::": "double colons", ";": "semicolons", "|": "bars", ",": "commas"}
UNIT = "\x1f"  # stands for a separator of several characters while rows are split
END = "\x00 end of table"  # no line of a table
SAMPLE_LINES, SAMPLE_BYTES = 50, 65_536
_RECBOLE = re.compile(r"(.+):(?:token|token_seq|float|float_seq)")


@dataclass(frozen=True, slots=True)
class TableForm:
    """How a table is written.

    separator: between cells; None for the one that the file shows.
    encoding: None for UTF-8.
    has_header: whether the first line names the columns; without, they are called 1, 2, and so on.
    say: takes what was found out about the file.
    """

    separator: str | None = None
    encoding: str | None = None
    has_header: bool = True
    say: Callable[[str], None] = SILENT.say


@dataclass(frozen=True, slots=True)
class _Cells:
    """The text of a table, and how it is cut: ``separator`` is one character, in quotes it is a part of the cell."""

    path: Path
    what: str
    raw: bytes
    separator: str
    is_quoted: bool
    has_header: bool


def read_separated(
    path: Path, what: str, form: TableForm, wanted: Sequence[str] | None, numbers: Sequence[str] = ()
) -> tuple[Rows, tuple[str, ...]]:
    """``line`` and the wanted columns as text, None for all; the names of all columns.

    A row with another number of cells than the header is bad. One that also spans lines is an error of the file.

    Args:
        numbers: columns whose decimal commas are read as points, where semicolons separate the cells.

    Raises:
        DataError: no UTF-8 and no encoding told, a zero byte, a quote that is not closed, or a name stands twice.
    """
    with open_bytes(path, what, form.encoding) as file:
        raw = _line_feeds(file.read(), path, what, form.say)
    require_short_lines(raw, path, what)
    bad = _not_utf8(raw, path, what)
    separator = form.separator or _sniff_separator(raw, path, form, wanted or ())
    if len(separator) > 1:
        raw = raw.replace(separator.encode(), UNIT.encode())
    cells = _Cells(path, what, raw, UNIT if len(separator) > 1 else separator, len(separator) == 1, form.has_header)
    end = raw.find(b"\n", SAMPLE_BYTES)
    first_line, first = next(_records(replace(cells, raw=raw[:end] if end > 0 else raw), bad["line"]))
    names = _names(first, cells)
    plain = {plain_name(name) for name in wanted or names}
    kept = {name: place for place, name in enumerate(names) if name and name != "line" and plain_name(name) in plain}
    found = _read_clean(cells, len(names), kept) if first_line == 1 and bad.is_empty() else None
    rows = Rows(path, found, bad) if found is not None else _read_rows(cells, len(names), kept, bad)
    if not raw.isascii() or (b" " in raw and any(mark.encode() in raw for mark in _spaced(cells.separator))):
        rows = rows.with_columns(pl.col(pl.String).str.strip_chars())
    if separator == ";":
        points = pl.col(name for name in kept if plain_name(name) in map(plain_name, numbers))
        rows = rows.with_columns(points.str.replace(r"^\s*([+-]?\d*),(\d+)\s*$", "$1.$2")) if numbers else rows
    return rows, tuple(name for name in names if name)


def _spaced(separator: str) -> Iterable[str]:
    return (f"{left}{right}" for end in (separator, "\n", '"') for left, right in ((" ", end), (end, " ")))


def _line_feeds(raw: bytes, path: Path, what: str, say: Callable[[str], None]) -> bytes:
    """The bytes without byte order mark, and with line feeds alone at the ends of lines."""
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    zero = raw.find(b"\0")
    if zero >= 0:
        line = raw.count(b"\n", 0, zero) + 1
        raise DataError(f"{what} must be text, got {path} with a zero byte in line {line}; write the file again")
    if b"\r" not in raw:
        return raw
    if b"\n" not in raw:
        say(f"the lines of {path.name} end in carriage returns alone")
        return raw.replace(b"\r", b"\n")
    return raw.replace(b"\r\n", b"\n")


def _not_utf8(raw: bytes, path: Path, what: str) -> pl.DataFrame:
    """Lines that are not UTF-8, as bad rows; DataError when the first or most of those beyond ASCII are not."""
    try:
        if raw.isascii() or raw.decode():
            return checks.no_bad_rows()
    except UnicodeDecodeError:
        pass
    beyond = {line: text for line, text in enumerate(raw.split(b"\n"), start=1) if not text.isascii()}
    odd = [(line, text.decode(errors="backslashreplace")) for line, text in beyond.items() if not is_utf8(text)]
    if 2 * len(odd) >= len(beyond) or odd[0][0] == 1:
        line = odd[0][0]
        raise DataError(
            f"{what} must be UTF-8, got {path} with line {line} that is not: {repr(beyond[line][:60])[1:]}; "
            f"say how it is written with {ENCODING}, e.g. latin-1, cp1251 or shift_jis, or save it as UTF-8"
        )
    return checks.bad_rows(path, odd, "is not UTF-8 as the other lines are", "save the whole file as UTF-8")


def _sniff_separator(raw: bytes, path: Path, form: TableForm, wanted: Sequence[str]) -> str:
    """The separator that gives most of the wanted columns, then lines of most even lengths, then most cells."""
    by_name = {".csv": ",", ".tsv": "\t"}.get(Path(path.name.lower().removesuffix(".gz")).suffix, "")
    text = raw[:SAMPLE_BYTES].decode(errors="replace")
    lines = [line for line in text.split("\n") if line.strip()]
    lines = lines[: len(lines) - 1 if len(raw) > SAMPLE_BYTES and len(lines) > 1 else SAMPLE_LINES][:SAMPLE_LINES]
    plain = {plain_name(name) for name in wanted}

    def score(separator: str) -> tuple[int, float, int]:
        cells = [_split(line, separator) for line in lines]
        first = [_RECBOLE.sub(r"\1", name) for name in cells[0]] if cells else []
        num_found = len(plain & {plain_name(name) for name in first}) if form.has_header else 0
        return num_found, sum(len(row) == len(first) for row in cells), len(first)

    scores = {separator: score(separator) for separator in dict.fromkeys([*filter(None, [by_name]), *SEPARATORS])}
    able = {separator: found for separator, found in scores.items() if found[2] > 1}
    best = max(able, key=lambda separator: able[separator]) if able else by_name or ","
    if best != by_name and able:
        form.say(f"the cells of {path.name} are separated by {SEPARATORS[best]}")
    return best


def _split(line: str, separator: str) -> list[str]:
    if len(separator) > 1:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    except (csv.Error, StopIteration):
        return line.split(separator)


def _names(first: list[str], cells: _Cells) -> list[str]:
    """The columns' names: of the header, without the types that RecBole adds to them, or numbers."""
    if not cells.has_header:
        return [str(number) for number in range(1, len(first) + 1)]
    names = [name.strip() for name in first]
    typed = [_RECBOLE.fullmatch(name) for name in names]
    names = [one[1] if one and all(typed) else name for one, name in zip(typed, names, strict=True)]
    named = [name for name in names if name]  # spreadsheets end lines with empty cells
    if len(set(named)) < len(named):
        raise DataError(f"{cells.what} must name each column once, got {', '.join(named)} in {cells.path}; rename one")
    return names


def _read_clean(cells: _Cells, num_cells: int, kept: dict[str, int]) -> pl.DataFrame | None:
    """The rows of a file that has one on each line with the same number of cells; None for any other file."""
    raw = cells.raw.rstrip(b"\n") if cells.raw.endswith(b"\n\n") else cells.raw
    num_lines = _count(raw, "\n") + (not raw.endswith(b"\n"))
    has_quotes = cells.is_quoted and b'"' in raw
    if b"\r" in raw or (num_cells == 1 and b"\n\n" in raw):
        return None
    if has_quotes and not _is_one_row_a_line(raw, cells.separator, num_cells):
        return None
    if not has_quotes and _count(raw, cells.separator) != num_lines * (num_cells - 1):
        return None
    columns = [f"column_{place + 1}" for place in range(num_cells)]
    start = int(cells.has_header)
    if num_lines == start:
        return pl.DataFrame(schema={"line": pl.Int64} | dict.fromkeys(kept, pl.String))
    try:
        rows = pl.read_csv(
            raw, has_header=False, skip_lines=start, infer_schema=False, schema=dict.fromkeys(columns, pl.String),
            columns=[columns[place] for place in kept.values()], separator=cells.separator,
            quote_char='"' if has_quotes else None, empty_string_is_null=False,
        )  # fmt: skip
    except pl.exceptions.PolarsError:
        return None
    if rows.height != num_lines - start:
        return None
    rows = rows.select(pl.col(columns[place]).alias(name) for name, place in kept.items())
    return rows.select(pl.int_range(1 + start, pl.len() + 1 + start).alias("line"), pl.all())


def _count(raw: bytes, character: str) -> int:
    if not character.isascii():
        return raw.count(character.encode())
    return int(np.count_nonzero(np.frombuffer(raw, np.uint8) == ord(character)))  # a fifth of the time of bytes.count


def _is_one_row_a_line(raw: bytes, separator: str, num_cells: int) -> bool:
    """Whether every line is a row with all quotes at the ends of cells."""
    mark = re.escape(separator)
    cell = rf'(?:"(?:[^"]|"")*"|[^"{mark}]*)'
    lines = pl.Series("text", raw.decode().removesuffix("\n").split("\n"))
    is_row = (
        pl.when(pl.col("text").str.contains('"', literal=True))
        .then(pl.col("text").str.contains(rf"^{cell}(?:{mark}{cell}){{{num_cells - 1}}}$"))
        .otherwise(pl.col("text").str.count_matches(separator, literal=True) == num_cells - 1)
    )
    return lines.to_frame().select(is_row.all()).item()


def _read_rows(cells: _Cells, num_cells: int, kept: dict[str, int], odd: pl.DataFrame) -> Rows:
    found: list[list[str]] = []
    lines: list[int] = []
    ragged: list[tuple[int, str]] = []
    records = _records(cells, odd["line"])
    if cells.has_header:
        next(records)
    for line, row in records:
        if len(row) == num_cells:
            found.append([row[place] for place in kept.values()])
            lines.append(line)
        else:
            if any("\n" in cell for cell in row):
                raise _quote_error(cells, line, f"{len(row)} cells for {num_cells} columns")
            ragged.append((line, cells.separator.join(row)))
    rows = pl.DataFrame(found, schema=dict.fromkeys(kept, pl.String), orient="row")
    reason = f"does not have the {num_cells} cells of the {'header' if cells.has_header else 'first line'}"
    bad = checks.bad_rows(cells.path, ragged, reason, "restore the row from its source")
    rows = rows.select(pl.Series("line", lines, dtype=pl.Int64), pl.all())
    return Rows(cells.path, rows, pl.concat([odd, bad]))


def _records(cells: _Cells, odd_lines: pl.Series) -> Iterator[tuple[int, list[str]]]:
    """The line each record begins on, and its cells; the odd lines are left out."""
    lines = numbered(cells.raw.decode(errors="replace").split("\n"))
    lines = lines.filter(~pl.col("line").is_in(odd_lines.implode()))
    numbers = lines["line"].to_list()
    if not numbers:
        raise DataError(f"{cells.what} must hold rows, got {cells.path} with blank lines only; fetch the file again")
    # The module takes a quote that is never closed for a cell that ends with the file. A last row of ours,
    # which that cell would take in, tells the two apart.
    quoting = csv.QUOTE_MINIMAL if cells.is_quoted else csv.QUOTE_NONE
    text = io.StringIO("\n".join([*lines["text"], END]))
    reader = csv.reader(text, delimiter=cells.separator, quoting=quoting, skipinitialspace=True)
    last, is_over = 0, False
    while not is_over:
        line = numbers[last] if last < len(numbers) else 0
        limit = csv.field_size_limit(len(cells.raw) + len(END))  # of the whole process, so it is set back at once
        try:
            row = next(reader)
        except csv.Error as error:
            is_cr = "\r" in lines["text"][min(reader.line_num, len(numbers)) - 1]
            if is_cr and reader.line_num == last + 1:
                raise DataError(
                    f"{cells.what} must end its lines with a line feed, got {cells.path} with a carriage return "
                    f"inside line {line}; save it with other line ends"
                ) from error
            raise _quote_error(cells, line, str(error)) from error
        finally:
            csv.field_size_limit(limit)
        is_over = reader.line_num > len(numbers)
        if is_over and row != [END]:
            raise _quote_error(cells, line, "the rest of the file in one cell")
        last = reader.line_num
        if not is_over:
            yield line, row


def _quote_error(cells: _Cells, line: int, got: str) -> DataError:
    return DataError(
        f"{cells.what} must close each quote that opens a cell, got {cells.path} with {got} in the row that begins on "
        f"line {line}; double or remove the stray quote"
    )
