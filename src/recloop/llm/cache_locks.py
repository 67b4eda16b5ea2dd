"""Who is at which request: rows in the cache's file, so that several processes do no work twice."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Sequence

LEASE_S = 120.0  # unless renewed; what a process on another machine that died can hold up
RENEW_S = 10.0
LEASE_TABLE = """
create table leases (request blob primary key, holder text not null, until_s real not null) without rowid;
"""


class Leases:
    """Claims on requests, each for a while. A claim of a dead process of this machine counts for nothing.

    Args:
        connection: in autocommit mode, to a file that has `LEASE_TABLE`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._machine = socket.gethostname()
        self.holder = f"{self._machine}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._renewed_s = time.monotonic()

    def claim(self, requests: Sequence[bytes]) -> set[bytes]:
        """Those of `requests` that are now this holder's; the others are somebody else's."""
        now_s = time.time()
        connection = self._connection
        connection.execute("begin immediate")
        try:
            self._bury_the_dead()
            connection.executemany(
                "insert into leases values (?1, ?2, ?3) on conflict (request) do update "
                "set holder = ?2, until_s = ?3 where holder = ?2 or until_s < ?4",
                [(request, self.holder, now_s + LEASE_S, now_s) for request in requests],
            )
            own = {
                request
                for request in requests
                if connection.execute(
                    "select 1 from leases where request = ? and holder = ?", (request, self.holder)
                ).fetchone()
            }
        except BaseException:
            connection.execute("rollback")
            raise
        connection.execute("commit")
        return own

    def renew(self) -> None:
        """Keep all that is claimed for another while; does nothing when it was done a moment ago."""
        if time.monotonic() - self._renewed_s >= RENEW_S:
            self._renewed_s = time.monotonic()
            until_s = time.time() + LEASE_S
            self._connection.execute("update leases set until_s = ? where holder = ?", (until_s, self.holder))

    def release(self, requests: Sequence[bytes]) -> None:
        """Give claims back."""
        self._connection.executemany(
            "delete from leases where request = ? and holder = ?", [(r, self.holder) for r in requests]
        )

    def release_all(self) -> None:
        """Give every claim of this holder back."""
        self._connection.execute("delete from leases where holder = ?", (self.holder,))

    def _bury_the_dead(self) -> None:
        holders = [row[0] for row in self._connection.execute("select distinct holder from leases")]
        dead = [(holder,) for holder in holders if self._is_dead(holder)]
        self._connection.executemany("delete from leases where holder = ?", dead)

    def _is_dead(self, holder: str) -> bool:
        machine, pid, _ = holder.rsplit(":", 2)
        if machine != self._machine or int(pid) == os.getpid():
            return False
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False
