"""Direct preference optimisation: raise the chosen completion above the rejected one, relative to the reference model.

Source: DPO (arXiv 2305.18290), through TRL 1.16.0's DPOTrainer; DPO4Rec (arXiv 2410.05939), stage 3. Ours: the
reference is the language model as it was before round 1, in every round, and the prompt is run once for both replies
where the type of model allows it (`shared_prompt`). `DpoConfig.sft_weight` is the term of iterative reasoning
preference optimisation (arXiv 2404.19733).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recloop.llm.chat import messages_of
from recloop.llm.weights import base_folder_of
from recloop.progress import Progress, terminal_progress
from recloop.records import Pair, Prompt
from recloop.settings import setting, shown_first, validate
from recloop.training.dataset import Row, prompts_of, reply_of, select_rows
from recloop.training.processes import launch, num_processes
from recloop.training.result import TrainedModel, TrainingBudget, TrainingRun, digest_inputs, folder_of, read_trained

if TYPE_CHECKING:
    from trl.trainer.dpo_trainer import DPOTrainer

    from recloop.llm.language_model import LanguageModel
    from recloop.rewards.preference_pairs import PairSet
    from recloop.training.trainer import Policy, TrainingJob

LOG_NAMES = {
    "accuracy": "rewards/accuracies",
    "chosen_logp": "logps/chosen",
    "rejected_logp": "logps/rejected",
    "chosen_margin": "rewards/chosen",
    "rejected_margin": "rewards/rejected",
    "reward_margin": "rewards/margins",
}


class DpoConfig(TrainingBudget, frozen=True):
    """How preference pairs train a language model."""

    beta: float = shown_first(0.1, "strength of the pull to the reference model; DPO4Rec: 0.01 for an 8B model", gt=0)
    sft_weight: float = shown_first(
        0.0,
        "weight of the chosen completions' mean negative log-likelihood per token beside DPO's loss, which alone may "
        "lower the likelihood of both completions; TRL's rpo_alpha",
        ge=0,
    )
    accelerate_config: str | None = setting(
        None,
        "train in several processes, by accelerate launch: ddp, fsdp, deepspeed_zero3 on all GPUs, or a "
        "YAML file of accelerate's; none: in this process. Rows in a step stay as they are",
    )


def train_dpo(
    lm: LanguageModel | TrainedModel | str | Path,
    pairs: PairSet,
    *,
    out: str | Path,
    reference: LanguageModel | TrainedModel | str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> TrainedModel:
    """The language model trained by DPO on preference pairs; ``load_lm(f"transformers:{trained.folder}")`` opens it.

    Killed at any moment and called again with the same arguments it goes on from its last checkpoint and gives the same
    weights and log. In a script that `accelerate launch` runs, the processes train together.

    Args:
        lm: what is trained, in its folder on this machine: as `load_lm` gives it, a trained model, or the folder.
        pairs: with their prompts, as `preference_pairs` gives them.
        out: folder of the trained model; absent, or holding this very result.
        reference: the reference model; `lm` by default.
        seed: of order, thinning and adapter initialisation.
        progress: told how far it is; None for the terminal.
        settings: fields of `DpoConfig`, e.g. ``beta=0.1, learning_rate=5e-5``.

    Raises:
        SettingError: an unknown setting, or a language model without a folder.
        DataError, SettingError, ContractError, TrainingError, RunError: see `run_dpo`.
    """
    folder = folder_of(lm)
    run = TrainingRun(folder, Path(out), seed, folder_of(reference or folder), progress=progress or terminal_progress())
    return run_dpo(run, prompts_of(pairs.require_some()), pairs.pairs, validate(DpoConfig, settings))


def run_dpo(run: TrainingRun, prompts: Mapping[int, Prompt], pairs: Sequence[Pair], config: DpoConfig) -> TrainedModel:
    """The model of `run` trained on preference pairs; an `out` that holds this very result is returned.

    Args:
        prompts: by user number, for every user with a pair.
        pairs: in any order; their order is shuffled by the seed.

    Raises:
        DataError, SettingError, ContractError, TrainingError: see `select_rows`; a loss not finite; a process died.
        RunError: `out` or `scratch` belongs to another training run.
    """
    models = {"lm": run.lm_folder, "reference model": run.reference}
    inputs = digest_inputs(models, prompts, pairs, config, run.seed)
    if run.out.exists():
        return read_trained(run.out, inputs)
    found = select_rows(run.lm_folder, prompts, pairs, config, run.seed)
    if config.accelerate_config and num_processes() == 1:
        _launch(run, prompts, pairs, config, config.accelerate_config)
        return read_trained(run.out, inputs)

    from recloop.training.trainer import TrainingJob, run_job

    job = TrainingJob("train by DPO", run, inputs, config, found.counts)
    return run_job(job, partial(_make_trainer, job, found.rows, config), LOG_NAMES)


def _launch(
    run: TrainingRun, prompts: Mapping[int, Prompt], pairs: Sequence[Pair], config: DpoConfig, accelerate_config: str
) -> None:
    """Do the run in other processes (`recloop.training.launch`)."""
    folder = run.out.parent / f".{run.out.name}.job"
    folders = {"lm_folder": run.lm_folder, "out": run.out, "reference_folder": run.reference, "scratch": run.scratch}
    job = {
        "folders": {name: path and str(path.resolve()) for name, path in folders.items()},
        "seed": run.seed,
        "prompts": [asdict(prompts[user]) for user in dict.fromkeys(pair.user for pair in pairs)],
        "pairs": [asdict(pair) for pair in pairs],
        "config": config.model_dump(mode="json"),
    }
    with run.progress.stage("train by DPO in several processes", unit="rows"):
        launch(folder, job, accelerate_config)
    shutil.rmtree(folder)


def _make_trainer(job: TrainingJob, rows: Sequence[Row], config: DpoConfig, policy: Policy) -> DPOTrainer:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from recloop.training.shared_prompt import share_prompts
    from recloop.training.trainer import load_model, trainer_arguments, training_data, whole_model

    base, reference, uses_lora = base_folder_of(job.run.lm_folder), job.run.reference, policy.uses_lora
    reference_lm = None  # without its adapter a policy over the reference model is it already
    if not uses_lora or base.resolve() != reference.resolve():
        reference_lm = load_model(reference, uses_lora=uses_lora, load_in_4bit=config.load_in_4bit)
    loss: dict[str, Any] = {"loss_type": ["sigmoid"]}
    if config.sft_weight:
        loss = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, config.sft_weight]}
    trainer = DPOTrainer(
        ref_model=reference_lm,
        args=DPOConfig(**trainer_arguments(job, policy), beta=config.beta, **loss),
        train_dataset=training_data(job, rows, _conversation, policy.tokenizer),
        **policy.for_trainer,
    )
    if policy.shares_prompts:
        for model in (trainer.model, reference_lm):
            if model is not None:
                share_prompts(whole_model(model))
    return trainer


def _conversation(row: Row, tokenizer: Any) -> dict[str, Any]:
    return {
        "prompt": messages_of(row.prompt, tokenizer),
        "chosen": reply_of(row.pair.chosen),
        "rejected": reply_of(row.pair.rejected),
    }
