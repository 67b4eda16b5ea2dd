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
from recloop.training.dpo import train_dpo
from recloop.training.result import TrainedModel
from recloop.training.sft import SftConfig, train_sft


def train_dpo_round(
    loop: Loop, task: Task, lm: LmRef, reference_lm: LmRef, pairs: Sequence[Pair], seed: int, label: str
) -> LmRef:
    """Tune by DPO: prefer what earned more and stay near the reference. The result is called `label`.

    Args:
        lm: what is trained.
        reference model: the language model before round 1; the reference, unless the configuration says ``previous``.
        pairs: of the current round.
    """
    reference = reference_lm if loop.config.reference == "first" else lm

    def train(out: Path, scratch: Path) -> TrainedModel:
        config, training_seed = loop.config.dpo, derived_seed(seed, "tune")
        return train_dpo(
            lm.folder, reference.folder, task.prompts, pairs, config, out, training_seed, loop.progress, scratch
        )

    return _train(loop, (lm, reference), pairs, seed, label, train)


def train_sft_round(loop: Loop, task: Task, lm: LmRef, pairs: Sequence[Pair], seed: int, label: str) -> LmRef:
    """Fine-train on the best completions alone, on the budget of `align`."""
    config = SftConfig.model_validate(loop.config.dpo.model_dump(exclude={"beta", "sft_weight", "processes"}))

    def train(out: Path, scratch: Path) -> TrainedModel:
        training_seed = derived_seed(seed, "tune")
        return train_sft(lm.folder, task.prompts, pairs, config, out, training_seed, loop.progress, scratch)

    return _train(loop, (lm,), pairs, seed, label, train)


def _train(
    loop: Loop,
    models: Sequence[LmRef],
    pairs: Sequence[Pair],
    seed: int,
    label: str,
    train: Callable[[Path, Path], TrainedModel],
) -> LmRef:
    name = f"{label}.s{seed}"
    inputs = {"models": [lm.digest for lm in models], "pairs": digest_of_pairs(pairs)}
    with loop.stage("train", name, inputs, f"lm/{name}") as stage:
        if not stage.is_done:
            stage.scratch.mkdir(parents=True, exist_ok=True)
            trained = train(stage.scratch / "model", stage.scratch / "checkpoints")
            shutil.copytree(trained.folder, stage.folder, dirs_exist_ok=True)
            stage.log(*({"lm": label, "seed": seed, **row} for row in trained.log))
            stage.note(
                pairs_trained=trained.num_rows,
                pairs_thinned=trained.num_thinned,
                pairs_too_long=trained.num_too_long,
            )
    return LmRef(label, loop.run.folder(stage.name), loop.run.digest(stage.name))


def digest_of_pairs(pairs: Sequence[Pair]) -> str:
    """SHA-256 of what is trained on, of all pairs in their order."""
    rows = [asdict(pair) for pair in pairs]
    for row in rows:
        del row["is_rejected_finished"]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
