"""The completion cache: completions in one SQLite file, found again by everything that decides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.errors import RunError
from recloop.llm.cache_locks import DIGEST_TABLE, LEASE_TABLE, Leases, SharedFile, transaction
from recloop.llm.completion_text import printable
from recloop.llm.language_model import Sampling, prompt_digest
from recloop.llm.server.cost import Usage
from recloop.records import Completion, CompletionStatus, Prompt

if TYPE_CHECKING:
    from recloop.llm.config import LmConfig

LAYOUT = 4
TABLES = f"""
create table prompts (
    digest blob primary key, system text not null, text text not null
) without rowid;
create table requests (
    request blob primary key, lm text not null, digest blob not null references prompts,
    temperature real not null, top_p real not null, max_tokens integer not null, seed integer not null,
    sentences integer
) without rowid;
create table completions (
    request blob not null references requests, completion integer not null, text text not null,
    num_tokens integer not null, is_finished integer not null, logp_sum real,
    status text not null, reason text not null, raw text not null,
    primary key (request, completion)
) without rowid;
create table usage (
    purpose text not null, what text not null, amount real not null, primary key (purpose, what)
) without rowid;
{LEASE_TABLE}"""


class CompletionCache(SharedFile):
    """Completions by content: language model's name, prompt, sampling settings, completion number.

    The user does not enter, so users with the same prompt share completions. An unusable completion (a refusal,
    a prompt that the server rejects) has a row too, with the reason, and is not asked for again. Several
    processes may use one file: `leases` says who works on what, and the first completion written stays.

    Args:
        path: the file; made when absent, its folder must exist. ``:memory:`` for no file.

    Raises:
        RunError: the file is something else, or of another layout.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, "a completion cache")
        self.leases = Leases(self._connection)

    def _make_tables(self) -> None:
        with transaction(self._connection):
            layout = self._connection.execute("pragma user_version").fetchone()[0]
            has_tables = self._connection.execute("select count(*) from sqlite_master").fetchone()[0] > 0
            if not has_tables and layout == 0:
                for statement in filter(str.strip, TABLES.split(";")):
                    self._connection.execute(statement)
                self._connection.execute(f"pragma user_version = {LAYOUT}")
            elif layout != LAYOUT:
                raise RunError(
                    f"a completion cache must have layout {LAYOUT}, got {layout} in {self.path}; "
                    f"use a new file, or the version of recloop that wrote this one"
                )
            self._connection.execute(DIGEST_TABLE)

    def close(self) -> None:
        self.leases.release_all()
        super().close()

    @property
    def num_completions(self) -> int:
        return self._connection.execute("select count(*) from completions").fetchone()[0]

    def read(self, lm_name: str, prompts: Sequence[Prompt], sampling: Sampling) -> list[dict[int, Completion]]:
        """Per prompt the wanted completions that the cache holds, by their number."""
        query = (
            "select completion, text, num_tokens, is_finished, logp_sum, status, reason, raw from completions "
            "where request = ? and completion between ? and ?"
        )
        span = sampling.completion_numbers
        found: list[dict[int, Completion]] = []
        for prompt in prompts:
            request = request_key(lm_name, prompt, sampling)
            rows = self._connection.execute(query, (request, span.start, span.stop - 1)).fetchall()
            for row in rows:
                self._require_whole(_row_key(request, row[0]), row)
            found.append({row[0]: _completion_of(prompt.user, row) for row in rows})
        return found

    def usage(self, purpose: str | None = None) -> Usage:
        """What language models behind a server have cost, in all or for one purpose."""
        query = "select what, sum(amount) from usage where ? is null or purpose = ? group by what"
        rows = self._connection.execute(query, (purpose, purpose))
        return Usage(**{what: amount if what.endswith("_s") else int(amount) for what, amount in rows})

    def has_usable(self, lm_name: str) -> bool:
        """Whether the cache holds a usable completion of this language model."""
        query = "select 1 from completions join requests using (request) where lm = ? and status = 'ok' limit 1"
        return self._connection.execute(query, (lm_name,)).fetchone() is not None

    def write(
        self,
        lm_name: str,
        sampling: Sampling,
        completions: Iterable[tuple[Prompt, Sequence[Completion]]],
        usage: Usage | None = None,
        purpose: str = "",
    ) -> None:
        """Add completions and what they cost, all or none; a completion that is there already stays."""
        execute, executemany = self._connection.execute, self._connection.executemany
        with transaction(self._connection):
            for prompt, completions_N in completions:
                digest, request = prompt_digest(prompt), request_key(lm_name, prompt, sampling)
                execute("insert or ignore into prompts values (?, ?, ?)", (digest, prompt.system, prompt.text))
                execute(
                    "insert or ignore into requests values (?, ?, ?, ?, ?, ?, ?, ?)",
                    (request, lm_name, digest, *_settings(sampling), sampling.sentences),
                )
                held = {
                    number for (number,) in execute("select completion from completions where request = ?", (request,))
                }
                rows = [_row_of(completion) for completion in completions_N if completion.completion not in held]
                executemany(
                    "insert or ignore into completions values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [(request, *row) for row in rows],
                )
                self._note((_row_key(request, row[0]), row) for row in rows)
            if usage is not None:
                executemany(
                    "insert into usage values (?, ?, ?) on conflict (purpose, what) "
                    "do update set amount = amount + excluded.amount",
                    [(purpose, what, amount) for what, amount in asdict(usage).items() if amount],
                )


def _row_of(one: Completion) -> tuple[Any, ...]:
    quotes = printable(one.reason), printable(one.raw)  # of a server, perhaps: made fit for text files and tables
    logp = None if isnan(one.logp_sum) else float(one.logp_sum)  # as SQLite gives it back
    return one.completion, one.text, one.num_tokens, int(one.is_finished), logp, one.status.value, *quotes


def _row_key(request: bytes, completion: int) -> bytes:
    return request + completion.to_bytes(4, "big")


def _completion_of(user: int, row: tuple[Any, ...]) -> Completion:
    number, text, num_tokens, is_finished, logp_sum, status, reason, raw = row
    logp = np.nan if logp_sum is None else logp_sum
    return Completion(user, number, text, num_tokens, bool(is_finished), logp, CompletionStatus(status), reason, raw)


def request_key(lm_name: str, prompt: Prompt, sampling: Sampling) -> bytes:
    """SHA-256 of everything that decides a completion, except its number."""
    settings = [lm_name, *_settings(sampling), *([] if sampling.sentences is None else [sampling.sentences])]
    return hashlib.sha256(json.dumps(settings).encode() + prompt_digest(prompt)).digest()


def _settings(sampling: Sampling) -> tuple[float, ...]:
    return sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed


def usage_note(cache_file: Path, purpose: str, config: LmConfig) -> dict[str, Any]:
    """For a manifest: what a step has cost, killed attempts included; nothing for a model in this process."""
    if not config.uses_server:
        return {}
    with CompletionCache(cache_file) as cache:
        return {"server": cache.usage(purpose).as_note(config.prices)}
