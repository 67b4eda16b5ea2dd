"""The completion cache: every completion ever paid for, in one SQLite file, found again by what it was drawn from."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from recloop.errors import RunError
from recloop.llm.cache_locks import LEASE_TABLE, Leases
from recloop.llm.completion_text import printable
from recloop.llm.language_model import Sampling, prompt_digest
from recloop.llm.server.cost import Usage
from recloop.llm.shared_file import open_shared
from recloop.records import Completion, CompletionStatus, Prompt

LAYOUT = 3
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


@dataclass(frozen=True, slots=True)
class CacheTotals:
    """How much a cache holds."""

    num_completions: int
    num_tokens: int


class CompletionCache:
    """Completions by content: the language model's name, the prompt, the sampling settings, the completion's number.

    Whose prompt it was does not enter, so users with the same history share completions. A completion that is no use (a
    refusal, a prompt the server does not take) has its row too, with the reason, and is not asked for again.
    Several processes may use one file; `leases` says who is at what, and the first completion written wins. What
    was committed survives SIGKILL.

    Args:
        path: the file; made when absent, its folder must exist.

    Raises:
        RunError: the file is something else, or from another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._connection = open_shared(self.path)
            self._open()
            self.leases = Leases(self._connection)
        except sqlite3.Error as error:
            raise RunError(
                f"a completion cache must be an SQLite file in an existing folder, got {self.path} ({error}); "
                f"move the file away or create the folder"
            ) from error

    def _open(self) -> None:
        self._connection.execute("begin immediate")
        layout = self._connection.execute("pragma user_version").fetchone()[0]
        has_tables = self._connection.execute("select count(*) from sqlite_master").fetchone()[0] > 0
        if layout == 0 and not has_tables:
            for statement in filter(str.strip, TABLES.split(";")):
                self._connection.execute(statement)
            self._connection.execute(f"pragma user_version = {LAYOUT}")
        elif layout == 2:
            self._connection.execute("alter table requests add column sentences integer")
            self._connection.execute(f"pragma user_version = {LAYOUT}")
            layout = LAYOUT
        self._connection.execute("commit")
        if has_tables and layout != LAYOUT:
            raise RunError(
                f"a completion cache must have layout {LAYOUT}, got {layout} in {self.path}; "
                f"use a new file, or the version of recloop that wrote it"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.leases.release_all()
        self._connection.close()

    def key(self, lm_name: str, prompt: Prompt, sampling: Sampling) -> bytes:
        """See `request_key`."""
        return request_key(lm_name, prompt, sampling)

    def totals(self) -> CacheTotals:
        query = "select count(*), coalesce(sum(num_tokens), 0) from completions"
        return CacheTotals(*self._connection.execute(query).fetchone())

    def read(self, lm_name: str, prompts: Sequence[Prompt], sampling: Sampling) -> list[dict[int, Completion]]:
        """Per prompt the completions it has among those wanted, by their number."""
        query = (
            "select completion, text, num_tokens, is_finished, logp_sum, status, reason, raw from completions "
            "where request = ? and completion between ? and ?"
        )
        span = sampling.completion_numbers
        found: list[dict[int, Completion]] = []
        for prompt in prompts:
            request = request_key(lm_name, prompt, sampling)
            rows = self._connection.execute(query, (request, span.start, span.stop - 1))
            found.append(
                {
                    completion: Completion(
                        prompt.user,
                        completion,
                        text,
                        num_tokens,
                        bool(is_finished),
                        logp if logp is not None else np.nan,
                        CompletionStatus(status),
                        reason,
                        raw,
                    )
                    for completion, text, num_tokens, is_finished, logp, status, reason, raw in rows
                }
            )
        return found

    def spent(self, purpose: str | None = None) -> Usage:
        """What model behind a server have cost, in all or for one purpose."""
        where = "" if purpose is None else " where purpose = ?"
        rows = self._connection.execute(
            f"select what, sum(amount) from usage{where} group by what",
            () if purpose is None else (purpose,),
        )
        return Usage(**{what: amount if what.endswith("_s") else int(amount) for what, amount in rows})

    def has_usable(self, lm_name: str) -> bool:
        """Whether this language model has ever given a completion that can be used."""
        query = "select 1 from completions join requests using (request) where lm = ? and status = 'ok' limit 1"
        return self._connection.execute(query, (lm_name,)).fetchone() is not None

    def write(
        self,
        lm_name: str,
        sampling: Sampling,
        completions: Iterable[tuple[Prompt, Sequence[Completion]]],
        spent: Usage | None = None,
        purpose: str = "",
    ) -> None:
        """Add completions and what they cost, all or none; a completion already there stays as it is."""
        with closing(self._connection.cursor()) as cursor:
            cursor.execute("begin immediate")
            try:
                for prompt, completions_N in completions:
                    digest = prompt_digest(prompt)
                    request = request_key(lm_name, prompt, sampling)
                    settings = (*_settings(sampling), sampling.sentences)
                    cursor.execute(
                        "insert or ignore into prompts values (?, ?, ?)", (digest, prompt.system, prompt.text)
                    )
                    cursor.execute(
                        "insert or ignore into requests values (?, ?, ?, ?, ?, ?, ?, ?)",
                        (request, lm_name, digest, *settings),
                    )
                    cursor.executemany(
                        "insert or ignore into completions values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        [
                            (request, d.completion, d.text, d.num_tokens, d.is_finished, d.logp_sum, *kept_of(d))
                            for d in completions_N
                        ],
                    )
                if spent is not None:
                    cursor.executemany(
                        "insert into usage values (?, ?, ?) on conflict (purpose, what) "
                        "do update set amount = amount + excluded.amount",
                        [(purpose, what, amount) for what, amount in asdict(spent).items() if amount],
                    )
            except BaseException:
                cursor.execute("rollback")
                raise
            cursor.execute("commit")


def kept_of(completion: Completion) -> tuple[str, str, str]:
    """What a row says about a completion beside its text; servers quote what no text file or table can hold."""
    return completion.status.value, printable(completion.reason), printable(completion.raw)


def request_key(lm_name: str, prompt: Prompt, sampling: Sampling) -> bytes:
    """SHA-256 of everything that decides a completion, apart from its number."""
    room = () if sampling.sentences is None else (sampling.sentences,)
    settings = [lm_name, *_settings(sampling), *room]
    return hashlib.sha256(json.dumps(settings).encode() + prompt_digest(prompt)).digest()


def _settings(sampling: Sampling) -> tuple[float, ...]:
    return sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed
