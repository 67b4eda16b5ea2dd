"""The task of a run: the log, four disjoint user groups, their candidate lists and their prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from recloop.data.lists import build_lists
from recloop.data.load import load_log
from recloop.data.splits import split_users
from recloop.llm.chat import chat_tokens
from recloop.llm.shown_columns import columns_note, with_readable_columns
from recloop.methods.context import Loop
from recloop.prompts.claims import PopulationRates
from recloop.prompts.user_profile import PromptConfig, build_prompts, population_rates_of
from recloop.records import CandidateLists, Log, Group, Histories, Lists, Prompt

LISTS, RECALL, PROMPTS = "lists.safetensors", "first_stage_recall", "prompts.parquet"
LIST_FIELDS = ("user_B", "items_BL", "labels_BL", "is_item_BL")


@dataclass(frozen=True, slots=True)
class Task:
    """What all stages of a run work on.

    prompts: of every user who owns a list, by user.
    population rate: what train users' histories hold, where likes go by that.
    digest: of the stage that made lists and prompts; an input of every stage that reads them.
    """

    dataset: Log
    lists: CandidateLists
    prompts: Mapping[int, Prompt]
    digest: str
    population_rates: PopulationRates | None = None

    def users_of(self, *groups: Group) -> np.ndarray:
        """Users of these groups who own a list, ascending."""
        return np.unique(np.concatenate([self.lists.of(group).user_B for group in groups]))


def prepare(loop: Loop) -> Task:
    """Read the log; split its users, build lists and prompts, or find them built."""
    config = loop.config
    lm = loop.first_lm
    log = load_log(config.data, config.data_seed, loop.progress)
    dataset, columns = with_readable_columns(log, lm.folder, loop.progress)
    inputs = {"dataset": dataset_digest(dataset), "lm": lm.digest}
    inputs |= profiles_digest(dataset) if config.prompt.include_profile else {}
    with loop.stage("prepare", "", inputs) as stage:
        if not stage.is_done:
            groups = split_users(dataset.num_users, config.split, config.data_seed)
            lists = build_lists(dataset, groups, config.protocol, config.data_seed)
            users = np.unique(np.concatenate([lists.of(group).user_B for group in Group]))
            reader = loop.open_lm(lm.folder)
            population_rates = _population_rates(dataset, lists, config.prompt)
            prompts = build_prompts(
                *(dataset, lists.histories, users, config.prompt, reader.count_tokens, population_rates),
                chat_tokens(reader),
            )
            write_lists(stage.folder / LISTS, lists)
            write_prompts(stage.folder / PROMPTS, prompts)
            stage.note(
                num_users=dataset.num_users,
                num_items=dataset.num_items,
                num_interactions=dataset.interactions.height,
                num_lists={group.value: len(lists.of(group)) for group in Group},
                num_users_with_lists={g.value: len(np.unique(lists.of(g).user_B)) for g in Group},
                num_history_items_cut=sum(prompt.num_items_cut for prompt in prompts),
                **columns_note(columns),
            )
    folder = loop.run.folder("prepare")
    prompts = {prompt.user: prompt for prompt in read_prompts(folder / PROMPTS)}
    lists = read_lists(folder / LISTS)
    return Task(dataset, lists, prompts, loop.run.digest("prepare"), _population_rates(dataset, lists, config.prompt))


def _population_rates(dataset: Log, lists: CandidateLists, config: PromptConfig) -> PopulationRates | None:
    """From train users alone: what others do is known when a prompt is written, test users are not."""
    return population_rates_of(dataset, lists.histories, np.unique(lists.train.user_B), config)


def dataset_digest(dataset: Log) -> str:
    """SHA-256 over the interactions, titles and attributes as they were read."""
    digest = hashlib.sha256()
    for name in ("user", "item", "rating", "time"):
        digest.update(dataset.interactions[name].fill_null(0).to_numpy().tobytes())
    for name in ("title", *dataset.attributes):
        digest.update(dataset.items[name].to_frame().write_json().encode())
    if dataset.item_knowledge is not None:
        digest.update(dataset.item_knowledge.write_json().encode())
    if dataset.user_knowledge is not None:
        digest.update(dataset.user_knowledge.write_json().encode())
    return digest.hexdigest()


def profiles_digest(dataset: Log) -> dict[str, str]:
    """SHA-256 of what is known of the users, an input of stages that show it; none where nothing is known."""
    known = dataset.users.drop("user", "user_id")
    return {"profiles": hashlib.sha256(known.write_json().encode()).hexdigest()} if known.width else {}


def write_lists(file: Path, lists: CandidateLists) -> None:
    """All groups' lists and the histories in one safetensors file."""
    arrays = {
        "histories.offsets_U1": lists.histories.offsets_U1,
        "histories.items": lists.histories.items,
        "histories.rating": lists.histories.rating,
    }
    for group in Group:
        for field in LIST_FIELDS:
            arrays[f"{group}.{field}"] = np.ascontiguousarray(getattr(lists.of(group), field))
    if lists.first_stage_recall is not None:
        arrays[RECALL] = np.array(lists.first_stage_recall)
    save_file(arrays, file)


def read_lists(file: Path) -> CandidateLists:
    """What `write_lists` wrote."""
    arrays = load_file(file)
    histories = Histories(*(arrays[f"histories.{field}"] for field in ("offsets_U1", "items", "rating")))
    groups = {g: Lists(g, *(arrays[f"{g}.{field}"] for field in LIST_FIELDS)) for g in Group}
    return CandidateLists(
        histories,
        groups[Group.TRAIN],
        groups[Group.REWARD],
        groups[Group.VALID],
        groups[Group.TEST],
        float(arrays[RECALL]) if RECALL in arrays else None,
    )


def write_prompts(file: Path, prompts: list[Prompt]) -> None:
    """One row per prompt."""
    pl.DataFrame(
        {
            "user": pl.Series([p.user for p in prompts], dtype=pl.Int64),
            "system": [p.system for p in prompts],
            "text": [p.text for p in prompts],
            "num_items_shown": [p.num_items_shown for p in prompts],
            "num_items_cut": [p.num_items_cut for p in prompts],
        }
    ).write_parquet(file)


def read_prompts(file: Path) -> list[Prompt]:
    """What `write_prompts` wrote."""
    return [Prompt(**row) for row in pl.read_parquet(file).iter_rows(named=True)]
