"""Small catalogues, users and lists for tests of rerankers."""

from dataclasses import dataclass

import numpy as np

from recloop.records import Group, Histories, Lists, UserVectors
from recloop.rerankers.features import ItemFeatures

NUM_ITEMS, NUM_USERS, LIST_LEN, WIDTH = 40, 60, 6, 12


@dataclass(frozen=True)
class Problem:
    """Train users come first, then valid, then test users; user 5 has no history."""

    features: ItemFeatures
    histories: Histories
    train: Lists
    valid: Lists
    test: Lists
    vectors: UserVectors


def random_problem(seed=0, num_completions=3):
    """Nothing to learn, lists of 2 to 6 items: for properties of shape and order."""
    rng = np.random.default_rng(seed)
    lens = rng.integers(1, 7, NUM_USERS)
    lens[5] = 0
    num = int(lens.sum())
    histories = Histories(
        np.append(0, np.cumsum(lens)),
        rng.integers(0, NUM_ITEMS, num),
        rng.integers(1, 6, num).astype(np.float32),
    )
    attribute_IM = rng.integers(0, 5, (NUM_ITEMS, 2))
    item_vectors = rng.normal(size=(NUM_ITEMS, WIDTH)).astype(np.float32)
    return Problem(
        ItemFeatures(NUM_ITEMS, (attribute_IM,), (4,), item_vectors),
        histories,
        _random_lists(rng, Group.TRAIN, np.arange(30)),
        _random_lists(rng, Group.VALID, np.arange(30, 45)),
        _random_lists(rng, Group.TEST, np.arange(45, NUM_USERS)),
        UserVectors(np.arange(NUM_USERS), rng.normal(size=(NUM_USERS, num_completions, WIDTH)).astype(np.float32)),
    )


def _random_lists(rng, group, users):
    user_B = np.repeat(users, 3)
    is_item = np.arange(LIST_LEN) < rng.integers(2, LIST_LEN + 1, len(user_B))[:, None]
    items = np.where(is_item, rng.integers(0, NUM_ITEMS, is_item.shape), 0)
    labels = ((rng.random(is_item.shape) < 0.4) & is_item).astype(np.float32)
    return Lists(group, user_B, items, labels, is_item)


def taste_problem(seed=0, num_users=500, lists_each=6):
    """Users like one of four kinds of items, and exactly those; nothing else decides a label.

    The item's kind is its only attribute. The true vectors name the user's kind (with a little noise), the
    histories hold three items of the liked kind (5 stars) and three of another kind (1 star).
    """
    rng = np.random.default_rng(seed)
    kind_I = np.arange(NUM_ITEMS) % 4
    liked_U = rng.integers(0, 4, num_users)
    disliked_U = (liked_U + rng.integers(1, 4, num_users)) % 4
    window_UH = np.stack(
        [
            np.concatenate([rng.choice(np.flatnonzero(kind_I == kind), 3, replace=False) for kind in kinds])
            for kinds in zip(liked_U, disliked_U, strict=True)
        ]
    )
    user_B = np.repeat(np.arange(num_users), lists_each)
    items_BL = rng.permuted(np.tile(np.arange(NUM_ITEMS), (len(user_B), 1)), axis=1)[:, :8]
    labels_BL = (kind_I[items_BL] == liked_U[user_B, None]).astype(np.float32)
    group_U = np.digitize(np.arange(num_users) / num_users, [0.6, 0.75])
    train, valid, test = (
        Lists(
            group,
            user_B[rows],
            items_BL[rows],
            labels_BL[rows],
            np.ones((rows.sum(), 8), dtype=bool),
        )
        for group, rows in zip(
            (Group.TRAIN, Group.VALID, Group.TEST), (group_U[user_B] == g for g in range(3)), strict=True
        )
    )
    vectors = np.eye(WIDTH)[liked_U] + rng.normal(scale=0.1, size=(num_users, WIDTH))
    return Problem(
        ItemFeatures(NUM_ITEMS, (kind_I[:, None] + 1,), (4,), None),
        Histories(
            np.arange(num_users + 1) * 6,
            window_UH.ravel(),
            np.tile([5, 5, 5, 1, 1, 1], num_users).astype(np.float32),
        ),
        train,
        valid,
        test,
        UserVectors(np.arange(num_users), vectors[:, None].astype(np.float32)),
    )
