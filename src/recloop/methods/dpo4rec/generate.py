"""Stage 1 of DPO4Rec, knowledge augmentation: the language model's drafts about users, and their vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from recloop.encoders.sentence import EncoderCache, encode_drafts
from recloop.errors import DataError
from recloop.experiment.reuse import VECTORS_FILE, COMPLETIONS_FILE
from recloop.llm.cache import DraftJournal
from recloop.llm.completion_text import shorten_draft
from recloop.llm.language_model import Sampling
from recloop.llm.sampling import sample_drafts
from recloop.llm.server.open import drafts_note, is_served, spending_note
from recloop.methods.context import LmRef, Loop
from recloop.methods.dpo4rec.config import DraftsConfig
from recloop.methods.dpo4rec.data import Task
from recloop.records import Draft, DraftStatus, Group, UserDrafts, UserVectors

VECTORS = "vectors.safetensors"
FIT, FEEDBACK, TEST = "fit", "feedback", "test"
GROUPS = {FIT: (Group.TRAIN, Group.VALID), FEEDBACK: (Group.FEEDBACK,), TEST: (Group.TEST,)}
UNSAMPLED = float("nan")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Texts about users, by what they are for: fitting (train and valid users), feedback, test.

    row: the table row they belong to.
    digest: of what made them; an input of the stages that read them.
    """

    row: str
    digest: str
    parts: Mapping[str, UserDrafts]


@dataclass(frozen=True, slots=True)
class KnowledgeVectors:
    """`Knowledge`, encoded."""

    row: str
    digest: str
    parts: Mapping[str, UserVectors]


def drafts_wanted(config: DraftsConfig, *, for_feedback: bool) -> dict[str, int]:
    """Drafts per user by part; none of feedback users when no reward follows."""
    wanted = {FIT: config.fit, FEEDBACK: config.feedback, TEST: config.test}
    return wanted if for_feedback else {part: num for part, num in wanted.items() if part != FEEDBACK}


def sample_knowledge(loop: Loop, task: Task, lm: LmRef, wanted: Mapping[str, int], seed: int) -> Knowledge:
    """Draw drafts for the users of every part; the run's journal pays for each draft once."""
    key = f"{lm.label}.s{seed}"
    with loop.stage("sample", key, {"prompts": task.digest, "lm": lm.digest}) as stage:
        if not stage.is_done:
            parts = {
                part: draw(loop, task, lm, task.users_of(*GROUPS[part]), num_drafts, seed, purpose=stage.name)
                for part, num_drafts in wanted.items()
            }
            stage.note(tokens=write_knowledge(stage.folder, parts), **sampling_note(loop, stage.name, parts))
    return read_knowledge(loop, lm.label, stage.name)


def draw(
    loop: Loop,
    task: Task,
    lm: LmRef,
    users: np.ndarray,
    num_drafts: int,
    seed: int,
    temperature: float | None = None,
    purpose: str = "",
) -> UserDrafts:
    """`num_drafts` drafts of each user, at the configured temperature when none is given, cut to the room.

    A served model does not know of the room: the journal keeps all it wrote, and no other room is paid for.

    Args:
        purpose: the stage a served model's cost is booked under.
    """
    config, room = loop.config.lm, loop.config.drafts.sentences
    sampling = Sampling(
        num_drafts=num_drafts,
        temperature=config.temperature if temperature is None else temperature,
        top_p=config.top_p,
        max_tokens=config.max_tokens,
        seed=seed,
        sentences=None if is_served(config) else room,
    )
    prompts = [task.prompts[user] for user in users.tolist()]
    with DraftJournal(loop.run.path / COMPLETIONS_FILE) as journal:
        drafts = sample_drafts(loop.open_lm(lm.folder), prompts, sampling, journal, loop.progress, purpose)
    if room is None:
        return drafts
    shortened = (tuple(shorten_draft(draft, room) for draft in drafts_N) for drafts_N in drafts.drafts_UN)
    return UserDrafts(drafts.user_U, tuple(shortened))


def sampling_note(loop: Loop, stage: str, parts: Mapping[str, UserDrafts]) -> dict[str, Any]:
    """For the manifest: drafts without a usable text, and what a served model cost."""
    return drafts_note(parts.values()) | spending_note(loop.run.path / COMPLETIONS_FILE, stage, loop.config.lm)


def fixed_texts(row: str, text_of_user: Mapping[int, str], task: Task) -> Knowledge:
    """One text per train, valid and test user that no language model wrote, in the form of drafts."""

    def drafts_of(part: str) -> UserDrafts:
        users = task.users_of(*GROUPS[part])
        drafts = [(Draft(user, 0, text_of_user[user], 0, True, UNSAMPLED),) for user in users.tolist()]
        return UserDrafts(users, tuple(drafts))

    return Knowledge(row, f"{row} of {task.digest}", {part: drafts_of(part) for part in (FIT, TEST)})


def encode_knowledge(loop: Loop, knowledge: Knowledge, seed: int) -> KnowledgeVectors:
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
                    part: encode_drafts(encoder, drafts, cache, loop.progress)
                    for part, drafts in knowledge.parts.items()
                }
            drafts = [d for part in knowledge.parts.values() for row in part.drafts_UN for d in row]
            has_written = any(draft.text and draft.num_tokens for draft in drafts)
            if has_written and not any(part.vectors_UND.any() for part in parts.values()):
                raise DataError(
                    f"encoder {encoder.name} must read something in the drafts, got zeros for all of them; "
                    f"if they are no summaries in canonical form, use encoder.name=minilm"
                )
            arrays = {f"{part}.user_U": vectors.user_U for part, vectors in parts.items()}
            arrays |= {f"{part}.vectors_UND": vectors.vectors_UND for part, vectors in parts.items()}
            save_file(arrays, stage.folder / VECTORS)
            texts = {draft.text for draft in drafts}
            stage.note(encoder=encoder.name, distinct_texts=len(texts), texts_cut=encoder.count_cut(sorted(texts)))
    arrays = load_file(loop.run.folder(stage.name) / VECTORS)
    parts = {
        part: UserVectors(arrays[f"{part}.user_U"], arrays[f"{part}.vectors_UND"])
        for part in GROUPS
        if f"{part}.user_U" in arrays
    }
    return KnowledgeVectors(knowledge.row, loop.run.digest(stage.name), parts)


def write_knowledge(folder: Path, parts: Mapping[str, UserDrafts]) -> int:
    """One Parquet file per part, a row per draft; returns the tokens of all drafts."""
    names = [field.name for field in fields(Draft)]
    num_tokens = 0
    for part, drafts in parts.items():
        flat = [draft for drafts_N in drafts.drafts_UN for draft in drafts_N]
        table = pl.DataFrame({name: [getattr(draft, name) for draft in flat] for name in names})
        table.write_parquet(folder / f"{part}.parquet")
        num_tokens += sum(draft.num_tokens for draft in flat)
    return num_tokens


def read_knowledge(loop: Loop, row: str, stage: str) -> Knowledge:
    """The drafts that a done stage wrote."""
    folder = loop.run.folder(stage)
    parts = {part: _read_drafts(file) for part in GROUPS if (file := folder / f"{part}.parquet").exists()}
    return Knowledge(row, loop.run.digest(stage), parts)


def _read_drafts(file: Path) -> UserDrafts:
    drafts = [
        replace(Draft(**row), status=DraftStatus(row["status"])) for row in pl.read_parquet(file).iter_rows(named=True)
    ]
    users = np.unique([draft.user for draft in drafts])
    num_drafts = len(drafts) // len(users)
    by_user = (tuple(drafts[first : first + num_drafts]) for first in range(0, len(drafts), num_drafts))
    return UserDrafts(users, tuple(by_user))
