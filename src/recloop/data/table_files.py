"""Tables as files: separated cells, Parquet or JSONL with named columns, read as text with the line of every row."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl

from recloop.data import file_kinds
from recloop.data.checks import Rows
from recloop.data.frames import NamedFrame, TableSource
from recloop.data.separated import TableForm, read_separated
from recloop.data.text_files import MAX_WHOLE, open_bytes, plain_name, read_object_table, require_file
from recloop.errors import DataError

_OBJECT = re.compile(rb"\s*(?:\{|\[\s*[\[{\]])")  # no first cell of a table
_WHOLE = r"^-?\d+\.0$"


def read_table(
    path: TableSource,
    what: str,
    columns: Mapping[str, str],
    form: TableForm | None = None,
    *,
    with_others: bool = False,
    joined_by: Mapping[str, str] | None = None,
    numbers: Sequence[str] = (),
) -> tuple[Rows, tuple[str, ...]]:
    """``line`` and the columns of a table, as text; the names of its others.

    In Parquet and in frames the line is the row's number, from 1.
    What a file is follows from its first bytes. Case and surrounding space do not tell columns apart, surrounding
    space in cells is left out, and whole numbers written as ``2011.0`` throughout a column are ``2011``.

    Args:
        columns: that it must have, as they are called in what is returned, and the setting that names each.
        with_others: read its other columns too, those that hold text or numbers.
        joined_by: columns of Parquet, JSONL and frames that may hold lists, with what joins the values in a cell.
        numbers: columns that may have decimal commas.

    Raises:
        DataError: absent, empty, of another kind or damaged, or a column is missing, not text or ``line``.
    """
    form = form or TableForm()
    rows, names = _read(path, what, form, None if with_others else list(columns), joined_by or {}, numbers)
    found = {name: _find(name, setting, names, path, what, form) for name, setting in columns.items()}
    others = tuple(name for name in names if name not in found.values())
    shared = [name for name in found if list(found.values()).count(found[name]) > 1]
    if shared:
        raise DataError(
            f"{what} must have a column each for {' and '.join(shared)}, got one for both in {path}; name another"
        )
    if "line" in found.values() or (with_others and "line" in names):
        raise DataError(f"{what} must have no column 'line', got {', '.join(names)} in {path}; rename it")
    if rows.good.is_empty() and rows.bad.is_empty():
        do = "fetch the file again" if isinstance(path, Path) else "pass one with rows"
        raise DataError(f"{what} must hold rows, got {path} with a header only; {do}")
    unreadable = [name for name in found.values() if name not in rows.good.columns]
    if unreadable:
        raise DataError(
            f"{what} must hold text or numbers in column {unreadable[0]!r}, got none in {path}; "
            f"write the column as text in UTF-8"
        )
    kept = [name for name in rows.good.columns if name in others] * with_others
    rows = rows.select("line", *(pl.col(name).alias(wanted) for wanted, name in found.items()), *kept)
    return rows.with_columns(*map(_whole, rows.good.get_columns()[1:])), others


def _read(
    path: TableSource,
    what: str,
    form: TableForm,
    wanted: list[str] | None,
    joined: Mapping[str, str],
    numbers: Sequence[str],
) -> tuple[Rows, tuple[str, ...]]:
    plain = None if wanted is None else set(map(plain_name, wanted))
    joined = {plain_name(name): separator for name, separator in joined.items()}

    def is_wanted(name: str) -> bool:
        return plain is None or plain_name(name) in plain

    if isinstance(path, NamedFrame):
        return _texts(path.frame, path, is_wanted, joined)
    require_file(path, what)
    with path.open("rb") as file:
        is_parquet = file.read(len(file_kinds.PARQUET)) == file_kinds.PARQUET
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if is_parquet or ending == ".parquet":
        return _read_parquet(path, what, is_wanted, joined)
    with open_bytes(path, what, form.encoding) as file:
        is_objects = _OBJECT.match(file.read(file_kinds.HEAD_BYTES).removeprefix(b"\xef\xbb\xbf")) is not None
    if is_objects or ending in (".jsonl", ".ndjson"):
        return read_object_table(path, what, is_wanted, joined, form.encoding)
    return read_separated(path, what, form, wanted, numbers)


def _find(name: str, setting: str, names: Sequence[str], path: TableSource, what: str, form: TableForm) -> str:
    """The column of a file that is meant."""
    alike = [name] if name in names else [one for one in names if plain_name(one) == plain_name(name)]
    if len(alike) == 1:
        return alike[0]
    got = f"{', '.join(alike or names)} in {path}"
    if alike:
        raise DataError(f"{what} must have one column {name!r}, got {got}; write {setting} exactly as one of them")
    no_users = "; where there are no users, a column of baskets or sessions can stand for them"
    more = no_users if setting.endswith("user") else ""
    if not form.has_header:
        raise DataError(
            f"{what} must have a column {name!r}, got columns {got} without a header; say with {setting} which{more}"
        )
    is_data = isinstance(path, Path) and any(re.fullmatch(r"[\d.:-]+", one) for one in names)
    more += "; where the first line is no header, set data.table.header to false" if is_data else ""
    raise DataError(f"{what} must have a column {name!r}, got {got}; say with {setting} what it is called{more}")


def _whole(cells: pl.Series) -> pl.Series:
    """A column of whole numbers written as floats, without their ``.0``; any other as it is."""
    first = cells.head(1)
    if (first.str.len_bytes() > 0).any() and not first.str.contains(_WHOLE).any():
        return cells
    stated = cells.filter(cells.str.len_bytes() > 0)
    is_whole = len(stated) > 0 and stated.str.contains(_WHOLE).all()
    return cells.str.strip_suffix(".0") if is_whole else cells


def _read_parquet(
    path: Path, what: str, is_wanted: Callable[[str], bool], joined_by: Mapping[str, str]
) -> tuple[Rows, tuple[str, ...]]:
    """``line`` and what can be read as text of the wanted columns; the names of all columns."""
    try:
        with _silent_panics():
            found = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).split("\n", 1)[0][:200]
        raise DataError(f"{what} must be Parquet, got {path} with: {reason}; write it again") from error
    return _texts(found, path, is_wanted, joined_by)


def _texts(
    found: pl.DataFrame, source: TableSource, is_wanted: Callable[[str], bool], joined_by: Mapping[str, str]
) -> tuple[Rows, tuple[str, ...]]:
    """``line`` and what can be read as text of the wanted columns of a frame; the names of all columns."""
    texts = [pl.int_range(1, found.height + 1, eager=True).alias("line")]
    for column in found.get_columns():
        separator = joined_by.get(plain_name(column.name))
        is_list = isinstance(column.dtype, pl.List | pl.Array) and separator is not None
        if column.name == "line" or not is_wanted(column.name) or (column.dtype.is_nested() and not is_list):
            continue
        with suppress(pl.exceptions.PolarsError):  # bytes that are not UTF-8, or a type that has no text
            if separator is not None and is_list:
                column = column.cast(pl.List(pl.String)).list.join(separator, ignore_nulls=True)
            elif column.dtype.is_float():
                column = column.set(~column.is_finite().fill_null(value=False), None)
                is_whole = ((column % 1 == 0) & (column.abs() < MAX_WHOLE)).all()
                column = column.cast(pl.Int64) if is_whole else column
            elif isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone is not None:
                column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
            texts.append(column.cast(pl.String).str.strip_chars())
    return Rows(source, pl.DataFrame(texts)), tuple(found.columns)


@contextmanager
def _silent_panics() -> Generator[None]:
    """Without what polars writes to standard error, past Python, when a damaged file takes it by surprise."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
