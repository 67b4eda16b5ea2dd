"""Group relative policy optimisation, with an advantage for every token.

The model answers each prompt several times; what an answer earns above the mean of its group, token by token,
moves the model, clipped and held near the reference.

Source: GRPO (arXiv 2402.03300), through TRL 1.16.0's GRPOTrainer; ReRec (arXiv 2604.07851). Ours: an epoch is
one training run, so that the next one's requests can be chosen by what this one earned. The reference is the
reference model in every epoch; an epoch that is given the moments of the one before goes on as if they were one run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recloop.errors import RunError, SettingError
from recloop.files import sha256_of_file, sha256_of_folder
from recloop.progress import SILENT, Progress
from recloop.records import Prompt
from recloop.rewards.advantages import AdvantageConfig
from recloop.training.dataset import PromptSet, count_prompt_tokens
from recloop.training.grpo_config import ANSWERS, MOMENTS, GrpoConfig, Scorer
from recloop.training.result import TrainedModel, read_trained

if TYPE_CHECKING:
    from recloop.training.grpo_trainer import TokenGrpoTrainer
    from recloop.training.trainer import Policy

LOG_NAMES = {
    "step": "step",
    "loss": "loss",
    "lr": "learning_rate",
    "grad_norm": "grad_norm",
    "entropy": "entropy",
    "reward": "reward",
    "reward_std": "reward_std",
    "tied_groups": "frac_reward_zero_std",
    "answer_tokens": "completions/mean_length",
    "clipped": "clip_ratio/region_mean",
    "penalised_tokens": "penalised_tokens",
    "side_share": "side_share",
}


@dataclass(frozen=True, slots=True)
class GrpoRun:
    """A trained model, and a row per answer: ``number``, ``reward`` and the terms.

    moments: file of Adam's moments after the last step, for the next epoch.
    """

    trained: TrainedModel
    answers: tuple[Mapping[str, float], ...]
    moments: Path


def train_grpo(
    lm_folder: Path,
    reference_folder: Path,
    prompts: Sequence[Prompt],
    score: Scorer,
    score_digest: str,
    config: GrpoConfig,
    advantages: AdvantageConfig,
    out: Path,
    seed: int,
    scratch: Path,
    progress: Progress = SILENT,
    passed: tuple[float, float] = (0.0, 1.0),
    moments: Path | None = None,
) -> GrpoRun:
    """One epoch over `prompts`, in their order; the trained model is written to `out`.

    Killed at any moment and called again with the same arguments it goes on from its last checkpoint and
    gives the same weights, log and answers.

    Args:
        lm_folder: what is trained.
        reference_folder: the reference of the divergence; with LoRA it is the adapter's base in any case.
        prompts: numbered by their `user`; those that fill no optimiser step are left out.
        score: what an answer earns.
        score_digest: says on what `score` depends.
        out: absent, or holding this very result.
        scratch: of checkpoints and answers; it stays.
        passed: shares of all epochs' requests before this epoch and after it; so far the learning rate is on
            its way to 0.
        moments: of the epoch before, to go on from without a new warmup; None for Adam as it begins.

    Raises:
        SettingError: a prompt is too long, or there are fewer than one step takes.
        TrainingError, RunError: see `recloop.training.trainer.run_job`.
    """
    asked = {
        "prompts": [asdict(prompt) for prompt in prompts],
        "score": score_digest,
        "advantages": advantages.model_dump(mode="json"),
    }
    inputs = {
        "models": {"lm": sha256_of_folder(lm_folder), "reference model": sha256_of_folder(reference_folder)},
        "rows": hashlib.sha256(json.dumps(asked).encode()).hexdigest(),
        "config": config.model_dump(mode="json"),
        "passed": list(passed),
        "moments": None if moments is None else sha256_of_file(moments),
        "seed": seed,
    }
    if not out.exists():
        trained = _train(
            lm_folder,
            reference_folder,
            prompts,
            score,
            config,
            advantages,
            out,
            seed,
            scratch,
            inputs,
            progress,
            passed,
            moments,
        )
    else:
        trained = read_trained(out, inputs)
    answers, left = scratch / ANSWERS, scratch / MOMENTS
    for file in (answers, left):
        if not file.is_file():
            raise RunError(f"{out} was trained and {file} is gone; remove the model and train again")
    return GrpoRun(trained, tuple(json.loads(answers.read_text(encoding="utf-8"))), left)


def _train(
    lm_folder: Path,
    reference_folder: Path,
    prompts: Sequence[Prompt],
    score: Scorer,
    config: GrpoConfig,
    advantages: AdvantageConfig,
    out: Path,
    seed: int,
    scratch: Path,
    inputs: Mapping[str, Any],
    progress: Progress,
    passed: tuple[float, float],
    moments: Path | None,
) -> TrainedModel:
    num_asked = len(prompts) // config.requests_per_step * config.requests_per_step
    if not num_asked:
        raise SettingError(
            f"an optimiser step takes {config.requests_per_step} requests, got {len(prompts)}; lower batch "
            f"or accumulation, or make more requests"
        )
    _check_lengths(lm_folder, prompts, config)

    from recloop.training.grpo_trainer import make_trainer
    from recloop.training.trainer import Job, run_job

    first_lr, last_lr = (config.lr * (1 - share) for share in passed)
    warmup = config.warmup if moments is None else 0
    one_epoch = config.model_copy(update={"epochs": 1, "lr": first_lr, "warmup": warmup})
    job = Job("train by GRPO", lm_folder, out, scratch, inputs, one_epoch, seed)
    rows = tuple(prompt for prompt in prompts[:num_asked] for _ in range(config.answers))

    def make(policy: Policy) -> TokenGrpoTrainer:
        return make_trainer(
            job, policy, reference_folder, prompts[:num_asked], score, one_epoch, advantages, last_lr, moments
        )

    return run_job(job, PromptSet(rows, len(prompts) - num_asked, 0), make, log_names(config), progress)


def log_names(config: GrpoConfig) -> dict[str, str]:
    """Our names of what is logged; the divergence is measured only where it counts."""
    return LOG_NAMES | ({"kl": "kl"} if config.beta else {})


def _check_lengths(lm_folder: Path, prompts: Sequence[Prompt], config: GrpoConfig) -> None:
    for prompt, num_tokens in zip(prompts, count_prompt_tokens(lm_folder, prompts), strict=True):
        if num_tokens > config.max_prompt_tokens:
            raise SettingError(
                f"a prompt may have {config.max_prompt_tokens} tokens with its chat template, got "
                f"{num_tokens} for request {prompt.user}; lower prompt.max_prompt_tokens or raise "
                f"grpo.max_prompt_tokens"
            )
