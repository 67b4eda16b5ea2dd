"""JSON as logs come in it: one object a line (plain or gzip), or one object a file."""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import polars as pl

from recloop.data.checks import GZIP_ERRORS, bad_rows_of, damaged_gzip, refuse_utf16, require_file
from recloop.errors import DataError

ROWS_AT_ONCE = 200_000
Getter = Callable[[Mapping[str, Any]], Any]


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
    require_file(path, what)
    frames: list[pl.DataFrame] = []
    odd: list[tuple[int, str]] = []
    schema: dict[str, Any] = {"line": pl.UInt32, **{name: dtype for name, (_, dtype) in columns.items()}}
    batch: list[list[Any]] = []
    for line, text in _numbered_lines(path, what):
        found = _parse_object(text)
        if found is None:
            odd.append((line, text))
            continue
        batch.append([line, *(getter(found) for getter, _ in columns.values())])
        if len(batch) == ROWS_AT_ONCE:
            frames.append(pl.DataFrame(batch, schema=schema, orient="row"))
            batch = []
    frames.append(pl.DataFrame(batch, schema=schema, orient="row"))
    bad = bad_rows_of(path, odd, "is not a JSON object in UTF-8", "restore the line from its source")
    rows = pl.concat(frames)
    if rows.is_empty() and bad.is_empty():
        raise DataError(f"{what} must hold rows, got {path} which has only blank lines; fetch the file again")
    return rows, bad


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
            raise DataError(
                f"{what} must have each key once in an object, got {twice!r} twice in {path}; keep one"
            )
        return found

    try:
        text = require_file(path, what).read_text(encoding="utf-8-sig")
        found: Any = json.loads(text, object_pairs_hook=no_key_twice)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{what} must be JSON in UTF-8, got {path} with {error}; fetch the file again"
        ) from error
    if not isinstance(found, dict) or not found:
        raise DataError(f"{what} must be one JSON object with entries, got another shape in {path}; see docs")
    return cast("dict[str, Any]", found)


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
    except json.JSONDecodeError:
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None
