"""The budget of a training run, where it writes, and what it leaves: a model folder that says what it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field

from recloop.errors import RunError, SettingError
from recloop.files import sha256_of_folder
from recloop.progress import SILENT, Progress
from recloop.records import Pair, Prompt
from recloop.settings import setting, shown_first

if TYPE_CHECKING:
    from recloop.llm.language_model import LanguageModel

TRAINING_FILE = "training.json"
COUNTS = ("num_rows", "num_thinned", "num_too_long")
STEPS_PER_EPOCH = 25  # optimiser steps that gradient_accumulation_steps=auto makes of an epoch


class TrainingBudget(BaseModel, frozen=True, extra="forbid"):
    """Steps, sizes and what is trained; the same for every way of training, so that variants compare."""

    learning_rate: float = shown_first(
        2e-4,
        "learning rate of the first step, falling linearly to 0; 2e-4 suits the bundled model "
        "(docs/log.md, 2026-11-21), DPO4Rec: 5e-5 (8B)",
        gt=0,
    )
    epochs: int = shown_first(1, "passes over the rows; DPO4Rec: 3", ge=1)
    batch_size: int = setting(4, "rows in one forward pass of a process; DPO4Rec: 2", ge=1)
    gradient_accumulation_steps: Annotated[int, Field(ge=1)] | Literal["auto"] = setting(
        "auto",
        "forward passes in one optimiser step, of all processes together; auto: about 25 steps an epoch, "
        "so that more pairs give better gradients, not more steps; DPO4Rec: 8",
    )
    max_pairs: int = setting(1500, "most pairs; more are thinned at random", ge=1)
    max_prompt_tokens: int = setting(448, "a longer prompt, chat template included, is an error", ge=1)
    max_reply_tokens: int = setting(64, "rows with a longer reply are dropped and counted", ge=1)
    lora: bool | Literal["auto"] = shown_first(
        "auto", "train a LoRA adapter instead of all weights; auto: above 100 million parameters"
    )
    lora_rank: int = setting(16, "rank of the adapter on every linear layer; alpha is twice this", ge=1)
    load_in_4bit: bool = setting(False, "keep the base of the adapter in 4 bits (QLoRA); needs bitsandbytes")
    save_steps: int = setting(5, "optimiser steps between two checkpoints", ge=1)

    def passes_per_step(self, num_rows: int, num_processes: int = 1) -> int:
        """Forward passes of each process in one step; SettingError when the processes cannot share them evenly."""
        asked = self.gradient_accumulation_steps
        if asked == "auto":
            return max(1, round(num_rows / (self.batch_size * num_processes * STEPS_PER_EPOCH)))
        if asked % num_processes:
            raise SettingError(
                f"processes must share a step evenly, got gradient_accumulation_steps={asked} and {num_processes} "
                f"processes; choose a multiple"
            )
        return asked // num_processes


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """Where a training run starts and writes, its seed, and who is told how far it is.

    lm_folder: what is trained: a Hugging Face folder with tokenizer and chat template, or a peft adapter's folder.
    out: of the trained model; absent, or holding this very result.
    seed: of order, thinning and adapter initialisation.
    reference_folder: the reference model; None for `lm_folder`.
    scratch: checkpoints go here and stay; None for a hidden folder beside `out`, removed at the end.
    """

    lm_folder: Path
    out: Path
    seed: int
    reference_folder: Path | None = None
    scratch: Path | None = None
    progress: Progress = SILENT

    @property
    def work(self) -> Path:
        """Where checkpoints go."""
        return self.scratch or self.out.parent / f".{self.out.name}.scratch"

    @property
    def reference(self) -> Path:
        """The folder of the reference model."""
        return self.reference_folder or self.lm_folder


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A trained language model and how its training went.

    folder: Hugging Face model folder, or peft adapter folder, with its tokenizer.
    log: one row per optimiser step, means over its rows: ``step``, ``loss``, ``lr``, ``grad_norm``, ``entropy`` (nats
        per reply token). DPO and SFT: ``accuracy``, the share of pairs with a positive margin or of reply tokens that
        are likeliest. DPO: ``chosen_logp``, ``rejected_logp`` (summed over the reply), ``chosen_margin``,
        ``rejected_margin`` (beta times the log-ratio to the reference model), ``reward_margin`` (their difference).
    num_rows: pairs (or replies) trained on.
    num_thinned: left out because there were more than `TrainingBudget.max_pairs`.
    num_too_long: left out because a reply exceeds `TrainingBudget.max_reply_tokens`.
    """

    folder: Path
    log: tuple[Mapping[str, float], ...] = field(repr=False)
    num_rows: int
    num_thinned: int
    num_too_long: int


def folder_of(lm: LanguageModel | TrainedModel | str | Path) -> Path:
    """The folder on this machine that holds a language model's weights; SettingError where it has none."""
    folder = lm if isinstance(lm, str | Path) else getattr(lm, "folder", None)
    if folder is None:
        raise SettingError(
            f"a language model is trained from its folder on this machine, got {getattr(lm, 'name', lm)} without one; "
            f"pass load_lm('transformers:FOLDER') or a folder"
        )
    return Path(folder)


def digest_inputs(
    folders: Mapping[str, Path], prompts: Mapping[int, Prompt], pairs: Sequence[Pair], config: BaseModel, seed: int
) -> dict[str, Any]:
    """What the result depends on: content hashes, settings, seed."""
    asked = [asdict(prompts[user]) for user in sorted({pair.user for pair in pairs} & set(prompts))]
    return {
        "models": {name: sha256_of_folder(folder) for name, folder in folders.items()},
        "rows": hashlib.sha256(json.dumps([asked, [asdict(pair) for pair in pairs]]).encode()).hexdigest(),
        "config": config.model_dump(mode="json"),
        "seed": seed,
    }


def training_text(trained: TrainedModel, inputs: Mapping[str, Any]) -> str:
    """Content of `TRAINING_FILE`."""
    facts = {name: getattr(trained, name) for name in (*COUNTS, "log")}
    return json.dumps({"inputs": inputs, **facts}, indent=1) + "\n"


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
            f"{folder} holds a model trained from other inputs (differing: {changed}); remove it or choose another"
        )
    return TrainedModel(folder, tuple(facts["log"]), *(facts[name] for name in COUNTS))
