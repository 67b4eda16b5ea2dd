"""Stage 3 of DPO4Rec by GRPO: reward users' completions are rewarded as they are written, by the same rewards.

Source: reinforcement of user texts by a recommender, as in Duet (arXiv 2604.13801) and BLUE (arXiv 2605.06981). The
rewards and the control are ours.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from recloop.llm.completion_text import first_sentences, tidy
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import reward_model_digest
from recloop.methods.dpo4rec.generate import UserTexts, sample_user_texts
from recloop.methods.dpo4rec.names import RANDOM_LABELS_OF, Trained, variant_after_rounds
from recloop.methods.dpo4rec.reward import completion_reward
from recloop.methods.dpo4rec.train import TRAIN
from recloop.methods.study import LmRef, Study, derived_seed
from recloop.records import Prompt
from recloop.rewards.advantages import AdvantageConfig, Penalty
from recloop.rewards.function import RewardFunction
from recloop.training.grpo import run_grpo
from recloop.training.grpo_config import AnswerReward, ScoredAnswer, Scorer
from recloop.training.result import TrainingRun

PLAIN = AdvantageConfig(penalty=Penalty.NONE)  # every token of a completion has the advantage of all of it


def train_grpo_round(
    study: Study, task: Task, lm: LmRef, reference_lm: LmRef, reward_model: Sequence[str], seed: int, label: str,
    *, is_control: bool = False,
) -> LmRef:  # fmt: skip
    """Train `lm` by GRPO on the rewards of what it writes about reward users. The result is called `label`.

    Args:
        reward_model: steps of the frozen reward model's fits.
        is_control: the rewards of a user's completions are dealt out among them by chance.
    """
    config = study.config
    reference = reference_lm if config.reference == "first" else lm
    inputs = {
        "models": [lm.digest, reference.digest],
        "grpo": config.grpo.model_dump(mode="json"),
        "rewarded": [config.reward.model_dump(mode="json"), config.completions.sentences],
        "prompts": task.digest,
        "reward": reward_model_digest(study, reward_model),
        "is_control": is_control,
        **study.encoder(),
        **{name: part for name, part in study.own.identities().items() if name == "reward"},
    }
    name = f"{label}.s{seed}"
    with study.step(TRAIN, name, inputs, f"lm/{name}") as step:
        if not step.is_done:
            step.scratch.mkdir(parents=True, exist_ok=True)
            shuffle_seed = derived_seed(seed, "shuffled rewards") if is_control else None
            reward = completion_reward(study, task, reward_model)
            prompts = prompts_to_reward(study, task, seed)
            run = TrainingRun(
                lm.folder,
                step.scratch / "model",
                derived_seed(seed, "tune"),
                reference.folder,
                step.scratch / "checkpoints",
                study.progress,
            )
            score = scorer(reward, prompts, task.log.users["user_id"].to_list(), config.completions.sentences)
            asked = [replace(prompt, user=number) for number, prompt in enumerate(prompts)] * config.grpo.epochs
            answers = AnswerReward(score, json.dumps(inputs, sort_keys=True, default=str), PLAIN, shuffle_seed)
            done = run_grpo(run, asked, answers, config.grpo)
            shutil.copytree(done.trained.folder, step.folder, dirs_exist_ok=True)
            step.log(*({"lm": label, "seed": seed, **row} for row in done.trained.log))
            counts = {"completions": len(done.answers), "prompts_left_over": done.trained.num_thinned}
            step.note(**{f"grpo_{what}_{name}": num for what, num in counts.items()})
    return LmRef(label, study.run.folder(step.name), study.run.digest(step.name))


def shuffled_reward_texts(study: Study, task: Task, trained: Trained) -> UserTexts:
    """Texts of a model reinforced by the same rewards, dealt out among a user's completions by chance."""
    lm = reference_lm = trained.reference_lm
    for r in range(1, trained.rounds + 1):
        label = variant_after_rounds(RANDOM_LABELS_OF["grpo"], r, trained.rounds)
        model = trained.reward_model
        lm = train_grpo_round(study, task, lm, reference_lm, model, trained.seed, label, is_control=True)
    return sample_user_texts(study, task, lm, trained.seed)


def prompts_to_reward(study: Study, task: Task, seed: int) -> list[Prompt]:
    """The prompts of reward users with a positive, in random order, at most `grpo.max_pairs`."""
    lists = task.lists.reward
    has_positive_B = (lists.is_item_BL & (lists.labels_BL > 0)).any(axis=1)
    users = np.random.default_rng(derived_seed(seed, "order")).permutation(np.unique(lists.user_B[has_positive_B]))
    return [task.prompts[user] for user in users[: study.config.grpo.max_pairs].tolist()]


def scorer(reward: RewardFunction, prompts: Sequence[Prompt], user_ids: Sequence[Any], room: int | None) -> Scorer:
    """The reward of one completion of a numbered prompt, read as all completions are: tidied and cut to `room`."""

    def score(number: int, raw: str, is_finished: bool) -> ScoredAnswer:  # noqa: ARG001
        text = tidy(raw)[0]
        text = text if room is None else first_sentences(text, room)
        prompt = prompts[number]
        value = float(np.asarray(reward([prompt], [[text]], users=[user_ids[prompt.user]]))[0, 0])
        return ScoredAnswer(value, value, (), {"words": float(len(text.split()))})

    return score
