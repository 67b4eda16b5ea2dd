"""DPO4Rec (RLRF4Rec): what a recommender earns with a text, user by user, tunes the model that writes it.

`dpo4rec` is Algorithm 1 of the paper with the measurement around it. The stages it calls live in the modules
beside this one. Each writes into the run folder once and is read back from there ever after, so that a run
that was killed goes on where it was and ends where it would have ended.

Source: arXiv 2410.05939. Deviations: the judge that rewards and the evaluators that report are different
models; users who earn rewards and users who report are disjoint; every row of the table has an evaluator of
its own.
"""

from __future__ import annotations

from recloop.encoders.sentence import TextEncoder
from recloop.evaluation.terminal import show
from recloop.experiment.run_folder import RunFolder
from recloop.experiment.stages import go_through
from recloop.llm.language_model import LanguageModel
from recloop.methods.context import Loop, open_loop
from recloop.methods.dpo4rec.ablations import measure_controls
from recloop.methods.dpo4rec.baselines import measure_references, measure_shuffled
from recloop.methods.dpo4rec.compare import compare_rows
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.data import prepare
from recloop.methods.dpo4rec.evaluate import TUNED, Scored, measure_row, row_after, score_judge
from recloop.methods.dpo4rec.generate import drafts_wanted, encode_knowledge, sample_knowledge
from recloop.methods.dpo4rec.report import report_run
from recloop.methods.dpo4rec.reward import fit_judge, pair_drafts, reward_knowledge
from recloop.methods.dpo4rec.train import align
from recloop.progress import SILENT, Progress
from recloop.records import Pair


def dpo4rec(loop: Loop) -> None:
    """Algorithm 1 for every seed, then the table that says whether it helped."""
    rounds = loop.config.rounds
    task = prepare(loop)  # train / feedback / valid / test users, disjoint; their lists and prompts
    scored: list[Scored] = []
    for seed in loop.config.seeds:
        lm = anchor = loop.first_lm  # the anchor is the DPO reference of every round
        judge: tuple[str, ...] = ()
        taught: list[tuple[Pair, ...]] = []
        for r in range(rounds + 1):  # the last pass only measures
            wanted = drafts_wanted(loop.config.drafts, for_feedback=r < rounds)
            drafts = sample_knowledge(loop, task, lm, wanted, seed)
            vectors = encode_knowledge(loop, drafts, seed)
            judge = judge or fit_judge(loop, task, vectors, seed)  # on train users; frozen from here on
            if r < rounds:
                rewards = reward_knowledge(loop, task, judge, vectors, seed, r)  # of feedback users
                taught.append(pair_drafts(loop, task, lm, drafts, rewards, seed))
                lm = align(loop, task, lm, anchor, taught[-1], seed, row_after(TUNED, r + 1, rounds))
            scored += measure_row(loop, task, vectors, seed, drafts.row)  # fresh evaluators, on test users
            scored += score_judge(loop, task, judge, vectors, seed, drafts.row)
            if r == rounds:
                scored += measure_shuffled(loop, task, vectors, seed)
                scored += measure_controls(loop, task, judge, anchor, taught, drafts, seed)
        scored += measure_references(loop, task, seed)  # rows that need no language model
    report_run(loop, task, compare_rows(loop, task, scored))


def run(
    config: Dpo4RecConfig,
    folder: RunFolder,
    progress: Progress = SILENT,
    until: str | None = None,
    *,
    lm: LanguageModel | None = None,
    encoder: TextEncoder | None = None,
) -> str:
    """Do a run, or go on with it, and say how it ended.

    Args:
        config: as the folder was opened with.
        folder: where everything is kept; a stage found done there is not done again.
        until: stop after this stage's first time (`recloop.experiment.verbs.VERBS`); None for the whole run.
        lm: another language model than the configured one; it cannot be tuned, so rounds must be 0.
        encoder: another encoder than the configured one.

    Returns:
        The table and where the report is, or which stage was reached.
    """
    loop = open_loop(config, folder, progress, until, lm, encoder)
    return go_through(lambda: dpo4rec(loop), folder) or show(folder.path)
