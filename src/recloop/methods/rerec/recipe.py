"""ReRec: requests in words, answered by a language model that is reinforced by how good its pick was.

`rerec` is the paper's algorithm with the measurement around it. The steps it calls live in the modules
beside this one. Each writes into the run folder once and is read back from there ever after.

Source: arXiv 2604.07851. Deviations: a penalty that also counts at rewards of 0 and below; disjoint users for
supervision, reinforcement and report; `docs/sources.md` lists the others.
"""

from __future__ import annotations

from recloop.evaluation.report import REPORT_STEP
from recloop.methods.preflight import PREFLIGHT
from recloop.methods.rerec.config import variant_of
from recloop.methods.rerec.data import EMBED, PREPARE, RequestStudy, embed_items, prepare, prepare_elsewhere
from recloop.methods.rerec.next_item_eval import NEXT_BASELINES, SAMPLE_NEXT, cut_histories
from recloop.methods.rerec.readiness import check_answers
from recloop.methods.rerec.report import (
    ANSWER,
    EVALUATE,
    RETENTION,
    AnsweredTests,
    answer_tests,
    compare_answers,
    report_study,
)  # fmt: skip
from recloop.methods.rerec.train import REINFORCE, SUPERVISE, reinforce, supervise

STEPS = (
    PREPARE, PREFLIGHT, EMBED, SUPERVISE, REINFORCE, ANSWER, RETENTION, SAMPLE_NEXT, NEXT_BASELINES,
    EVALUATE, REPORT_STEP,
)  # fmt: skip


def rerec(study: RequestStudy) -> None:
    """For every seed: supervise, reinforce in every variant, answer the test requests; then the table."""
    config = study.config
    task = prepare(study)  # requests of train, reward, valid and test users; ground truth by the graph
    tests = [task.tests, *prepare_elsewhere(study)]  # the second: requests about other logs
    next_items = cut_histories(study, task)  # test users' histories, for a look beside the method
    check_answers(study, task)  # before anything is trained
    vectors_ID = embed_items(study, task)  # LightGCN on train users, for preference alignment
    answered: list[AnsweredTests] = []
    for seed in config.seeds:
        reference_lm = base_model = study.first_lm
        answered.append(answer_tests(study, tests, next_items, base_model, seed))
        if config.supervised:
            taught = supervise(study, task, base_model, seed)  # canonical answers of train users
            answered.append(answer_tests(study, tests, next_items, taught, seed))
            reference_lm = taught if config.reinforced == "supervised" else base_model
        for name in config.variants:
            variant = variant_of(config, name)
            lm = reinforce(study, task, reference_lm, vectors_ID, variant, seed)  # reward users, epoch by epoch
            answered.append(answer_tests(study, tests, next_items, lm, seed))
    report_study(study, task, compare_answers(study, tests, next_items, answered))
