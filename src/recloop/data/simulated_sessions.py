"""Simulated sessions in which the right hint depends on the session, and a dial to sessions where none helps.

Every invented item has a format (short, series, ...) and one value of each of three attributes. All items of a
session share their format, and the format decides by which attribute the session goes on: with probability
`signal` the next item shares its value of that attribute, and of no other, with the latest item shown; otherwise
the next item is drawn from the candidates by chance.

Among the candidates there is, for each of the other attributes, one item that shares its value with the latest
item and no other value. The rest share none. So without knowing the attribute, three candidates are equally good;
with it there is one. The format, which any text encoder sees, tells the attribute. Formats, and with them the
attributes, occur with the shares `SHARES`, so that one hint for all sessions is worth the largest share.
"""

from __future__ import annotations

import numpy as np
import polars as pl
from pydantic import BaseModel, model_validator

from recloop.data.sessions import Session, SessionTask
from recloop.data.vocabulary import VOCABULARIES, attribute_values, deal_values, item_titles
from recloop.errors import SettingError
from recloop.records import Domain
from recloop.settings import setting, shown_first

FORMATS = ("feature", "series", "short")
FORMAT = "format"
ATTRIBUTES = VOCABULARIES[Domain.MOVIES].attributes
SHARES = (0.6, 0.25, 0.15)  # how often each format, and with it each attribute, is drawn
NUM_VALUES = 8  # of each attribute: then six items per candidate hold enough that share one value or none


class SimulatedSessionsConfig(BaseModel, frozen=True, extra="forbid"):
    """What sessions are simulated."""

    num_items: int = setting(360, "Items.", ge=30)
    num_train: int = shown_first(300, "Training sessions.", ge=1)
    num_test: int = shown_first(200, "Test sessions.", ge=1)
    num_candidates: int = setting(20, "Candidates, the answer among them.", ge=4)
    max_items: int = setting(4, "Most items shown; each session has 1 to that many.", ge=1)
    signal: float = setting(1.0, "Share of the answers that the attribute decides; the rest is chance.", ge=0, le=1)

    @model_validator(mode="after")
    def _is_possible(self) -> SimulatedSessionsConfig:
        if self.num_items < 6 * self.num_candidates:
            raise SettingError(
                f"a simulated log of sessions needs six items per candidate, got {self.num_items} for "
                f"{self.num_candidates}; use {6 * self.num_candidates} items"
            )
        return self


def simulate_sessions(config: SimulatedSessionsConfig, seed: int) -> SessionTask:
    """Simulated sessions; each says which attribute decides it."""
    rng = np.random.default_rng(seed)
    names = [attribute_values(Domain.MOVIES, f, NUM_VALUES, rng) for f in range(len(ATTRIBUTES))]
    value_IF = np.stack([deal_values(NUM_VALUES, config.num_items, rng) for _ in ATTRIBUTES], axis=1)
    format_I = deal_values(len(FORMATS), config.num_items, rng)
    items = pl.DataFrame(
        {
            "item": range(config.num_items),
            "item_id": [f"i{i}" for i in range(config.num_items)],
            "title": item_titles(Domain.MOVIES, config.num_items, rng),
            FORMAT: [[FORMATS[f]] for f in format_I],
            **{attribute: [[names[f][v]] for v in value_IF[:, f]] for f, attribute in enumerate(ATTRIBUTES)},
        }
    )
    num = config.num_train + config.num_test
    format_S = rng.choice(len(FORMATS), num, p=SHARES)
    sessions = [_simulate_session(s, int(format_S[s]), format_I, value_IF, config, rng) for s in range(num)]
    return SessionTask(
        f"sessions (signal {config.signal:g})",
        Domain.MOVIES,
        items,
        (FORMAT, *ATTRIBUTES),
        tuple(sessions[: config.num_train]),
        tuple(sessions[config.num_train :]),
    )


def _simulate_session(
    number: int,
    kind: int,
    format_I: np.ndarray,
    value_IF: np.ndarray,
    config: SimulatedSessionsConfig,
    rng: np.random.Generator,
) -> Session:
    """One session whose format is `kind`, which is also the number of the attribute that decides."""
    length = int(rng.integers(1, config.max_items + 1))
    shown = rng.choice(np.flatnonzero(format_I == kind), length, replace=False)
    shares_IF = value_IF == value_IF[shown[-1]]
    is_free_I = np.ones(len(format_I), dtype=bool)
    is_free_I[shown] = False

    def pick(pattern: tuple[bool, ...], count: int) -> list[int]:
        pool = np.flatnonzero(is_free_I & (shares_IF == pattern).all(axis=1))
        if len(pool) < count:
            raise SettingError(
                f"the catalogue must hold {count} items sharing {sum(pattern)} values with a given one, got "
                f"{len(pool)}; use more items"
            )
        drawn = rng.choice(pool, count, replace=False)
        is_free_I[drawn] = False
        return drawn.tolist()

    num_attributes = len(ATTRIBUTES)
    alike = [pick(tuple(f == g for g in range(num_attributes)), 1)[0] for f in range(num_attributes)]
    rest = pick((False,) * num_attributes, config.num_candidates - num_attributes)
    candidates = rng.permutation([*alike, *rest]).tolist()
    is_driven = rng.random() < config.signal
    answer = alike[kind] if is_driven else int(rng.choice(candidates))
    return Session(number, number, tuple(shown.tolist()), answer, tuple(candidates), ATTRIBUTES[kind])
