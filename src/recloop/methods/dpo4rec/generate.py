"""Stage 1 of DPO4Rec, knowledge augmentation: what the language model writes about users, and its vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from recloop.artifacts import arrays_of, read_rows, record_of, write_rows
from recloop.encoders.sentence import EncoderCache, count_cut, encode_completions
from recloop.errors import DataError
from recloop.experiment.run_folder import RunStep
from recloop.experiment.step import StepKind
from recloop.llm.bundled import reads_few_names
from recloop.llm.cache import CompletionCache, usage_note
from recloop.llm.completion_text import shorten_completion
from recloop.llm.generate import Check, sample_accepted
from recloop.llm.language_model import Sampling
from recloop.llm.sampling import completions_note
from recloop.methods.dpo4rec.config import CompletionsConfig
from recloop.methods.dpo4rec.data import Task
from recloop.methods.preflight import Trial, preflight
from recloop.methods.study import COMPLETIONS_FILE, VECTORS_FILE, LmRef, Study, try_encoder
from recloop.prompts.plausibility import check_profiles
from recloop.records import Completion, Group, UserCompletions, UserVectors

VECTORS = "vectors.safetensors"
FIT, REWARD, TEST = "fit", "reward", "test"
GROUPS = {FIT: (Group.TRAIN, Group.VALID), REWARD: (Group.REWARD,), TEST: (Group.TEST,)}
SAMPLE = StepKind("sample", reads=("completions",))
# Without rounds nobody's completions are rewarded, so reward users are not sampled.
SAMPLE_UNTUNED = StepKind("sample", reads=("completions", "rounds"), part="untuned")
ENCODE = StepKind("encode", reads=("encoder",))


@dataclass(frozen=True, slots=True)
class UserTexts:
    """Texts about users by use: fitting (train and valid users), reward, test; `digest` is of what made them."""

    variant: str
    digest: str
    parts: Mapping[str, UserCompletions]


@dataclass(frozen=True, slots=True)
class UserTextVectors:
    """`UserTexts`, encoded."""

    variant: str
    digest: str
    parts: Mapping[str, UserVectors]


def num_completions(config: CompletionsConfig, *, with_rewards: bool) -> dict[str, int]:
    """Completions per user by part; none of reward users when no reward follows."""
    wanted = {FIT: config.fit, REWARD: config.reward, TEST: config.test}
    return wanted if with_rewards else {part: num for part, num in wanted.items() if part != REWARD}


def sample_user_texts(
    study: Study,
    task: Task,
    lm: LmRef,
    seed: int,
    *,
    with_rewards: bool = False,
    wanted: Mapping[str, int] | None = None,
) -> UserTexts:
    """N completions for the users of every part, `wanted` or as configured; the run's cache has each generated once."""
    kind = SAMPLE_UNTUNED if lm.label == SAMPLE_UNTUNED.part else SAMPLE
    with study.step(kind, f"{lm.label}.s{seed}", {"prompts": task.digest, "lm": lm.digest}) as step:
        if not step.is_done:
            wanted = wanted or num_completions(study.config.completions, with_rewards=with_rewards)
            parts = {
                part: sample_for(study, task, lm, task.users_of(*GROUPS[part]), num, seed, purpose=step.name)
                for part, num in wanted.items()
            }
            write_user_texts(study, step, parts)
    return read_user_texts(study, lm.label, step.name)


def sample_for(
    study: Study, task: Task, lm: LmRef, users: np.ndarray, num: int, seed: int, temperature: float | None = None,
    purpose: str = "", accept: Check | None = None, tries: int = 1,
) -> UserCompletions:  # fmt: skip
    """`num` completions of each user, cut to ``sentences``; a server's cost is booked under `purpose`.

    A server is not told to stop there: the cache keeps all it wrote, and serves other numbers of sentences too.
    `accept` is asked about a completion as it is cut, and `tries` is as for `recloop.generate`.
    """
    room = study.config.completions.sentences

    def cut(completion: Completion) -> Completion:
        return shorten_completion(completion, room)

    accept_cut: Check | None = accept and (lambda prompt, completion: accept(prompt, cut(completion)))
    sampling = _sampling(study, num, seed, temperature)
    prompts = [task.prompts[user] for user in users.tolist()]
    with CompletionCache(study.run.path / COMPLETIONS_FILE) as cache:
        opened = study.open_lm(lm.folder)
        found = sample_accepted(opened, prompts, sampling, cache, accept_cut, tries, study.progress, purpose)
    if room is None:
        return found
    return UserCompletions(found.user_U, tuple(tuple(map(cut, row_N)) for row_N in found.completions_UN))


def _sampling(study: Study, num: int, seed: int, temperature: float | None = None) -> Sampling:
    config = study.config.lm
    return Sampling(
        num_completions=num,
        temperature=config.temperature if temperature is None else temperature,
        top_p=config.top_p,
        max_tokens=config.max_tokens,
        seed=seed,
        sentences=None if config.uses_server else study.config.completions.sentences,
    )


def check_texts(study: Study, task: Task) -> None:
    """Preflight: some of the first texts about train and valid users, by form, grounding and repetition."""

    def plan() -> Trial:
        try_encoder(study)
        reads_form = study.own.encoder is None and study.config.encoder.name == "claims"
        is_canonical = reads_form or reads_few_names(study.first_lm.folder)
        prompts = [task.prompts[user] for user in task.users_of(*GROUPS[FIT]).tolist()]
        check = partial(check_profiles, attributes=task.log.attributes, is_canonical=is_canonical)
        return Trial(prompts, _sampling(study, 1, study.config.seeds[0]), check)

    preflight(study, {"prompts": task.digest}, plan)


def fixed_texts(variant: str, text_of_user: Mapping[int, str], task: Task) -> UserTexts:
    """One text per train, valid and test user that no language model wrote, in the form of completions."""

    def of(part: str) -> UserCompletions:
        users = task.users_of(*GROUPS[part])
        texts = [(Completion(user, 0, text_of_user[user], 0, True, float("nan")),) for user in users.tolist()]
        return UserCompletions(users, tuple(texts))

    return UserTexts(variant, f"{variant} of {task.digest}", {part: of(part) for part in (FIT, TEST)})


def encode_user_texts(study: Study, texts: UserTexts, seed: int) -> UserTextVectors:
    """Encode all texts, equal ones once; DataError: the encoder reads nothing in all that the language model wrote."""
    with study.step(ENCODE, f"{texts.variant}.s{seed}", {"texts": texts.digest, **study.encoder()}) as step:
        if not step.is_done:
            encoder = study.open_encoder()
            with EncoderCache(study.run.path / VECTORS_FILE) as cache:
                parts = {
                    part: encode_completions(encoder, completions, cache, study.progress)
                    for part, completions in texts.parts.items()
                }
            written = [one for part in texts.parts.values() for row in part.completions_UN for one in row]
            has_written = any(one.text and one.num_tokens for one in written)
            if has_written and not any(part.vectors_UND.any() for part in parts.values()):
                raise DataError(
                    f"encoder {encoder.name} must read something in the completions, got zeros for all of them; "
                    f"if they are no summaries in canonical form, use encoder.name=minilm"
                )
            arrays = {n: a for part, vectors in parts.items() for n, a in arrays_of(vectors, part).items()}
            save_file(arrays, step.folder / VECTORS)
            distinct = {one.text for one in written}
            cut = count_cut(encoder, sorted(distinct))
            step.note(encoder=encoder.name, distinct_texts=len(distinct), texts_cut=cut)
    parts = read_vectors(study.run.folder(step.name))
    return UserTextVectors(texts.variant, study.run.digest(step.name), parts)


def read_vectors(folder: Path) -> dict[str, UserVectors]:
    """The vectors that a done step left in its folder, by part."""
    arrays = load_file(folder / VECTORS)
    return {part: record_of(arrays, part, UserVectors) for part in GROUPS if f"{part}.user_U" in arrays}


def write_user_texts(study: Study, step: RunStep, parts: Mapping[str, UserCompletions], num_drawn: int = 1) -> None:
    """A file per part, a row per completion, one of `num_drawn`; notes tokens, unusable texts and a server's cost."""
    num_tokens = 0
    for part, completions in parts.items():
        flat = [one for completions_N in completions.completions_UN for one in completions_N]
        write_rows(step.folder / f"{part}.parquet", flat, Completion)
        num_tokens += num_drawn * sum(one.num_tokens for one in flat)
    usage = usage_note(study.run.path / COMPLETIONS_FILE, step.name, study.config.lm)
    step.note(tokens=num_tokens, **completions_note(parts.values()), **usage)


def read_user_texts(study: Study, variant: str, step: str) -> UserTexts:
    """The completions that a done step wrote."""
    folder = study.run.folder(step)
    parts = {part: _read_completions(file) for part in GROUPS if (file := folder / f"{part}.parquet").exists()}
    return UserTexts(variant, study.run.digest(step), parts)


def _read_completions(file: Path) -> UserCompletions:
    completions = read_rows(file, Completion)
    users = np.unique([one.user for one in completions])
    num = len(completions) // len(users)
    by_user = (tuple(completions[first : first + num]) for first in range(0, len(completions), num))
    return UserCompletions(users, tuple(by_user))
