"""A reward of your own, in the shape of TRL's reward functions: here, texts that name many things in few words.

    python examples/06_own_reward.py

On simulated data, about a minute. Prints the mean reward of each variant's texts.
"""

from tempfile import mkdtemp

import numpy as np

import recloop as rl


def concise(prompts, completions, /, **_):
    """Commas and semicolons per word: one number per completion, higher is better."""
    rewards = [[(text.count(",") + text.count(";")) / max(len(text.split()), 1) for text in N] for N in completions]
    return np.array(rewards)


results = rl.run(
    "dpo4rec",
    data={"simulated": {"num_users": 120, "num_items": 150}},
    out=mkdtemp(prefix="recloop-"),
    reward=concise,
    encoder="static",
    completions={"reward": 4, "test": 2},
    reranker={"max_epochs": 3},
    dpo={"max_pairs": 32},
    variants="core",
)
for (variant,), table in results.completions().group_by("variant", maintain_order=True):
    print(f"{variant}: {concise([], [table['text'].to_list()]).mean():.4f}")
print(results.report_path)
