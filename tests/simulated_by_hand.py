"""Small datasets written out by tests."""

import numpy as np
import polars as pl

from recloop.records import Domain, Log


def dataset_of(histories, num_items, positive_from_rating=4.0):
    """A Log from one list of (item, stars) per user, oldest first; stars None when implicit."""
    rows = [
        (user, item, rating, time)
        for user, history in enumerate(histories)
        for time, (item, rating) in enumerate(history)
    ]
    users = range(len(histories))
    return Log(
        name="by hand",
        domain=Domain.MOVIES,
        users=pl.DataFrame(
            {"user": users, "user_id": [f"u{user}" for user in users]}, schema_overrides={"user": pl.Int64}
        ),
        items=pl.DataFrame(
            {
                "item": range(num_items),
                "item_id": [f"i{item}" for item in range(num_items)],
                "title": [f"Title {item}" for item in range(num_items)],
                "genre": [[f"g{item % 3}"] for item in range(num_items)],
            },
            schema_overrides={"item": pl.Int64},
        ),
        attributes=("genre",),
        interactions=pl.DataFrame(
            rows,
            schema={"user": pl.Int64, "item": pl.Int64, "rating": pl.Float32, "time": pl.Int64},
            orient="row",
        ),
        positive_from_rating=positive_from_rating,
    )


def random_dataset(rng, num_users=40, num_items=60, most=30, positive_from_rating=4.0):
    """Users with 1 to `most` interactions with distinct random items and random stars."""
    histories = []
    for _ in range(num_users):
        items = rng.choice(num_items, size=rng.integers(1, most + 1), replace=False)
        rating = rng.integers(1, 6, size=len(items))
        histories.append(
            [(int(i), float(s) if positive_from_rating else None) for i, s in zip(items, rating, strict=True)]
        )
    return dataset_of(histories, num_items, positive_from_rating)


def all_lists(lists):
    """Users, items, labels and masks of the four groups, one under the other."""
    groups = [lists.train, lists.reward, lists.valid, lists.test]
    return tuple(
        np.concatenate([getattr(group, name) for group in groups])
        for name in ("user_B", "items_BL", "labels_BL", "is_item_BL")
    )
