"""What DPO, SFT and GRPO share of TRL: loading, quiet and resumable training, an atomic result."""

# TRL, peft, datasets and transformers are not fully typed.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import json
import logging
import math
import os
import random
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import torch
import transformers
from accelerate import PartialState
from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from peft import LoraConfig, PeftConfig, PeftModel, PeftType, TaskType, load_peft_weights, set_peft_model_state_dict
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_callback import TrainerState
from transformers.training_args import TrainingArguments
from transformers.utils import logging as transformers_log

from recloop.errors import RunError, SettingError, TrainingError
from recloop.files import atomic_write_json, atomic_write_text, fsync, remove_folder, settle
from recloop.llm.chat import load_tokenizer, own_tokenizer
from recloop.llm.weights import base_folder_of, in_four_bits
from recloop.training.dataset import Row, training_order
from recloop.training.processes import is_first, is_sharded, num_processes
from recloop.training.result import TRAINING_FILE, TrainedModel, TrainingBudget, TrainingRun, training_text
from recloop.training.shared_prompt import SHARING_TYPES

LORA_ABOVE = 100_000_000  # parameters; smaller models are cheaper to train whole
CHECKPOINTS_ABOVE = 500_000_000  # parameters; of larger models with an adapter, activations are computed twice
COMPLETE = "complete"  # marks a checkpoint that was written to its end
INPUTS = "inputs.json"
_CHECKPOINTS = ("activation_checkpointing", "gradient_checkpointing")  # since transformers 5.23, and before
CHECKPOINTING = next(name for name in _CHECKPOINTS if name in TrainingArguments.__dataclass_fields__)


# Our names of what every trainer logs -> the trainer's.
LOG_NAMES = {"step": "step", "loss": "loss", "lr": "learning_rate", "grad_norm": "grad_norm", "entropy": "entropy"}


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One training run.

    name: what is being done, for the progress line.
    inputs: what the result depends on (`digest_inputs`).
    counts: rows trained on, thinned and too long, as `TrainedModel` has them.
    """

    name: str
    run: TrainingRun
    inputs: Mapping[str, Any]
    budget: TrainingBudget
    counts: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Policy:
    """The model to be trained.

    model: whole model, with a head; for LoRA the base that gets the adapter.
    adapter: how to make the LoRA adapter; None when all weights are trained.
    """

    model: PreTrainedModel
    tokenizer: Any
    adapter: LoraConfig | None

    @property
    def uses_lora(self) -> bool:
        return self.adapter is not None

    @property
    def shares_prompts(self) -> bool:
        """Whether a prompt can be read once for all its replies (`share_prompts`)."""
        return not self.keeps_few and not is_sharded() and self.model.config.model_type in SHARING_TYPES

    @property
    def keeps_few(self) -> bool:
        """Whether activations are computed again in the backward pass, for lack of memory."""
        return self.uses_lora and (torch.cuda.is_available() or self.model.num_parameters() > CHECKPOINTS_ABOVE)

    @property
    def for_trainer(self) -> dict[str, Any]:
        """Arguments of every TRL trainer."""
        return {"model": self.model, "processing_class": self.tokenizer, "peft_config": self.adapter}


def run_job(job: TrainingJob, make_trainer: Callable[[Policy], Trainer], log_names: Mapping[str, str]) -> TrainedModel:
    """The trained model: loaded, trained on from the last whole checkpoint, saved.

    Args:
        log_names: our name of a logged value -> the trainer's, beside `LOG_NAMES`.

    Raises:
        RunError: the checkpoints were made from other inputs, or an adapter's weights are not those that its
            configuration names.
        TrainingError: the loss is not finite.
        SettingError: see `load_policy`.
    """
    run = job.run
    if is_first():
        _claim(run.work, job.inputs)
    with quiet(run.seed):
        policy = load_policy(run.lm_folder, job.budget)
        trainer = make_trainer(policy)
        if base_folder_of(run.lm_folder) != run.lm_folder:
            _load_adapter(trainer.model, run.lm_folder)
        checkpoint = _last_checkpoint(run.work)
        trainer.remove_callback(PrinterCallback)
        num_shown = job.counts[0] * job.budget.epochs
        with run.progress.stage(job.name, total=num_shown, unit="rows") as step:
            trainer.add_callback(_Watch(step, num_shown))
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trained = TrainedModel(run.out, _log_rows(trainer, LOG_NAMES | dict(log_names)), *job.counts)
        # Every process gives its shard of the weights, where they are sharded.
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if num_processes() > 1 else None
        if is_first():
            _save(trainer.model, job, trained, weights)
    if run.scratch is None and is_first():
        remove_folder(run.work)
    if num_processes() > 1:
        PartialState().wait_for_everyone()  # until the first has written
    return trained


def load_policy(lm_folder: Path, budget: TrainingBudget) -> Policy:
    """The model in `lm_folder`, ready to be given to a TRL trainer.

    Raises:
        SettingError: the folder holds an adapter, or 4 bits are asked for, but `lora` is False; the adapter
            is no LoRA, or not of rank `lora_rank`.
    """
    base = base_folder_of(lm_folder)
    if budget.load_in_4bit and budget.lora is False:
        raise SettingError("load_in_4bit trains an adapter only, got lora=False; use lora=True or auto")
    uses_lora = budget.lora
    if uses_lora == "auto":
        uses_lora = budget.load_in_4bit or _count_parameters(base) > LORA_ABOVE
    if base != lm_folder and not uses_lora:
        raise SettingError(f"{lm_folder} holds a LoRA adapter, got lora=False or auto; use lora=True")
    rank, adapter = budget.lora_rank, None
    if base != lm_folder:
        adapter = _form_of(lm_folder, rank)
    elif uses_lora:
        adapter = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = load_model(base, uses_lora=bool(uses_lora), load_in_4bit=budget.load_in_4bit)
    return Policy(model, load_tokenizer(lm_folder), adapter)


def load_model(folder: Path, *, uses_lora: bool, load_in_4bit: bool = False) -> PreTrainedModel:
    """A causal language model: float32, or bfloat16 under LoRA on a GPU, or with its linear layers in 4 bits."""
    on_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if uses_lora and on_gpu else torch.float32
    if not load_in_4bit:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=in_four_bits(device.type), device_map={"": device}
    )


def training_data(
    job: TrainingJob, rows: Sequence[Row], conversation: Callable[[Row, Any], dict[str, Any]], tokenizer: Any
) -> Dataset:
    """The rows in training order, all epochs as one, in the trainer's own form."""
    order = training_order([row.num_tokens for row in rows], job.budget, job.run.seed)
    return Dataset.from_list([conversation(rows[index], tokenizer) for index in order])


def whole_model(model: Any) -> Any:
    """The model with its head, of one that may have an adapter around it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def trainer_arguments(job: TrainingJob, policy: Policy) -> dict[str, Any]:
    """Arguments that TRL's configurations share; they go with `training_data`."""
    budget = job.budget
    on_gpu = torch.cuda.is_available()
    return {
        "output_dir": str(job.run.work),
        "seed": job.run.seed,
        "use_cpu": not on_gpu,
        "bf16": on_gpu and policy.uses_lora,
        CHECKPOINTING: policy.keeps_few,
        "max_length": None,
        "num_train_epochs": 1,
        "train_sampling_strategy": "sequential",
        "per_device_train_batch_size": budget.batch_size,
        "gradient_accumulation_steps": budget.passes_per_step(job.counts[0], num_processes()),
        "learning_rate": budget.learning_rate,
        "lr_scheduler_type": "linear",
        "save_strategy": "steps",
        "save_steps": budget.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,
    }


@contextmanager
def quiet(seed: int) -> Generator[None]:
    """Seeded, silent libraries: no bars, no notices, no usage pings; all as before afterwards."""
    trl_log, hub = logging.getLogger("trl"), huggingface_hub.constants
    with ExitStack() as before, warnings.catch_warnings():
        before.callback(random.setstate, random.getstate())
        before.callback(torch.random.set_rng_state, torch.random.get_rng_state())
        # TRL seeds the global generator
        before.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
        if not are_progress_bars_disabled():
            before.callback(enable_progress_bars)
        if transformers_log.is_progress_bar_enabled():
            before.callback(transformers_log.enable_progress_bar)
        before.callback(transformers_log.set_verbosity, transformers_log.get_verbosity())
        before.callback(trl_log.setLevel, trl_log.level)
        before.callback(setattr, hub, "HF_HUB_DISABLE_TELEMETRY", hub.HF_HUB_DISABLE_TELEMETRY)
        disable_progress_bars()
        transformers_log.disable_progress_bar()
        transformers_log.set_verbosity_error()
        trl_log.setLevel(logging.ERROR)
        huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
        transformers.set_seed(seed)
        # TRL 1.16.0 calls names that transformers 5 deprecates.
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated.*", category=FutureWarning)
        yield


def _log_rows(trainer: Trainer, names: Mapping[str, str]) -> tuple[dict[str, float], ...]:
    """One row per optimiser step under our names; the trainer's summary at the end is not one.

    A further step on the same answers has what was said of them at the first.
    """
    known: dict[str, float] = {}
    rows: list[dict[str, float]] = []
    for step in trainer.state.log_history:
        if "loss" in step:
            known |= {ours: float(step[theirs]) for ours, theirs in names.items() if theirs in step}
            rows.append({ours: known[ours] for ours in names})
    return tuple(rows)


def _save(model: Any, job: TrainingJob, trained: TrainedModel, weights: Any) -> None:
    """Write model, tokenizer and record beside the run's `out`, then rename.

    Args:
        weights: collected from all processes; None for the model's own.
    """
    part = trained.folder.parent / f".{trained.folder.name}.part"
    remove_folder(part)
    model.save_pretrained(part, **({} if weights is None else {"state_dict": weights}))
    own_tokenizer(job.run.lm_folder).save_pretrained(part)
    atomic_write_text(part / TRAINING_FILE, training_text(trained, job.inputs))
    settle(part, trained.folder)


class _Watch(TrainerCallback):
    """Reports progress, stops at a loss that is not finite, marks checkpoints as whole."""

    def __init__(self, step: Any, num_rows: int) -> None:
        self._step, self._num_rows, self._done = step, num_rows, 0

    def on_train_begin(self, *arguments: Any, **named: Any) -> None:
        self.on_step_end(*arguments, **named)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        rows_per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        done = min(state.global_step * rows_per_step, self._num_rows)
        if done > self._done:
            self._step(done - self._done)
            self._done = done

    def on_log(self, _args: TrainingArguments, state: TrainerState, *_: Any, **found: Any) -> None:
        loss = found["logs"].get("loss", 0.0)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss must stay finite, got {loss} at step {state.global_step}; lower learning_rate or raise beta"
            )

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        PartialState().wait_for_everyone()  # each process has a file in it
        if is_first():
            checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            for file in checkpoint.iterdir():
                fsync(file)
            atomic_write_text(checkpoint / COMPLETE, "")


def _claim(scratch: Path, inputs: Mapping[str, Any]) -> None:
    """Make `scratch` the place of this run's checkpoints, or refuse those of another."""
    scratch.mkdir(parents=True, exist_ok=True)
    file = scratch / INPUTS
    if not file.is_file():
        atomic_write_json(file, dict(inputs))
    elif json.loads(file.read_text(encoding="utf-8")) != inputs:
        raise RunError(f"{scratch} holds checkpoints of another training run; remove it or choose another folder")


def _last_checkpoint(scratch: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are removed."""
    whole: list[Path] = []
    for folder in scratch.glob("checkpoint-*"):
        if (folder / COMPLETE).is_file():
            whole.append(folder)
        elif is_first():
            remove_folder(folder)
    return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def _count_parameters(folder: Path) -> int:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)).num_parameters()


def _form_of(folder: Path, rank: int) -> LoraConfig:
    """How to make the adapter in `folder` again, for its weights to be loaded into and trained."""
    found = PeftConfig.from_pretrained(str(folder))
    if not isinstance(found, LoraConfig):
        kind = PeftType(found.peft_type).value
        raise SettingError(f"an adapter to train on must be LoRA, got {kind} in {folder}; merge it into its base")
    if found.r != rank:
        raise SettingError(
            f"{folder} holds a LoRA adapter of rank {found.r}, got lora_rank={rank}; use lora_rank={found.r}"
        )
    found.inference_mode = False
    found.init_lora_weights = True  # they are overwritten, and other kinds change the base
    found.task_type = TaskType.CAUSAL_LM
    found.base_model_name_or_path = None  # peft writes the one it is put on
    return found


def _load_adapter(model: Any, folder: Path) -> None:
    """Put the weights in `folder` into the model's adapter."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    try:
        result = set_peft_model_state_dict(model, load_peft_weights(str(folder)))
    except KeyError as error:  # a whole module that the adapter replaces
        missing, unexpected = [str(error.args[0])], []
    else:
        missing, unexpected = sorted(trained & set(result.missing_keys)), sorted(result.unexpected_keys)
    if missing or unexpected:
        raise RunError(
            f"the weights in {folder} must be those its adapter_config.json names, got {len(missing)} missing "
            f"{missing[:2]} and {len(unexpected)} unexpected {unexpected[:2]}; save the adapter again"
        )
