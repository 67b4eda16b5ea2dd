"""Who chooses a hint for each test session: the PPO policy, its simple baselines, and the bounds.

Axis letters: ``S`` sessions, ``H`` hints, the empty one first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from recloop.data.sessions import Session
from recloop.evaluation.per_user_scores import VariantScores
from recloop.evaluation.report_sections import VariantKind, VariantLabel
from recloop.evaluation.session_scores import variant_from_ranks
from recloop.experiment.run_folder import Stage
from recloop.methods.context import derived_seed
from recloop.methods.re2llm.answers import Answers, States
from recloop.methods.re2llm.data import Questions, Study
from recloop.methods.re2llm.hint_base import HintBase
from recloop.prompts.title_match import normalised, words_of
from recloop.rerankers.sasrec import sasrec_ranks
from recloop.rerankers.session_baselines import item_knn_ranks, popularity_ranks
from recloop.training.hint_baselines import (
    always_empty,
    best_single,
    lin_ucb,
    nearest_neighbours,
    random_hints,
    supervised,
)
from recloop.training.hint_policy import HintPolicy, learn_policy, load_policy, save_policy, standardise

POLICY, CHOICES, RANKED, ROWS = "policy.safetensors", "choices.json", "sasrec.json", "rows.parquet"
POPULARITY, ITEM_KNN, SASREC = "popularity", "item_knn", "sasrec"
NO_HINT, RANDOM, SINGLE, UCB, NEIGHBOURS, SUPERVISED, PPO, KNOWN, BEST = (
    "no_hint", "random_hint", "best_single", "lin_ucb", "neighbours", "supervised", "ppo", "known_hint",
    "best_hint",
)  # fmt: skip
WORDS = {
    POPULARITY: VariantLabel(
        "Popularity", "Candidates by how often the training sessions hold them.", VariantKind.WITHOUT_LM
    ),
    ITEM_KNN: VariantLabel(
        "Item kNN",
        "Candidates by the cosine of their training sessions with those of the items shown.",
        VariantKind.WITHOUT_LM,
    ),
    SASREC: VariantLabel("SASRec", "Self-attention over ids, from the same few sessions.", VariantKind.WITHOUT_LM),
    NO_HINT: VariantLabel(
        "No hint", "The language model as it is; also the policy that never gives one.", VariantKind.CONTROL
    ),
    RANDOM: VariantLabel("Random hint", "Any hint of the base, by chance.", VariantKind.CONTROL),
    SINGLE: VariantLabel(
        "Best single hint", "The hint that earned most in the training sessions, for all.", VariantKind.CONTROL
    ),
    UCB: VariantLabel("LinUCB", "A linear bandit that met training sessions one by one.", VariantKind.CONTROL),
    NEIGHBOURS: VariantLabel(
        "Nearest sessions", "The hint that earned most in the nearest training sessions.", VariantKind.CONTROL
    ),
    SUPERVISED: VariantLabel(
        "Supervised", "Ridge regression on the training rewards of all hints, then the best.", VariantKind.CONTROL
    ),
    PPO: VariantLabel("Re2LLM (PPO)", "The policy reads the session's vector and chooses a hint.", VariantKind.METHOD),
    KNOWN: VariantLabel(
        "Known hint",
        "The hint that names the attribute which decides the session: only a simulated data knows it.",
        VariantKind.BOUND,
    ),
    BEST: VariantLabel(
        "Best hint in hindsight",
        "Chosen by the very answer it is scored with: no policy can reach it, chance flatters it.",
        VariantKind.BOUND,
    ),
}  # fmt: skip
CONTRASTS = (
    *(
        (PPO, baseline)
        for baseline in (NO_HINT, SINGLE, RANDOM, NEIGHBOURS, SUPERVISED, UCB, SASREC, ITEM_KNN, POPULARITY)
    ),
    (SINGLE, RANDOM),
    (SINGLE, NO_HINT),
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The hint of every test session, by row and seed.

    sasrec: the answer's rank in every test session by the self-attentive baseline, by seed.
    policies: the stage of each seed's policy.
    """

    hints: Mapping[str, Mapping[int, np.ndarray]]
    sasrec: Mapping[int, np.ndarray]
    policies: Mapping[int, str]


def choose_hints(study: Study, questions: Questions, answers: Answers, states: States, base: HintBase) -> Chosen:
    """Fit the policy and every baseline on the training sessions; choose for the test sessions."""
    by_row: dict[str, dict[int, np.ndarray]] = {}
    sasrec: dict[int, np.ndarray] = {}
    policies: dict[int, str] = {}
    for seed in study.config.seeds:
        inputs = {"answers": answers.digest, "states": states.digest}
        with study.stage("train", f"s{seed}", inputs) as stage:
            if not stage.is_done:
                choices = fit_all(study, questions, answers, states, seed, stage)
                text = json.dumps({name: hints.tolist() for name, hints in choices.items()})
                (stage.folder / CHOICES).write_text(text + "\n", encoding="utf-8")
                ranks = sasrec_ranks(questions.task, study.config.sasrec, derived_seed(seed, "sasrec"))
                (stage.folder / RANKED).write_text(json.dumps(ranks.tolist()) + "\n", encoding="utf-8")
        folder = study.run.folder(stage.name)
        for name, hints in json.loads((folder / CHOICES).read_text(encoding="utf-8")).items():
            by_row.setdefault(name, {})[seed] = np.array(hints, dtype=np.int64)
        sasrec[seed] = np.array(json.loads((folder / RANKED).read_text(encoding="utf-8")), dtype=np.int64)
        policies[seed] = stage.name
    for name, hints in bounds(questions, answers, base, study.config.reward).items():
        by_row[name] = dict.fromkeys(study.config.seeds, hints)
    return Chosen(by_row, sasrec, policies)


def fit_all(
    study: Study, questions: Questions, answers: Answers, states: States, seed: int, stage: Stage
) -> dict[str, np.ndarray]:
    """One seed: the policy, kept in the stage's folder, and the baselines; each one's test choices."""
    config, num = study.config, len(questions.test)
    rewards_SH = answers.rewards(config.reward)[questions.train.start : questions.train.stop]
    train_SD = states.vectors_SD[questions.train.start : questions.train.stop]
    test_SD = states.vectors_SD[questions.test.start : questions.test.stop]
    mean_D, scale_D = standardise(train_SD)
    train_z, test_z = (train_SD - mean_D) / scale_D, (test_SD - mean_D) / scale_D
    if rewards_SH.shape[1] == 1:  # no hint was found: there is nothing to choose
        return dict.fromkeys((NO_HINT, RANDOM, SINGLE, NEIGHBOURS, SUPERVISED, UCB, PPO), always_empty(num))
    with study.progress.stage(f"learn to choose, seed {seed}", config.policy.steps, "episodes") as step:
        policy, points = learn_policy(train_SD, rewards_SH, config.policy, derived_seed(seed, "agent"), step)
    save_policy(stage.folder / POLICY, policy)
    stage.log(*({"seed": seed, **asdict(point)} for point in points))
    baselines = config.baselines
    return {
        NO_HINT: always_empty(num),
        RANDOM: random_hints(num, rewards_SH.shape[1], derived_seed(seed, "random hint")),
        SINGLE: best_single(rewards_SH, num),
        NEIGHBOURS: nearest_neighbours(train_z, rewards_SH, test_z, baselines.neighbours),
        SUPERVISED: supervised(train_z, rewards_SH, test_z),
        UCB: lin_ucb(train_z, rewards_SH, test_z, baselines.steps, baselines.alpha, derived_seed(seed, "lin_ucb")),
        PPO: policy.choose(test_SD),
    }


def bounds(questions: Questions, answers: Answers, base: HintBase, metric: str) -> dict[str, np.ndarray]:
    """The best hint in hindsight and, in a simulated data, the known one."""
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


def score_rows(study: Study, questions: Questions, answers: Answers, chosen: Chosen) -> list[VariantScores]:
    """Every row of the table on the test sessions, in the order they are shown."""
    task, metrics, seeds = questions.task, study.config.metrics, study.config.seeds
    user_S = np.array([session.user for session in task.test], dtype=np.int64)
    ranks_SH = answers.ranks_SH[questions.test.start : questions.test.stop]
    ranks: dict[str, dict[int, np.ndarray]] = {
        POPULARITY: dict.fromkeys(seeds, popularity_ranks(task)),
        ITEM_KNN: dict.fromkeys(seeds, item_knn_ranks(task)),
        SASREC: dict(chosen.sasrec),
    }
    for name in WORDS:
        if name in chosen.hints:
            by_seed = chosen.hints[name].items()
            ranks[name] = {seed: ranks_SH[np.arange(len(hints)), hints] for seed, hints in by_seed}
    return [variant_from_ranks(name, by_seed, user_S, metrics) for name, by_seed in ranks.items()]


def policy_of(study: Study, seed: int) -> HintPolicy:
    """The learnt policy of one seed."""
    return load_policy(study.run.folder(f"train.s{seed}") / POLICY)
