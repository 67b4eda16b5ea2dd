"""A disk that is full or may not be written to: one error with the run's folder, whatever library met it."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from recloop.errors import RecloopError, RunError

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EROFS: "the disk is read-only"}
FULL_IN_WORDS = ("No space left on device", "disk is full", "quota exceeded")  # of libraries that raise no OSError
LITTLE_BYTES = 2**20  # guess: less is free on no disk that is in use but full


@contextmanager
def names_a_full_disk(path: Path) -> Generator[None]:
    """An error inside that comes from a full disk becomes a RunError that says how the run goes on."""
    try:
        yield
    except RecloopError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        is_full = any(words in str(error) for words in FULL_IN_WORDS) or shutil.disk_usage(path).free < LITTLE_BYTES
        reason = FULL.get(number or 0, FULL[errno.ENOSPC] if is_full else "")
        if not reason:
            raise
        raise RunError(
            f"{path} cannot be written, {reason}; what is done stays: make room, and go on with: recloop resume {path}"
        ) from error


@contextmanager
def names_a_useless_folder(path: Path) -> Generator[None]:
    """An error of the system inside becomes a RunError that names the folder."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} cannot hold a run ({error.strerror}); make room or choose another --out") from error
