"""Stage 3 of DPO4Rec, alignment: pairs in, a better language model out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from recloop.experiment.step import StepKind
from recloop.methods.study import LmRef, Study, derived_seed
from recloop.records import Pair, Prompt
from recloop.training.dpo import run_dpo
from recloop.training.result import TrainedModel, TrainingRun
from recloop.training.sft import SftConfig, run_sft

TRAIN = StepKind("train", reads=("dpo", "reference"))
OF_DPO_ALONE = {"beta", "sft_weight", "accelerate_config"}


def train_dpo_round(
    study: Study,
    prompts: Mapping[int, Prompt],
    lm: LmRef,
    reference_lm: LmRef,
    pairs: Sequence[Pair],
    seed: int,
    label: str,
) -> LmRef:
    """Train by DPO: prefer what had the higher reward and stay near the reference. The result is called `label`.

    Args:
        prompts: by user, of every user with a pair.
        lm: what is trained.
        reference_lm: the language model before round 1; DPO's reference, unless the configuration says ``previous``.
        pairs: of the current round.
    """
    reference = reference_lm if study.config.reference == "first" else lm

    def train(out: Path, scratch: Path) -> TrainedModel:
        run = TrainingRun(lm.folder, out, derived_seed(seed, "tune"), reference.folder, scratch, study.progress)
        return run_dpo(run, prompts, pairs, study.config.dpo)

    return _train(study, (lm, reference), pairs, seed, label, train)


def train_sft_round(
    study: Study, prompts: Mapping[int, Prompt], lm: LmRef, pairs: Sequence[Pair], seed: int, label: str
) -> LmRef:
    """Fine-tune on the best completions alone, on the budget of `train_dpo_round`."""
    config = SftConfig.model_validate(study.config.dpo.model_dump(exclude=OF_DPO_ALONE))

    def train(out: Path, scratch: Path) -> TrainedModel:
        run = TrainingRun(lm.folder, out, derived_seed(seed, "tune"), None, scratch, study.progress)
        return run_sft(run, prompts, pairs, config)

    return _train(study, (lm,), pairs, seed, label, train)


def _train(
    study: Study,
    models: Sequence[LmRef],
    pairs: Sequence[Pair],
    seed: int,
    label: str,
    train: Callable[[Path, Path], TrainedModel],
) -> LmRef:
    name = f"{label}.s{seed}"
    inputs = {"models": [lm.digest for lm in models], "pairs": digest_of_pairs(pairs)}
    with study.step(TRAIN, name, inputs, f"lm/{name}") as step:
        if not step.is_done:
            step.scratch.mkdir(parents=True, exist_ok=True)
            trained = train(step.scratch / "model", step.scratch / "checkpoints")
            shutil.copytree(trained.folder, step.folder, dirs_exist_ok=True)
            step.log(*({"lm": label, "seed": seed, **row} for row in trained.log))
            step.note(
                pairs_trained=trained.num_rows,
                pairs_thinned=trained.num_thinned,
                pairs_too_long=trained.num_too_long,
            )
    return LmRef(label, study.run.folder(step.name), study.run.digest(step.name))


def digest_of_pairs(pairs: Sequence[Pair]) -> str:
    """SHA-256 of what is trained on, of all pairs in their order."""
    rows = [asdict(pair) for pair in pairs]
    for row in rows:
        del row["is_rejected_finished"]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
