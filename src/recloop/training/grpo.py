"""Group relative policy optimisation, with an advantage for every token.

Source: GRPO (arXiv 2402.03300), through TRL 1.16.0's GRPOTrainer; ReRec (arXiv 2604.07851). Ours: an epoch is one
training run, so that the next epoch's requests can be chosen by this one's rewards. An epoch that gets the moments of
the one before goes on as if they were one run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from recloop.errors import RunError, SettingError
from recloop.files import sha256_of_file, sha256_of_folder
from recloop.records import Prompt
from recloop.training.dataset import require_short
from recloop.training.grpo_config import ANSWERS, MOMENTS, AnswerReward, EpochShare, GrpoConfig
from recloop.training.processes import num_processes
from recloop.training.result import TrainedModel, TrainingRun, read_trained

LOG_NAMES = {
    "reward": "reward",
    "reward_std": "reward_std",
    "tied_groups": "frac_reward_zero_std",
    "answer_tokens": "completions/mean_length",
    "clipped": "clip_ratio/region_mean",
    "penalised_tokens": "penalised_tokens",
    "side_share": "side_share",
}


@dataclass(frozen=True, slots=True)
class GrpoResult:
    """A trained model, and a row per answer: ``number``, ``reward`` and the terms.

    moments: file of Adam's moments after the last step, for the next epoch.
    """

    trained: TrainedModel
    answers: tuple[Mapping[str, float], ...]
    moments: Path


def run_grpo(
    run: TrainingRun,
    prompts: Sequence[Prompt],
    reward: AnswerReward,
    config: GrpoConfig,
    epoch: EpochShare = EpochShare(),  # noqa: B008 - frozen
) -> GrpoResult:
    """The model of `run` trained for one epoch over `prompts`, in their order.

    Killed at any moment and called again with the same arguments it goes on from its last checkpoint and gives the
    same weights, log and answers. Its checkpoints and answers are in `run.work`, so the run needs a `scratch`.
    With LoRA the reference model is the adapter's base in any case.

    Args:
        prompts: numbered by their `user`; those that fill no optimiser step are left out.

    Raises:
        SettingError: a prompt is too long, there are fewer than one step takes, or several processes.
        TrainingError, RunError: see `recloop.training.trainer.run_job`.
    """
    if num_processes() > 1:
        raise SettingError(f"GRPO runs in one process, got {num_processes()}; run it without accelerate launch")
    asked: dict[str, object] = {
        "prompts": [asdict(prompt) for prompt in prompts],
        "score": reward.digest,
        "advantages": reward.advantages.model_dump(mode="json"),
    }
    if reward.shuffle_seed is not None:
        asked["shuffle_seed"] = reward.shuffle_seed
    inputs = {
        "models": {"lm": sha256_of_folder(run.lm_folder), "reference model": sha256_of_folder(run.reference)},
        "rows": hashlib.sha256(json.dumps(asked).encode()).hexdigest(),
        "config": config.model_dump(mode="json"),
        "passed": [epoch.start, epoch.end],
        "moments": None if epoch.moments is None else sha256_of_file(epoch.moments),
        "seed": run.seed,
    }
    is_done = run.out.exists()
    trained = read_trained(run.out, inputs) if is_done else _train(run, prompts, reward, config, epoch, inputs)
    answers, left = run.work / ANSWERS, run.work / MOMENTS
    for file in (answers, left):
        if not file.is_file():
            raise RunError(f"{run.out} was trained and {file} is gone; remove the model and train again")
    return GrpoResult(trained, tuple(json.loads(answers.read_text(encoding="utf-8"))), left)


def _train(
    run: TrainingRun,
    prompts: Sequence[Prompt],
    reward: AnswerReward,
    config: GrpoConfig,
    epoch: EpochShare,
    inputs: Mapping[str, object],
) -> TrainedModel:
    num_asked = len(prompts) // config.requests_per_step * config.requests_per_step
    if not num_asked:
        raise SettingError(
            f"an optimiser step takes {config.requests_per_step} requests, got {len(prompts)}; lower batch_size or "
            f"gradient_accumulation_steps, or make more requests"
        )
    require_short(run.lm_folder, prompts, config.max_prompt_tokens)

    from recloop.training.grpo_trainer import make_trainer
    from recloop.training.trainer import TrainingJob, run_job

    first_rate = config.learning_rate * (1 - epoch.start)
    one_epoch = config.model_copy(update={"epochs": 1, "learning_rate": first_rate})
    counts = (num_asked * config.num_generations, len(prompts) - num_asked, 0)
    job = TrainingJob("train by GRPO", run, inputs, one_epoch, counts)
    names = LOG_NAMES | ({"kl": "kl"} if config.beta else {})  # measured only where it counts
    return run_job(job, partial(make_trainer, job, prompts[:num_asked], reward, config, epoch), names)
