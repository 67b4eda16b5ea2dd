"""SQLite files that several processes open at once."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

BUSY_WAIT_S = 60.0
RETRY_S = 0.02


def open_shared(path: Path) -> sqlite3.Connection:
    """Open a file in write-ahead mode, without transactions of its own; made when absent.

    A statement waits up to a minute for the others. So does the change of mode here: SQLite itself gives up
    at once when two processes make it to the same new file.

    Raises:
        sqlite3.Error: the file is something else, or stayed locked.
    """
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
