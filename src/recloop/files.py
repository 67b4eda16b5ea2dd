"""Files that are whole or absent: written beside, fsynced, renamed; and what their bytes are known by."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recloop.errors import SettingError


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write beside, fsync, rename: a reader sees the old file or the whole new one. No link is followed."""
    part = path.parent / f".{path.name}.part"
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    fsync(path.parent)


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write_bytes` of the text in UTF-8."""
    atomic_write_bytes(path, text.encode("utf-8"))


def atomic_write_json(path: Path, value: Any) -> None:
    """`atomic_write_bytes` of the value as indented JSON; ValueError for NaN and infinities."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def home_expanded(path: str | Path) -> Path:
    """The path with a ``~`` or ``~user`` at its start replaced; SettingError where there is no such user."""
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError) as error:  # no such user; a name that no user can have
        raise SettingError(
            f"a path that begins with ~ must name a user of this machine, got {str(path)!r}; "
            "write ./~... for a folder of that name"
        ) from error


def read_utf8(path: Path) -> str:
    """A text file of the user's, in UTF-8 with or without a byte order mark; ValueError says what to do with another.

    Line ends become line feeds.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        kind = "UTF-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else f"not UTF-8 at byte {error.start}"
        raise ValueError(f"its text is {kind}; save it as UTF-8") from error
    return text.replace("\r\n", "\n")


def sha256_of_file(path: Path) -> str:
    """Hex digest of a file's bytes, read once in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(folder: Path) -> str:
    """Hex digest over the names and contents of all files below a folder, hidden ones excepted."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    relative = (path.relative_to(folder) for path in files)
    visible = [path.as_posix() for path in relative if not any(part.startswith(".") for part in path.parts)]
    return digest_of_files({name: sha256_of_file(folder / name) for name in visible})


def digest_of_files(sha256_of: Mapping[str, str]) -> str:
    """Hex digest over the names and digests of files, whatever their order."""
    lines = "".join(f"{name}\0{sha256_of[name]}\n" for name in sorted(sha256_of))
    return hashlib.sha256(lines.encode()).hexdigest()


def open_files(folder: Path) -> None:
    """Let whoever may read a folder read its files: safetensors makes them readable by their owner alone."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def settle(part: Path, final: Path) -> None:
    """Give a finished folder its name; what had the name before is gone. Never half a folder has it."""
    open_files(part)
    for path in [*part.rglob("*"), part]:
        fsync(path)
    remove_folder(final)
    part.rename(final)
    fsync(final.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder and all in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)


def fsync(path: Path) -> None:
    """Wait until what was written to a file, or which names a folder holds, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
