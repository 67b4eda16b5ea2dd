"""The results of a run as data frames: the table, its tests, and one line per user, joined to a table of your own.

    python examples/13_results_to_pandas.py

On simulated data, about a minute. Prints the table as pandas shows it, and NDCG@5 by activity of the users.
"""

from tempfile import mkdtemp

import polars as pl

import recloop as rl

log = rl.load_log("simulated", users=160)
results = rl.run(
    "dpo4rec",
    data=log,
    out=mkdtemp(prefix="recloop-"),
    encoder="static",
    rounds=0,
    completions={"test": 2},
    reranker={"max_epochs": 3},
    variants="core",
)
print(results.table().to_pandas()[["label", "value", "low", "high"]])
print(results.contrasts().to_pandas()[["variant", "against", "value", "p_holm"]])

ids = log.users.select("user", "user_id")
activity = log.interactions.group_by("user").agg(num_items=pl.len()).join(ids, on="user")
per_user = results.per_user("ndcg@5").join(activity, on="user_id")
print(per_user.group_by("variant", pl.col("num_items") > activity["num_items"].median()).agg(pl.col("value").mean()))
