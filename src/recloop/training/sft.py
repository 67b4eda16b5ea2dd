"""Best-of-N supervised fine-training: imitate each user's best completion, on the budget that DPO gets.

The control that knows which completion was best but not which was worst. Source: ours, through TRL 1.16.0's
SFTTrainer with the loss on the reply alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recloop.llm.chat import load_tokenizer, messages_of
from recloop.progress import SILENT, Progress
from recloop.records import Pair, Prompt
from recloop.rewards.preference_pairs import best_of_n
from recloop.training.dataset import Row, VariantSet, reply_of, select_variants
from recloop.training.result import TrainedModel, TrainingBudget, digest_inputs, read_trained

if TYPE_CHECKING:
    from trl.trainer.sft_trainer import SFTTrainer

    from recloop.training.trainer import Job, Policy

LOG_NAMES = {
    "step": "step",
    "loss": "loss",
    "lr": "learning_rate",
    "grad_norm": "grad_norm",
    "entropy": "entropy",
    "accuracy": "mean_token_accuracy",
}


class SftConfig(TrainingBudget):
    """How the best completions train a language model."""


def train_sft(
    lm_folder: Path,
    prompts: Mapping[int, Prompt],
    pairs: Sequence[Pair],
    config: SftConfig,
    out: Path,
    seed: int,
    progress: Progress = SILENT,
    scratch: Path | None = None,
) -> TrainedModel:
    """Fine-train the model in `lm_folder` on the best completion of every user with a pair; write it to `out`.

    Resumes and returns like `train_dpo`, and takes the same arguments but for the reference model.

    Raises:
        DataError, SettingError, ContractError, TrainingError: see `select_variants`; a loss not finite.
        RunError: `out` or `scratch` belongs to another training run.
    """
    lm_folder, out = Path(lm_folder), Path(out)
    inputs = digest_inputs({"lm": lm_folder}, prompts, pairs, config, seed)
    if out.exists():
        return read_trained(out, inputs)
    row_set = select_variants(lm_folder, prompts, best_of_n(pairs), config, seed)

    from recloop.training.trainer import Job, run_job

    job = Job("fine-train on the best completions", lm_folder, out, scratch, inputs, config, seed)

    def make_trainer(policy: Policy) -> SFTTrainer:
        return _make_trainer(job, policy, row_set)

    return run_job(job, row_set, make_trainer, LOG_NAMES, progress)


def _make_trainer(job: Job, policy: Policy, row_set: VariantSet) -> SFTTrainer:
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from recloop.training.shared_prompt import SHARING_TYPES, share_prompts
    from recloop.training.trainer import trainer_arguments, training_data

    uses_lora = policy.adapter is not None
    tokenizer = load_tokenizer(job.lm_folder)
    trainer = SFTTrainer(
        model=policy.model,
        args=SFTConfig(
            **trainer_arguments(job, job.budget.passes_per_step(len(row_set.rows)), uses_lora=uses_lora),
            completion_only_loss=True,
        ),
        train_dataset=training_data(job, row_set, _conversation, tokenizer),
        processing_class=tokenizer,
        peft_config=policy.adapter,
    )
    if not uses_lora and policy.model.config.model_type in SHARING_TYPES:
        share_prompts(policy.model)
    return trainer


def _conversation(row: Row, tokenizer: Any) -> dict[str, Any]:
    return {"prompt": messages_of(row.prompt, tokenizer), "completion": reply_of(row.pair.chosen)}
