"""One setting, one Log: which log to read and how much of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from recloop.data.amazon import AmazonConfig, read_amazon
from recloop.data.assemble import sample_users
from recloop.data.checks import BadRowPolicy
from recloop.data.implicit_log import ImplicitConfig, read_implicit
from recloop.data.kar_knowledge import read_klg, with_item_texts, with_user_texts
from recloop.data.movielens import ATTRIBUTES, MovieAttribute, read_movielens
from recloop.data.simulated import SimulatedConfig, simulate_log
from recloop.data.table_log import TableLogConfig, read_table_log
from recloop.errors import SettingError
from recloop.progress import SILENT, Progress
from recloop.records import Log

_READ_BY = {
    "simulated": {"simulated"},
    "ml-1m": {
        "path",
        "metadata",
        "attributes",
        "item_knowledge",
        "kar",
        "min_item_ratings",
        "on_bad_rows",
        "quarantine",
    },
    "amazon": {"path", "metadata", "kar", "amazon", "on_bad_rows", "quarantine"},
    "implicit": {"path", "implicit", "on_bad_rows", "quarantine"},
    "table": {"path", "table", "min_item_ratings", "on_bad_rows", "quarantine"},
}


class DataConfig(BaseModel):
    """Which log, where it is, and how much of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["simulated", "ml-1m", "amazon", "implicit", "table"] = Field(
        default="simulated", description="Which reader."
    )
    path: Path | None = Field(
        default=None,
        description="ml-1m, implicit: the folder; amazon: the file of reviews; table: the file of the log.",
    )
    metadata: Path | None = Field(
        default=None,
        description="amazon: the metadata; ml-1m: movies_extrainfos.dat, found by itself in PATH-metadata.",
    )
    attributes: tuple[MovieAttribute, ...] = Field(
        default=ATTRIBUTES,
        description="ml-1m: columns of prompts and rerankers; actor and certificate need the metadata.",
    )
    item_knowledge: Path | None = Field(
        default=None,
        description="ml-1m: JSON of texts by movie; items.json in PATH-item-knowledge is found by itself.",
    )
    kar: Path | None = Field(
        default=None,
        description="ml-1m and amazon: folder of KAR's published user.klg, item.klg and index. Its user "
        "texts make a row, its index the windows, its item texts the item knowledge.",
    )
    users: int | None = Field(default=None, ge=1, description="Read all, then keep this many users, drawn by the seed.")
    min_item_ratings: int = Field(default=0, ge=0, description="Leave items with fewer interactions out.")
    on_bad_rows: Literal["error", "quarantine"] = Field(
        default="error", description="Stop at bad rows, or set them aside and go on."
    )
    quarantine: Path = Field(
        default=Path("quarantine.jsonl"),
        description="File that takes the bad rows set aside; the default lies where the command is given.",
    )
    simulated: SimulatedConfig = Field(default=SimulatedConfig(), description="The simulated data.")
    amazon: AmazonConfig = Field(default=AmazonConfig(), description="What is kept of an Amazon log.")
    implicit: ImplicitConfig = Field(
        default=ImplicitConfig(), description="How the items of an implicit log are described."
    )
    table: TableLogConfig = Field(default=TableLogConfig(), description="The columns of a table.")

    @model_validator(mode="after")
    def _nothing_unread(self) -> DataConfig:
        readable = _READ_BY[self.name] | {"name", "users"}
        for field, info in type(self).model_fields.items():
            if field not in readable and getattr(self, field) != info.default:
                readers = ", ".join(name for name, fields in _READ_BY.items() if field in fields)
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
            raise SettingError(
                "data.kar brings item texts of its own, got data.item_knowledge beside it; leave one out"
            )
        if self.name == "amazon" and self.metadata is None:
            raise SettingError("data.metadata says where the items of amazon are, got none; give --data.metadata")
        return self

    @property
    def has_times(self) -> bool:
        """Whether the log says when things happened, and not their order alone."""
        return not (self.name == "implicit" or (self.name == "table" and self.table.time is None))


def load_log(config: DataConfig, seed: int, progress: Progress = SILENT) -> Log:
    """Read or simulate the log.

    Args:
        config: which log.
        seed: of the simulated log, and of the users kept.
        progress: takes the count of bad rows set aside, and the columns of a table that nothing reads.

    Raises:
        DataError: files are absent, empty or hold bad rows.
        SettingError: more users are wanted than there are.
    """
    quarantine = config.quarantine if config.on_bad_rows == "quarantine" else None
    policy = BadRowPolicy(quarantine, progress.say)
    match config.name:
        case "simulated":
            dataset, _ = simulate_log(config.simulated, seed)
        case "ml-1m":
            assert config.path is not None
            dataset = read_movielens(
                config.path,
                metadata=config.metadata or _beside(config.path, "metadata", "movies_extrainfos.dat"),
                item_knowledge=config.item_knowledge or _beside(config.path, "item-knowledge", "items.json"),
                attributes=config.attributes,
                min_item_ratings=config.min_item_ratings,
                bad_rows=policy,
            )
        case "amazon":
            assert config.path is not None
            assert config.metadata is not None
            dataset = read_amazon(config.path, config.metadata, config.amazon, policy)
        case "implicit":
            assert config.path is not None
            dataset = read_implicit(config.path, policy, config.implicit)
        case "table":
            assert config.path is not None
            dataset = read_table_log(
                config.path, config.table, min_item_ratings=config.min_item_ratings, bad_rows=policy
            )
    if config.kar is not None:
        beside = quarantine and quarantine.with_stem(quarantine.stem + "-kar")
        knowledge = read_klg(config.kar, replace(policy, quarantine=beside))
        dataset = with_user_texts(with_item_texts(dataset, knowledge), knowledge)
    return dataset if config.users is None else sample_users(dataset, config.users, seed)


def _beside(folder: Path, what: str, file: str) -> Path | None:
    """``FOLDER-WHAT/FILE`` if it is there."""
    found = folder.with_name(f"{folder.resolve().name}-{what}") / file
    return found if found.is_file() else None
