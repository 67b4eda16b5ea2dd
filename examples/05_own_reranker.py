"""A reranker of your own, as reward model and as evaluator of a whole run.

    python examples/05_own_reranker.py

On simulated data, about a minute. Prints the table; nothing of recloop was changed.
"""

from tempfile import mkdtemp

from torch import nn

import recloop as rl


class Pointwise(nn.Module):
    """Scores each candidate by itself, from its features and the user's text."""

    def __init__(self, shape, config):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(shape.width, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, batch):
        return self.layers(batch.features()).squeeze(-1)


results = rl.run(
    "dpo4rec",
    data={"simulated": {"num_users": 120, "num_items": 150}},
    out=mkdtemp(prefix="recloop-"),
    reranker=Pointwise,
    encoder="static",
    completions={"reward": 3, "test": 2},
    dpo={"max_pairs": 16},
    variants="core",
)
print(results.table().select("reranker", "label", "value", "low", "high"))
