"""SQLite files that several processes use at once, and claims on work, so that none does it twice."""

from __future__ import annotations

import hashlib
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from recloop.errors import RunError

BUSY_WAIT_S = 60.0
RETRY_S = 0.02
LEASE_S = 120.0  # a process that died on another machine holds its requests up for so long
RENEW_S = 10.0
# Of rows: a changed bit in a database is noticed when its row is read. Files of earlier versions have none.
DIGEST_TABLE = "create table if not exists digests (row blob primary key, digest blob not null) without rowid"
LEASE_TABLE = """
create table leases (request blob primary key, holder text not null, until_s real not null) without rowid;
"""


class SharedFile:
    """An SQLite file in write-ahead mode; what was committed survives SIGKILL.

    Args:
        path: made when absent, its folder must exist; ``:memory:`` for no file.
        kind: what an error calls the file, e.g. ``a completion cache``.

    Raises:
        RunError: the file is something else.
    """

    def __init__(self, path: str | Path, kind: str) -> None:
        self.path = Path(path)
        try:
            self._connection = open_shared(self.path)
            try:
                self._make_tables()
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.Error as error:
            raise RunError(
                f"{kind} must be an SQLite file in an existing folder, got {self.path} ({error}); "
                f"move the file away or create the folder"
            ) from error

    def _make_tables(self) -> None:
        raise NotImplementedError

    def _note(self, rows: Iterable[tuple[bytes, Sequence[Any]]]) -> None:
        """Note what rows hold, by their keys; to be called with what writes them, in one transaction."""
        told = [(key, row_digest(values)) for key, values in rows]
        self._connection.executemany("insert or ignore into digests values (?, ?)", told)

    def _require_whole(self, key: bytes, values: Sequence[Any]) -> None:
        """RunError where a row is not what was written."""
        noted = self._connection.execute("select digest from digests where row = ?", (key,)).fetchone()
        if noted is not None and noted[0] != row_digest(values):
            raise RunError(
                f"{self.path} is damaged: a row is not what was written; restore the file, or move it away to make its "
                f"texts and vectors again"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()


def row_digest(values: Sequence[Any]) -> bytes:
    """Eight bytes that tell one row of a database from another."""
    return hashlib.blake2b(repr(tuple(values)).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def open_shared(path: Path) -> sqlite3.Connection:
    """A connection in write-ahead mode that commits each statement by itself.

    A statement waits up to a minute for other processes. So does the change of mode here: SQLite itself gives
    up at once when two processes change the mode of the same new file.
    """
    if str(path) != ":memory:":
        with suppress(OSError):  # what is wrong with the path is SQLite's to say
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # it holds texts about users
    connection = sqlite3.connect(path, timeout=BUSY_WAIT_S, isolation_level=None)
    give_up_s = time.monotonic() + BUSY_WAIT_S
    try:
        while True:
            try:
                connection.execute("pragma journal_mode = wal")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_s:
                    raise
            time.sleep(RETRY_S)
        connection.execute("pragma synchronous = normal")  # in WAL mode only a power cut can lose a commit
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    """All statements inside or none, and no other writer meanwhile."""
    connection.execute("begin immediate")
    try:
        yield
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


class Leases:
    """Claims in a file's `LEASE_TABLE`, each for a while. That of a dead process on this machine does not count."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._machine = socket.gethostname()
        self.holder = f"{self._machine}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._renewed_s = time.monotonic()

    def claim(self, requests: Sequence[bytes]) -> set[bytes]:
        """Those of `requests` that are now this holder's; another holder has the rest."""
        now_s = time.time()
        with transaction(self._connection):
            self._drop_dead_holders()
            self._connection.executemany(
                "insert into leases values (?, ?, ?) on conflict (request) do update set holder = excluded.holder, "
                "until_s = excluded.until_s where holder = excluded.holder or until_s < ?",
                [(request, self.holder, now_s + LEASE_S, now_s) for request in requests],
            )
            query = "select request from leases where holder = ?"
            own = {row[0] for row in self._connection.execute(query, (self.holder,))}
        return own.intersection(requests)

    def renew(self) -> None:
        """Keep all claims for another while; does nothing within seconds of the last time."""
        if time.monotonic() - self._renewed_s >= RENEW_S:
            self._renewed_s = time.monotonic()
            until_s = time.time() + LEASE_S
            self._connection.execute("update leases set until_s = ? where holder = ?", (until_s, self.holder))

    def release(self, requests: Sequence[bytes]) -> None:
        self._connection.executemany(
            "delete from leases where request = ? and holder = ?", [(r, self.holder) for r in requests]
        )

    def release_all(self) -> None:
        self._connection.execute("delete from leases where holder = ?", (self.holder,))

    def _drop_dead_holders(self) -> None:
        holders = [row[0] for row in self._connection.execute("select distinct holder from leases")]
        dead = [(holder,) for holder in holders if self._is_dead(holder)]
        self._connection.executemany("delete from leases where holder = ?", dead)

    def _is_dead(self, holder: str) -> bool:
        machine, pid, _ = holder.rsplit(":", 2)
        if machine != self._machine:
            return False
        try:
            os.kill(int(pid), 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False
