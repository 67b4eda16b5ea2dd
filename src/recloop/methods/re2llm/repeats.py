"""What each session's best hint is worth, with choice and score by different answers.

The best hint in hindsight is chosen by the answer it is scored with, so chance alone makes it look good. Here the
language model answers each test session several times with every hint. A hint is chosen by one half of the answers
and scored by the other, both ways round. The other variants are scored by the same answers.

Axis letters: ``S`` sessions, ``H`` hints, ``R`` repeats, ``N`` answers to one prompt.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from safetensors.numpy import load_file, save_file

from recloop.experiment.step import StepKind
from recloop.files import atomic_write_json
from recloop.llm.cache import usage_note
from recloop.methods.re2llm.answers import RANKS
from recloop.methods.re2llm.data import Questions, ask_often
from recloop.methods.re2llm.hint_base import HintBase
from recloop.methods.re2llm.policies import KNOWN, NO_HINT, PPO, SINGLE, Chosen
from recloop.methods.study import COMPLETIONS_FILE, Study, derived_seed
from recloop.rerankers.metrics import metric_of_rank

REPEATS = "repeats.json"
TEMPERATURE = 0.7  # of repeated answers: at 0 all would be the same
ORACLE, HINDSIGHT = "oracle_on_halves", "hindsight"
REPEATED = (NO_HINT, SINGLE, PPO, KNOWN, ORACLE, HINDSIGHT)
SAMPLE_REPEATS = StepKind("sample", reads=("repeats", "question", "lm", "data_seed"), part="repeats")


@dataclass(frozen=True, slots=True)
class Repeated:
    """A variant by repeated answers: mean primary metric over sessions, and gain over no hint with its 95% interval."""

    name: str
    value: float
    gain: float
    low: float
    high: float


def score_on_halves(values_SHR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per session, the best hint by one half of the answers scored by the other, and back; and the best in hindsight.

    Example:
        >>> values_SHR = np.array([[[0.0, 0.0], [1.0, 0.0]]])
        >>> halves_S, hindsight_S = score_on_halves(values_SHR)
        >>> halves_S.tolist(), hindsight_S.tolist()
        ([0.0], [0.5])
    """
    half = values_SHR.shape[2] // 2
    first_SH, second_SH = values_SHR[:, :, :half].mean(axis=2), values_SHR[:, :, half:].mean(axis=2)
    rows_S = np.arange(len(values_SHR))
    one_way_S = second_SH[rows_S, first_SH.argmax(axis=1)]
    other_way_S = first_SH[rows_S, second_SH.argmax(axis=1)]
    return (one_way_S + other_way_S) / 2, values_SHR.mean(axis=2).max(axis=1)


def repeat_answers(study: Study, questions: Questions, base: HintBase, chosen: Chosen) -> tuple[Repeated, ...]:
    """Every way to choose a hint, scored by repeated answers to test sessions; nothing where that is off."""
    config = study.config.repeats
    if not config.answers:
        return ()
    asked = list(questions.test)[: config.max_sessions]
    num_hints = len(base.texts)
    inputs = {"sessions": questions.digest, "hints": study.run.digest("explore"), "lm": study.first_lm.digest}
    with study.step(SAMPLE_REPEATS, "repeats", inputs) as step:
        if not step.is_done:
            pairs = [(s, h) for s in asked for h in range(num_hints)]
            texts = {n: questions.text(s, base.texts[h]) for n, (s, h) in enumerate(pairs)}
            completions = ask_often(study, texts, step.name, config.answers, TEMPERATURE)
            ranks = [[questions.read(s, one.text)[1] for one in completions[n]] for n, (s, _) in enumerate(pairs)]
            ranks_SHR = np.array(ranks, dtype=np.int64).reshape(len(asked), num_hints, -1)
            save_file({"ranks_SHR": ranks_SHR}, step.folder / RANKS)
            step.note(
                tokens=sum(one.num_tokens for completions_N in completions.values() for one in completions_N),
                num_prompts=len(texts),
                **usage_note(study.run.path / COMPLETIONS_FILE, step.name, study.config.lm),
            )
    ranks_SHR = load_file(study.run.folder(step.name) / RANKS)["ranks_SHR"]
    repeated = _score(study, metric_of_rank(study.config.primary_metric, ranks_SHR), chosen)
    atomic_write_json(study.run.path / REPEATS, [asdict(one) for one in repeated])
    return repeated


def _score(study: Study, values_SHR: np.ndarray, chosen: Chosen) -> tuple[Repeated, ...]:
    num_sessions = len(values_SHR)
    means_SH = values_SHR.mean(axis=2)
    halves_S, hindsight_S = score_on_halves(values_SHR)
    rows_S = np.arange(num_sessions)
    scores = {ORACLE: halves_S, HINDSIGHT: hindsight_S} | {
        name: np.mean([means_SH[rows_S, hints[:num_sessions]] for hints in by_seed.values()], axis=0)
        for name, by_seed in chosen.hints.items()
        if name in REPEATED
    }
    rng = np.random.default_rng(derived_seed(study.config.data_seed, "repeats"))
    drawn_BS = rng.integers(num_sessions, size=(study.config.statistics.num_resamples, num_sessions))
    found: list[Repeated] = []
    for name in REPEATED:
        if name in scores:
            gain_S = scores[name] - scores[NO_HINT]
            low, high = np.quantile(gain_S[drawn_BS].mean(axis=1), [0.025, 0.975])
            found.append(Repeated(name, float(scores[name].mean()), float(gain_S.mean()), float(low), float(high)))
    return tuple(found)
