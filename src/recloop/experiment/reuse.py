"""Steps taken over from another run: what would come out the same is not done again.

A step would come out the same where its fingerprint is the same: the settings it reads, its inputs, and the versions
of what computes it (`recloop.experiment.step`). Nothing is reused unless the first step is: all others follow from it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from recloop.errors import RunError
from recloop.experiment.manifest import (
    CONFIG,
    MANIFEST,
    PASSING,
    changed_files,
    differing_keys,
    has_file,
    read_manifest,
    read_object,
    versions,
)
from recloop.experiment.run_folder import REUSED, RunFolder
from recloop.progress import Progress

SOURCE_RUN = "reuses_from"  # in the manifest: the folder of the other run
FIRST = "prepare"
Entries = Mapping[str, Mapping[str, Any]]


def require_source_run(source: Path, method: str) -> None:
    """RunError unless this is the folder of a run of the same method, made with the same versions."""
    if not has_file(source, MANIFEST):
        raise RunError(f"a run folder is wanted to reuse, got {source}; check the path")
    manifest = read_manifest(source)
    if manifest["method"] != method:
        raise RunError(
            f"a run reuses one of the same method, got one of {manifest['method']} for one of {method}; leave it out"
        )
    if changed := differing_keys(manifest["versions"], versions()):
        raise RunError(
            f"{source} was made with other versions ({'; '.join(changed)}) and gives other steps; leave it out"
        )


def reuse_from(run: RunFolder, source: Path) -> None:
    """From now on take over what another run has done and would be the same here; see `require_source_run`."""
    require_source_run(source, run.manifest["method"])
    if source.resolve() == run.path.resolve():
        raise RunError(f"a run cannot reuse itself, got {source}; name another run's folder")
    run.remember(**{SOURCE_RUN: str(source.resolve())})


def source_run_of(run: RunFolder) -> str | None:
    """Name of the run that this one was told to reuse; None when it was told of none."""
    return Path(run.manifest[SOURCE_RUN]).name if SOURCE_RUN in run.manifest else None


def reuse_step(run: RunFolder, name: str, reads: Sequence[str], fingerprint: str, progress: Progress) -> None:
    """Take one step from the run's source run, where there is one and its step has the same fingerprint.

    Where the first step differs, says which of the settings it `reads` do.
    """
    if SOURCE_RUN not in run.manifest or run.is_done(name):
        return
    source = Path(run.manifest[SOURCE_RUN])
    if not has_file(source, MANIFEST):
        return
    theirs, ours = read_manifest(source)["steps"], run.manifest["steps"]
    entry = theirs.get(name)
    if entry is None or not (name == FIRST or theirs[FIRST]["fingerprint"] == ours[FIRST]["fingerprint"]):
        return
    if entry["fingerprint"] == fingerprint:
        if changed := changed_files(source, {**entry, "published": {}}):
            progress.say(
                f"{name} is not reused from {source.name} but done again: {changed[0]} is gone or changed there"
            )
            return
        run.copy_step(name, source, entry)
        progress.say(f"{name} is reused from {source.name}")
    elif name == FIRST:
        theirs, ours = (settings_read(config, reads) for config in (read_object(source / CONFIG), run.config))
        why = "; ".join(differing_keys(theirs, ours)) or "its log or its language model is another one"
        progress.say(f"nothing is reused from {source.name}, since {name} differs: {why}")


def settings_read(config: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """A configuration's values under these dotted names; without what decides no result."""
    found: dict[str, Any] = {}
    for path in paths:
        value: Any = config
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                raise RunError(f"a run's {CONFIG} must hold {path}, got none; restore it, or reuse another run")
            value = cast(dict[str, Any], value)[key]
        if isinstance(value, dict):
            parts = cast(dict[str, Any], value)
            value = {key: part for key, part in parts.items() if f"{path}.{key}" not in PASSING}
        found[path] = value
    return found


def own_steps(steps: Entries) -> Entries:
    """The steps that the run did itself."""
    return {name: entry for name, entry in steps.items() if REUSED not in entry}


def reused_in_words(steps: Entries) -> tuple[str, ...]:
    """A line that says how many steps another run did; none when it did none."""
    sources = [entry[REUSED] for entry in steps.values() if REUSED in entry]
    return (f"{len(sources)} of {len(steps)} steps from {sources[0]}",) if sources else ()


def copy_rows(source: Path, target: Path, tables: Sequence[str]) -> None:
    """The rows of some tables of another run's database, into a new one that has these tables already.

    Rows are read and written one table at a time: neither triggers nor views of the source take part.

    Raises:
        RunError: the source is damaged, or its tables are other ones.
    """
    wal = source.with_name(f"{source.name}-wal")  # without one nobody writes, and SQLite need put nothing beside it
    mode = "mode=ro" if wal.exists() else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?{mode}", uri=True)) as old:
            old.execute("pragma trusted_schema = off")
            with closing(sqlite3.connect(target)) as new, new:
                for table in tables:
                    columns = [row[1] for row in new.execute(f"pragma table_info({table})")]
                    kind = old.execute("select type from sqlite_master where name = ?", (table,)).fetchone()
                    if kind != ("table",):
                        raise RunError(f"{source} has no table {table}; leave the run out or restore the file")
                    rows = old.execute(f"select {', '.join(columns)} from {table}")
                    places = ", ".join("?" * len(columns))
                    new.executemany(f"insert or ignore into {table} values ({places})", rows)
    except sqlite3.Error as error:
        raise RunError(f"{source} cannot be reused ({error}); leave the run out or restore the file") from error
