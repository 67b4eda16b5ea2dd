import os
import socket
import sqlite3
import subprocess
import sys

import pytest

from recloop.llm import cache_locks as leases_module
from recloop.llm.cache_locks import LEASE_TABLE, Leases

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
