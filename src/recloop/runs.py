"""The run folder: resolved config, manifest, stages that survive being killed, and a lock.

A stage writes into a hidden folder beside its own, which is fsynced and renamed when the stage ends; then
the manifest names the stage as done. A stage that was killed anywhere before that is done again from the
start; one that is in the manifest is never done again. What must survive a kill inside a stage (training
checkpoints) goes into the stage's scratch folder, which disappears when the stage is done.

POSIX only: the lock is ``flock``.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self, cast

from recloop.errors import RunError
from recloop.files import (
    atomic_write_json,
    atomic_write_text,
    digest_of_files,
    remove_folder,
    settle,
    sha256_of_file,
)

CONFIG, MANIFEST, METRICS, LOCK = "config.json", "manifest.json", "metrics.jsonl", ".lock"
STAGES, SCRATCH = "stages", ".scratch"
VERSIONED = (
    "torch", "transformers", "trl", "peft", "tokenizers", "sentence-transformers", "polars", "numpy", "scipy",
    "scikit-learn", "implicit", "pydantic", "safetensors", "torch-geometric", "stable-baselines3", "gymnasium"
)  # fmt: skip
PASSING = ("lm.pace", "lm.budget", "lm.prices")  # decide no result, so a run may go on with others
TAKEN = "taken_from"  # in the entry of a stage that another run did
RESERVED = frozenset({"inputs", "outputs", "folder", "wall_s", "peak_memory_bytes", TAKEN})


class Stage:
    """One stage while it runs. Made by `RunFolder.stage`.

    name: as in the manifest, e.g. ``sample.0``.
    is_done: True when an earlier run of the folder finished it; then nothing may be written.
    folder: where to write; while the stage runs a hidden folder, its final one when `is_done`.
    final: where `folder` will be when the stage is done.
    scratch: survives a kill, is removed when the stage is done; made on first use by the caller.
    """

    def __init__(self, name: str, folder: Path, final: Path, scratch: Path, *, is_done: bool) -> None:
        self.name, self.folder, self.final, self.scratch, self.is_done = name, folder, final, scratch, is_done
        self.notes: dict[str, Any] = {}

    def note(self, **values: Any) -> None:
        """Facts for the stage's entry in the manifest, e.g. ``tokens=12_345``."""
        clash = RESERVED & set(values)
        if clash:
            raise RunError(f"a stage's note may not be called {min(clash)}; choose another name")
        self.notes.update(values)

    def log(self, *rows: Mapping[str, Any]) -> None:
        """Rows for metrics.jsonl; the stage's name is added. They count once the stage is done."""
        if self.is_done:
            raise RunError(f"stage {self.name} is done and takes no more metrics; log inside the stage")
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps({"stage": self.name, **row}) + "\n")


class RunFolder:
    """A folder that holds everything one run reads, does and leaves. Open it with `open` or `reopen`."""

    def __init__(self, path: Path, config: dict[str, Any], manifest: dict[str, Any], lock: int) -> None:
        self.path, self.config, self.manifest = path, config, manifest
        self._lock = lock

    @classmethod
    def open(
        cls, path: Path, config_json: str | Mapping[str, Any], *, method: str = "dpo4rec",
        passing: Sequence[str] = (),
    ) -> Self:  # fmt: skip
        """The run folder at `path`, made if absent, locked until closed.

        Args:
            path: the folder; absent, empty, or one made by this function.
            config_json: the whole resolved configuration, as JSON or as what JSON decodes to.
            method: whose configuration it is.
            passing: sections, dotted, that decide no result: they may change, and the new ones are kept.

        Raises:
            RunError: the folder is in use, holds something else, or has another configuration (says where).
        """
        path = Path(path)
        text = config_json if isinstance(config_json, str) else json.dumps(config_json)
        config: dict[str, Any] = json.loads(text)
        if path.exists() and not path.is_dir():
            raise RunError(f"a run needs a folder, got the file {path}; choose another --out")
        if path.is_dir() and not (path / CONFIG).exists() and any(p.name != LOCK for p in path.iterdir()):
            raise RunError(
                f"{path} holds files but no {CONFIG}, so it is not a run folder; choose a new or empty folder"
            )
        path.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(path)
        try:
            if (path / CONFIG).exists():
                _require_same_config(path, _read_json(path / CONFIG), config, passing)
            atomic_write_json(path / CONFIG, config)
            manifest = _open_manifest(path, method)
            run = cls(path, config, manifest, lock)
            run._write_manifest()
        except BaseException:
            os.close(lock)
            raise
        return run

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """An existing run folder with the configuration it was made with; RunError when it is none."""
        path = Path(path)
        if not (path / CONFIG).exists():
            raise RunError(f"{path} has no {CONFIG}, so there is no run to continue; check the path")
        method = _read_json(path / MANIFEST)["method"] if (path / MANIFEST).exists() else "dpo4rec"
        return cls.open(path, _read_json(path / CONFIG), method=method)

    @classmethod
    def look(cls, path: Path) -> Self:
        """A run folder to read done stages from, not locked: another process may go on with it."""
        path = Path(path)
        if not (path / MANIFEST).exists():
            raise RunError(f"{path} has no {MANIFEST}, so there is no run to read; check the path")
        return cls(path, _read_json(path / CONFIG), _read_json(path / MANIFEST), -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remember(self, **facts: Any) -> None:
        """Facts about the whole run, for the manifest, e.g. ``takes_from="runs/first"``."""
        self.manifest |= facts
        self._write_manifest()

    def is_done(self, stage: str) -> bool:
        """Whether the manifest names this stage as done."""
        return stage in self.manifest["stages"]

    def folder(self, stage: str) -> Path:
        """Where a done stage left its files; RunError when it is not done."""
        if not self.is_done(stage):
            done = ", ".join(self.manifest["stages"]) or "none"
            raise RunError(f"stage {stage} of {self.path} is not done (done: {done}); run it first")
        return self.path / self.manifest["stages"][stage]["folder"]

    def digest(self, stage: str) -> str:
        """One sha256 for all files of a done stage: an input of the stages that read them."""
        self.folder(stage)
        outputs = self.manifest["stages"][stage]["outputs"]
        return digest_of_files({name: facts["sha256"] for name, facts in outputs.items()})

    @contextmanager
    def stage(self, name: str, inputs: Mapping[str, Any], folder: str | None = None) -> Generator[Stage]:
        """Do a stage, or find it done.

        The body runs either way: write files only ``if not stage.is_done``, and read them from
        `RunFolder.folder` afterwards. An exception inside leaves the run as it was before the stage.

        Args:
            name: unique in the run, e.g. ``sample.0``.
            inputs: what the result depends on beyond the configuration, as JSON values: hashes of source
                files, digests of earlier stages.
            folder: where the files go, relative to the run folder; ``stages/<name>`` when None.

        Raises:
            RunError: the stage is done but was made from other inputs, or its files are gone or cut short.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder, RunFolder.open(Path(folder), {}) as run:
            ...     with run.stage("reward.0", {"drafts": "1f2e"}) as stage:
            ...         if not stage.is_done:
            ...             _ = (stage.folder / "rewards.json").write_text("[0.5]")
            ...     (run.folder("reward.0") / "rewards.json").read_text()
            '[0.5]'
        """
        final = self.path / (f"{STAGES}/{name}" if folder is None else folder)
        scratch = self.path / SCRATCH / name
        if self.is_done(name):
            self._check_done(name, json.loads(json.dumps(dict(inputs))))
            yield Stage(name, final, final, scratch, is_done=True)
            return
        if self._lock < 0:
            raise RunError(f"stage {name} of {self.path} is not done, and the run is not open; run it first")
        part = final.parent / f".{final.name}.part"
        remove_folder(part)
        part.mkdir(parents=True)
        stage = Stage(name, part, final, scratch, is_done=False)
        reset_peak_memory()
        start_s = time.monotonic()
        try:
            yield stage
            self._commit(stage, inputs, time.monotonic() - start_s)
        finally:
            remove_folder(part)

    def _commit(self, stage: Stage, inputs: Mapping[str, Any], wall_s: float) -> None:
        outputs = {
            path.relative_to(stage.folder).as_posix(): {
                "sha256": sha256_of_file(path),
                "bytes": path.stat().st_size,
            }
            for path in sorted(stage.folder.rglob("*"))
            if path.is_file()
        }
        settle(stage.folder, stage.final)
        self.manifest["stages"][stage.name] = {
            "folder": stage.final.relative_to(self.path).as_posix(),
            "inputs": dict(inputs),
            "outputs": outputs,
            "wall_s": round(wall_s, 3),
            "peak_memory_bytes": peak_memory_bytes(),
            **stage.notes,
        }
        self._write_manifest()
        remove_folder(stage.scratch)

    def take(self, name: str, giver: Path, entry: Mapping[str, Any]) -> None:
        """Copy a stage that another run has done and that would be the same here, and count it as done.

        Args:
            giver: the other run's folder.
            entry: of the stage in its manifest; it is kept, with the giver's name, its time included.

        Raises:
            RunError: the giver's files are not those its manifest names.
        """
        final = self.path / entry["folder"]
        part = final.parent / f".{final.name}.part"
        remove_folder(part)
        part.mkdir(parents=True)
        try:
            for relative, facts in entry["outputs"].items():
                (part / relative).parent.mkdir(parents=True, exist_ok=True)
                source = giver / entry["folder"] / relative
                if source.is_file():
                    shutil.copyfile(source, part / relative)
                if not source.is_file() or sha256_of_file(part / relative) != facts["sha256"]:
                    raise RunError(
                        f"stage {name} is to be taken from {giver}, but {source} is not what that run wrote; "
                        f"restore it or take from another run"
                    )
            settle(part, final)
        finally:
            remove_folder(part)
        self.manifest["stages"][name] = {**entry, TAKEN: giver.name}
        self._write_manifest()

    def _check_done(self, name: str, inputs: dict[str, Any]) -> None:
        entry = self.manifest["stages"][name]
        changed = differing_keys(entry["inputs"], inputs)
        if changed:
            raise RunError(
                f"stage {name} of {self.path} was made from other inputs ({'; '.join(changed)}); "
                f"put the old inputs back or start a new run folder"
            )
        for relative, facts in entry["outputs"].items():
            path = self.path / entry["folder"] / relative
            size = path.stat().st_size if path.is_file() else None
            if size != facts["bytes"]:
                raise RunError(
                    f"{path} of the finished stage {name} should have {facts['bytes']} bytes, got "
                    f"{'no file' if size is None else size}; restore it or start a new run folder"
                )

    def _write_manifest(self) -> None:
        """The manifest, then metrics.jsonl as the rows of the done stages, in the order they were done."""
        atomic_write_json(self.path / MANIFEST, self.manifest)
        files = [self.path / entry["folder"] / METRICS for entry in self.manifest["stages"].values()]
        rows = "".join(file.read_text(encoding="utf-8") for file in files if file.exists())
        atomic_write_text(self.path / METRICS, rows)


def differing_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Where two JSON values differ, as ``section.field: old, now new``, in the order of the keys.

    Example:
        >>> differing_keys({"seed": 1, "data": {"users": None}}, {"seed": 1, "data": {"users": 10}})
        ['data.users: null, now 10']
    """
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{prefix}: {json.dumps(old)}, now {json.dumps(new)}"]
    was, now = cast(dict[str, Any], old), cast(dict[str, Any], new)
    found: list[str] = []
    for key in [*was, *(key for key in now if key not in was)]:
        name = f"{prefix}.{key}" if prefix else key
        if key not in now:
            found.append(f"{name}: {json.dumps(was[key])}, now absent")
        elif key not in was:
            found.append(f"{name}: absent, now {json.dumps(now[key])}")
        else:
            found.extend(differing_keys(was[key], now[key], name))
    return found


def peak_memory_bytes() -> int:
    """Most memory this process held since `reset_peak_memory`; since its start where that is impossible."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory() -> None:
    """Start a new count for `peak_memory_bytes` where the system allows it (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or not permitted: the peak is then that of the whole process


def _open_manifest(path: Path, method: str) -> dict[str, Any]:
    if (path / MANIFEST).exists():
        manifest: dict[str, Any] = _read_json(path / MANIFEST)
        if manifest["method"] != method:
            raise RunError(
                f"{path} is a run of {manifest['method']}, got {method}; choose another run folder"
            )
        changed = differing_keys(manifest["versions"], versions())
        if changed and changed not in manifest["resumed_with"]:
            manifest["resumed_with"].append(changed)
        return manifest
    return {
        "method": method,
        "versions": versions(),
        "resumed_with": [],
        "machine": {"system": platform.platform(), "num_cpus": os.cpu_count()},
        "stages": {},
    }


def versions() -> dict[str, str]:
    """Of Python, recloop and what a result depends on; "absent" for what is not installed."""
    found = {"python": platform.python_version()}
    for package in ("recloop", *VERSIONED):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def _require_same_config(path: Path, old: Any, new: Any, passing: Sequence[str]) -> None:
    changed = [line for line in differing_keys(old, new) if not line.startswith(tuple(passing))]
    if changed:
        raise RunError(
            f"{path} was made with another configuration ({'; '.join(changed)}); "
            f"use another --out, or recloop resume {path} to go on with the old one"
        )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is not JSON ({error}); restore it or start a new run folder") from error


def _take_lock(path: Path) -> int:
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 32).decode().strip() or "unknown"
        os.close(lock)
        raise RunError(
            f"{path} is in use by process {holder}; wait until it ends or choose another --out"
        ) from error
    os.truncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
