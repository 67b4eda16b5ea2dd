"""Inputs that are small and become large, or nest deep."""

from __future__ import annotations

import gzip
import io
import random
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from fuzz.mutate import nested
from recloop.data.load import load_log
from recloop.data.text_files import read_json
from recloop.methods.re2llm.hint_base import read_hint_base
from recloop.progress import SILENT

MANY = 2_000_000_000


def bomb(rng: random.Random, folder: Path) -> Callable[[], None]:
    """One of the bombs; that it was refused, or read within the limits, is the watcher's to see."""
    file = folder / "log.csv"
    match rng.randrange(5):
        case 0:
            file.write_bytes(packed(b"\0" * (1 << 20), MANY >> 20))
        case 1:
            file.write_bytes(packed(b"user,item\n" + b"u1,i1\n" * 200_000, MANY // 1_200_000))
        case 2:
            file.write_bytes(b"user,item\nu1,i1\nu2," + b"x" * 100_000_000 + b"\n")
        case 3:
            file.write_text('{"user": ' + nested(100_000) + "}\n")
        case _:
            return _json(rng, folder)

    def read() -> None:
        load_log("table", path=file, progress=SILENT)

    return read


@cache
def packed(piece: bytes, number: int) -> bytes:
    """A piece many times over, in gzip."""
    raw = io.BytesIO()
    with gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=6) as file:
        for _ in range(number):
            file.write(piece)
    return raw.getvalue()


def _json(rng: random.Random, folder: Path) -> Callable[[], None]:
    file = folder / "hints.json"
    file.write_text(nested(100_000, *rng.choice((("[", "]"), ('{"hints":', "}")))))
    return partial(read_hint_base, file) if rng.random() < 0.5 else partial(read_json, file, "hints")
