"""DPO4Rec (RLRF4Rec): the recommender's own metric with a text, user by user, trains the model that writes it.

`dpo4rec` is Algorithm 1 of the paper with the measurement around it. The steps it calls live in the modules beside this
one. Each writes into the run folder once and is read back from there ever after, so that a run that was killed goes on
where it was and ends where it would have ended.

Source: arXiv 2410.05939. Deviations: the reward model and the evaluators that report are different models; users whose
lists give rewards and users who report are disjoint; every variant of the table has an evaluator of its own.
"""

from __future__ import annotations

from recloop.evaluation.report import REPORT_STEP
from recloop.methods.dpo4rec import evaluate, reward
from recloop.methods.dpo4rec.ablations import SAMPLE_MATCHED
from recloop.methods.dpo4rec.compare import EVALUATE, compare_variants
from recloop.methods.dpo4rec.data import PREPARE, Task, prepare
from recloop.methods.dpo4rec.evaluate import Reading, evaluate_each, fit_reward_model, score_reward_model
from recloop.methods.dpo4rec.generate import (
    ENCODE,
    SAMPLE,
    SAMPLE_UNTUNED,
    check_texts,
    encode_user_texts,
    sample_user_texts,
)
from recloop.methods.dpo4rec.names import TRAINED, Scored, Trained, variant_after_rounds
from recloop.methods.dpo4rec.reinforce import train_grpo_round
from recloop.methods.dpo4rec.report import report_run
from recloop.methods.dpo4rec.reward import pair_completions, reward_by_function, reward_user_texts
from recloop.methods.dpo4rec.train import TRAIN, train_on_pairs
from recloop.methods.dpo4rec.variants import evaluate_variants
from recloop.methods.preflight import PREFLIGHT
from recloop.methods.study import Study
from recloop.records import Pair

STEPS = (
    PREPARE, PREFLIGHT, SAMPLE_UNTUNED, SAMPLE, SAMPLE_MATCHED, ENCODE, evaluate.FIT_REWARD_MODEL, reward.REWARD_STEP,
    reward.PAIRS_STEP, TRAIN, evaluate.FIT_EVALUATOR, evaluate.SCORE, EVALUATE, REPORT_STEP,
)  # fmt: skip


def dpo4rec(study: Study) -> None:
    """Algorithm 1 for every seed, then the table that says whether it helped."""
    task = prepare(study)  # train, reward, valid and test users, disjoint; their lists and prompts
    scored: list[Scored] = []
    if study.config.uses_lm:
        check_texts(study, task)  # before anything is paid
    for seed in study.config.seeds:
        scored += run_seed(study, task, seed) if study.config.uses_lm else evaluate_variants(study, task, seed)
    report_run(study, task, compare_variants(study, task, scored))


def run_seed(study: Study, task: Task, seed: int) -> list[Scored]:
    """Algorithm 1 with one seed, and every variant it is compared with."""
    rounds, how = study.config.rounds, study.config.train
    lm = reference_lm = study.first_lm  # the reference of every round's DPO
    reward_model: tuple[str, ...] = ()
    taught: list[tuple[Pair, ...]] = []
    scored: list[Scored] = []
    for r in range(rounds + 1):  # the last pass only evaluates
        texts = sample_user_texts(study, task, lm, seed, with_rewards=r < rounds and how != "grpo")
        vectors = encode_user_texts(study, texts, seed)
        reward_model = reward_model or fit_reward_model(study, task, vectors, seed)  # on train users; then frozen
        label = variant_after_rounds(TRAINED, r + 1, rounds)
        if r < rounds and how == "grpo":
            lm = train_grpo_round(study, task, lm, reference_lm, reward_model, seed, label)
        elif r < rounds:
            if study.own.reward is None and study.config.reward.by == "reranker":
                rewards = reward_user_texts(study, task, reward_model, texts, vectors, seed, r)  # of reward users
            else:
                rewards = reward_by_function(study, task, reward_model, texts, seed, r)
            taught.append(pair_completions(study, task, lm, texts, rewards, seed))
            lm = train_on_pairs(study, task.prompts, lm, reference_lm, taught[-1], seed, label)
        for rows in evaluate_each(study, task, seed, [Reading(texts.variant, vectors)]):  # fresh ones, on test users
            scored += rows
        scored += score_reward_model(study, task, reward_model, vectors, seed, texts.variant)
        if r == rounds:
            trained = Trained(seed, reward_model, reference_lm, rounds, taught, texts, vectors)
            scored += evaluate_variants(study, task, seed, trained)
    return scored
