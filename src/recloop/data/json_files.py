"""JSON as logs come in it: one object a line (plain or gzip), or one object a file."""

from __future__ import annotations

import ast
import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import polars as pl

from recloop.data.checks import GZIP_ERRORS, bad_rows_of, damaged_gzip, refuse_utf16, require_file
from recloop.errors import DataError

ROWS_AT_ONCE = 200_000
Getter = Callable[[Mapping[str, Any]], Any]
_HALF = re.compile(r"\\[uU](0000)?[dD]")  # of a surrogate pair, if the other half is not beside it


def read_objects(
    path: Path, what: str, columns: Mapping[str, tuple[Getter, pl.DataType]]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A table from a file of one object a line.

    A line is JSON, or a Python literal as in the Amazon metadata of 2014 (read as a literal, never run).

    Args:
        path: the file; read as gzip when its name ends in ``.gz``.
        what: its name in messages.
        columns: for every column how to get it from an object, and its type.

    Returns:
        Frame of ``line`` and the columns; frame of bad rows.

    Raises:
        DataError: absent, empty, in UTF-16, or not gzip though named so.
    """
    frames: list[pl.DataFrame] = []
    odd: list[tuple[int, str]] = []
    schema: dict[str, Any] = {"line": pl.UInt32, **{name: dtype for name, (_, dtype) in columns.items()}}
    batch: list[list[Any]] = []
    for line, found in _objects(path, what, odd):
        batch.append([line, *(getter(found) for getter, _ in columns.values())])
        if len(batch) == ROWS_AT_ONCE:
            frames.append(pl.DataFrame(batch, schema=schema, orient="row"))
            batch = []
    frames.append(pl.DataFrame(batch, schema=schema, orient="row"))
    return _with_bad_rows(pl.concat(frames), odd, path, what)


def read_object_table(
    path: Path, what: str, columns: Sequence[str] | None, joined_by: Mapping[str, str]
) -> tuple[pl.DataFrame, pl.DataFrame, tuple[str, ...]]:
    """The cells of a file of one object a line, as text.

    Args:
        path: the file; read as gzip when its name ends in ``.gz``.
        what: its name in messages.
        columns: the keys that are read; None for all.
        joined_by: keys whose value may be a list of plain values, with what joins these in the cell.

    Returns:
        Frame of ``line`` and the columns that hold a plain value anywhere, null where they do not; frame of
        bad rows; all keys, in the order of their first places. A key called ``line`` is not read.

    Raises:
        DataError: absent, empty, in UTF-16, without any object, or not gzip though named so.
    """
    frames: list[pl.DataFrame] = []
    odd: list[tuple[int, str]] = []
    names: dict[str, None] = {}
    wanted = None if columns is None else set(columns)
    batch: list[dict[str, Any]] = []

    def flush() -> None:
        kept = [name for name in names if name != "line" and (wanted is None or name in wanted)]
        schema: dict[str, Any] = {"line": pl.UInt32, **dict.fromkeys(kept, pl.String)}
        frames.append(pl.DataFrame(batch, schema=schema))
        batch.clear()

    for line, found in _objects(path, what, odd):
        names.update(dict.fromkeys(found))
        kept = found if wanted is None else wanted & found.keys()
        batch.append({name: _cell(found[name], joined_by.get(name)) for name in kept} | {"line": line})
        if len(batch) == ROWS_AT_ONCE:
            flush()
    flush()
    rows, bad = _with_bad_rows(pl.concat(frames, how="diagonal"), odd, path, what)
    rows = rows.select(column for column in rows if column.null_count() < rows.height)
    if rows.is_empty():
        line, text = odd[0]
        raise DataError(
            f"{what} must hold a JSON object a line, got {path} without any (line {line}: {text[:80]!r}); "
            f"save it as JSON lines in UTF-8"
        )
    return rows, bad, tuple(names)


def _cell(value: Any, separator: str | None) -> str | None:
    if isinstance(value, str | int | float):
        return str(value)
    if separator is None or not isinstance(value, list):
        return None
    return separator.join(str(one) for one in cast("list[Any]", value) if isinstance(one, str | int | float))


def _with_bad_rows(
    rows: pl.DataFrame, odd: Sequence[tuple[int, str]], path: Path, what: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    if rows.is_empty() and not odd:
        raise DataError(f"{what} must hold rows, got {path} which has only blank lines; fetch the file again")
    return rows, bad_rows_of(path, odd, "is not a JSON object in UTF-8", "restore the line from its source")


def text_of(*keys: str) -> Getter:
    """Gets the first of these keys that is there, as text; None when none is or it is not a plain value."""

    def get(found: Mapping[str, Any]) -> str | None:
        for key in keys:
            value = found.get(key)
            if isinstance(value, str | int | float):
                return str(value)
        return None

    return get


def read_json_object(path: Path, what: str) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        DataError: absent, empty, not JSON in UTF-8, not an object or an empty one, or a key is there twice.
    """

    def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(f"{what} must have each key once in an object, got {twice!r} twice in {path}; keep one")
        return found

    try:
        text = require_file(path, what).read_text(encoding="utf-8-sig")
        found: Any = json.loads(text, object_pairs_hook=no_key_twice)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or thousands of digits
        raise DataError(f"{what} must be JSON in UTF-8, got {path} with {error}; fetch the file again") from error
    if _has_half_character(text, found):
        raise DataError(f"{what} must be text in UTF-8, got {path} with half of a surrogate pair; fetch the file again")
    if not isinstance(found, dict) or not found:
        raise DataError(f"{what} must be one JSON object with entries, got another shape in {path}; see docs")
    return cast("dict[str, Any]", found)


def _objects(path: Path, what: str, odd: list[tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects; what is no object goes to `odd`."""
    for line, text in _numbered_lines(require_file(path, what), what):
        found = _parse_object(text)
        if found is None:
            odd.append((line, text))
        else:
            yield line, found


def _numbered_lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """Line numbers and texts of the lines that are not blank; what is not UTF-8 becomes U+FFFD."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        try:
            for line, raw in enumerate(file, start=1):
                if line == 1:
                    refuse_utf16(raw[:2], path, what)
                text = raw.decode("utf-8", errors="replace").strip().removeprefix("\ufeff")
                if text:
                    yield line, text
        except GZIP_ERRORS as error:
            raise damaged_gzip(path, what, error) from error


def _parse_object(text: str) -> dict[str, Any] | None:
    if "\ufffd" in text:
        return None
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):  # ValueError: not JSON, or a number of more than 4,300 digits
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    is_object = isinstance(found, dict) and all(isinstance(key, str) for key in cast("dict[Any, Any]", found))
    if not is_object or _has_half_character(text, found):
        return None
    return cast("dict[str, Any]", found)


def _has_half_character(text: str, found: Any) -> bool:
    """Whether a text in `found`, read from `text`, is half of a surrogate pair, which UTF-8 cannot hold."""
    if not _HALF.search(text):
        return False
    try:
        json.dumps(found, ensure_ascii=False, default=repr, skipkeys=True).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
