"""SFT on the best of N: imitate each user's best completion, on the budget that DPO gets.

The control that does not know which completion was worst. Source: ours, by TRL 1.16.0's SFTTrainer, loss on the reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recloop.llm.chat import messages_of
from recloop.progress import Progress, terminal_progress
from recloop.records import Pair, Prompt
from recloop.rewards.preference_pairs import best_of_n
from recloop.settings import validate
from recloop.training.dataset import Row, prompts_of, reply_of, select_rows
from recloop.training.result import TrainedModel, TrainingBudget, TrainingRun, digest_inputs, folder_of, read_trained

if TYPE_CHECKING:
    from trl.trainer.sft_trainer import SFTTrainer

    from recloop.llm.language_model import LanguageModel
    from recloop.rewards.preference_pairs import PairSet
    from recloop.training.trainer import Policy, TrainingJob


class SftConfig(TrainingBudget, frozen=True):
    """How the best completions train a language model."""


def train_sft(
    lm: LanguageModel | TrainedModel | str | Path,
    pairs: PairSet,
    *,
    out: str | Path,
    seed: int = 0,
    progress: Progress | None = None,
    **settings: Any,
) -> TrainedModel:
    """The language model fine-tuned on the chosen completion of every user with a pair.

    Arguments, resuming and errors are those of `train_dpo`; `settings` are fields of `SftConfig`.
    """
    run = TrainingRun(folder_of(lm), Path(out), seed, progress=progress or terminal_progress())
    return run_sft(run, prompts_of(pairs.require_some()), pairs.pairs, validate(SftConfig, settings))


def run_sft(run: TrainingRun, prompts: Mapping[int, Prompt], pairs: Sequence[Pair], config: SftConfig) -> TrainedModel:
    """The model of `run` fine-tuned on the best completion of every user with a pair.

    Resumes and returns like `run_dpo`, and raises the same errors.
    """
    inputs = digest_inputs({"lm": run.lm_folder}, prompts, pairs, config, run.seed)
    if run.out.exists():
        return read_trained(run.out, inputs)
    found = select_rows(run.lm_folder, prompts, best_of_n(pairs), config, run.seed)

    from recloop.training.trainer import TrainingJob, run_job

    job = TrainingJob("fine-tune on the best completions", run, inputs, config, found.counts)
    return run_job(job, partial(_make_trainer, job, found.rows), {"accuracy": "mean_token_accuracy"})


def _make_trainer(job: TrainingJob, rows: Sequence[Row], policy: Policy) -> SFTTrainer:
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from recloop.training.shared_prompt import share_prompts
    from recloop.training.trainer import trainer_arguments, training_data, whole_model

    trainer = SFTTrainer(
        args=SFTConfig(**trainer_arguments(job, policy), completion_only_loss=True),
        train_dataset=training_data(job, rows, _conversation, policy.tokenizer),
        **policy.for_trainer,
    )
    if policy.shares_prompts:
        share_prompts(whole_model(trainer.model))
    return trainer


def _conversation(row: Row, tokenizer: Any) -> dict[str, Any]:
    return {"prompt": messages_of(row.prompt, tokenizer), "completion": reply_of(row.pair.chosen)}
