"""What ends a command from outside is one message with a remedy; a defect keeps its traceback."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from recloop.errors import DataError, SettingError
from recloop.exits import ENDING_SIGNALS, guarded

COMMAND = "import sys; from recloop.cli import main; sys.exit(main())"


def raiser(error: BaseException):
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SettingError("k must be 1"), 2, "recloop: k must be 1"),
        (DataError("no rows\x1b[2J in \u202etable"), 1, "recloop: no rows\\x1b[2J in \\u202etable"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 1, "runs/x: No space left on device; free some"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 1, "allow reading and writing there, or choose"),
        (OSError(errno.EROFS, "Read-only file system", "runs"), 1, "the disk is read-only: choose another place"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 9), 1, "choose a shorter name"),
        (OSError(errno.EIO, "Input/output error"), 1, "recloop: Input/output error; check the path and the machine"),
        (sqlite3.OperationalError("database or disk is full"), 1, "(database or disk is full); free the disk"),
        (pl.exceptions.ComputeError("bad\nmore"), 1, "a table cannot be read or written (bad); check"),
        (MemoryError(), 1, "the memory is full; take fewer users"),
        (KeyboardInterrupt(), 130, "recloop: interrupted"),
    ],
)
def test_an_expected_end_is_one_line_and_a_code(error, code, message, capfd):
    saved = os.dup(1)
    try:
        assert guarded(raiser(error)) == code
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    told = capfd.readouterr().err
    assert message in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("defect", [KeyError("a"), AssertionError(), TypeError("x"), RuntimeError("y")])
def test_a_defect_is_not_hidden(defect):
    with pytest.raises(type(defect)):
        guarded(raiser(defect))


def run(*words: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words], capture_output=True, text=True, timeout=120, check=False, **options
    )


def require_one_line(done: subprocess.CompletedProcess[str], said: str, code: int = 1) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert said in done.stderr


@pytest.mark.slow
def test_a_full_output_is_an_error_and_no_traceback():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, "run", "dpo4rec", "--help-all"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    require_one_line(done, "No space left on device; free some space")


@pytest.mark.slow
def test_a_terminal_without_the_letters_of_a_title_shows_their_codes(tmp_path: Path):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    folder = tmp_path / "né"
    done = run("run", "dpo4rec", "--out", str(folder), "--data.simulated.num-users", "3", "--dry-run", env=environment)
    assert "UnicodeEncodeError" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("x" * 300, "File name too long"),
        ("/dev/null", "a run needs a folder, got a file, /dev/null"),
        ("/proc/recloop", "/proc/recloop"),
        ("link", "link"),
    ],
)
def test_a_place_where_no_run_can_be_is_one_error(tmp_path: Path, out: str, said: str):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "deep")
    done = run("prepare", "dpo4rec", "--out", out, cwd=tmp_path)
    require_one_line(done, said)
    assert {path.name for path in tmp_path.iterdir()} == {"link"}


@pytest.mark.slow
@pytest.mark.parametrize("number", ENDING_SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_a_run_with_the_command_that_goes_on(tmp_path: Path, number: signal.Signals):
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "run", "dpo4rec", "--out", "demo"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    deadline_s = time.monotonic() + 120
    while not (tmp_path / "demo" / "steps").is_dir():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"recloop: ended by {number.name}; go on with: recloop resume" in told
    assert "Traceback" not in told
