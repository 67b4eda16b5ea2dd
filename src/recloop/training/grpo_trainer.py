"""TRL's GRPO trainer with an advantage for every token, and answers that survive a kill.

A model of the Llama family whose weights are all trained reads each prompt once for all its answers, in sampling and
in the loss. Other models do as TRL does.
"""

# TRL and transformers are not fully typed.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerState, TrainingArguments
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from recloop.files import atomic_write_json
from recloop.llm.chat import messages_of
from recloop.llm.decoding import SharedPrefix, decode
from recloop.llm.local import end_tokens_of
from recloop.records import Prompt
from recloop.rewards.advantages import AdvantageConfig, token_advantages, tokens_in
from recloop.training import grpo_config
from recloop.training.grpo_config import ANSWERS, MOMENTS, AnswerReward, EpochShare, GrpoConfig
from recloop.training.shared_prompt import share_prompts
from recloop.training.trainer import Policy, TrainingJob, load_model, trainer_arguments, whole_model


class AnswerScorer(TrainerCallback):
    """Rewards answers; keeps the rewards beside every checkpoint, to go on from there, and at the end, with moments.

    rows: of all answers of the training run. last: of the current batch, in its order.
    """

    def __init__(
        self, reward: AnswerReward, num_generations: int, tokenizer: Any, end_tokens: Sequence[int], work: Path
    ) -> None:
        self.rows: list[dict[str, float]] = []
        self.last: list[grpo_config.ScoredAnswer] = []
        self._reward, self._num_generations = reward, num_generations
        self._tokenizer, self._end_tokens, self._work = tokenizer, end_tokens, work

    def reward(self, *, completion_ids: list[list[int]], number: list[int], log_metric: Any, **_: Any) -> list[float]:
        """A reward function as TRL calls it. An answer with an end token is finished."""
        texts = self._tokenizer.batch_decode(completion_ids, skip_special_tokens=True)
        is_finished = [bool(ids) and ids[-1] in self._end_tokens for ids in completion_ids]
        self.last = [self._reward.score(*one) for one in zip(number, texts, is_finished, strict=True)]
        if self._reward.shuffle_seed is not None:
            rng = np.random.default_rng([self._reward.shuffle_seed, len(self.rows)])  # the same after a kill
            self.last = shuffled_rewards(self.last, self._num_generations, rng)
        for one, found in zip(number, self.last, strict=True):
            self.rows.append({"number": one, "reward": found.reward, **found.terms})
            for name, value in found.terms.items():
                log_metric(f"terms/{name}", value)
        return [found.reward for found in self.last]

    def on_train_begin(self, _args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        if state.global_step:
            file = self._work / f"checkpoint-{state.global_step}" / ANSWERS
            self.rows = json.loads(file.read_text(encoding="utf-8"))

    def on_save(self, _args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        atomic_write_json(self._work / f"checkpoint-{state.global_step}" / ANSWERS, self.rows)

    def on_train_end(self, *_: Any, optimizer: Any, **__: Any) -> None:
        atomic_write_json(self._work / ANSWERS, self.rows)
        state: dict[int, dict[str, torch.Tensor]] = optimizer.state_dict()["state"]
        moments = {f"{n}.{name}": x.contiguous() for n, found in state.items() for name, x in found.items()}
        save_file(moments, self._work / MOMENTS)


def shuffled_rewards(
    answers: Sequence[grpo_config.ScoredAnswer], group: int, rng: np.random.Generator
) -> list[grpo_config.ScoredAnswer]:
    """The answers, each with the reward of one of the `group` answers that stand beside it."""
    dealt: list[grpo_config.ScoredAnswer] = []
    for first in range(0, len(answers), group):
        own = answers[first : first + group]
        for one, place in zip(own, rng.permutation(len(own)), strict=True):
            dealt.append(replace(one, reward=own[place].reward, bare_reward=own[place].bare_reward))
    return dealt


class TokenGrpoTrainer(GRPOTrainer):
    """TRL's GRPO with `token_advantages` in place of one advantage per answer.

    Args:
        scorer: whose `reward` is the reward function of the same trainer.
        config: as the user gave it, for all epochs.
        shares_prompts: whether a prompt is read once for all its answers, which stand side by side.
    """

    optimizer: Any
    lr_scheduler: Any

    def __init__(
        self,
        *,
        scorer: AnswerScorer,
        advantages: AdvantageConfig,
        config: GrpoConfig,
        epoch: EpochShare,
        shares_prompts: bool,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._scorer, self._advantages, self._config, self._epoch = scorer, advantages, config, epoch
        self._shares_prompts = shares_prompts
        if shares_prompts:
            for model in (self.model, self.ref_model):
                if model is not None:
                    share_prompts(whole_model(self.accelerator.unwrap_model(model)), self.temperature)

    def create_optimizer(self, *arguments: Any, **named: Any) -> torch.optim.Optimizer:
        """With the moments of the epoch before; its learning rates are not taken over."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*arguments, **named)
        if is_new and self._epoch.moments is not None:
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in load_file(self._epoch.moments).items():
                number, _, name = key.partition(".")
                state.setdefault(int(number), {})[name] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """`rate_share` in place of transformers' schedule, whose first step has a learning rate of 0."""
        if self.lr_scheduler is None:
            epoch, rate = self._epoch, self._config.learning_rate
            last = rate * (1 - epoch.end) / (rate * (1 - epoch.start))
            warmup_steps = 0 if epoch.moments else self._config.warmup_steps
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                cast(torch.optim.Optimizer, optimizer or self.optimizer),
                lambda step: grpo_config.rate_share(step, num_training_steps, warmup_steps, last),
            )
            self._created_lr_scheduler = True  # so that a second training makes its own
        return self.lr_scheduler

    def _generate_single_turn(
        self, prompt_ids: list[list[int]], *arguments: Any, **named: Any
    ) -> tuple[list[list[int]], list[list[Any]] | None]:
        if not self._shares_prompts:
            return super()._generate_single_turn(prompt_ids, *arguments, **named)
        policy = whole_model(self.accelerator.unwrap_model(self.model_wrapped))
        group, max_tokens = self._config.num_generations, self._config.max_reply_tokens
        # TRL puts torch's generator back to where it was at a checkpoint.
        uniforms_BGTA = torch.rand((len(prompt_ids) // group, group, max_tokens, 1), dtype=torch.float64).numpy()
        with torch.no_grad():
            prefix = SharedPrefix(policy, prompt_ids[::group], group, max_tokens)
            ends = cast(list[int], self.eos_token_ids)
            answers_BG = decode(prefix, uniforms_BGTA, ends, self.temperature, top_p=1.0)
        flat = [answer for answers in answers_BG for answer in answers]
        return [[*answer.tokens, *([] if answer.end is None else [answer.end])] for answer in flat], None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        ids_BT, is_token_BT = output["completion_ids"], output["completion_mask"].bool()
        mask_BT = is_token_BT.cpu().numpy()
        is_wrong_BT = np.zeros(mask_BT.shape, dtype=bool)
        for row, one in enumerate(self._scorer.last):
            if one.wrong_spans:
                starts = token_starts(self.processing_class, ids_BT[row][is_token_BT[row]])
                is_wrong_BT[row, : len(starts)] = tokens_in(one.wrong_spans, starts)
        is_wrong_BT &= mask_BT
        found_BT = self._token_advantages([one.reward for one in self._scorer.last], is_wrong_BT, mask_BT)
        bare_BT = self._token_advantages([one.bare_reward for one in self._scorer.last], is_wrong_BT, mask_BT)
        size = np.abs(found_BT[mask_BT]).sum()
        share = np.abs((found_BT - bare_BT)[mask_BT]).sum() / size if size > 0 else 0.0
        self._metrics["train"]["side_share"].append(float(share))
        self._metrics["train"]["penalised_tokens"].append(float(is_wrong_BT.sum() / mask_BT.sum()))
        output["advantages"] = torch.from_numpy(found_BT).to(output["advantages"])
        return output

    def _token_advantages(self, rewards: list[float], is_wrong_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        size = self._config.num_generations
        groups = [slice(first, first + size) for first in range(0, len(rewards), size)]
        rewards_B = np.array(rewards)
        return np.concatenate(
            [token_advantages(rewards_B[g], is_wrong_BT[g], mask_BT[g], self._advantages) for g in groups]
        )

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """TRL's loss. Without a divergence, answers whose tokens all have advantage 0 are not read again.

        The loss is a sum over tokens, divided by a number that was counted before: it stays the same.
        """
        advantages_BT = inputs["advantages"]
        moves_B = (advantages_BT.reshape(len(advantages_BT), -1) != 0).any(dim=1)
        if self.beta == 0 and not moves_B.all():
            moves_B[0] |= not moves_B.any()  # one row at least, or there is nothing to take a gradient of
            inputs = {
                name: value[moves_B] if torch.is_tensor(value) and value.shape[:1] == moves_B.shape else value
                for name, value in inputs.items()
            }
        return super()._compute_loss(model, inputs)


def token_starts(tokenizer: Any, ids_T: torch.Tensor) -> np.ndarray:
    """Where each token begins in the decoded text; special tokens begin at its end."""
    ids = ids_T.tolist()
    return np.array([len(tokenizer.decode(ids[:t], skip_special_tokens=True)) for t in range(len(ids))])


def make_trainer(
    job: TrainingJob,
    prompts: Sequence[Prompt],
    reward: AnswerReward,
    config: GrpoConfig,
    epoch: EpochShare,
    policy: Policy,
) -> TokenGrpoTrainer:
    """The trainer of one epoch over `prompts`, in their order; `job.budget` is the epoch's, `config` of all epochs."""
    tokenizer = policy.tokenizer
    ends = end_tokens_of(policy.model, tokenizer)
    scorer = AnswerScorer(reward, config.num_generations, tokenizer, ends, job.run.work)
    tokenizer.padding_side = "left"
    arguments = trainer_arguments(job, policy)
    del arguments["max_length"]  # of no meaning here
    arguments |= {
        "per_device_train_batch_size": config.batch_size * config.num_generations,
        "gradient_accumulation_steps": config.passes_per_step(config.max_pairs),
        "shuffle_dataset": False,
        "num_generations": config.num_generations,
        "num_iterations": config.num_iterations,
        # TRL keeps no answers in a checkpoint: each is written where the next step samples new ones.
        "save_steps": math.ceil(config.save_steps / config.num_iterations) * config.num_iterations,
        "max_completion_length": config.max_reply_tokens,
        "temperature": config.temperature,
        "beta": config.beta,
        "epsilon": config.epsilon,
        "loss_type": "dapo",  # the mean over all tokens of a step, as ReRec
        "scale_rewards": "group",
    }
    asked = [{"prompt": messages_of(prompt, tokenizer), "number": prompt.user} for prompt in prompts]
    trainer = TokenGrpoTrainer(
        scorer=scorer,
        advantages=reward.advantages,
        config=config,
        epoch=epoch,
        shares_prompts=policy.shares_prompts,
        reward_funcs=scorer.reward,
        args=GRPOConfig(**arguments),
        train_dataset=Dataset.from_list(asked),
        callbacks=[scorer],
        **policy.for_trainer,
    )
    if trainer.ref_model is not None:
        reference: Any = trainer.accelerator.unwrap_model(trainer.ref_model).float()
        reference.load_state_dict(load_model(job.run.reference, uses_lora=False).state_dict())
    return trainer
