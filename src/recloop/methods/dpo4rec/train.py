"""Stage 3 of DPO4Rec, alignment: pairs in, a better language model out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial

from recloop.experiment.step import StepKind
from recloop.methods.study import LmRef, Study, derived_seed
from recloop.records import Pair, Prompt
from recloop.training.dpo import run_dpo
from recloop.training.result import TrainedModel, TrainingRun
from recloop.training.sft import SftConfig, run_sft

TRAIN = StepKind("train", reads=("dpo", "reference"))
OF_DPO_ALONE = {"beta", "sft_weight", "accelerate_config"}


def train_dpo_round(
    study: Study, prompts: Mapping[int, Prompt], lm: LmRef, reference_lm: LmRef, pairs: Sequence[Pair], seed: int,
    label: str,
) -> LmRef:  # fmt: skip
    """Train `lm` by DPO: prefer what had the higher reward and stay near the reference. The result is called `label`.

    The reference is `reference_lm`, as before round 1, unless the configuration says ``previous``.
    """
    reference = reference_lm if study.config.reference == "first" else lm
    train = partial(run_dpo, prompts=prompts, pairs=pairs, config=study.config.dpo)
    return _train(study, lm, reference, pairs, seed, label, train)


def train_on_pairs(
    study: Study, prompts: Mapping[int, Prompt], lm: LmRef, reference_lm: LmRef, pairs: Sequence[Pair], seed: int,
    label: str,
) -> LmRef:  # fmt: skip
    """Train `lm` on pairs as the configuration says: by DPO, or by imitation of what was chosen."""
    if study.config.train == "sft":
        return train_sft_round(study, prompts, lm, pairs, seed, label)
    return train_dpo_round(study, prompts, lm, reference_lm, pairs, seed, label)


def train_sft_round(
    study: Study, prompts: Mapping[int, Prompt], lm: LmRef, pairs: Sequence[Pair], seed: int, label: str
) -> LmRef:
    """Fine-tune on the best completions alone, on the budget of `train_dpo_round`."""
    config = SftConfig.model_validate(study.config.dpo.model_dump(exclude=OF_DPO_ALONE))
    return _train(study, lm, None, pairs, seed, label, partial(run_sft, prompts=prompts, pairs=pairs, config=config))


def _train(
    study: Study, lm: LmRef, reference: LmRef | None, pairs: Sequence[Pair], seed: int, label: str,
    train: Callable[[TrainingRun], TrainedModel],
) -> LmRef:  # fmt: skip
    name, models = f"{label}.s{seed}", [lm] if reference is None else [lm, reference]
    inputs = {"models": [model.digest for model in models], "pairs": digest_of_pairs(pairs)}
    with study.step(TRAIN, name, inputs, f"lm/{name}") as step:
        if not step.is_done:
            step.scratch.mkdir(parents=True, exist_ok=True)
            out, checkpoints = step.scratch / "model", step.scratch / "checkpoints"
            reference_folder = None if reference is None else reference.folder
            train_seed = derived_seed(seed, "tune")
            trained = train(TrainingRun(lm.folder, out, train_seed, reference_folder, checkpoints, study.progress))
            shutil.copytree(trained.folder, step.folder, dirs_exist_ok=True)
            step.log(*({"lm": label, "seed": seed, **row} for row in trained.log))
            counts = {"trained": trained.num_rows, "thinned": trained.num_thinned, "too_long": trained.num_too_long}
            step.note(**{f"pairs_{name}": num for name, num in counts.items()})
    return LmRef(label, study.run.folder(step.name), study.run.digest(step.name))


def digest_of_pairs(pairs: Sequence[Pair]) -> str:
    """SHA-256 of what is trained on, of all pairs in their order."""
    rows = [asdict(pair) for pair in pairs]
    for row in rows:
        del row["is_rejected_finished"]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
