"""A finished run, used: rankings for a user of the log, for somebody new, and what each part of a text changes.

    python examples/15_use_a_run.py

On simulated data, in about two minutes of CPU. Prints a ranking, a new user's text, and the new user's first item with
each part of that text left out.
"""

from pathlib import Path
from tempfile import mkdtemp

import polars as pl

import recloop as rl

folder = Path(mkdtemp(prefix="recloop-")) / "run"
log = rl.load_log("simulated", users=200)
rl.run("dpo4rec", data=log, out=folder, rounds=0, variants="trained", reranker={"max_epochs": 5})

model = rl.load(folder, data=log)
user = model.user_ids[0]
candidates = log.items["item_id"][20:28].to_list()
print(f"user {user}: {model.profile(user)}")  # the run's text; no language model is loaded
print(model.rerank(user, candidates).head(3))

history = [(item, 5.0 if number < 4 else 1.0) for number, item in enumerate(log.items["item_id"][:8])]
text = model.profile(history)  # of somebody whom the log has never seen
print(f"somebody new: {text}")
explained = model.explain(history, candidates, text=text)
print(explained.filter(pl.col("rank") == 1).select("left_out", "title", "score"))
