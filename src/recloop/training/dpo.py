"""Direct preference optimisation: raise the chosen completion above the rejected one, relative to the reference model.

Source: DPO (arXiv 2305.18290), through TRL 1.16.0's DPOTrainer; DPO4Rec (arXiv 2410.05939), stage 3. Ours:
the reference model is the language model as it was before round 1, in every round, and the prompt is run once for both
replies where the type of model allows it (`shared_prompt`). `DpoConfig.likelihood` is the term of iterative
reasoning preference optimisation (arXiv 2404.19733).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from recloop.errors import SettingError
from recloop.llm.chat import load_tokenizer, messages_of
from recloop.llm.weights import base_folder_of
from recloop.progress import SILENT, Progress
from recloop.records import Pair, Prompt
from recloop.training.dataset import Row, VariantSet, reply_of, select_variants
from recloop.training.distributed import is_one_of_several, run_in_processes
from recloop.training.result import STEPS_PER_EPOCH, TrainedModel, TrainingBudget, digest_inputs, read_trained

if TYPE_CHECKING:
    from trl.trainer.dpo_trainer import DPOTrainer

    from recloop.training.trainer import Job, Policy

TASK = "train by DPO"
LOG_NAMES = {
    "step": "step",
    "loss": "loss",
    "lr": "learning_rate",
    "grad_norm": "grad_norm",
    "entropy": "entropy",
    "accuracy": "rewards/accuracies",
    "chosen_logp": "logps/chosen",
    "rejected_logp": "logps/rejected",
    "chosen_margin": "rewards/chosen",
    "rejected_margin": "rewards/rejected",
    "reward_margin": "rewards/margins",
}


class DpoConfig(TrainingBudget):
    """How preference pairs train a language model."""

    beta: float = Field(
        default=0.1, gt=0, description="strength of the pull to the reference model; DPO4Rec uses 0.01 for an 8B model"
    )
    sft_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of the chosen completions' mean negative log-likelihood per token beside DPO's loss, "
        "which alone may make chosen and rejected completions less likely, both",
    )
    processes: int = Field(
        default=1,
        ge=1,
        description="GPUs that share every step, each with the whole model; rows in a step stay as they are",
    )

    def passes_of_each(self, num_rows: int) -> int:
        """Forward passes of one process in one optimiser step.

        Raises:
            SettingError: the passes asked for cannot be shared evenly.
        """
        if self.gradient_accumulation_steps == "auto":
            return max(1, round(num_rows / (self.batch_size * self.processes * STEPS_PER_EPOCH)))
        if self.gradient_accumulation_steps % self.processes:
            raise SettingError(
                f"processes must share a step evenly, got gradient_accumulation_steps={self.gradient_accumulation_steps} and "
                f"processes={self.processes}; choose a multiple"
            )
        return self.gradient_accumulation_steps // self.processes


def train_dpo(
    lm_folder: Path,
    reference_folder: Path,
    prompts: Mapping[int, Prompt],
    pairs: Sequence[Pair],
    config: DpoConfig,
    out: Path,
    seed: int,
    progress: Progress = SILENT,
    scratch: Path | None = None,
) -> TrainedModel:
    """Tune the model in `lm_folder` on preference pairs and write it to `out`.

    Killed at any moment and called again with the same arguments it goes on from its last checkpoint and
    gives the same weights and log. If `out` already holds this very result, that is returned.

    Args:
        lm_folder: Hugging Face folder with tokenizer and chat template, or a peft adapter's folder.
        reference_folder: the reference of the loss.
        prompts: by user number, for every user with a pair.
        pairs: in any order; their order is shuffled by `seed`.
        config: budget and beta.
        out: absent, or holding this very result.
        seed: of order, thinning and adapter initialisation.
        scratch: checkpoints go here and stay; None for a hidden folder beside `out`, removed at the end.

    Raises:
        DataError, SettingError, ContractError, TrainingError: see `select_variants`; a loss not finite.
        RunError: `out` or `scratch` belongs to another training run.
    """
    lm_folder, reference_folder, out = Path(lm_folder), Path(reference_folder), Path(out)
    inputs = digest_inputs({"lm": lm_folder, "reference model": reference_folder}, prompts, pairs, config, seed)
    if out.exists():
        return read_trained(out, inputs)
    row_set = select_variants(lm_folder, prompts, pairs, config, seed)
    config.passes_of_each(len(row_set.rows))
    if config.processes > 1 and not is_one_of_several():
        asked = {pair.user: prompts[pair.user] for pair in pairs}
        call = _Call(lm_folder, reference_folder, asked, tuple(pairs), config, out, seed, scratch)
        num_shown = len(row_set.rows) * config.epochs
        run_in_processes(call, config.processes, TASK, num_shown, progress)
        return read_trained(out, inputs)

    from recloop.training.trainer import Job, run_job

    job = Job(TASK, lm_folder, out, scratch, inputs, config, seed)

    def make_trainer(policy: Policy) -> DPOTrainer:
        return _make_trainer(job, policy, reference_folder, row_set, config)

    return run_job(job, row_set, make_trainer, LOG_NAMES, progress)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call of `train_dpo` that can be sent to another process."""

    lm_folder: Path
    reference_folder: Path
    prompts: Mapping[int, Prompt]
    pairs: Sequence[Pair]
    config: DpoConfig
    out: Path
    seed: int
    scratch: Path | None

    def __call__(self, progress: Progress) -> TrainedModel:
        return train_dpo(
            self.lm_folder,
            self.reference_folder,
            self.prompts,
            self.pairs,
            self.config,
            self.out,
            self.seed,
            progress,
            self.scratch,
        )


def _make_trainer(
    job: Job, policy: Policy, reference_folder: Path, row_set: VariantSet, config: DpoConfig
) -> DPOTrainer:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    from recloop.training.shared_prompt import SHARING_TYPES, share_prompts
    from recloop.training.trainer import load_model, trainer_arguments, training_data

    uses_lora = policy.adapter is not None
    # Without its adapter such a policy is the reference model already.
    is_own_reference = uses_lora and base_folder_of(job.lm_folder).resolve() == reference_folder.resolve()
    reference_lm = (
        None
        if is_own_reference
        else load_model(reference_folder, uses_lora=uses_lora, load_in_4bit=config.load_in_4bit)
    )
    tokenizer = load_tokenizer(job.lm_folder)
    trainer = DPOTrainer(
        model=policy.model,
        ref_model=reference_lm,
        args=DPOConfig(
            **trainer_arguments(job, config.passes_of_each(len(row_set.rows)), uses_lora=uses_lora),
            beta=config.beta,
            **_loss_of(config),
        ),
        train_dataset=training_data(job, row_set, _conversation, tokenizer),
        processing_class=tokenizer,
        peft_config=policy.adapter,
    )
    if reference_lm is not None and not uses_lora and policy.model.config.model_type in SHARING_TYPES:
        share_prompts(policy.model)
        share_prompts(reference_lm)
    return trainer


def _loss_of(config: DpoConfig) -> dict[str, Any]:
    """TRL's names for DPO's loss and, where it has a weight, the likelihood of what was chosen."""
    if not config.sft_weight:
        return {"loss_type": ["sigmoid"]}
    return {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, config.sft_weight]}


def _conversation(row: Row, tokenizer: Any) -> dict[str, Any]:
    return {
        "prompt": messages_of(row.prompt, tokenizer),
        "chosen": reply_of(row.pair.chosen),
        "rejected": reply_of(row.pair.rejected),
    }
