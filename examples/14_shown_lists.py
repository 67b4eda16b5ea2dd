"""Lists that users were shown, with clicks and places, from data frames: does a reranker beat the order shown?

    python examples/14_shown_lists.py

On simulated data, under a minute. Prints NDCG@5 of the order shown, popularity and two rerankers: by clicks, and by
what users like, which a simulation knows. Clicks fall with the place, so by clicks the order shown looks best; by taste
it is chance. The tests are by taste.
"""

import numpy as np
import polars as pl

import recloop as rl
from recloop.rerankers.list_baselines import AsShown, Popularity

simulated = rl.load_log("simulated", users=400)
ids = simulated.users.select("user", "user_id"), simulated.items.select("item", "item_id")
bought = simulated.interactions.join(ids[0], on="user").join(ids[1], on="item").drop("user", "item")

# Eight items in random places, five times; a user clicks what resembles a favourite, if it is high enough to be seen.
rng = np.random.default_rng(0)
genre = dict(simulated.items.select("item_id", pl.col("genre").list.first()).iter_rows())
favourites = bought.filter(pl.col("rating") >= 4).group_by("user_id", maintain_order=True).agg("item_id")
rows: list[tuple[str, str, str, int, bool, bool]] = []
for user, liked in favourites.iter_rows():
    taste = {genre[item] for item in liked}
    for number in range(5):
        for place, item in enumerate(rng.choice(list(genre), 8, replace=False).tolist(), start=1):
            likes = genre[item] in taste
            rows.append((user, f"{user}-{number}", item, place, likes, likes and rng.random() < 1 / place))
shown = pl.DataFrame(rows, schema=["user_id", "list_id", "item_id", "position", "likes", "label"], orient="row")

log = rl.Log.from_frames(bought, simulated.items, impressions=shown.to_pandas(), attributes=("genre", "director"))
lists = rl.lists_from_impressions(log)
models = {
    "as_shown": AsShown(),
    "popularity": Popularity.fit(log.num_items, lists.histories, lists.train),
    "no_text": rl.fit_reranker("prm", log, lists, max_epochs=5),
    "id_history": rl.fit_reranker("prm", log, lists, max_epochs=5, use_id_history=True),
}
truth = rl.lists_from_impressions(log, shown.with_columns(label="likes"))  # the same groups and lists, other labels
by_clicks, by_taste = (
    [rl.evaluate(model, test, metrics="ndcg@5", empty="drop", name=name) for name, model in models.items()]
    for test in (lists.test, truth.test)
)
for clicks, taste in zip(by_clicks, by_taste, strict=True):
    print(f"{clicks.name:<11} ndcg@5 by clicks {clicks.average('ndcg@5'):.4f}, by taste {taste.average('ndcg@5'):.4f}")
print(rl.compare_variants(by_taste, [("id_history", "as_shown"), ("id_history", "popularity")], "ndcg@5"))
