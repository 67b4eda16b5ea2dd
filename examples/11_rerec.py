"""ReRec: requests in words about the items of a log, a language model reinforced to answer them.

    python examples/11_rerec.py

On simulated data, about four minutes, far smaller than a real run. Prints accuracy (HR@1) by kind of request.
"""

from tempfile import mkdtemp

import recloop as rl

folder = mkdtemp(prefix="recloop-")
results = rl.run(
    "rerec",
    data={"simulated": {"num_users": 60, "num_items": 150}},
    out=folder,
    requests={"per_user": 2, "num_candidates": 8},
    supervised=False,
    variants=["rerec"],
    grpo={"max_pairs": 24, "epochs": 1},
    retention={"tasks": 0},
    next_item={"users": 0},
)
print(results.table("hr@1").select("table", "label", "value", "low", "high"))
