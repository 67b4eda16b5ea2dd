"""DPO4Rec (RLRF4Rec): what a recommender earns with a text, user by user, trains the model that writes it.

`dpo4rec` is Algorithm 1 of the paper with the measurement around it. The stages it calls live in the modules
beside this one. Each writes into the run folder once and is read back from there ever after, so that a run
that was killed goes on where it was and ends where it would have ended.

Source: arXiv 2410.05939. Deviations: the reward model that rewards and the evaluators that report are different
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
from recloop.methods.dpo4rec.ablations import evaluate_ablations
from recloop.methods.dpo4rec.baselines import evaluate_baselines, evaluate_shuffled
from recloop.methods.dpo4rec.compare import compare_variants
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.data import prepare
from recloop.methods.dpo4rec.evaluate import TRAINED, Scored, evaluate_variant, variant_after_rounds, score_reward_model
from recloop.methods.dpo4rec.generate import completions_wanted, encode_user_texts, sample_user_texts
from recloop.methods.dpo4rec.report import report_run
from recloop.methods.dpo4rec.reward import fit_reward_model, pair_completions, reward_user_texts
from recloop.methods.dpo4rec.train import train_dpo_round
from recloop.progress import SILENT, Progress
from recloop.records import Pair


def dpo4rec(loop: Loop) -> None:
    """Algorithm 1 for every seed, then the table that says whether it helped."""
    rounds = loop.config.rounds
    task = prepare(loop)  # train / feedback / valid / test users, disjoint; their lists and prompts
    scored: list[Scored] = []
    for seed in loop.config.seeds:
        lm = reference_lm = loop.first_lm  # the reference model is the DPO reference of every round
        reward_model: tuple[str, ...] = ()
        taught: list[tuple[Pair, ...]] = []
        for r in range(rounds + 1):  # the last pass only measures
            wanted = completions_wanted(loop.config.completions, for_reward=r < rounds)
            completions = sample_user_texts(loop, task, lm, wanted, seed)
            vectors = encode_user_texts(loop, completions, seed)
            reward_model = reward_model or fit_reward_model(
                loop, task, vectors, seed
            )  # on train users; frozen from here on
            if r < rounds:
                rewards = reward_user_texts(loop, task, reward_model, vectors, seed, r)  # of reward users
                taught.append(pair_completions(loop, task, lm, completions, rewards, seed))
                lm = train_dpo_round(
                    loop, task, lm, reference_lm, taught[-1], seed, variant_after_rounds(TRAINED, r + 1, rounds)
                )
            scored += evaluate_variant(loop, task, vectors, seed, completions.row)  # fresh evaluators, on test users
            scored += score_reward_model(loop, task, reward_model, vectors, seed, completions.row)
            if r == rounds:
                scored += evaluate_shuffled(loop, task, vectors, seed)
                scored += evaluate_ablations(loop, task, reward_model, reference_lm, taught, completions, seed)
        scored += evaluate_baselines(loop, task, seed)  # rows that need no language model
    report_run(loop, task, compare_variants(loop, task, scored))


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
        lm: another language model than the configured one; it cannot be trained, so rounds must be 0.
        encoder: another encoder than the configured one.

    Returns:
        The table and where the report is, or which stage was reached.
    """
    loop = open_loop(config, folder, progress, until, lm, encoder)
    return go_through(lambda: dpo4rec(loop), folder) or show(folder.path)
