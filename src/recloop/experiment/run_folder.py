"""The run folder: resolved config, manifest, steps that survive being killed, and a lock.

A step writes into a hidden folder beside its own, which is fsynced and renamed when the step ends; then
the manifest names the step as done. A step that was killed anywhere before that is done again from the
start; one that is in the manifest is never done again. What must survive a kill inside a step (training
checkpoints) goes into the step's scratch folder, which disappears when the step is done.

POSIX only: the lock is ``flock``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from recloop.errors import RunError
from recloop.experiment import manifest as manifests
from recloop.experiment.disk import names_a_full_disk, names_a_useless_folder
from recloop.experiment.manifest import CONFIG, MANIFEST, differing_keys, read_manifest, read_object, require_inside
from recloop.experiment.peak_memory import peak_memory_bytes, reset_peak_memory
from recloop.files import atomic_write_bytes, atomic_write_json, digest_of_files, remove_folder, settle, sha256_of_file

METRICS, LOCK = "metrics.jsonl", ".lock"
STEPS, SCRATCH = "steps", ".scratch"
BEFORE_MANIFEST = {LOCK, CONFIG, f".{CONFIG}.part", f".{MANIFEST}.part"}  # what a kill can leave of a new run
REUSED = "reused_from"  # in the entry of a step that another run did
RESERVED = frozenset({"inputs", "outputs", "folder", "fingerprint", "wall_s", "peak_memory_bytes", "published", REUSED})


@dataclass(frozen=True, slots=True)
class RunStep:
    """One step while it runs. Made by `RunFolder.step`.

    name: as in the manifest, e.g. ``sample.0``.
    is_done: True when an earlier run of the folder finished it; then nothing may be written.
    folder: where to write; while the step runs a hidden folder, its final one when `is_done`.
    final: where `folder` will be when the step is done.
    scratch: survives a kill, is removed when the step is done; made on first use by the caller.
    notes: facts for the step's entry in the manifest, by `note`.
    published: names of the files that it leaves at the top of the run, by `publish`.
    """

    name: str
    folder: Path
    final: Path
    scratch: Path
    is_done: bool
    notes: dict[str, Any] = field(default_factory=dict[str, Any])
    published: list[str] = field(default_factory=list[str])

    def publish(self, *names: str) -> None:
        """Files that the step has written for people, at the top of the run: they are known by their digests too."""
        self.published.extend(names)

    def note(self, **values: Any) -> None:
        """Facts for the step's entry in the manifest, e.g. ``tokens=12_345``."""
        if clash := RESERVED & set(values):
            raise RunError(f"a step's note may not be called {min(clash)}; choose another name")
        self.notes.update(values)

    def log(self, *rows: Mapping[str, Any]) -> None:
        """Rows for metrics.jsonl; the step's name is added. They count once the step is done."""
        if self.is_done:
            raise RunError(f"step {self.name} is done and takes no more metrics; log inside the step")
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps({"run_step": self.name, **row}) + "\n")


class RunFolder:
    """A folder that holds everything one run reads, does and leaves. Open it with `open` or `reopen`."""

    def __init__(self, path: Path, config: dict[str, Any], manifest: dict[str, Any], lock: int) -> None:
        self.path, self.config, self.manifest = path, config, manifest
        self._lock = lock
        self._whole: set[str] = set()  # steps whose files are known to be what they wrote

    @classmethod
    def open(
        cls, path: Path, config: Mapping[str, Any], *, method: str = "dpo4rec", form: type[BaseModel] | None = None
    ) -> Self:
        """The run folder at `path`, made if absent, locked until closed.

        Args:
            path: the folder; absent, empty, or one made by this function. A run of which no step is done
                gives way to one with another configuration.
            config: the whole resolved configuration, as JSON values. Another one is another run, but for `PASSING`.
            method: whose configuration it is. form: its class, for runs that are older than some settings.

        Raises:
            RunError: the folder is in use, holds something else, is damaged, or has a step done by another
                method or with another configuration (says where). Then nothing was written.
        """
        path, settings = Path(path), json.loads(json.dumps(config))
        with names_a_useless_folder(path):
            _manifest_to_go_on(path, settings, method, form)  # a folder that is refused gets no lock
            path.mkdir(parents=True, exist_ok=True)
        lock = _take_lock(path)
        try:
            manifests.require_no_links(path)
            manifest = _manifest_to_go_on(path, settings, method, form)  # another process may have had it
            if manifest is None:
                remove_folder(path / SCRATCH)  # of a step with another configuration
                manifest = manifests.new_manifest(method)
            manifest[manifests.CONFIG_DIGEST] = manifests.digest_of(settings)
            run = cls(path, settings, manifest, lock)
            with names_a_useless_folder(path):
                atomic_write_json(path / CONFIG, settings)
                run._write_manifest()
        except BaseException:
            os.close(lock)
            raise
        return run

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """An existing run folder with the configuration it was made with.

        Raises:
            RunError: it is none, e.g. a model's folder, or is damaged or in use. Then nothing was written.
        """
        manifest, config = _read_run(Path(path), "to continue")
        return cls.open(path, config, method=manifest["method"])

    @classmethod
    def look(cls, path: Path) -> Self:
        """A run folder to read done steps from, not locked: another process may go on with it.

        Raises:
            RunError: it is none, or is damaged.
        """
        manifest, config = _read_run(Path(path), "to read")
        return cls(Path(path), config, manifest, -1)

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
        """Facts about the whole run, for the manifest, e.g. ``reuses_from="runs/first"``."""
        self.manifest |= facts
        self._write_manifest()

    def is_done(self, step: str) -> bool:
        """Whether the manifest names this step as done."""
        return step in self.manifest["steps"]

    def folder(self, step: str) -> Path:
        """Where a done step left its files; RunError when it is not done, or a file is not what it wrote."""
        if not self.is_done(step):
            done = ", ".join(self.manifest["steps"]) or "none"
            raise RunError(f"step {step} of {self.path} is not done (done: {done}); run it first")
        entry = self.manifest["steps"][step]
        if step not in self._whole:
            if changed := manifests.changed_files(self.path, {**entry, "published": {}}):
                path = self.path / changed[0]
                raise RunError(
                    f"{path} must be what step {step} wrote, got {'another' if path.is_file() else 'no'} file; restore "
                    f"it, or begin a run with the same settings, another --out and --reuse-from {self.path}: it takes "
                    f"the steps that are whole"
                )
            self._whole.add(step)
        return self.path / entry["folder"]

    def digest(self, step: str) -> str:
        """One sha256 for all files of a done step: an input of the steps that read them."""
        self.folder(step)
        outputs = self.manifest["steps"][step]["outputs"]
        return digest_of_files({name: facts["sha256"] for name, facts in outputs.items()})

    @contextmanager
    def step(
        self,
        name: str,
        inputs: Mapping[str, Any],
        folder: str | None = None,
        fingerprint: str = "",
        *,
        redo: bool = False,
    ) -> Generator[RunStep]:
        """Do a step, or find it done.

        The body runs either way: write files only ``if not step.is_done``, and read them from
        `RunFolder.folder` afterwards. An exception inside leaves the run as it was before the step.

        Args:
            name: unique in the run, e.g. ``sample.0``.
            inputs: what the result depends on beyond the configuration, as JSON values: hashes of source
                files, digests of earlier steps.
            folder: where the files go, relative to the run folder; ``steps/<name>`` when None.
            fingerprint: of all that decides the result; kept in the manifest for `recloop.experiment.reuse`.
            redo: do it again though it is done. Its entry stays as it was where the same files come out.

        Raises:
            RunError: the step is done but was made from other inputs, or its files are gone or cut short.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder, RunFolder.open(Path(folder), {}) as run:
            ...     with run.step("reward.0", {"completions": "1f2e"}) as step:
            ...         if not step.is_done:
            ...             _ = (step.folder / "rewards.json").write_text("[0.5]")
            ...     (run.folder("reward.0") / "rewards.json").read_text()
            '[0.5]'
        """
        final = self.path / (f"{STEPS}/{name}" if folder is None else folder)
        scratch = self.path / SCRATCH / name
        old = self.manifest["steps"].get(name)
        step = RunStep(name, final, final, scratch, True)
        if old is not None and not redo:
            if changed := differing_keys(old["inputs"], json.loads(json.dumps(dict(inputs)))):
                raise RunError(
                    f"step {name} of {self.path} was made from other inputs ({'; '.join(changed)}); "
                    f"put the old inputs back or start a new run folder"
                )
            self.folder(name)
            if self._lock >= 0:
                remove_folder(scratch)  # a kill may have left it, and checkpoints are large
            yield step
            return
        if self._lock < 0:
            raise RunError(f"step {name} of {self.path} is not done, and the run is not open; run it first")
        with self._as_before(name), self._doing(step, dict(inputs), fingerprint) as (step, entry):
            yield step
        if old is None or any(old.get(one) != entry.get(one) for one in ("inputs", "outputs", "published")):
            self.manifest["steps"][name] = entry
        self._whole.add(name)
        with names_a_full_disk(self.path):
            self._write_manifest()
        remove_folder(scratch)

    @contextmanager
    def _doing(
        self, step: RunStep, inputs: dict[str, Any], fingerprint: str
    ) -> Generator[tuple[RunStep, dict[str, Any]]]:
        """A step while it is done, and the entry that is filled when it ends."""
        entry: dict[str, Any] = {"folder": step.final.relative_to(self.path).as_posix(), "inputs": inputs}
        with _written_beside(step.final) as part, names_a_full_disk(self.path):  # asked before the part is removed
            step = replace(step, folder=part, is_done=False)
            reset_peak_memory()
            start_s = time.monotonic()
            yield step, entry
            wall_s = time.monotonic() - start_s
            files = [path for path in sorted(part.rglob("*")) if path.is_file()]
            entry["outputs"] = {path.relative_to(part).as_posix(): _facts(path) for path in files}
            settle(part, step.final)
        if step.published:
            entry["published"] = {name: _facts(self.path / name) for name in step.published}
        entry |= {"fingerprint": fingerprint, "wall_s": round(wall_s, 3), "peak_memory_bytes": peak_memory_bytes()}
        entry |= step.notes

    def copy_step(self, name: str, source: Path, entry: Mapping[str, Any]) -> None:
        """Copy a step that another run has done and that would be the same here, and count it as done.

        Args:
            source: the other run's folder.
            entry: of the step in its manifest; it is kept, with the source run's name, its time included.

        Raises:
            RunError: the source run's files are not those its manifest names.
        """
        final = require_inside(self.path, entry["folder"])
        with _written_beside(final) as part:
            for relative, facts in entry["outputs"].items():
                (part / relative).parent.mkdir(parents=True, exist_ok=True)
                origin = require_inside(source, f"{entry['folder']}/{relative}")
                if origin.is_file():
                    shutil.copyfile(origin, part / relative)
                if not origin.is_file() or sha256_of_file(part / relative) != facts["sha256"]:
                    raise RunError(
                        f"step {name} is to be reused from {source}, but {origin} is not what that run wrote; "
                        f"restore it or reuse another run"
                    )
            settle(part, final)
        self.manifest["steps"][name] = {**entry, REUSED: source.name}
        self._write_manifest()

    @contextmanager
    def _as_before(self, name: str) -> Generator[None]:
        """The manifest without a step and those after it, as the step found it when it was first done."""
        steps = self.manifest["steps"]
        if name in steps:
            self.manifest["steps"] = dict(takewhile(lambda item: item[0] != name, steps.items()))
        try:
            yield
        finally:
            self.manifest["steps"] = steps

    def _write_manifest(self) -> None:
        """The manifest, then metrics.jsonl as the rows of the done steps, in the order they were done."""
        self.manifest[manifests.MANIFEST_DIGEST] = manifests.digest_of_manifest(self.manifest)
        atomic_write_json(self.path / MANIFEST, self.manifest)
        entries = self.manifest["steps"].values()
        files = [self.path / entry["folder"] / METRICS for entry in entries if METRICS in entry["outputs"]]
        atomic_write_bytes(self.path / METRICS, b"".join(file.read_bytes() for file in files if file.is_file()))


def _facts(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_of_file(path), "bytes": path.stat().st_size}


@contextmanager
def _written_beside(final: Path) -> Generator[Path]:
    """A hidden, empty folder beside `final`, to be settled there; gone at the end where it was not."""
    part = final.parent / f".{final.name}.part"
    remove_folder(part)
    part.mkdir(parents=True)
    try:
        yield part
    finally:
        remove_folder(part)


def _read_run(path: Path, what_for: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and configuration of a run."""
    for name in (MANIFEST, CONFIG):
        if not manifests.has_file(path, name):
            raise RunError(f"{path} has no {name}, so there is no run {what_for}; check the path")
    manifest, config = read_manifest(path), read_object(path / CONFIG)
    manifests.require_unedited(path, manifest, config)
    return manifest, config


def _manifest_to_go_on(
    path: Path, config: dict[str, Any], method: str, form: type[BaseModel] | None
) -> dict[str, Any] | None:
    """The manifest of the run that goes on in a folder with this configuration; None where one begins.

    A run of which no step is done gives way to one with another configuration: nothing is lost with it.
    """
    if os.path.lexists(path) and not path.is_dir():
        what = "a link to nothing" if path.is_symlink() and not path.exists() else "a file"
        raise RunError(f"a run needs a folder, got {what}, {path}; choose another --out")
    names = {file.name for file in path.iterdir()} if path.is_dir() else set[str]()
    if names <= BEFORE_MANIFEST and (CONFIG not in names or read_object(path / CONFIG) == config):
        return None
    missing = [name for name in (CONFIG, MANIFEST) if name not in names]
    if missing:
        raise RunError(
            f"{path} holds files but no {missing[0]}, so it is not a run folder; choose a new or empty folder"
        )
    manifest, old = read_manifest(path), read_object(path / CONFIG)
    manifests.require_unedited(path, manifest, old)
    changed = manifests.changed_settings(old, config, form)
    if manifest["method"] == method and not changed:
        now = differing_keys(manifest["versions"], manifests.versions())
        if now and now not in manifest["resumed_with"]:
            manifest["resumed_with"].append(now)
        return manifest
    if not manifest["steps"]:
        return None
    if manifest["method"] != method:
        raise RunError(f"{path} is a run of {manifest['method']}, got {method}; choose another run folder")
    raise RunError(
        f"{path} was made with another configuration ({'; '.join(changed)}); "
        f"use another --out, or recloop resume {path} to go on with the old one"
    )


def _take_lock(path: Path) -> int:
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        is_link = error.errno == errno.ELOOP
        what = f"{path / LOCK} must be a plain file" if is_link else f"{path} must be writable for a run to go on"
        do = "remove it or choose another --out" if is_link else "allow it, or copy the folder"
        raise RunError(f"{what}, got {error.strerror}; {do}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise RunError(f"{path} is in use by process {holder}; wait until it ends or choose another --out") from error
    os.truncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
