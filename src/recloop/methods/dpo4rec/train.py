"""Stage 3 of DPO4Rec, alignment: pairs in, a better language model out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from recloop.methods.context import LmRef, Loop, derived_seed
from recloop.methods.dpo4rec.data import Task
from recloop.records import Pair
from recloop.training.dpo import tune_dpo
from recloop.training.result import Tuned
from recloop.training.sft import SftConfig, tune_best_of_n


def align(loop: Loop, task: Task, lm: LmRef, anchor: LmRef, pairs: Sequence[Pair], seed: int, label: str) -> LmRef:
    """Tune by DPO: prefer what earned more and stay near the reference. The result is called `label`.

    Args:
        lm: what is tuned.
        anchor: the language model before round 1; the reference, unless the configuration says ``previous``.
        pairs: of the current round.
    """
    reference = anchor if loop.config.reference == "first" else lm

    def tune(out: Path, scratch: Path) -> Tuned:
        config, tuning_seed = loop.config.dpo, derived_seed(seed, "tune")
        return tune_dpo(
            lm.folder, reference.folder, task.prompts, pairs, config, out, tuning_seed, loop.progress, scratch
        )

    return _tune(loop, (lm, reference), pairs, seed, label, tune)


def imitate_best(loop: Loop, task: Task, lm: LmRef, pairs: Sequence[Pair], seed: int, label: str) -> LmRef:
    """Fine-tune on the best drafts alone, on the budget of `align`."""
    config = SftConfig.model_validate(loop.config.dpo.model_dump(exclude={"beta", "likelihood", "processes"}))

    def tune(out: Path, scratch: Path) -> Tuned:
        tuning_seed = derived_seed(seed, "tune")
        return tune_best_of_n(lm.folder, task.prompts, pairs, config, out, tuning_seed, loop.progress, scratch)

    return _tune(loop, (lm,), pairs, seed, label, tune)


def _tune(
    loop: Loop,
    models: Sequence[LmRef],
    pairs: Sequence[Pair],
    seed: int,
    label: str,
    tune: Callable[[Path, Path], Tuned],
) -> LmRef:
    name = f"{label}.s{seed}"
    inputs = {"models": [lm.digest for lm in models], "pairs": digest_of_pairs(pairs)}
    with loop.stage("tune", name, inputs, f"lm/{name}") as stage:
        if not stage.is_done:
            stage.scratch.mkdir(parents=True, exist_ok=True)
            tuned = tune(stage.scratch / "model", stage.scratch / "checkpoints")
            shutil.copytree(tuned.folder, stage.folder, dirs_exist_ok=True)
            stage.log(*({"lm": label, "seed": seed, **row} for row in tuned.log))
            stage.note(
                pairs_trained=tuned.num_rows,
                pairs_thinned=tuned.num_thinned,
                pairs_too_long=tuned.num_too_long,
            )
    return LmRef(label, loop.run.folder(stage.name), loop.run.digest(stage.name))


def digest_of_pairs(pairs: Sequence[Pair]) -> str:
    """SHA-256 of what is tuned on, of all pairs in their order."""
    rows = [asdict(pair) for pair in pairs]
    for row in rows:
        del row["is_rejected_finished"]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
