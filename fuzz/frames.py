"""Frames of any column type, handed to `Log.from_frames`."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from fuzz.mutate import odd_text, odd_value
from recloop.progress import SILENT
from recloop.records import Log

NUM_ROWS = 4
MAKERS: tuple[Callable[[random.Random], pl.Series], ...] = (
    lambda rng: pl.Series([odd_text(rng) for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([rng.randrange(-3, 10) for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([rng.choice((1.0, float("nan"), float("inf"), None, 2.5)) for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([rng.choice((True, False, None)) for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([date(rng.randrange(1, 9999), 1, 1) for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([datetime(rng.randrange(1900, 2200), 1, 1, tzinfo=UTC) for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([datetime(2024, 1, 1 + n) for n in range(NUM_ROWS)]).cast(
        pl.Datetime(rng.choice(("ns", "ms")))
    ),
    lambda rng: pl.Series([time(rng.randrange(24)) for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([timedelta(days=rng.randrange(99)) for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([Decimal(rng.randrange(99)) / 10 for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([rng.choice("ab") for _ in range(NUM_ROWS)], dtype=pl.Categorical),
    lambda rng: pl.Series([rng.choice("ab") for _ in range(NUM_ROWS)], dtype=pl.Enum(["a", "b"])),
    lambda rng: pl.Series([[odd_text(rng)] * rng.randrange(3) for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([[rng.randrange(9)] for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([{"a": rng.randrange(9)} for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([bytes([rng.randrange(256)]) for _ in range(NUM_ROWS)]),
    lambda rng: pl.Series([None] * NUM_ROWS),  # noqa: ARG005
    lambda rng: pl.Series([object() for _ in range(NUM_ROWS)], dtype=pl.Object),  # noqa: ARG005
)
SETTINGS = (
    "user", "item", "rating", "time", "time_format", "repeats", "rating_min", "rating_max", "title", "attributes",
    "attribute_separator", "list", "label", "position", "score", "shown_at", "baskets", "domain", "year_from_title",
)  # fmt: skip


def case(rng: random.Random) -> Callable[[], None]:
    """A log of frames, one or two of whose columns are of a drawn type."""
    tables: dict[str, dict[str, pl.Series]] = {
        "interactions": {
            "user_id": pl.Series(["a", "a", "b", "b"]), "item_id": pl.Series(["1", "2", "1", "3"]),
            "rating": pl.Series([1.0, 5.0, 3.0, 4.0]), "time": pl.Series([1_700_000_000 + n for n in range(4)]),
        },
        "items": {
            "item_id": pl.Series(["1", "2", "3", "4"]), "title": pl.Series(["Heat", "Up", "Alien", "Jaws"]),
            "genre": pl.Series([["War"], [], ["Crime", "War"], ["Sea"]]),
        },
        "users": {"user_id": pl.Series(["a", "b", "c", "d"]), "age": pl.Series([1, 2, 3, 4])},
        "impressions": {
            "user_id": pl.Series(["a", "a", "b", "b"]), "item_id": pl.Series(["1", "2", "1", "3"]),
            "list_id": pl.Series(["x", "x", "y", "y"]), "label": pl.Series([0, 1, 1, 0]),
            "position": pl.Series([1, 2, 1, 2]),
        },
    }  # fmt: skip
    chosen = ["interactions", *(name for name in ("items", "users", "impressions") if rng.random() < 0.6)]
    for _ in range(rng.choice((1, 1, 2))):
        table = tables[rng.choice(chosen)]
        table[rng.choice([*table, odd_text(rng)])] = rng.choice(MAKERS)(rng)
    if rng.random() < 0.1:
        table = tables[rng.choice(chosen)]
        del table[rng.choice(list(table))]
    made: dict[str, Any] = {name: pl.DataFrame(tables[name]) for name in chosen}
    if rng.random() < 0.05:
        made[rng.choice(chosen)] = odd_value(rng)
    settings: dict[str, Any] = {"attributes": ("genre",)} if "items" in chosen else {}
    if rng.random() < 0.3:
        settings[rng.choice(SETTINGS)] = odd_value(rng)

    def read() -> None:
        from fuzz.readers import check_log

        check_log(Log.from_frames(**made, progress=SILENT, **settings))

    return read
