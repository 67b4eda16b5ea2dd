"""A method of your own: settings, steps and a recipe. Its runs are resumed and reused like those of recloop's methods.

    python examples/10_own_method.py

On simulated data, under a minute. The second call finds every step done. Prints the outcome of both.
"""

import json
from tempfile import mkdtemp

from pydantic import BaseModel

import recloop as rl

MEASURE = rl.StepKind("measure", reads=("users", "kinds"))  # the settings it depends on: what else changes, reuses it


class Settings(BaseModel):
    """Which rerankers are compared, on how many users."""

    users: int = 160
    kinds: tuple[str, ...] = ("dlcm", "prm")


def recipe(study):
    config = Settings.model_validate(study.run.config)
    log = rl.load_log("simulated", users=config.users)
    lists = rl.candidate_lists(log, protocol="kar")
    for kind in config.kinds:
        with study.step(MEASURE, kind, {}) as step:
            if not step.is_done:
                reranker = rl.fit_reranker(kind, log, lists, max_epochs=3)
                scores = rl.evaluate(reranker, lists.test, metrics=("ndcg@5",), empty="drop")
                (step.folder / "ndcg.json").write_text(json.dumps(float(scores.of("ndcg@5").mean())))
        print(f"{kind}: {(study.run.folder(step.name) / 'ndcg.json').read_text()[:6]} (was done: {step.is_done})")


mine = rl.Method("mine", Settings, recipe, steps=(MEASURE,))
folder = mkdtemp(prefix="recloop-")
for _ in range(2):
    rl.run(mine, out=folder, users=160)
