"""Which text encoder a log should have: the untuned model's texts through each, a reranker fitted, valid users scored.

Test users are not looked at. Valid users also end each fit, so the values are a little high, by the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from recloop.encoders.load import EncoderConfig, encoder_from_config
from recloop.encoders.sentence import EncoderCache, encode_completions
from recloop.errors import SettingError
from recloop.files import atomic_write_json
from recloop.llm.server.config import SCHEME
from recloop.methods.dpo4rec.data import Task, prepare
from recloop.methods.dpo4rec.evaluate import Fit, fit_on
from recloop.methods.dpo4rec.generate import FIT, GROUPS, sample_for
from recloop.methods.study import VECTORS_FILE, Study, derived_seed
from recloop.records import Group, UserVectors
from recloop.rerankers.metrics import compute_completion_metrics, user_means
from recloop.settings import validate

APART = "+by_polarity"  # after an encoder's name: likes and dislikes apart
FILE = "encoders.json"


@dataclass(frozen=True, slots=True)
class EncoderScore:
    """How well valid users' lists are ranked with the texts through one encoder.

    name: of the encoder, perhaps with `APART`.
    value: mean of the metric over valid users and seeds.
    below, error: mean over users by how much it lies below the best encoder, and the standard error of that.
    """

    name: str
    value: float
    below: float
    error: float


def encoders_to_try(study: Study) -> tuple[str, ...]:
    """The encoders that are compared where none is named: those that ship, and the language model's own states."""
    name, folder = study.config.lm.name, study.first_lm.folder
    own = () if name.startswith((SCHEME, "bundled")) else (f"sentence:{folder}",)
    return tuple(way for one in ("minilm", "static", *own) for way in (one, one + APART))


def encoder_named(name: str) -> EncoderConfig:
    """The settings of an encoder as it is typed."""
    plain = name.removesuffix(APART)
    return validate(EncoderConfig, {"name": plain, "by_polarity": name != plain})


def compare_encoders(study: Study, names: Sequence[str] = ()) -> tuple[EncoderScore, ...]:
    """The encoders, best first; texts are sampled once and kept in the run folder, as are vectors.

    Raises:
        SettingError: a run without a language model, an unknown encoder, or no valid user with a positive.
    """
    if not study.config.uses_lm:
        raise SettingError("encoders are compared by texts, got variants=without_lm, which has none; leave it out")
    task = prepare(study)
    names = tuple(dict.fromkeys(names)) or encoders_to_try(study)
    configs = {name: encoder_named(name) for name in names}
    values: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for seed in study.config.seeds:
        users, num = task.users_of(*GROUPS[FIT]), study.config.completions.fit
        completions = sample_for(study, task, study.first_lm, users, num, seed, purpose="encoders")
        for name, config in configs.items():
            encoder = encoder_from_config(config)
            with EncoderCache(study.run.path / VECTORS_FILE) as cache:
                vectors = encode_completions(encoder, completions, cache, study.progress)
            values[name].append(valid_users_values(study, task, vectors, seed))
            mean = float(np.mean(values[name][-1]))
            study.progress.say(f"seed {seed}, {name}: {study.config.primary_metric} of valid users {mean:.4f}")
    scores = ranked({name: np.mean(own, axis=0) for name, own in values.items()})
    atomic_write_json(study.run.path / FILE, [asdict(score) for score in scores])
    return scores


def valid_users_values(study: Study, task: Task, vectors: UserVectors, seed: int) -> np.ndarray:
    """The primary metric of each valid user with a positive, by a reranker fitted on train users."""
    reranker = fit_on(study, task, Fit(study.config.reranker, vectors, derived_seed(seed, "encoder")))
    lists = task.lists.of(Group.VALID)
    values_BN = compute_completion_metrics(study.config.primary_metric, reranker.score(lists, vectors), lists)
    found_U = user_means(values_BN.mean(axis=1), lists.user_B, empty="drop")[1]
    if not len(found_U):
        raise SettingError(
            f"encoders are chosen on valid users with a positive, got none among {len(lists)} lists; take more users, "
            f"or raise split.valid"
        )
    return found_U


def ranked(values: dict[str, np.ndarray]) -> tuple[EncoderScore, ...]:
    """The encoders by their mean over users, each beside the best, user by user."""
    best = max(values.values(), key=lambda own_U: own_U.mean())
    scores: list[EncoderScore] = []
    for name, own_U in values.items():
        below_U = best - own_U
        error = float(below_U.std(ddof=1) / len(below_U) ** 0.5) if len(below_U) > 1 else float("nan")
        scores.append(EncoderScore(name, float(own_U.mean()), float(below_U.mean()), error))
    return tuple(sorted(scores, key=lambda score: score.below))


def encoders_text(scores: Sequence[EncoderScore], metric: str, num_seeds: int) -> str:
    """What the command prints: a line an encoder, and which to take."""
    width = max(len(score.name) for score in scores)
    lines = [f"{'':<{width}}  {metric} of valid users   below the best"]
    for score in scores:
        below = f"{score.below:.4f} ± {score.error:.4f}" if score.below else ""
        lines.append(f"{score.name:<{width}}  {score.value:>{len(metric) + 15}.4f}   {below}".rstrip())
    config = encoder_named(scores[0].name)
    asked = f"--encoder.name {config.name}" + (" --encoder.by-polarity true" if config.by_polarity else "")
    close = [score.name for score in scores[1:] if score.below < 2 * score.error]
    note = f"; not told apart from it: {', '.join(close)}" if close else ""
    few = ", of one seed" if num_seeds == 1 else ""
    return "\n".join([*lines, "", f"take {asked}{few}{note}"])
