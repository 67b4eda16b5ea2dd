"""The draft journal: every draft ever paid for, in one SQLite file, found again by what it was drawn from."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from recloop.errors import ContractError, GenerationError, RunError
from recloop.language.leases import LEASE_TABLE, Leases
from recloop.language.model import LanguageModel, Sampling, prompt_digest
from recloop.language.replies import printable, tidy_draft
from recloop.language.shared_file import open_shared
from recloop.language.shared_heads import share_heads
from recloop.language.shared_sampling import stream_drafts
from recloop.language.spending import Spending
from recloop.language.streaming import StreamingModel
from recloop.progress import SILENT, Progress, Step
from recloop.records import Draft, DraftStatus, Prompt, UserDrafts

CHUNK_DRAFTS = 1024  # drafts committed together: what a kill can cost, some ten seconds of the embedded LM
LAYOUT = 3
OTHERS_POLL_S = 0.25
TABLES = f"""
create table prompts (
    digest blob primary key, system text not null, text text not null
) without rowid;
create table requests (
    request blob primary key, lm text not null, digest blob not null references prompts,
    temperature real not null, top_p real not null, max_tokens integer not null, seed integer not null,
    sentences integer
) without rowid;
create table drafts (
    request blob not null references requests, draft integer not null, text text not null,
    num_tokens integer not null, is_finished integer not null, logp_sum real,
    status text not null, reason text not null, raw text not null,
    primary key (request, draft)
) without rowid;
create table spending (
    purpose text not null, what text not null, amount real not null, primary key (purpose, what)
) without rowid;
{LEASE_TABLE}"""


@dataclass(frozen=True, slots=True)
class JournalTotals:
    """How much a journal holds."""

    num_drafts: int
    num_tokens: int


class DraftJournal:
    """Drafts by content: the language model's name, the prompt, the sampling settings, the draft's number.

    Whose prompt it was does not enter, so users with the same history share drafts. A draft that is no use (a
    refusal, a prompt the server does not take) has its row too, with the reason, and is not asked for again.
    Several processes may use one file; `leases` says who is at what, and the first draft written wins. What
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
                f"a draft journal must be an SQLite file in an existing folder, got {self.path} ({error}); "
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
                f"a draft journal must have layout {LAYOUT}, got {layout} in {self.path}; "
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

    def totals(self) -> JournalTotals:
        query = "select count(*), coalesce(sum(num_tokens), 0) from drafts"
        return JournalTotals(*self._connection.execute(query).fetchone())

    def read(self, lm_name: str, prompts: Sequence[Prompt], sampling: Sampling) -> list[dict[int, Draft]]:
        """Per prompt the drafts it has among those wanted, by their number."""
        query = (
            "select draft, text, num_tokens, is_finished, logp_sum, status, reason, raw from drafts "
            "where request = ? and draft between ? and ?"
        )
        span = sampling.draft_numbers
        found: list[dict[int, Draft]] = []
        for prompt in prompts:
            request = request_key(lm_name, prompt, sampling)
            rows = self._connection.execute(query, (request, span.start, span.stop - 1))
            found.append(
                {
                    draft: Draft(
                        prompt.user,
                        draft,
                        text,
                        num_tokens,
                        bool(is_finished),
                        logp if logp is not None else np.nan,
                        DraftStatus(status),
                        reason,
                        raw,
                    )
                    for draft, text, num_tokens, is_finished, logp, status, reason, raw in rows
                }
            )
        return found

    def spent(self, purpose: str | None = None) -> Spending:
        """What served models have cost, in all or for one purpose."""
        where = "" if purpose is None else " where purpose = ?"
        rows = self._connection.execute(
            f"select what, sum(amount) from spending{where} group by what",
            () if purpose is None else (purpose,),
        )
        return Spending(**{what: amount if what.endswith("_s") else int(amount) for what, amount in rows})

    def has_usable(self, lm_name: str) -> bool:
        """Whether this language model has ever given a draft that can be used."""
        query = "select 1 from drafts join requests using (request) where lm = ? and status = 'ok' limit 1"
        return self._connection.execute(query, (lm_name,)).fetchone() is not None

    def write(
        self,
        lm_name: str,
        sampling: Sampling,
        drafts: Iterable[tuple[Prompt, Sequence[Draft]]],
        spent: Spending | None = None,
        purpose: str = "",
    ) -> None:
        """Add drafts and what they cost, all or none; a draft already there stays as it is."""
        with closing(self._connection.cursor()) as cursor:
            cursor.execute("begin immediate")
            try:
                for prompt, drafts_N in drafts:
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
                        "insert or ignore into drafts values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        [
                            (request, d.draft, d.text, d.num_tokens, d.is_finished, d.logp_sum, *kept_of(d))
                            for d in drafts_N
                        ],
                    )
                if spent is not None:
                    cursor.executemany(
                        "insert into spending values (?, ?, ?) on conflict (purpose, what) "
                        "do update set amount = amount + excluded.amount",
                        [(purpose, what, amount) for what, amount in asdict(spent).items() if amount],
                    )
            except BaseException:
                cursor.execute("rollback")
                raise
            cursor.execute("commit")


def kept_of(draft: Draft) -> tuple[str, str, str]:
    """What a row says about a draft beside its text; servers quote what no text file or table can hold."""
    return draft.status.value, printable(draft.reason), printable(draft.raw)


def request_key(lm_name: str, prompt: Prompt, sampling: Sampling) -> bytes:
    """SHA-256 of everything that decides a draft, apart from its number."""
    room = () if sampling.sentences is None else (sampling.sentences,)
    settings = [lm_name, *_settings(sampling), *room]
    return hashlib.sha256(json.dumps(settings).encode() + prompt_digest(prompt)).digest()


def _settings(sampling: Sampling) -> tuple[float, ...]:
    return sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed


def sample_drafts(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    journal: DraftJournal,
    progress: Progress = SILENT,
    purpose: str = "",
) -> UserDrafts:
    """N drafts for every prompt, of which only those missing from the journal are generated.

    For a model in this process, work is cut into chunks that depend on the prompts alone and are committed
    whole: a run killed at any point and resumed puts the same prompts into the same batches as one that was
    not, so even the last bits of a logit are the same. The answers of a served model are committed as they
    arrive.

    A prompt without a usable answer keeps its user: its drafts are empty texts whose status says why.

    Args:
        prompts: one per user.
        purpose: what a served model's cost is booked under.

    Raises:
        GenerationError: two prompts of one user, or a served model that is gone or refuses everything.
        BudgetError: a served model has reached a cap.
        ContractError: the language model leaves prompts or drafts out, or mixes them up.
    """
    users = [prompt.user for prompt in prompts]
    if len(set(users)) != len(users):
        again = next(user for user in users if users.count(user) > 1)
        raise GenerationError(
            f"each user must have one prompt, got several for user {again}; sample them apart"
        )
    in_order = _longest_first(prompts)
    chunk = max(1, CHUNK_DRAFTS // sampling.num_drafts)
    with progress.stage("sample drafts", total=len(prompts) * sampling.num_drafts, unit="drafts") as step:
        if isinstance(lm, StreamingModel):
            stream_drafts(lm, in_order, sampling, journal, step, purpose)
        else:
            chunks = [in_order[start : start + chunk] for start in range(0, len(in_order), chunk)]
            _fill_all(lm, chunks, sampling, journal, step)
    ordered = sorted(prompts, key=lambda prompt: prompt.user)
    found = journal.read(lm.name, ordered, sampling)
    drafts_UN = tuple(tuple(drafts[number] for number in sampling.draft_numbers) for drafts in found)
    return UserDrafts(np.array(sorted(users), dtype=np.int64), drafts_UN)


def _longest_first(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts of like length side by side, and those that begin alike together."""
    texts = [prompt.system + prompt.text for prompt in prompts]
    together = [
        sorted((-len(texts[n]), prompts[n].user, n) for n in head.members) for head in share_heads(texts, 0)
    ]
    return [prompts[n] for members in sorted(together) for *_, n in members]


def _fill_all(
    lm: LanguageModel,
    chunks: Sequence[Sequence[Prompt]],
    sampling: Sampling,
    journal: DraftJournal,
    step: Step,
) -> None:
    """Every chunk once, whoever does it: one that another process is at is looked at again later."""
    left = list(chunks)
    while left:
        later: list[Sequence[Prompt]] = []
        for prompts in left:
            held = journal.read(lm.name, prompts, sampling)
            keys = {
                journal.key(lm.name, prompt, sampling)
                for prompt, drafts in zip(prompts, held, strict=True)
                if len(drafts) < sampling.num_drafts
            }
            try:
                if len(journal.leases.claim(list(keys))) == len(keys):
                    _fill(lm, prompts, sampling, journal, step)
                else:
                    later.append(prompts)
            finally:
                journal.leases.release_all()
        if len(later) == len(left):
            time.sleep(OTHERS_POLL_S)
        left = later


def _fill(
    lm: LanguageModel, prompts: Sequence[Prompt], sampling: Sampling, journal: DraftJournal, step: Step
) -> None:
    """Generate what the journal lacks of these prompts and commit it at once."""
    missing: dict[range, dict[bytes, Prompt]] = {}
    for prompt, held in zip(prompts, journal.read(lm.name, prompts, sampling), strict=True):
        absent = [number for number in sampling.draft_numbers if number not in held]
        if absent:  # from the first to the last of them: a gap is rare, and drawing it again changes nothing
            span = range(absent[0], absent[-1] + 1)
            missing.setdefault(span, {}).setdefault(prompt_digest(prompt), prompt)
    fresh: list[tuple[Prompt, Sequence[Draft]]] = []
    for span, by_digest in missing.items():
        wanted = list(by_digest.values())
        part = replace(sampling, first_draft=span.start, num_drafts=len(span))
        answered: dict[int, tuple[Draft, ...]] = {}
        for position, drafts_N in _checked(lm, wanted, part):
            answered[position] = tuple(map(tidy_draft, drafts_N))
            step(len(drafts_N))
            journal.leases.renew()
        if len(answered) != len(wanted):
            raise ContractError(
                f"{lm.name} must answer every prompt, got {len(answered)} of {len(wanted)}; "
                f"run recloop.testing.check_language_model on it"
            )
        fresh.extend((wanted[position], drafts_N) for position, drafts_N in answered.items())
    if fresh:
        journal.write(lm.name, sampling, fresh)
    step.skip(len(prompts) * sampling.num_drafts - sum(len(drafts_N) for _, drafts_N in fresh))


def _checked(
    lm: LanguageModel, prompts: Sequence[Prompt], sampling: Sampling
) -> Iterable[tuple[int, tuple[Draft, ...]]]:
    seen: set[int] = set()
    for position, drafts_N in lm.generate(prompts, sampling):
        numbers = [draft.draft for draft in drafts_N]
        is_known = 0 <= position < len(prompts) and position not in seen
        if not is_known or numbers != list(sampling.draft_numbers):
            raise ContractError(
                f"{lm.name} must yield each position of {len(prompts)} prompts once, with drafts "
                f"{list(sampling.draft_numbers)}, got position {position} with drafts {numbers}; "
                f"run recloop.testing.check_language_model on it"
            )
        seen.add(position)
        yield position, drafts_N
