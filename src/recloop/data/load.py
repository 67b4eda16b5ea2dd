"""Logs by name: which log to read, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, model_validator

from recloop.data.amazon import AmazonConfig, read_amazon
from recloop.data.assemble import counts_of, sample_users
from recloop.data.checks import BadRowPolicy, Heard
from recloop.data.implicit_log import ImplicitConfig, read_implicit
from recloop.data.kar_knowledge import read_klg, with_item_texts, with_user_texts
from recloop.data.mind import read_mind
from recloop.data.movielens import ATTRIBUTES, MovieAttribute, read_movielens
from recloop.data.movielens_forms import ML_1M, Form, movielens_form
from recloop.data.simulated import SimulatedConfig, simulate_log
from recloop.data.table_config import TableLogConfig
from recloop.data.table_log import read_table_log
from recloop.errors import DataError, SettingError
from recloop.progress import SILENT, Progress, terminal_progress
from recloop.records import Log
from recloop.settings import setting, shown_first, validate

_FROM_FILES = {"users", "path", "on_bad_rows", "quarantine"}
_OF_1M = ("metadata", "item_knowledge", "kar")
_READ_BY = {
    "simulated": {"users", "simulated"},
    "movielens": {*_FROM_FILES, *_OF_1M, "attributes", "min_item_ratings"},
    "ml-1m": {*_FROM_FILES, *_OF_1M, "attributes", "min_item_ratings"},
    "mind": _FROM_FILES,
    "amazon": {*_FROM_FILES, "metadata", "kar", "amazon"},
    "implicit": {*_FROM_FILES, "implicit"},
    "table": {*_FROM_FILES, "table", "min_item_ratings"},
}


class DataConfig(BaseModel, frozen=True, extra="forbid"):
    """Which log, where it is, and how much of it."""

    READ_BY: ClassVar[Mapping[str, Set[str]]] = _READ_BY  # the settings that are read for each name

    name: Literal["simulated", "movielens", "ml-1m", "mind", "amazon", "implicit", "table"] = shown_first(
        "simulated", "Which reader."
    )
    path: Path | None = shown_first(
        None, "movielens, ml-1m, mind, implicit: the folder; amazon: the file of reviews; table: the file of the log."
    )
    metadata: Path | None = setting(
        None, "amazon: the metadata; ml-1m: movies_extrainfos.dat, found by itself in PATH-metadata."
    )
    attributes: tuple[MovieAttribute, ...] = setting(
        ATTRIBUTES,
        "movielens, ml-1m: attributes of the items; director is of 1M alone, actor and certificate need the metadata.",
    )
    item_knowledge: Path | None = setting(
        None, "ml-1m: JSON of texts by movie; items.json in PATH-item-knowledge is found by itself."
    )
    kar: Path | None = setting(
        None,
        "ml-1m and amazon: folder of KAR's published user.klg, item.klg and index. Its user "
        "texts make a variant, its index the knowledge windows, its item texts the item knowledge.",
    )
    users: int | None = shown_first(None, "Read all, then keep this many users, drawn by the seed.", ge=1)
    min_item_ratings: int = setting(0, "Leave items with fewer interactions out.", ge=0)
    on_bad_rows: Literal["error", "quarantine"] = shown_first("error", "Stop at bad rows, or set them aside and go on.")
    quarantine: Path = setting(
        Path("quarantine.jsonl"), "File that takes the bad rows set aside; the default lies in the run's folder."
    )
    simulated: SimulatedConfig = setting(SimulatedConfig(), "The simulated data.")
    amazon: AmazonConfig = setting(AmazonConfig(), "What is kept of an Amazon log.")
    implicit: ImplicitConfig = setting(ImplicitConfig(), "How the items of an implicit log are described.")
    table: TableLogConfig = setting(TableLogConfig(), "The columns of a table.")

    @model_validator(mode="after")
    def _nothing_unread(self) -> DataConfig:
        readable = self.READ_BY[self.name] | {"name"}
        for field, info in type(self).model_fields.items():
            if field not in readable and getattr(self, field) != info.default:
                readers = ", ".join(name for name, fields in self.READ_BY.items() if field in fields)
                raise SettingError(
                    f"data.{field} is read for {readers} only, got it with data.name {self.name}; leave it out"
                )
        if "path" in readable and self.path is None:
            raise SettingError(f"data.path says where {self.name} is, got none; give --data.path")
        if not self.attributes:
            raise SettingError("data.attributes must name one column at least, got none; leave it out for all three")
        if len(set(self.attributes)) < len(self.attributes):
            raise SettingError(f"data.attributes must differ, got {', '.join(self.attributes)}; drop the repeated")
        if self.kar is not None and self.item_knowledge is not None:
            raise SettingError("data.kar brings item texts of its own, got data.item_knowledge too; leave one out")
        if self.name == "amazon" and self.metadata is None:
            raise SettingError("data.metadata says where the items of amazon are, got none; give --data.metadata")
        return self

    @property
    def has_times(self) -> bool:
        """Whether the log says when things happened, and not their order alone."""
        return not (self.name == "implicit" or (self.name == "table" and self.table.time is None))


def load_log(
    name: str = "simulated",
    *,
    path: Path | str | None = None,
    seed: int = 0,
    users: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Log:
    """The log of this name: simulated, or read from files that you have.

    Args:
        name: ``simulated``, ``movielens``, ``ml-1m``, ``mind``, ``amazon``, ``implicit`` or ``table`` (any CSV, TSV,
            Parquet or JSONL).
        path, users, settings: fields of `DataConfig`: where it is, how many of its users to keep, and further
            ones, e.g. ``table={"user": "user_id", "item": "movie_id"}``.
        seed: as for `read_log`.
        progress: told what was found out about the files; None for the terminal.

    Raises:
        SettingError: an unknown name or setting, one that is not read for this log, or more users than there are.
        DataError: files are absent, empty or hold bad rows.

    Example:
        >>> load_log("simulated", users=10).num_users
        10
    """
    if name not in _READ_BY:
        raise SettingError(f"a log must be one of {', '.join(_READ_BY)}, got {name!r}; use table for one of your own")
    given = {"path": path, "users": users}
    tree = {"name": name, **{key: value for key, value in given.items() if value is not None}, **settings}
    return read_log(validate(DataConfig, tree), seed, progress or terminal_progress())


def read_log(config: DataConfig, seed: int, progress: Progress = SILENT) -> Log:
    """The configured log; raises as `load_log`.

    Args:
        seed: of the simulated log, and of the users kept.
        progress: takes the count of bad rows set aside, and the columns of a table that nothing reads.
    """
    quarantine = config.quarantine if config.on_bad_rows == "quarantine" else None
    heard = Heard(progress.say)
    policy = BadRowPolicy(quarantine, heard)
    try:
        with progress.stage(f"read {config.name}"):
            log = _read_named(config, seed, policy)
        if config.kar is not None:
            beside = quarantine and quarantine.with_stem(quarantine.stem + "-kar")
            knowledge = read_klg(config.kar, replace(policy, quarantine=beside))
            log = with_user_texts(with_item_texts(log, knowledge), knowledge)
    except OSError as error:
        raise DataError(f"{config.name} cannot be read ({error}); check data.path and who may read it") from error
    for line in log.reading:
        heard(line)
    read = f"reader {config.name}: {counts_of(log)}"
    if config.users is not None:
        log = sample_users(log, config.users, seed)
        read += f"; kept {config.users:,} users, drawn"
    return replace(log, reading=(read, *heard.lines))


def _read_named(config: DataConfig, seed: int, policy: BadRowPolicy) -> Log:
    path = config.path or Path()  # only what is simulated has none
    match config.name:
        case "simulated":
            return simulate_log(config.simulated, seed)[0]
        case "movielens" | "ml-1m":
            form = ML_1M if config.name == "ml-1m" else _movielens_form(config, path, policy)
            is_1m = form is ML_1M
            return read_movielens(
                path,
                form=form,
                metadata=config.metadata or (_beside(path, "metadata", "movies_extrainfos.dat") if is_1m else None),
                item_knowledge=config.item_knowledge
                or (_beside(path, "item-knowledge", "items.json") if is_1m else None),
                attributes=config.attributes,
                min_item_ratings=config.min_item_ratings,
                bad_rows=policy,
            )
        case "mind":
            return read_mind(path, policy)
        case "amazon":
            assert config.metadata is not None
            return read_amazon(path, config.metadata, config.amazon, policy)
        case "implicit":
            return read_implicit(path, policy, config.implicit)
        case "table":
            return read_table_log(path, config.table, min_item_ratings=config.min_item_ratings, bad_rows=policy)


def _movielens_form(config: DataConfig, folder: Path, policy: BadRowPolicy) -> Form:
    form = movielens_form(folder, policy.say)
    given = next((name for name in _OF_1M if getattr(config, name) is not None), None)
    if form is not ML_1M and given is not None:
        raise SettingError(
            f"data.{given} is about MovieLens-1M, got it with a log of the form {form.name}; leave it out"
        )
    return form


def _beside(folder: Path, what: str, file: str) -> Path | None:
    """``FOLDER-WHAT/FILE`` if it is there."""
    folder = folder.absolute()
    found = folder.parent / f"{folder.name}-{what}" / file
    return found if found.is_file() else None
