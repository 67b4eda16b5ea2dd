"""The task of a run: the log, four disjoint user groups, their candidate lists and their prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from recloop.artifacts import arrays_of, read_rows, record_of, write_rows
from recloop.data.lists import build_lists
from recloop.data.splits import groups_digest, user_groups
from recloop.data.thin_logs import require_teaching_lists
from recloop.experiment.step import StepKind
from recloop.llm.bundled import columns_note, with_readable_columns
from recloop.methods.run_log import read_run_log
from recloop.methods.study import Study
from recloop.prompts.claims import PopulationRates
from recloop.prompts.template import template_digest
from recloop.prompts.user_profile import PromptConfig, population_rates_of, profile_writer, write_prompts
from recloop.records import CandidateLists, Group, Histories, Lists, Log, Prompt
from recloop.rerankers.features import ItemFeatures, item_features, item_texts, tfidf_vectors

LISTS, RECALL, PROMPTS = "lists.safetensors", "first_stage_recall", "prompts.parquet"


@dataclass(frozen=True, slots=True)
class Task:
    """What all steps of a run work on.

    prompts: of every user who owns a list, by user.
    digest: of the step that made lists and prompts; an input of every step that reads them.
    features: what every reranker of the run knows about items; made when first asked for.
    item_vectors: TF-IDF vectors of what is known about the items, ``[items, width]``; likewise.
    population_rates: what train users' histories hold, where likes go by that.
    """

    log: Log
    lists: CandidateLists
    prompts: Mapping[int, Prompt]
    digest: str
    features: Callable[[], ItemFeatures]
    item_vectors: Callable[[], np.ndarray]
    population_rates: PopulationRates | None = None

    def users_of(self, *groups: Group) -> np.ndarray:
        """Users of these groups who own a list, ascending."""
        return np.unique(np.concatenate([self.lists.of(group).user_B for group in groups]))


PREPARE = StepKind("prepare", reads=("data", "data_seed", "split", "protocol", "prompt", "lm"))


def prepare(study: Study) -> Task:
    """Read the log; split its users, build lists and prompts, or find them built."""
    config, lm = study.config, study.first_lm
    read = study.own.log or read_run_log(config.data, config.data_seed, study.progress, study.run.path)
    log, columns = with_readable_columns(read, lm.folder, study.progress) if config.uses_lm else (read, {})
    inputs = {"dataset": log_digest(log), "lm": lm.digest} | groups_digest(config.split)
    inputs |= profiles_digest(log) if config.prompt.include_profile else {}
    inputs |= template_digest(config.prompt.template)
    inputs |= {name: part for name, part in study.own.identities().items() if name == "prompt"}
    with study.step(PREPARE, "", inputs) as step:
        if not step.is_done:
            groups = user_groups(log, config.split, config.data_seed)
            with study.progress.stage("candidate lists"):
                lists = build_lists(log, groups, config.protocol, config.data_seed)
            for note in lists.notes:
                study.progress.say(note)
            require_teaching_lists(log, groups, lists, needs_reward=config.rounds > 0)
            prompts = _prompts(study, log, lists)
            write_lists(step.folder / LISTS, lists)
            write_rows(step.folder / PROMPTS, prompts, Prompt)
            step.note(
                num_users=log.num_users,
                num_items=log.num_items,
                num_interactions=log.interactions.height,
                num_lists={group.value: len(lists.of(group)) for group in Group},
                num_lists_without_positive={
                    group.value: int((lists.of(group).labels_BL <= 0).all(axis=1).sum()) for group in Group
                },
                num_users_with_lists={g.value: len(np.unique(lists.of(g).user_B)) for g in Group},
                num_history_items_cut=sum(prompt.num_items_cut for prompt in prompts),
                reading=[*log.reading, *lists.notes],
                **columns_note(columns),
            )
            del prompts, lists  # of a million users: gigabytes
    folder = study.run.folder("prepare")
    with study.progress.stage("read prompts"):
        prompts = {prompt.user: prompt for prompt in read_rows(folder / PROMPTS, Prompt)}
    lists = read_lists(folder / LISTS)

    @lru_cache(maxsize=1)
    def item_vectors() -> np.ndarray:
        return tfidf_vectors(item_texts(log), config.item_vector_width, config.data_seed)

    @lru_cache(maxsize=1)
    def features() -> ItemFeatures:
        return item_features(log, item_vectors()) if config.reranker.use_item_knowledge else item_features(log)

    rates = _population_rates(log, lists, config.prompt)
    return Task(log, lists, prompts, study.run.digest("prepare"), features, item_vectors, rates)


def _prompts(study: Study, log: Log, lists: CandidateLists) -> list[Prompt]:
    users = np.unique(np.concatenate([lists.of(group).user_B for group in Group]))
    if not study.config.uses_lm:
        return [Prompt(user, "", "", 0, 0) for user in users.tolist()]
    config, lm = study.config.prompt, study.open_lm(study.first_lm.folder)
    write = profile_writer(log, config, lm, _population_rates(log, lists, config), study.own.prompt)
    beside = ("dpo.max_prompt_tokens",) if study.config.rounds else ()
    return write_prompts(write, lists.histories, users, beside, study.progress)


def _population_rates(log: Log, lists: CandidateLists, config: PromptConfig) -> PopulationRates | None:
    """From train users alone: what others do is known when a prompt is written, test users are not."""
    return population_rates_of(log, lists.histories, np.unique(lists.train.user_B), config)


def log_digest(log: Log) -> str:
    """SHA-256 over the interactions, titles and attributes as they were read."""
    digest = hashlib.sha256()
    for name in ("user", "item", "rating", "time"):
        digest.update(log.interactions[name].fill_null(0).to_numpy().tobytes())
    for name in ("title", *log.attributes):
        digest.update(log.items[name].to_frame().write_json().encode())
    for texts in (log.item_knowledge, log.user_knowledge):
        if texts is not None:
            digest.update(texts.write_json().encode())
    if log.impressions is not None:
        for column in log.impressions.drop("list_id"):
            digest.update(column.fill_null(-1).to_numpy().tobytes())
    return digest.hexdigest()


def profiles_digest(log: Log) -> dict[str, str]:
    """SHA-256 of what is known of the users, an input of steps that show it; none where nothing is known."""
    known = log.users.drop("user", "user_id")
    return {"profiles": hashlib.sha256(known.write_json().encode()).hexdigest()} if known.width else {}


def write_lists(file: Path, lists: CandidateLists) -> None:
    """All groups' lists and the histories in one safetensors file."""
    arrays = arrays_of(lists.histories, "histories")
    for group in Group:
        arrays |= arrays_of(lists.of(group), group.value)
    if lists.first_stage_recall is not None:
        arrays[RECALL] = np.array(lists.first_stage_recall)
    save_file(arrays, file)


def read_lists(file: Path) -> CandidateLists:
    """What `write_lists` wrote."""
    arrays = load_file(file)
    groups: dict[str, Any] = {group.value: record_of(arrays, group.value, Lists, group=group) for group in Group}
    recall = float(arrays[RECALL]) if RECALL in arrays else None
    return CandidateLists(record_of(arrays, "histories", Histories), **groups, first_stage_recall=recall)
