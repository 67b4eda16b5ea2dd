"""Stage 1 of DPO4Rec, knowledge augmentation: the language model's completions about users, and their vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from recloop.encoders.sentence import EncoderCache, encode_completions
from recloop.errors import DataError
from recloop.experiment.reuse import VECTORS_FILE, COMPLETIONS_FILE
from recloop.llm.cache import CompletionCache
from recloop.llm.completion_text import shorten_completion
from recloop.llm.language_model import Sampling
from recloop.llm.sampling import sample_completions
from recloop.llm.server.open import completions_note, usage_note
from recloop.methods.context import LmRef, Loop
from recloop.methods.dpo4rec.config import CompletionsConfig
from recloop.methods.dpo4rec.data import Task
from recloop.records import Completion, CompletionStatus, Group, UserCompletions, UserVectors

VECTORS = "vectors.safetensors"
FIT, REWARD, TEST = "fit", "reward", "test"
GROUPS = {FIT: (Group.TRAIN, Group.VALID), REWARD: (Group.REWARD,), TEST: (Group.TEST,)}
UNSAMPLED = float("nan")


@dataclass(frozen=True, slots=True)
class UserTexts:
    """Texts about users, by what they are for: fitting (train and valid users), feedback, test.

    row: the table row they belong to.
    digest: of what made them; an input of the stages that read them.
    """

    row: str
    digest: str
    parts: Mapping[str, UserCompletions]


@dataclass(frozen=True, slots=True)
class UserTextVectors:
    """`Knowledge`, encoded."""

    row: str
    digest: str
    parts: Mapping[str, UserVectors]


def completions_wanted(config: CompletionsConfig, *, for_reward: bool) -> dict[str, int]:
    """Completions per user by part; none of reward users when no reward follows."""
    wanted = {FIT: config.fit, REWARD: config.reward, TEST: config.test}
    return wanted if for_reward else {part: num for part, num in wanted.items() if part != REWARD}


def sample_user_texts(loop: Loop, task: Task, lm: LmRef, wanted: Mapping[str, int], seed: int) -> UserTexts:
    """Draw completions for the users of every part; the run's cache pays for each completion once."""
    key = f"{lm.label}.s{seed}"
    with loop.stage("sample", key, {"prompts": task.digest, "lm": lm.digest}) as stage:
        if not stage.is_done:
            parts = {
                part: draw(loop, task, lm, task.users_of(*GROUPS[part]), num_completions, seed, purpose=stage.name)
                for part, num_completions in wanted.items()
            }
            stage.note(tokens=write_user_texts(stage.folder, parts), **sampling_note(loop, stage.name, parts))
    return read_user_texts(loop, lm.label, stage.name)


def draw(
    loop: Loop,
    task: Task,
    lm: LmRef,
    users: np.ndarray,
    num_completions: int,
    seed: int,
    temperature: float | None = None,
    purpose: str = "",
) -> UserCompletions:
    """`num_completions` completions of each user, at the configured temperature when none is given, cut to the room.

    A model behind a server does not know of the room: the cache keeps all it wrote, and no other room is paid for.

    Args:
        purpose: the stage a model behind a server's cost is booked under.
    """
    config, room = loop.config.lm, loop.config.completions.sentences
    sampling = Sampling(
        num_completions=num_completions,
        temperature=config.temperature if temperature is None else temperature,
        top_p=config.top_p,
        max_tokens=config.max_tokens,
        seed=seed,
        sentences=None if config.uses_server else room,
    )
    prompts = [task.prompts[user] for user in users.tolist()]
    with CompletionCache(loop.run.path / COMPLETIONS_FILE) as cache:
        completions = sample_completions(loop.open_lm(lm.folder), prompts, sampling, cache, loop.progress, purpose)
    if room is None:
        return completions
    shortened = (
        tuple(shorten_completion(completion, room) for completion in completions_N)
        for completions_N in completions.completions_UN
    )
    return UserCompletions(completions.user_U, tuple(shortened))


def sampling_note(loop: Loop, stage: str, parts: Mapping[str, UserCompletions]) -> dict[str, Any]:
    """For the manifest: completions without a usable text, and what a model behind a server cost."""
    return completions_note(parts.values()) | usage_note(loop.run.path / COMPLETIONS_FILE, stage, loop.config.lm)


def fixed_texts(row: str, text_of_user: Mapping[int, str], task: Task) -> UserTexts:
    """One text per train, valid and test user that no language model wrote, in the form of completions."""

    def completions_of(part: str) -> UserCompletions:
        users = task.users_of(*GROUPS[part])
        completions = [(Completion(user, 0, text_of_user[user], 0, True, UNSAMPLED),) for user in users.tolist()]
        return UserCompletions(users, tuple(completions))

    return UserTexts(row, f"{row} of {task.digest}", {part: completions_of(part) for part in (FIT, TEST)})


def encode_user_texts(loop: Loop, knowledge: UserTexts, seed: int) -> UserTextVectors:
    """Encode all texts; one that occurs often, in one part or in several, is encoded once.

    Raises:
        DataError: the encoder reads nothing in anything the language model wrote.
    """
    inputs = {"texts": knowledge.digest, **loop.encoder()}
    with loop.stage("encode", f"{knowledge.row}.s{seed}", inputs) as stage:
        if not stage.is_done:
            encoder = loop.open_encoder()
            with EncoderCache(loop.run.path / VECTORS_FILE) as cache:
                parts = {
                    part: encode_completions(encoder, completions, cache, loop.progress)
                    for part, completions in knowledge.parts.items()
                }
            completions = [d for part in knowledge.parts.values() for row in part.completions_UN for d in row]
            has_written = any(completion.text and completion.num_tokens for completion in completions)
            if has_written and not any(part.vectors_UND.any() for part in parts.values()):
                raise DataError(
                    f"encoder {encoder.name} must read something in the completions, got zeros for all of them; "
                    f"if they are no summaries in canonical form, use encoder.name=minilm"
                )
            arrays = {f"{part}.user_U": vectors.user_U for part, vectors in parts.items()}
            arrays |= {f"{part}.vectors_UND": vectors.vectors_UND for part, vectors in parts.items()}
            save_file(arrays, stage.folder / VECTORS)
            texts = {completion.text for completion in completions}
            stage.note(encoder=encoder.name, distinct_texts=len(texts), texts_cut=encoder.count_cut(sorted(texts)))
    arrays = load_file(loop.run.folder(stage.name) / VECTORS)
    parts = {
        part: UserVectors(arrays[f"{part}.user_U"], arrays[f"{part}.vectors_UND"])
        for part in GROUPS
        if f"{part}.user_U" in arrays
    }
    return UserTextVectors(knowledge.row, loop.run.digest(stage.name), parts)


def write_user_texts(folder: Path, parts: Mapping[str, UserCompletions]) -> int:
    """One Parquet file per part, a row per completion; returns the tokens of all completions."""
    names = [field.name for field in fields(Completion)]
    num_tokens = 0
    for part, completions in parts.items():
        flat = [completion for completions_N in completions.completions_UN for completion in completions_N]
        table = pl.DataFrame({name: [getattr(completion, name) for completion in flat] for name in names})
        table.write_parquet(folder / f"{part}.parquet")
        num_tokens += sum(completion.num_tokens for completion in flat)
    return num_tokens


def read_user_texts(loop: Loop, row: str, stage: str) -> UserTexts:
    """The completions that a done stage wrote."""
    folder = loop.run.folder(stage)
    parts = {part: _read_completions(file) for part in GROUPS if (file := folder / f"{part}.parquet").exists()}
    return UserTexts(row, loop.run.digest(stage), parts)


def _read_completions(file: Path) -> UserCompletions:
    completions = [
        replace(Completion(**row), status=CompletionStatus(row["status"]))
        for row in pl.read_parquet(file).iter_rows(named=True)
    ]
    users = np.unique([completion.user for completion in completions])
    num_completions = len(completions) // len(users)
    by_user = (
        tuple(completions[first : first + num_completions]) for first in range(0, len(completions), num_completions)
    )
    return UserCompletions(users, tuple(by_user))
