"""ALTERNATIVE that recloop does not use: MovieLens-1M to candidate lists with pandas, checks included.

The ratings are read with pandas' fast parser, without the empty columns between the two colons, since the usual
``sep="::", engine="python"`` is slow. Negatives are drawn list by list.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recloop.errors import DataError

LIST_LEN, CHUNK, WINDOW_MAX = 10, 4, 30


@dataclass(frozen=True, slots=True)
class PandasLists:
    """History windows and lists; the first four columns of a list are real (-1 where a last list has fewer).

    Users and items are numbered by their ids, those without ratings left out, as recloop does.
    """

    window_items: np.ndarray
    user_B: np.ndarray
    real_BC: np.ndarray
    is_positive_BC: np.ndarray
    items_BL: np.ndarray


def prepare_with_pandas(folder: Path, seed: int) -> PandasLists:
    """The windows and lists of three files, which are checked, numbered and sorted."""
    ratings = _read_checked(folder)
    ratings["user"] = ratings["user_id"].astype("category").cat.codes.astype("int64")
    ratings["item"] = ratings["item_id"].astype("category").cat.codes.astype("int64")
    ratings = ratings.sort_values(["user", "time", "item"], kind="stable")
    by_user = ratings.groupby("user", sort=False)
    count = by_user["item"].transform("size")
    window = np.minimum((count + 1) // 2, WINDOW_MAX)
    ratings["place"] = by_user.cumcount() - window
    later = ratings[ratings["place"] >= 0]
    real: list[np.ndarray] = []
    positive: list[np.ndarray] = []
    items: list[np.ndarray] = []
    users: list[int] = []
    rng = np.random.default_rng(seed)
    num_items = int(ratings["item"].max()) + 1
    own = {int(user): set(met) for user, met in by_user["item"]}
    for user, log in later.groupby("user", sort=False):
        met, liked = log["item"].to_numpy(), (log["rating"] >= 4).to_numpy()
        for start in range(0, len(met), CHUNK):
            chunk, is_liked = met[start : start + CHUNK], liked[start : start + CHUNK]
            users.append(int(user))
            real.append(np.pad(chunk, (0, CHUNK - len(chunk)), constant_values=-1))
            positive.append(np.pad(is_liked, (0, CHUNK - len(chunk))))
            items.append(_with_negatives(chunk, own[int(user)], num_items, rng))
    return PandasLists(
        ratings.loc[ratings["place"] < 0, "item"].to_numpy(),
        np.array(users),
        np.stack(real),
        np.stack(positive),
        np.stack(items),
    )


def _read_checked(folder: Path) -> Any:
    import pandas

    # pandas' types follow its C parser's many forms, none of which matters here.
    pd: Any = pandas

    names = ["user_id", "item_id", "rating", "time"]
    ratings = pd.read_csv(folder / "ratings.dat", sep=":", usecols=[0, 2, 4, 6], names=list(range(7)))
    ratings.columns = names
    plain: dict[str, Any] = {"sep": "::", "engine": "python", "encoding": "latin-1", "header": None}
    users = pd.read_csv(folder / "users.dat", **plain)
    movies = pd.read_csv(folder / "movies.dat", **plain)
    is_bad = (
        ~ratings["user_id"].isin(users[0])
        | ~ratings["item_id"].isin(movies[0])
        | ~ratings["rating"].isin([1, 2, 3, 4, 5])
        | (ratings["time"] < 0)
        | ratings.duplicated(["user_id", "item_id"])
    )
    if is_bad.any() or users[0].duplicated().any() or movies[0].duplicated().any():
        raise DataError(f"{folder} must hold whole MovieLens files, got bad rows; fetch them again")
    return ratings


def _with_negatives(real: np.ndarray, own: set[int], num_items: int, rng: np.random.Generator) -> np.ndarray:
    chosen = real.tolist()
    while len(chosen) < LIST_LEN:
        for item in rng.integers(num_items, size=LIST_LEN - len(chosen)).tolist():
            if item not in own and item not in chosen:
                chosen.append(item)
    rng.shuffle(chosen)
    return np.array(chosen)
