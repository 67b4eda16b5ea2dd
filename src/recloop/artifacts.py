"""Frozen records to files and back: rows as Parquet, arrays as safetensors. One way for all steps of all methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import numpy as np
import polars as pl

from recloop.errors import RunError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Record = TypeVar("Record", bound=DataclassInstance)

COLUMN_TYPES = {int: pl.Int64, float: pl.Float64, str: pl.String, bool: pl.Boolean}


def write_rows(path: Path, rows: Sequence[Record], kind: type[Record]) -> None:
    """Records of numbers, texts, truths and enumerations, one a row of a Parquet file, under their fields' names.

    Raises:
        TypeError: a field holds something else.
    """
    rows_table(rows, kind).write_parquet(path)


def rows_table(rows: Sequence[Record], kind: type[Record]) -> pl.DataFrame:
    """The records as `write_rows` writes them; `rows_of` makes records again."""
    types = _column_types(kind)
    columns = {name: [getattr(row, name) for row in rows] for name in types}
    for name, found in types.items():
        if issubclass(found, Enum):
            columns[name] = [value.value for value in columns[name]]
    schema = {name: COLUMN_TYPES.get(found, pl.String) for name, found in types.items()}
    return pl.DataFrame(columns, schema=schema)


def read_rows(path: Path, kind: type[Record]) -> list[Record]:
    """What `write_rows` wrote.

    Raises:
        RunError: the file is none, or has other columns.
    """
    types = _column_types(kind)
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{path} cannot be read ({error}); restore it or start a new run folder") from error
    if table.columns != list(types):
        raise RunError(f"{path} must have the columns {', '.join(types)}, got {', '.join(table.columns)}; restore it")
    return rows_of(table, kind)


def rows_of(table: pl.DataFrame, kind: type[Record]) -> list[Record]:
    """The records of a table that has their columns."""
    enums = {name: found for name, found in _column_types(kind).items() if issubclass(found, Enum)}
    return [
        kind(**{name: enums[name](value) if name in enums else value for name, value in row.items()})
        for row in table.iter_rows(named=True)
    ]


def arrays_of(record: DataclassInstance, prefix: str) -> dict[str, np.ndarray]:
    """A record's arrays by name, ``prefix.field``, as safetensors takes them; what is no array is left out."""
    values = ((field.name, getattr(record, field.name)) for field in fields(record))
    return {f"{prefix}.{name}": np.ascontiguousarray(v) for name, v in values if isinstance(v, np.ndarray)}


def record_of(arrays: Mapping[str, np.ndarray], prefix: str, kind: type[Record], **others: Any) -> Record:
    """The record that `arrays_of` took apart; fields that have a default may be absent.

    Args:
        others: its fields that are no arrays.

    Raises:
        RunError: an array is missing.
    """
    expected = [field for field in fields(kind) if field.name not in others]
    names = [field.name for field in expected if f"{prefix}.{field.name}" in arrays]
    missing = [field.name for field in expected if field.default is MISSING and field.name not in names]
    if missing:
        raise RunError(f"a file of {prefix} must hold {', '.join(missing)} too, got {', '.join(names)}; restore it")
    return kind(**others, **{name: arrays[f"{prefix}.{name}"] for name in names})


@lru_cache(maxsize=64)
def _column_types(kind: type[Any]) -> dict[str, type]:
    hints = get_type_hints(kind)
    types = {field.name: hints[field.name] for field in fields(kind)}
    for name, found in types.items():
        if found not in COLUMN_TYPES and not (isinstance(found, type) and issubclass(found, Enum)):
            raise TypeError(f"{kind.__name__}.{name} must be a number, a text, a truth or an enumeration, got {found}")
    return types
