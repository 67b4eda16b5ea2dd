"""Re2LLM: a frozen language model with hints that you wrote; a policy learns which hint helps which session.

    python examples/12_re2llm.py

On simulated sessions, about two minutes. Prints the table, with the policy beside no hint and the best single one.
"""

import json
from pathlib import Path
from tempfile import mkdtemp

import recloop as rl

folder = Path(mkdtemp(prefix="recloop-"))
hints = ["Go by genre: put candidates with the genre of the latest items first.", "Prefer the newest items."]
(folder / "hints.json").write_text(json.dumps(hints))
results = rl.run(
    "re2llm",
    data={"simulated_sessions": {"num_train": 60, "num_test": 40, "num_candidates": 10, "num_items": 240}},
    out=folder / "run",
    explore={"file": str(folder / "hints.json")},
    policy={"steps": 2000},
    encoder="static",
)
print(results.table().select("label", "value", "low", "high"))
