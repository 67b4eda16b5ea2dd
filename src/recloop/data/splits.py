"""Four disjoint groups of users: who fits rerankers, gives rewards, makes choices and is reported."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from recloop.errors import SettingError
from recloop.records import Group


class SplitConfig(BaseModel):
    """Shares of the users in each group; they add up to 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: float = Field(default=0.5, gt=0, le=1, description="Share of users that fit rerankers.")
    reward: float = Field(default=0.25, ge=0, le=1, description="Share of users that rewards are computed for.")
    valid: float = Field(default=0.05, ge=0, le=1, description="Share of users that every choice is made on.")
    test: float = Field(default=0.2, gt=0, le=1, description="Share of users that results are reported for.")
    fold: int = Field(
        json_schema_extra={"shown_first": True},
        default=0,
        ge=0,
        description="Groups are cut from one order of the users; each fold moves them on by a test group, so "
        "that folds share no test user.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> SplitConfig:
        total = self.train + self.reward + self.valid + self.test
        if abs(total - 1) > 1e-9:
            raise SettingError(
                f"train, reward, valid and test shares must add up to 1, got {total:g}; adjust one of them"
            )
        if (self.fold + 1) * self.test > 1 + 1e-9:
            raise SettingError(
                f"test groups of {self.test:g} allow folds up to {int(1 / self.test + 1e-9) - 1}, got "
                f"{self.fold}; lower split.fold or split.test"
            )
        return self


REPRODUCTION = SplitConfig(train=0.85, reward=0.0, valid=0.05, test=0.10)
"""KAR's 90/10 by user, with a twentieth of all users taken out of its 90 to stop training early.

KAR stops on its test users; recloop does not.
"""


def split_users(num_users: int, config: SplitConfig, seed: int) -> dict[Group, np.ndarray]:
    """The users of the four groups.

    Args:
        num_users: users are 0..num_users-1.
        config: shares; group sizes are rounded so that they add up (largest remainder).
        seed: of the draw.

    Returns:
        Ascending users of every group; a group with share 0 is empty.

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
        raise SettingError(
            f"test groups of {size_test} out of {num_users} users allow folds up to "
            f"{num_users // size_test - 1}, got {config.fold}; lower split.fold or split.test"
        )
    order = np.random.default_rng([seed, 0x59117]).permutation(num_users)
    order = np.roll(order, config.fold * size_test)  # the test group comes last
    parts = np.split(order, np.cumsum(size_G)[:-1])
    return {group: np.sort(part).astype(np.int64) for group, part in zip(Group, parts, strict=True)}
