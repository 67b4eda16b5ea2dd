"""Ways to choose a hint for each test session: the PPO policy, simple baselines, and the bounds.

Axis letters: ``S`` sessions, ``H`` hints, the empty one first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from recloop.data.sessions import Session
from recloop.evaluation.per_user_scores import VariantScores
from recloop.evaluation.score import chance_scores, variant_from_ranks
from recloop.experiment.run_folder import RunStep
from recloop.experiment.step import StepKind
from recloop.methods.re2llm.answers import Answers, States
from recloop.methods.re2llm.data import Questions
from recloop.methods.re2llm.hint_base import HintBase
from recloop.methods.study import Study, derived_seed
from recloop.prompts.title_match import normalised, words_of
from recloop.rerankers.session_baselines import ITEM_KNN, POPULARITY, SASREC, baseline_ranks
from recloop.training.hint_baselines import (
    always_empty,
    best_single,
    lin_ucb,
    nearest_neighbours,
    random_hints,
    supervised,
)
from recloop.training.hint_policy import learn_policy, save_policy, standardise

POLICY, CHOICES, RANKED = "policy.safetensors", "choices.json", "sasrec.json"
NEIGHBOURS_READ = 20  # training sessions that the nearest-neighbour choice reads
UCB_STEPS, UCB_ALPHA = 3_000, 1.0  # sessions LinUCB learns from; width of its bound, as in Li et al. 2010
NO_HINT, RANDOM, SINGLE, UCB, NEIGHBOURS, RIDGE, PPO, KNOWN, BEST = (
    "no_hint", "random_hint", "best_single", "lin_ucb", "neighbours", "ridge", "ppo", "known_hint", "best_hint"
)  # fmt: skip
TRAIN = StepKind("train", reads=("policy", "reward"))
CONTRASTS = (
    *((PPO, baseline) for baseline in (NO_HINT, SINGLE, RANDOM, NEIGHBOURS, RIDGE, UCB, SASREC, ITEM_KNN, POPULARITY)),
    (SINGLE, RANDOM),
    (SINGLE, NO_HINT),
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The hint of every test session, by variant and seed.

    sasrec: the answer's rank in every test session by the self-attentive baseline, by seed.
    policies: the step of each seed's policy.
    """

    hints: Mapping[str, Mapping[int, np.ndarray]]
    sasrec: Mapping[int, np.ndarray]
    policies: Mapping[int, str]


def choose_hints(study: Study, questions: Questions, answers: Answers, states: States, base: HintBase) -> Chosen:
    """Fit the policy and every baseline on the training sessions; choose for the test sessions."""
    from recloop.rerankers.sasrec import sasrec_ranks

    by_variant: dict[str, dict[int, np.ndarray]] = {}
    sasrec: dict[int, np.ndarray] = {}
    policies: dict[int, str] = {}
    for seed in study.config.seeds:
        inputs = {"answers": answers.digest, "states": states.digest}
        with study.step(TRAIN, f"s{seed}", inputs) as step:
            if not step.is_done:
                choices = fit_all(study, questions, answers, states, seed, step)
                text = json.dumps({name: hints.tolist() for name, hints in choices.items()})
                (step.folder / CHOICES).write_text(text + "\n", encoding="utf-8")
                ranks = sasrec_ranks(questions.task, derived_seed(seed, "sasrec"))
                (step.folder / RANKED).write_text(json.dumps(ranks.tolist()) + "\n", encoding="utf-8")
        folder = study.run.folder(step.name)
        for name, hints in json.loads((folder / CHOICES).read_text(encoding="utf-8")).items():
            by_variant.setdefault(name, {})[seed] = np.array(hints, dtype=np.int64)
        sasrec[seed] = np.array(json.loads((folder / RANKED).read_text(encoding="utf-8")), dtype=np.int64)
        policies[seed] = step.name
    for name, hints in bounds(questions, answers, base, study.config.reward).items():
        by_variant[name] = dict.fromkeys(study.config.seeds, hints)
    return Chosen(by_variant, sasrec, policies)


def fit_all(
    study: Study, questions: Questions, answers: Answers, states: States, seed: int, step: RunStep
) -> dict[str, np.ndarray]:
    """The test choices of one seed's policy, which is saved in the step's folder, and of every baseline."""
    config, num = study.config, len(questions.test)
    rewards_SH = answers.rewards(config.reward)[questions.train.start : questions.train.stop]
    train_SD = states.vectors_SD[questions.train.start : questions.train.stop]
    test_SD = states.vectors_SD[questions.test.start : questions.test.stop]
    mean_D, scale_D = standardise(train_SD)
    train_z, test_z = (train_SD - mean_D) / scale_D, (test_SD - mean_D) / scale_D
    if rewards_SH.shape[1] == 1:  # no hint was found: there is nothing to choose
        return dict.fromkeys((NO_HINT, RANDOM, SINGLE, NEIGHBOURS, RIDGE, UCB, PPO), always_empty(num))
    with study.progress.stage(f"learn to choose, seed {seed}", config.policy.steps, "episodes") as advance:
        policy, points = learn_policy(train_SD, rewards_SH, config.policy, derived_seed(seed, "agent"), advance)
    save_policy(step.folder / POLICY, policy)
    step.log(*({"seed": seed, **asdict(point)} for point in points))
    return {
        NO_HINT: always_empty(num),
        RANDOM: random_hints(num, rewards_SH.shape[1], derived_seed(seed, "random hint")),
        SINGLE: best_single(rewards_SH, num),
        NEIGHBOURS: nearest_neighbours(train_z, rewards_SH, test_z, NEIGHBOURS_READ),
        RIDGE: supervised(train_z, rewards_SH, test_z),
        UCB: lin_ucb(train_z, rewards_SH, test_z, UCB_STEPS, UCB_ALPHA, derived_seed(seed, "lin_ucb")),
        PPO: policy.choose(test_SD),
    }


def bounds(questions: Questions, answers: Answers, base: HintBase, metric: str) -> dict[str, np.ndarray]:
    """The best hint in hindsight and, in simulated data, the known one."""
    tested = slice(questions.test.start, questions.test.stop)
    found = {BEST: answers.rewards(metric)[tested].argmax(axis=1)}
    if all(session.attribute for session in questions.task.test):
        found[KNOWN] = known_hints(questions.task.test, base.texts)
    return found


def known_hints(sessions: Sequence[Session], hints: Sequence[str]) -> np.ndarray:
    """The first hint that names each session's attribute; no hint where none does."""
    words_H = [words_of(normalised(hint)) for hint in hints]
    first = {f: next((h for h, words in enumerate(words_H) if f in words), 0) for f in {s.attribute for s in sessions}}
    return np.array([first[session.attribute] for session in sessions], dtype=np.int64)


def score_choices(study: Study, questions: Questions, answers: Answers, chosen: Chosen) -> list[VariantScores]:
    """The scores of every variant on the test sessions."""
    task = questions.task
    user_S = np.array([session.user for session in task.test], dtype=np.int64)
    ranks_SH = answers.ranks_SH[questions.test.start : questions.test.stop]
    ranks = baseline_ranks(task, chosen.sasrec) | {
        name: {seed: ranks_SH[np.arange(len(hints)), hints] for seed, hints in by_seed.items()}
        for name, by_seed in chosen.hints.items()
    }
    metrics = study.config.metrics
    num_S = np.array([len(session.candidates) for session in task.test], dtype=np.int64)
    chance = chance_scores(num_S, study.config.seeds, user_S, metrics)
    return [chance, *(variant_from_ranks(name, by_seed, user_S, metrics) for name, by_seed in ranks.items())]
