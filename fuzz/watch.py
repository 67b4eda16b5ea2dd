"""The watcher of a case: writes outside its folder, processes, connections, time and memory."""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_S, MAX_BYTES = 10, 1_000_000_000  # seconds of processor time, so that other jobs of the machine do not count
MAX_CLOCK_S = 40  # of the clock: what waits for nothing
STUCK_S = 60  # code that no signal interrupts ends the whole process
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.symlink": (1,), "os.link": (1,),
    "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "shutil.rmtree": (0,),
    "shutil.move": (0, 1), "shutil.copyfile": (1,), "shutil.copytree": (1,),
}  # fmt: skip
FOLLOWING = ("open", "os.truncate", "os.chmod", "os.chown", "os.utime", "shutil.copyfile")
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo")
HARMLESS = ("/dev/null", "/dev/tty", "/proc/")


class Hang(BaseException):
    """A case took too long. No `Exception`, so that no handler takes it for a fault of the input."""


class Watcher:
    """Notes what a case does outside its folder. There is one a process, since an audit hook stays."""

    def __init__(self, work: Path) -> None:
        self.folder, self.sentinel = work / "case", work / "sentinel"
        self.seen: list[str] = []
        self._is_on = False
        for name in ("home", "cwd", "beside"):
            (self.sentinel / name).mkdir(parents=True, exist_ok=True)
            (self.sentinel / name / "precious.txt").write_text("untouched\n")
        os.environ["HOME"] = str(self.sentinel / "home")
        os.chdir(self.sentinel / "cwd")
        sys.addaudithook(self._hear)

    @contextmanager
    def watching(self) -> Generator[None]:
        """Inside, everything is noted in `seen`, and a case that takes too long raises `Hang`."""
        self.seen.clear()
        before = self._listing()
        for kind in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(kind, _ring)
        signal.setitimer(signal.ITIMER_PROF, MAX_S)
        signal.setitimer(signal.ITIMER_REAL, MAX_CLOCK_S)
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        self._is_on = True
        try:
            yield
        finally:
            self._is_on = False
            for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
                signal.setitimer(timer, 0)
            faulthandler.cancel_dump_traceback_later()
            if self._listing() != before:
                self.seen.append("files beside the case's folder are changed")

    def _listing(self) -> list[tuple[str, int, int]]:
        found = [(path, path.lstat()) for path in sorted(self.sentinel.rglob("*"))]
        return [(str(path), facts.st_size, facts.st_mtime_ns) for path, facts in found]

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        if event in FORBIDDEN:
            self.seen.append(f"{event} {arguments[:2]!r}"[:300])
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            self._hear_write("open beside a link" if arguments[2] & os.O_NOFOLLOW else event, arguments[0])
        for place in CHANGES.get(event, ()):
            self._hear_write(event, arguments[place])

    def _hear_write(self, event: str, path: Any) -> None:
        if path is None or isinstance(path, int):
            return
        self._is_on = False  # to resolve a path makes events of its own
        try:
            place = Path(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100
            # A name is changed in its folder, whatever it links to; a file is opened where the link leads.
            real = os.path.realpath(place if event in FOLLOWING else place.parent)
            real = real if event in FOLLOWING else f"{real}/{place.name}"
        except (TypeError, ValueError, OSError):
            real = ""
        finally:
            self._is_on = True
        inside = str(self.folder.resolve())
        if real and real != inside and not real.startswith((f"{inside}/", *HARMLESS)):
            self.seen.append(f"{event} of {real}")


def _ring(number: int, _: object) -> None:
    if number == signal.SIGPROF:
        raise Hang(f"more than {MAX_S} s of processor time")
    raise Hang(f"more than {MAX_CLOCK_S} s")


def peak_bytes() -> int:
    """Most memory this process has held since `forget_peak`."""
    found = re.search(r"^VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def forget_peak() -> None:
    """Start a new count for `peak_bytes`."""
    Path("/proc/self/clear_refs").write_text("5")
