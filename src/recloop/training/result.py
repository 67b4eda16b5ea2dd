"""What a training run may spend, and what it leaves: a model folder that says what it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recloop.errors import RunError
from recloop.files import sha256_of_folder
from recloop.records import Pair, Prompt

TRAINING_FILE = "training.json"
STEPS_PER_EPOCH = 25


class TrainingBudget(BaseModel):
    """Steps, sizes and what is trained; the same for every way of training, so that rows compare."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lr: float = Field(
        default=2e-4,
        gt=0,
        description="learning rate of the first step, falling linearly to 0; right for the bundled model "
        "(docs/log.md, 2026-11-21), DPO4Rec: 5e-5 (8B)",
    )
    epochs: int = Field(default=1, ge=1, description="passes over the rows; DPO4Rec uses 3")
    batch_size: int = Field(default=4, ge=1, description="rows in one forward pass; DPO4Rec uses 2")
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto",
        description="forward passes in one optimiser step; auto: as many as make about 25 steps an epoch, so "
        "that more pairs mean surer steps and not a longer way; DPO4Rec uses 8",
    )
    max_pairs: int = Field(default=1500, ge=1, description="more pairs than this are thinned at random")
    max_prompt_tokens: int = Field(
        default=448, ge=1, description="a longer prompt, chat template included, is an error"
    )
    max_reply_tokens: int = Field(default=64, ge=1, description="rows with a longer reply are dropped and counted")
    lora: bool | Literal["auto"] = Field(
        default="auto",
        description="train a LoRA adapter instead of all weights; auto: above 500 million parameters",
    )
    lora_rank: int = Field(
        default=16, ge=1, description="rank of the adapter on every linear layer; alpha is twice this"
    )
    load_in_4bit: bool = Field(
        default=False,
        description="keep the base of the adapter in 4 bits (QLoRA); needs bitsandbytes",
    )
    save_steps: int = Field(default=5, ge=1, description="optimiser steps between two checkpoints")

    def passes_per_step(self, num_rows: int) -> int:
        """Forward passes in one optimiser step when there are so many rows."""
        if self.gradient_accumulation_steps != "auto":
            return self.gradient_accumulation_steps
        return max(1, round(num_rows / (self.batch_size * STEPS_PER_EPOCH)))


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A trained language model and how its training went.

    folder: Hugging Face model folder, or peft adapter folder, with its tokenizer.
    log: one row per optimiser step, means over its rows: ``step``, ``loss``, ``lr``, ``grad_norm``,
        ``entropy`` (nats per reply token), ``accuracy``; DPO adds ``chosen_logp``, ``rejected_logp`` (summed
        over the reply), ``chosen_margin``, ``rejected_margin`` (beta times the log-ratio to the reference model) and
        ``reward_margin`` (their difference). ``accuracy`` is the share of pairs with a positive margin in
        DPO, of reply tokens that are likeliest in fine-training.
    num_rows: pairs (or replies) trained on.
    num_thinned: left out because there were more than `TrainingBudget.max_pairs`.
    num_too_long: left out because a reply exceeds `TrainingBudget.max_reply_tokens`.
    """

    folder: Path
    log: tuple[Mapping[str, float], ...]
    num_rows: int
    num_thinned: int
    num_too_long: int


def digest_inputs(
    folders: Mapping[str, Path],
    prompts: Mapping[int, Prompt],
    pairs: Sequence[Pair],
    config: BaseModel,
    seed: int,
) -> dict[str, Any]:
    """What the result depends on, short enough to compare: content hashes, settings, seed."""
    asked = {user: asdict(prompts[user]) for user in sorted({pair.user for pair in pairs} & set(prompts))}
    rows = [list(asked.values()), [asdict(pair) for pair in pairs]]
    return {
        "models": {name: sha256_of_folder(folder) for name, folder in folders.items()},
        "rows": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "config": config.model_dump(mode="json"),
        "seed": seed,
    }


def training_text(trained: TrainedModel, inputs: Mapping[str, Any]) -> str:
    """Content of the file that makes a folder a trained model's."""
    facts = {
        "inputs": inputs,
        "num_rows": trained.num_rows,
        "num_thinned": trained.num_thinned,
        "num_too_long": trained.num_too_long,
        "log": trained.log,
    }
    return json.dumps(facts, indent=1) + "\n"


def read_trained(folder: Path, inputs: Mapping[str, Any] | None = None) -> TrainedModel:
    """The record of a finished training run.

    Args:
        folder: where `train_dpo` or `train_sft` wrote.
        inputs: what the model should have been made from; not compared when None.

    Raises:
        RunError: the folder is not a trained model's, or was made from other inputs.
    """
    file = folder / TRAINING_FILE
    if not file.is_file():
        raise RunError(f"a trained model's folder holds {TRAINING_FILE}, got none in {folder}; choose another folder")
    facts = json.loads(file.read_text(encoding="utf-8"))
    if inputs is not None and facts["inputs"] != inputs:
        changed = ", ".join(sorted(key for key in inputs if facts["inputs"].get(key) != inputs[key]))
        raise RunError(
            f"{folder} holds a model trained from other inputs (differing: {changed}); remove it or choose another folder"
        )
    return TrainedModel(folder, tuple(facts["log"]), facts["num_rows"], facts["num_thinned"], facts["num_too_long"])
