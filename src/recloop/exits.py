"""How a command ends: its exit code, and one message in place of a traceback.

Exit codes: 0 done, 1 the work failed, 2 the command or a setting is wrong, 3 done, but a model behind a server gave
some prompts no answer (the summary counts them), 130 interrupted, 129 and 143 ended by SIGHUP and SIGTERM. Anything
else that goes wrong is a defect and shows its traceback.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

from recloop.errors import RecloopError, SettingError, shown

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
OS_REMEDIES = {
    errno.ENOSPC: "free some space on the disk",
    errno.EDQUOT: "free some space of the quota",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EACCES: "allow reading and writing there, or choose another place with --out",
    errno.EPERM: "allow it, or choose another place with --out",
    errno.EROFS: "the disk is read-only: choose another place with --out",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "links go round there: choose another path",
    errno.EMFILE: "raise the number of open files (ulimit -n)",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a folder is wanted on that path: check it",
    errno.EISDIR: "a file is wanted there: check the path",
}


class Ended(BaseException):
    """A signal asks the process to end. What is on the disk is right at any moment."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


def guarded(work: Callable[[], int], *, is_alone: bool = False) -> int:
    """The exit code of `work`, with one line in place of the traceback of an expected error.

    Args:
        is_alone: nothing else runs on the machine, as in a measurement of speed.
    """
    # Threads that spin while they wait slow every other process; threads that sleep slow each other.
    if not is_alone:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # One thread is the faster choice beside another job, and a fixed number sums in a fixed order.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MKL_DYNAMIC", "FALSE")
    os.environ.setdefault("MKL_CBWR", "AUTO")
    # Others import it wherever it is installed; on a machine without a GPU it warns that it is slow there.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a title may have letters that the terminal lacks
    try:
        with _ended_by_signals():
            code = work()
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        _drop_output()  # the reader (`| head`) has left
        return 0
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # the same, met by rich
            return 0
        raise
    except BaseException as error:
        if (ending := ending_of(error)) is None:
            raise
        if isinstance(error, OSError):
            _drop_output()
        print(f"recloop: {shown(ending[0])}", file=sys.stderr)
        return ending[1]


def ending_of(error: BaseException) -> tuple[str, int] | None:
    """What an expected error means and what to do, with its exit code; None for a defect."""
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    first_line = next(iter(str(error).splitlines()), "")
    match error:
        case RecloopError():
            return str(error), 2 if isinstance(error, SettingError) else 1
        case KeyboardInterrupt():
            return "interrupted", 130
        case Ended():
            return f"ended by {error.signal.name}", 128 + error.signal
        case OSError() if not isinstance(error, BrokenPipeError):
            where = "" if error.filename is None else f"{error.filename}: "
            do = OS_REMEDIES.get(error.errno or 0, "check the path and the machine")
            return f"{where}{error.strerror or error}; {do}", 1
        case MemoryError():
            return "the memory is full; take fewer users, smaller batches or a larger machine", 1
        case _ if "sqlite3.Error" in kinds:
            return (
                f"a database of completions or vectors failed ({first_line}); free the disk, or move the file away",
                1,
            )
        case _ if any(kind.startswith("polars.exceptions.") for kind in kinds):
            return f"a table cannot be read or written ({first_line}); check the files and the disk", 1
        case _:
            return None


@contextmanager
def _ended_by_signals() -> Generator[None]:
    """SIGTERM and SIGHUP end what is inside as Ctrl-C does; one that is ignored (`nohup`) stays so."""

    def end(number: int, _: object) -> None:
        raise Ended(number)

    is_main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in ENDING_SIGNALS if is_main and signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _drop_output() -> None:
    """What is left of the output goes nowhere, also at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
