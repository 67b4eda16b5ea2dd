import os
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from recloop.llm import cache_locks as leases_module
from recloop.llm.cache_locks import LEASE_TABLE, Leases, open_shared

KEYS = [bytes([k]) * 4 for k in range(6)]


@pytest.fixture
def open_leases(tmp_path):
    opened = []

    def open_one():
        connection = sqlite3.connect(tmp_path / "file", isolation_level=None)
        if not opened:
            connection.execute(LEASE_TABLE.strip().rstrip(";"))
        opened.append(connection)
        return Leases(connection)

    yield open_one
    for connection in opened:
        connection.close()


def test_a_claim_is_one_holders_until_it_is_given_back(open_leases):
    one, other = open_leases(), open_leases()
    assert one.claim(KEYS[:3]) == set(KEYS[:3])
    assert other.claim(KEYS[1:5]) == set(KEYS[3:5])
    assert one.claim(KEYS[:3]) == set(KEYS[:3])
    other.release(KEYS[:1])  # not its own
    assert other.claim(KEYS[:1]) == set()
    one.release(KEYS[:1])
    assert other.claim(KEYS[:3]) == {KEYS[0]}
    other.release_all()
    assert one.claim(KEYS) == set(KEYS)


def test_a_claim_that_was_not_renewed_runs_out(open_leases, monkeypatch):
    one, other = open_leases(), open_leases()
    now_s, ticks = [1000.0], [0.0]
    monkeypatch.setattr(leases_module.time, "time", lambda: now_s[0])
    monkeypatch.setattr(leases_module.time, "monotonic", lambda: ticks[0])
    one.claim(KEYS[:1])
    now_s[0], ticks[0] = now_s[0] + 100, 1e9
    one.renew()
    now_s[0] += 100
    assert other.claim(KEYS[:1]) == set()
    now_s[0] += 21
    assert other.claim(KEYS[:1]) == {KEYS[0]}
    assert one.claim(KEYS[:1]) == set()


def test_a_dead_process_of_this_machine_holds_nothing_up(open_leases):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    one, other, elsewhere = open_leases(), open_leases(), open_leases()
    one.holder = f"{socket.gethostname()}:{int(done.stdout)}:0"
    elsewhere.holder = f"another-machine:{int(done.stdout)}:0"
    one.claim(KEYS[:1])
    elsewhere.claim(KEYS[1:2])
    assert other.claim(KEYS[:2]) == {KEYS[0]}
    assert str(os.getpid()) in other.holder


@pytest.mark.slow
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


@pytest.mark.slow
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
