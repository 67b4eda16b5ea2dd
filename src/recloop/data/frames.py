"""Data frames in place of files: polars, pandas or `datasets`, taken as polars."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recloop.errors import DataError


@dataclass(frozen=True, slots=True)
class NamedFrame:
    """A frame where a file could be; `name` stands in messages where its path would."""

    name: str
    frame: pl.DataFrame

    def __str__(self) -> str:
        return self.name


TableSource = Path | NamedFrame


def as_polars(frame: Any, what: str) -> pl.DataFrame:
    """The frame as one of polars; DataError, which calls it `what`, where it is no frame."""
    module = type(frame).__module__.split(".")[0]
    if isinstance(frame, pl.DataFrame):
        return frame
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    if module == "pandas" and hasattr(frame, "columns"):
        return _from_pandas(frame, what)
    if module == "datasets" and hasattr(frame, "to_polars"):
        return frame.to_polars()
    raise DataError(
        f"{what} must be a frame of polars, pandas or datasets, got {type(frame).__name__}; make one, e.g. with "
        f"polars.DataFrame"
    )


def _from_pandas(frame: Any, what: str) -> pl.DataFrame:
    try:
        return pl.from_pandas(frame)
    except (TypeError, ValueError, pl.exceptions.PolarsError, ImportError) as error:
        reason = str(error).split("\n", 1)[0][:200]
        raise DataError(f"{what} must be plain columns, got a frame of pandas with: {reason}; convert it") from error
