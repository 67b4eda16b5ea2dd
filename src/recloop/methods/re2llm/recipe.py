"""Re2LLM: a frozen language model studies its mistakes; an policy learns which of its hints helps whom.

`re2llm` is the paper's algorithm with the measurement around it; the stages it calls live in the modules
beside this one. Each writes into the run folder once and is read back from there ever after, and every
prompt is asked once ever, so that a run that was killed goes on where it was and ends where it would have.

Source: arXiv 2403.16427. Deviations: the discount is 0, for a session is one step; every answer is cached, so
learning asks nothing; the table has the simple ways to choose a hint beside the policy.
"""

from __future__ import annotations

from recloop.encoders.sentence import TextEncoder
from recloop.evaluation.terminal import show
from recloop.experiment.run_folder import RunFolder
from recloop.experiment.stages import go_through
from recloop.llm.language_model import LanguageModel
from recloop.methods.re2llm.answers import answer_all, encode_sessions
from recloop.methods.re2llm.config import Re2llmConfig
from recloop.methods.re2llm.data import Study, open_study, prepare
from recloop.methods.re2llm.hint_base import read_hint_base
from recloop.methods.re2llm.policies import choose_hints
from recloop.methods.re2llm.reflection import explore
from recloop.methods.re2llm.repeats import repeat_answers
from recloop.methods.re2llm.report import compare_choices, report_choices
from recloop.progress import SILENT, Progress


def re2llm(study: Study) -> None:
    """Reflective exploration, reinforcement utilisation, then the table that says whether they helped."""
    questions = prepare(study)  # few-shot training sessions and test sessions, in words
    base = explore(study, questions)  # training sessions only: mistakes, reflection, two filters
    answers = answer_all(study, questions, base)  # every session with every hint, once
    states = encode_sessions(study, questions)  # the mean vector of the items shown
    chosen = choose_hints(study, questions, answers, states, base)  # PPO on train; choices for test
    results = compare_choices(study, questions, answers, chosen)
    repeated = repeat_answers(study, questions, base, chosen)  # off unless asked for
    report_choices(study, questions, base, answers, chosen, results, repeated)


def run(
    config: Re2llmConfig,
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
        until: stop after this stage's first time; None for the whole run.
        lm, encoder: others than the configured ones.

    Returns:
        The table and where the report is, or which stage was reached.

    Raises:
        DataError: `explore.file` is absent or holds no hints.
    """
    if config.explore.file is not None:
        read_hint_base(config.explore.file)  # a file that is none is said before any stage is done
    study = open_study(config, folder, progress, until, lm, encoder)
    return go_through(lambda: re2llm(study), folder) or show(folder.path)
