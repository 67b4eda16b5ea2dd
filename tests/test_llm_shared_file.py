"""Files that several processes open at the same moment."""

import sqlite3
import threading
from contextlib import closing

import pytest

from recloop.llm.shared_file import open_shared


def test_a_new_file_that_another_is_writing_is_waited_for(tmp_path):
    path = tmp_path / "file.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("create table things (name text)")
        other.execute("begin immediate")
        with closing(sqlite3.connect(path, timeout=60)) as hasty, pytest.raises(sqlite3.OperationalError):
            hasty.execute("pragma journal_mode = wal")  # whatever its timeout: this is what is mended
        timer = threading.Timer(0.3, other.execute, ["commit"])
        timer.start()
        with closing(open_shared(path)) as patient:
            assert patient.execute("pragma journal_mode").fetchone() == ("wal",)
        timer.join()


def test_many_open_a_new_file_at_once(tmp_path):
    failures = []

    def work(barrier, path):
        barrier.wait()
        try:
            open_shared(path).close()
        except sqlite3.Error as error:
            failures.append(error)

    for number in range(20):
        barrier = threading.Barrier(8)
        threads = [threading.Thread(target=work, args=(barrier, tmp_path / f"{number}.sqlite")) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_what_is_no_such_file_is_an_error_at_once(tmp_path):
    (tmp_path / "text").write_text("this is not a database, whatever it is called" * 20)
    with pytest.raises(sqlite3.DatabaseError):
        open_shared(tmp_path / "text")
    with pytest.raises(sqlite3.OperationalError):
        open_shared(tmp_path / "absent" / "file.sqlite")
