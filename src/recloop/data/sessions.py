"""Sessions: short runs of items, the item that came next, and the candidates with it.

Each item counts once in a session, at its first place, so that the answer is never among the items shown.
Candidates are drawn per session from its own random numbers, so that other sessions change nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from pydantic import BaseModel

from recloop.data.thin_logs import why_thin
from recloop.errors import DataError, SettingError
from recloop.records import Domain, Log
from recloop.settings import setting, shown_first

DAY_S = 86_400


class SessionConfig(BaseModel, frozen=True, extra="forbid"):
    """How sessions are cut, which are kept, and which candidates they get."""

    cut: Literal["day", "gap", "user"] = shown_first(
        "day", "How a log is cut: by day (UTC), after a pause, or all of a user in one."
    )
    gap_minutes: int = setting(60, "The pause that ends a session, for cut=gap.", ge=1)
    min_items: int = setting(3, "Fewest items shown; the answer is one more.", ge=1)
    max_items: int = setting(20, "Most items shown: the latest.", ge=1)
    num_candidates: int = shown_first(50, "Candidates, the answer among them.", ge=2)
    num_train: int = shown_first(500, "Training sessions: few, as in the paper.", ge=1)
    num_test: int = shown_first(500, "Test sessions.", ge=1)
    split: Literal["time", "session"] = setting("time", "Test sessions are the latest, or drawn from all.")
    test_share: float = setting(0.3, "Share of all sessions that the test sessions are drawn from.", gt=0, lt=1)


@dataclass(frozen=True, slots=True)
class Session:
    """One session and its question.

    user, time: whose it is, and when it ended (seconds or a running number).
    items: shown, oldest first, each once. answer: what came next.
    candidates: in the order they are shown, each once, the answer among them.
    attribute: in simulated sessions, the attribute that decides the answer; otherwise empty.
    """

    user: int
    time: int
    items: tuple[int, ...]
    answer: int
    candidates: tuple[int, ...]
    attribute: str = ""

    def __post_init__(self) -> None:
        if not self.items or len(set(self.items)) < len(self.items) or self.answer in self.items:
            raise DataError(
                f"items of a session must differ from each other and from its answer, got {self.items} and "
                f"{self.answer}; leave repeated items out"
            )
        if len(set(self.candidates)) < len(self.candidates) or self.answer not in self.candidates:
            raise DataError(
                f"candidates must differ and hold the answer {self.answer}, got {self.candidates}; draw them "
                f"with draw_candidates"
            )

    @property
    def answer_place(self) -> int:
        """Where the answer stands among the candidates, from 0."""
        return self.candidates.index(self.answer)


@dataclass(frozen=True, slots=True)
class SessionTask:
    """Sessions and their catalogue.

    items: ``item`` (0..I-1), ``item_id``, ``title``, then a ``List[String]`` column per name in `attributes`.
    hints: that came with the data; empty otherwise.
    notes: counts of what was left out or repaired.
    user_ids: as in the source, by user; empty where it has none.
    reading: of the log they were cut from (`Log.reading`).
    """

    name: str
    domain: Domain
    items: pl.DataFrame
    attributes: tuple[str, ...]
    train: tuple[Session, ...]
    test: tuple[Session, ...]
    hints: tuple[str, ...] = ()
    notes: tuple[tuple[str, int], ...] = ()
    user_ids: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Train, then test: the order of all arrays about sessions."""
        return self.train + self.test

    @property
    def id_of_user(self) -> Sequence[str]:
        """The user ids, by user; the user's number where the source has none."""
        return self.user_ids or [str(user) for user in range(1 + max(session.user for session in self.sessions))]


@dataclass(frozen=True, slots=True)
class CutSession:
    """A session before candidates: items oldest first, the last of them the answer."""

    user: int
    time: int
    items: tuple[int, ...]


def cut_sessions(log: Log, config: SessionConfig) -> list[CutSession]:
    """All sessions of a log that are long enough, by the time they ended; of long ones the latest items are kept."""
    new_user = pl.col("user") != pl.col("user").shift(1)
    match config.cut:
        case "day":
            starts = new_user | (pl.col("time") // DAY_S != pl.col("time").shift(1) // DAY_S)
        case "gap":
            starts = new_user | (pl.col("time").diff() > 60 * config.gap_minutes)
        case "user":
            starts = new_user
    table = (
        log.interactions.with_columns(session=starts.fill_null(value=True).cum_sum())
        .group_by("session", maintain_order=True)
        .agg(pl.col("user").first(), pl.col("time").max(), pl.col("item").unique(maintain_order=True))
        .filter(pl.col("item").list.len() > config.min_items)
        .sort("time", "session")
    )
    return [
        CutSession(user, time, tuple(items[-config.max_items - 1 :]))
        for user, time, items in table.select("user", "time", "item").iter_rows()
    ]


def draw_candidates(
    items: Sequence[int], answer: int, num_items: int, num_candidates: int, rng: np.random.Generator
) -> tuple[int, ...]:
    """The answer and others, not in the session, all different, in random order; SettingError: too few items."""
    is_free = np.ones(num_items, dtype=bool)
    is_free[[*items, answer]] = False
    free = np.flatnonzero(is_free)
    if len(free) < num_candidates - 1:
        raise SettingError(
            f"num_candidates must leave room for the session, got {num_candidates} with {len(free)} other "
            f"items in the catalogue; use at most {len(free) + 1}"
        )
    drawn = rng.choice(free, num_candidates - 1, replace=False)
    return tuple(rng.permutation(np.append(drawn, answer)).tolist())


def sessions_of_log(log: Log, config: SessionConfig, seed: int) -> SessionTask:
    """Few-shot sessions of a log, split, and with candidates, by `seed`; SettingError: too few sessions, or items."""
    cut = cut_sessions(log, config)
    order = np.random.default_rng([seed, 0])
    places = np.arange(len(cut)) if config.split == "time" else order.permutation(len(cut))
    num_late = round(config.test_share * len(cut))
    pools = {"train": places[: len(cut) - num_late], "test": places[len(cut) - num_late :]}
    wanted = {"train": config.num_train, "test": config.num_test}
    for part, pool in pools.items():
        if len(pool) < wanted[part]:
            raise SettingError(
                f"{log.name} must have {wanted[part]} sessions for {part}, got {len(pool)} of more than "
                f"{config.min_items} items{why_thin(log)}; {_fewer(part, pool)}"
            )
    chosen = {p: np.sort(order.choice(pool, wanted[p], replace=False)).tolist() for p, pool in pools.items()}

    def complete(number: int) -> Session:
        one = cut[number]
        *shown, answer = one.items
        rng = np.random.default_rng([seed, 1, number])
        candidates = draw_candidates(shown, answer, log.num_items, config.num_candidates, rng)
        return Session(one.user, one.time, tuple(shown), answer, candidates)

    return SessionTask(
        log.name,
        log.domain,
        log.items.select("item", "item_id", "title", *log.attributes),
        log.attributes,
        tuple(map(complete, chosen["train"])),
        tuple(map(complete, chosen["test"])),
        notes=(("sessions in the log", len(cut)),),
        user_ids=tuple(log.users["user_id"].to_list()),
        reading=log.reading,
    )


def _fewer(part: str, pool: np.ndarray) -> str:
    lower = f"sessions.num_{part} or " if len(pool) else ""
    return f"lower {lower}sessions.min_items, or change sessions.cut"


def task_digest(task: SessionTask) -> str:
    """SHA-256 over the catalogue, the sessions and the hints that came with them."""
    digest = hashlib.sha256(task.items.write_json().encode())
    for part in (task.attributes, task.train, task.test, task.hints):
        digest.update(repr(part).encode())
    return digest.hexdigest()
