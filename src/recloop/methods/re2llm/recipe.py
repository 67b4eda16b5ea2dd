"""Re2LLM: a frozen language model reflects on its mistakes; a policy learns which of its hints to give to whom.

`re2llm` is the paper's algorithm with the measurement around it. The steps it calls live in the modules beside this
one. Each writes into the run folder once and is read back from there ever after, and every prompt is asked once, so
that a run that was killed goes on where it was and ends where it would have ended.

Source: arXiv 2403.16427. Deviations: the discount is 0, since a session is one step; every answer is cached, so that
learning asks nothing; the table has simple ways to choose a hint beside the policy.
"""

from __future__ import annotations

from recloop.evaluation.report import REPORT_STEP
from recloop.methods.preflight import PREFLIGHT
from recloop.methods.re2llm.answers import ENCODE, SAMPLE, answer_all, encode_sessions
from recloop.methods.re2llm.data import PREPARE, prepare
from recloop.methods.re2llm.policies import TRAIN, choose_hints
from recloop.methods.re2llm.readiness import check_rankings
from recloop.methods.re2llm.reflection import EXPLORE, explore
from recloop.methods.re2llm.repeats import SAMPLE_REPEATS, repeat_answers
from recloop.methods.re2llm.report import EVALUATE, Findings, compare_choices, report_choices
from recloop.methods.study import Study

STEPS = (PREPARE, PREFLIGHT, EXPLORE, SAMPLE, ENCODE, TRAIN, EVALUATE, SAMPLE_REPEATS, REPORT_STEP)


def re2llm(study: Study) -> None:
    """Reflective exploration, reinforcement utilisation, then the table that says whether they helped."""
    questions = prepare(study)  # few-shot training sessions and test sessions, in words
    check_rankings(study, questions)  # before anything is paid
    base = explore(study, questions)  # training sessions only: mistakes, reflection, two filters
    answers = answer_all(study, questions, base)  # every session with every hint, once
    states = encode_sessions(study, questions)  # the mean vector of the items shown
    chosen = choose_hints(study, questions, answers, states, base)  # PPO on train; choices for test
    tables = compare_choices(study, questions, answers, chosen)
    repeated = repeat_answers(study, questions, base, chosen)  # off unless asked for
    report_choices(study, questions, tables, Findings(base, answers, chosen, repeated))
