"""The hint base: short instructions with where each came from, in a file that people can read and edit.

Axis letters: ``S`` sessions, ``H`` hints, the empty hint first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.errors import DataError
from recloop.files import read_utf8

if TYPE_CHECKING:
    from jaxtyping import Float

MAX_HINTS = 200  # guess: what a person still reads; every hint costs a prompt per session
NO_HINT = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """The mistake a hint came from.

    session: number among the training sessions. answer: its title.
    gain_before, gain_after: the reward of the session's answer without and with the hint.
    """

    session: int
    answer: str
    gain_before: float
    gain_after: float


@dataclass(frozen=True, slots=True)
class Hint:
    """One hint; `origin` is None where somebody wrote it or it came with the data."""

    text: str
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class HintBase:
    """The hints in the order they were kept; counts of what became of the others, e.g. ``{"redundant": 3}``."""

    hints: tuple[Hint, ...]
    counts: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def texts(self) -> tuple[str, ...]:
        """The empty hint, then every hint: the H actions of a policy."""
        return (NO_HINT, *(hint.text for hint in self.hints))


def most_alike(vector_D: Float[np.ndarray, " D"], known_HD: Float[np.ndarray, "H D"]) -> float:
    """The highest cosine of a vector with known ones; -1 where there are none or its length is 0."""
    lengths_H = np.linalg.norm(known_HD, axis=1) * np.linalg.norm(vector_D)
    is_told_H = lengths_H > 0
    if not is_told_H.any():
        return -1.0
    return float((known_HD[is_told_H] @ vector_D / lengths_H[is_told_H]).max())


def write_hint_base(file: Path, base: HintBase) -> None:
    """The hint base as indented JSON: ``{"hints": [{"text": ..., "origin": {...}}], "counts": {...}}``."""
    hints = [{"text": h.text, "origin": None if h.origin is None else asdict(h.origin)} for h in base.hints]
    text = json.dumps({"hints": hints, "counts": base.counts}, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def read_hint_base(file: Path) -> HintBase:
    """A hint base that was written, edited by hand, or is a plain list of texts; empty texts are passed over.

    Raises:
        DataError: no such file, no such form, a hint that stands twice, or too many.
    """
    try:
        told: Any = json.loads(read_utf8(file))
    except OSError as error:
        raise DataError(f"{file} must be a JSON file of hints, got {error.strerror}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} must be a JSON file of hints, got: {error}{_mend(error)}") from error
    entries = told.get("hints") if isinstance(told, dict) else told
    if not isinstance(entries, list):
        raise DataError(f'{file} must be a list of hints or hold one under "hints"; write ["...", "..."]')
    hints = tuple(hint for entry in entries if (hint := _hint(file, entry)).text)
    require_distinct([hint.text for hint in hints], str(file))
    counts = told.get("counts", {}) if isinstance(told, dict) else {}
    if not isinstance(counts, dict) or not all(type(count) is int for count in counts.values()):
        raise DataError(f'"counts" of {file} must be whole numbers by name, got {str(counts)[:60]}; leave it out')
    return HintBase(hints, counts)


def _mend(error: Exception) -> str:
    """What to do about text that is no JSON."""
    if not isinstance(error, json.JSONDecodeError):
        return ""
    if error.msg.startswith("Illegal trailing comma"):  # from Python 3.13 on
        return "; take the comma out"
    before = error.doc[: error.pos].rstrip()
    return "; take the comma before it out" if before.endswith(",") else "; correct it there"


def require_distinct(texts: Sequence[str], where: str) -> None:
    """DataError where hints repeat each other or are more than anybody reads."""
    if len(set(texts)) < len(texts):
        again = next(text for text in texts if list(texts).count(text) > 1)
        raise DataError(f"hints of {where} must differ, got {again!r} twice; drop one")
    if len(texts) > MAX_HINTS:
        raise DataError(f"{where} may hold {MAX_HINTS} hints, got {len(texts)}; drop the least useful")


def _hint(file: Path, entry: Any) -> Hint:
    if isinstance(entry, str):
        return Hint(entry.strip())
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        raise DataError(f'a hint of {file} must be a text or an object with "text", got {str(entry)[:60]}; mend it')
    try:
        origin = entry.get("origin")
        return Hint(entry["text"].strip(), None if origin is None else Origin(**origin))
    except TypeError as error:
        raise DataError(f"an origin in {file} must have the fields of one, got {error}; set it to null") from error
