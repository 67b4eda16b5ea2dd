"""Four disjoint groups of users: who fits rerankers, gives rewards, makes choices and is reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel, model_validator

from recloop.errors import DataError, SettingError
from recloop.files import sha256_of_file
from recloop.records import Group, Log
from recloop.settings import setting, shown_first


class SplitConfig(BaseModel, frozen=True, extra="forbid"):
    """Shares of the users in each group; they add up to 1. Or the groups themselves."""

    train: float = setting(0.5, "Share of users that fit rerankers.", gt=0, le=1)
    reward: float = setting(0.25, "Share of users that rewards are computed for.", ge=0, le=1)
    valid: float = setting(0.05, "Share of users that every choice is made on.", ge=0, le=1)
    test: float = setting(0.2, "Share of users that results are reported for.", gt=0, le=1)
    fold: int = shown_first(
        0,
        "Groups are cut from one order of the users; each fold moves them on by a test group, so that folds share "
        "no test user.",
        ge=0,
    )
    groups: Path | None = setting(
        None,
        "A table (Parquet or CSV) of user_id and group (train, reward, valid, test) in place of the shares; users that "
        "it does not name are in none.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> SplitConfig:
        total = self.train + self.reward + self.valid + self.test
        if abs(total - 1) > 1e-9:
            raise SettingError(f"train, reward, valid and test shares must add up to 1, got {total:g}; adjust one")
        if (self.fold + 1) * self.test > 1 + 1e-9:
            raise _too_many_folds(f"{self.test:g}", int(1 / self.test + 1e-9) - 1, self.fold)
        if self.groups is not None and self.fold:
            raise SettingError(f"folds are cut from shares, got split.fold={self.fold} beside split.groups; leave one")
        return self


# KAR's 90/10 by user; of its 90 a twentieth of all users stops training early, where KAR stops on its test users.
REPRODUCTION = SplitConfig(train=0.85, reward=0.0, valid=0.05, test=0.10)


def split_users(num_users: int, config: SplitConfig, seed: int) -> dict[Group, np.ndarray]:
    """The users of the four groups, ascending; sizes are rounded so that they add up (largest remainder).

    Raises:
        SettingError: a group with a share would be empty, or the test group would overlap that of fold 0.
    """
    share_G = np.array([getattr(config, group.value) for group in Group])
    exact_G = share_G * num_users
    size_G = np.floor(exact_G + 1e-9).astype(np.int64)
    by_remainder = np.argsort(-(exact_G - size_G), kind="stable")
    size_G[by_remainder[: num_users - size_G.sum()]] += 1
    for group, share, size in zip(Group, share_G, size_G, strict=True):
        if share > 0 and size == 0:
            raise SettingError(
                f"every group with a share needs a user, got none for {group} out of {num_users} users; "
                f"use more users or a larger {group} share"
            )
    size_test = int(size_G[list(Group).index(Group.TEST)])
    if (config.fold + 1) * size_test > num_users:
        raise _too_many_folds(f"{size_test} out of {num_users} users", num_users // size_test - 1, config.fold)
    order = np.random.default_rng([seed, 0x59117]).permutation(num_users)
    order = np.roll(order, config.fold * size_test)  # the test group comes last
    parts = np.split(order, np.cumsum(size_G)[:-1])
    return {group: np.sort(part).astype(np.int64) for group, part in zip(Group, parts, strict=True)}


def user_groups(log: Log, config: SplitConfig, seed: int) -> dict[Group, np.ndarray]:
    """The users of the four groups, ascending: those of the configured table, or drawn by `split_users`.

    Raises:
        DataError: the table cannot be read, lacks a column, names a user twice, another group, or nobody of a group
            that must have somebody (train, test).
        SettingError: as `split_users`.
    """
    if config.groups is None:
        return split_users(log.num_users, config, seed)
    path = config.groups
    try:
        read = pl.read_parquet if path.suffix == ".parquet" else pl.read_csv
        table = read(path).select(pl.col("user_id", "group").cast(pl.String))
    except (OSError, pl.exceptions.PolarsError) as error:
        what = str(error).splitlines()[0]
        raise DataError(f"split.groups is a table of user_id and group, got {path} ({what}); correct it") from error
    names = [group.value for group in Group]
    for found, what in (
        (table.filter(~pl.col("group").is_in(names))["group"], f"a group is one of {', '.join(names)}"),
        (table.filter(pl.col("user_id").is_duplicated())["user_id"], "a user is in one group"),
    ):
        if len(found):
            raise DataError(f"{what}, got {found[0]!r} in {path.name} ({len(found)} rows); correct it")
    known = log.users.select("user", pl.col("user_id").cast(pl.String)).join(table, on="user_id")
    groups = {group: known.filter(pl.col("group") == group.value)["user"].sort().to_numpy() for group in Group}
    for group in (Group.TRAIN, Group.TEST):
        if not len(groups[group]):
            raise DataError(f"{path.name} names no {group} user, such as {log.users['user_id'][0]!r}; add some")
    return {group: users.astype(np.int64) for group, users in groups.items()}


def groups_digest(config: SplitConfig) -> dict[str, str]:
    """What a step that splits depends on beside its settings: the configured table, if there is one."""
    return {} if config.groups is None else {"groups": sha256_of_file(config.groups)}


def _too_many_folds(groups: str, last: int, fold: int) -> SettingError:
    return SettingError(f"test groups of {groups} allow folds up to {last}, got {fold}; lower split.fold or split.test")
