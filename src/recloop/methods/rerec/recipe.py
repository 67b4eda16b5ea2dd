"""ReRec: requests in words, answered by a language model that is reinforced by how good its pick was.

`rerec` is the paper's algorithm with the measurement around it. The stages it calls live in the modules
beside this one; each writes into the run folder once and is read back from there ever after.

Source: arXiv 2604.07851. Deviations: a penalty that also counts at rewards of 0 and below; disjoint users for
teaching, reinforcement and report; `docs/sources.md` lists the others.
"""

from __future__ import annotations

from recloop.evaluation.terminal import show
from recloop.experiment.run_folder import RunFolder
from recloop.experiment.stages import go_through
from recloop.methods.rerec.config import ReRecConfig, variant_of
from recloop.methods.rerec.data import Study, embed_items, open_study, prepare, prepare_elsewhere
from recloop.methods.rerec.next_item_eval import cut_histories
from recloop.methods.rerec.report import Answered, answer_tests, compare_answers, report_study
from recloop.methods.rerec.train import reinforce, supervise
from recloop.progress import SILENT, Progress


def rerec(study: Study) -> None:
    """For every seed: supervise, reinforce in every variant, answer the test requests; then the table."""
    config = study.config
    task = prepare(study)  # requests of train, feedback, valid and test users; ground truth by the graph
    tests = [task.tests, *prepare_elsewhere(study)]  # the second: requests about other logs
    next_items = cut_histories(study, task)  # test users' histories, for a look beside the method
    vectors_ID = embed_items(study, task)  # LightGCN on train users, for preference alignment
    answered: list[Answered] = []
    for seed in config.seeds:
        reference_lm = shipped = study.first_lm
        answered.append(answer_tests(study, tests, next_items, shipped, seed))
        if config.supervised:
            taught = supervise(study, task, shipped, seed)  # canonical answers of train users
            answered.append(answer_tests(study, tests, next_items, taught, seed))
            reference_lm = taught if config.reinforced == "supervised" else shipped
        for name in config.variants:
            variant = variant_of(config, name)
            lm = reinforce(study, task, reference_lm, vectors_ID, variant, seed)  # reward users, epoch by epoch
            answered.append(answer_tests(study, tests, next_items, lm, seed))
    report_study(study, task, compare_answers(study, tests, next_items, answered))


def run(config: ReRecConfig, folder: RunFolder, progress: Progress = SILENT, until: str | None = None) -> str:
    """Do a run, or go on with it, and say how it ended.

    Args:
        config: as the folder was opened with.
        folder: where everything is kept; a stage found done there is not done again.
        until: stop after this stage's first time (`recloop.experiment.verbs.VERBS`); None for all.

    Returns:
        The tables and where the report is, or which stage was reached.
    """
    study = open_study(config, folder, progress, until)
    return go_through(lambda: rerec(study), folder) or show(folder.path)
