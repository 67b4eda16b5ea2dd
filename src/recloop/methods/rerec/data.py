"""What a ReRec run works on: the log, its requests and prompts, the item-attribute graph, item embeddings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from recloop.data.item_graph import ItemGraph, build_item_graph
from recloop.data.recbench import FILES, read_recbench
from recloop.data.requests import RequestSet, make_requests
from recloop.data.splits import groups_digest, user_groups
from recloop.experiment.run_folder import RunFolder, RunStep
from recloop.experiment.step import StepKind, Steps
from recloop.files import atomic_write_json, digest_of_files, sha256_of_file
from recloop.llm.bundled import columns_note, with_readable_columns
from recloop.llm.chat import chat_tokens
from recloop.llm.load import local_folder, open_local
from recloop.llm.local import TransformersLM
from recloop.llm.weights import weights_hash
from recloop.methods.dpo4rec.data import log_digest, profiles_digest
from recloop.methods.rerec.config import ReRecConfig, TransferConfig
from recloop.methods.run_log import read_run_log
from recloop.methods.study import LmRef, derived_seed
from recloop.progress import Progress
from recloop.prompts.lines import NOUNS, clean_title
from recloop.prompts.request import build_request_prompts
from recloop.prompts.request_answer import are_tellable
from recloop.records import Condition, Group, Log, Prompt, Request, RequestKind
from recloop.rewards.item_embeddings import fit_item_embeddings

REQUESTS, PROMPTS, VECTORS = "requests.json", "prompts.json", "vectors.safetensors"
BASE_MODEL = "base_model"
PREPARE = StepKind("prepare", reads=("data", "data_seed", "split", "requests", "prompt", "lm"))
EMBED = StepKind("embed", reads=())


@dataclass(frozen=True, slots=True)
class RequestStudy(Steps):
    """One run: what was asked for, and the models it opens on demand; `own_log` is one that was passed as an object."""

    config: ReRecConfig
    first_lm: LmRef
    open_lm: Callable[[Path], TransformersLM]
    own_log: Log | None = None


@dataclass(frozen=True, slots=True)
class TestSet:
    """Requests that every model answers, and how they are shown.

    name: of the log elsewhere that they are about; empty for the run's own.
    prompts: by number of request.
    titles: as shown, by item.
    digest: of the step that made requests and prompts.
    user_ids: as in the source, by user.
    """

    name: str
    requests: tuple[Request, ...]
    prompts: Mapping[int, Prompt]
    titles: Sequence[str]
    digest: str
    user_ids: Sequence[str]

    def asker_of(self, request: Request) -> str:
        """The user id of a request; empty for a request of nobody in the log."""
        return self.user_ids[request.user] if request.user >= 0 else ""

    def candidate_titles(self, request: Request) -> list[str]:
        """As the prompt shows them."""
        return [self.titles[item] for item in request.candidates]


@dataclass(frozen=True, slots=True)
class RequestTask:
    """What all steps of a run work on.

    tests: the test users' requests; its prompts and titles are those of all groups.
    columns: new names of the log's columns that the language model is shown under another name.
    """

    dataset: Log
    graph: ItemGraph
    requests: Mapping[Group, tuple[Request, ...]]
    tests: TestSet
    columns: Mapping[str, str]


def open_study(
    config: ReRecConfig, run: RunFolder, progress: Progress, until: str | None, log: Log | None = None
) -> RequestStudy:
    """The study of a run, of `log` in place of the configured one; no model is loaded yet."""

    @lru_cache(maxsize=1)
    def open_lm(folder: Path) -> TransformersLM:
        return open_local(config.lm, folder)

    folder = local_folder(config.lm.name)
    return RequestStudy(run, progress, until, config, LmRef(BASE_MODEL, folder, weights_hash(folder)), open_lm, log)


def prepare(study: RequestStudy) -> RequestTask:
    """Read the log; split its users, make requests and prompts, or find them made."""
    config = study.config

    def make(dataset: Log) -> RequestSet:
        return _make_requests(study, dataset, user_groups(dataset, config.split, config.data_seed))

    log = study.own_log or read_run_log(config.data, config.data_seed, study.progress, study.run.path)
    return _prepare(study, "", log, {**groups_digest(config.split)}, make)


def prepare_elsewhere(study: RequestStudy) -> list[TestSet]:
    """Requests about other logs, which no model was taught or reinforced on."""
    found: list[TestSet] = []
    for place in study.config.transfer:
        inputs: dict[str, Any] = {"place": place.model_dump(mode="json")}
        if place.recbench is not None:
            there = [name for name in FILES if (place.recbench / name).is_file()]
            inputs["recbench"] = digest_of_files({n: sha256_of_file(place.recbench / n) for n in there})
        log = read_run_log(place.data, study.config.data_seed, study.progress, study.run.path, place.name)
        found.append(_prepare(study, place.name, log, inputs, partial(_requests_elsewhere, study, place)).tests)
    return found


def _prepare(
    study: RequestStudy, name: str, log: Log, inputs: dict[str, Any], make: Callable[[Log], RequestSet]
) -> RequestTask:
    dataset, columns = with_readable_columns(log, study.first_lm.folder, study.progress)
    known = {"dataset": log_digest(dataset), "lm": study.first_lm.digest, **profiles_digest(dataset)}
    with study.step(PREPARE, name, inputs | known) as step:
        if not step.is_done:
            _write_requests(study, step, dataset, make(dataset))
            step.note(reading=list(log.reading), **columns_note(columns))
    folder = study.run.folder(step.name)
    rows = json.loads((folder / REQUESTS).read_text(encoding="utf-8"))
    requests = {group: tuple(_request(row) for row in rows[group.value]) for group in Group}
    prompts = [Prompt(**row) for row in json.loads((folder / PROMPTS).read_text(encoding="utf-8"))]
    tests = TestSet(
        name,
        requests[Group.TEST],
        {prompt.user: prompt for prompt in prompts},
        [clean_title(title) for title in dataset.items["title"].to_list()],
        study.run.digest(step.name),
        dataset.users["user_id"].to_list(),
    )
    return RequestTask(dataset, build_item_graph(dataset), requests, tests, columns)


def _make_requests(study: RequestStudy, dataset: Log, groups: Mapping[Group, np.ndarray]) -> RequestSet:
    config, noun = study.config, NOUNS[dataset.domain]
    return make_requests(dataset, groups, config.requests, config.data_seed, noun=noun, can_tell=_can_tell)


def _requests_elsewhere(study: RequestStudy, place: TransferConfig, dataset: Log) -> RequestSet:
    """At most `place.max_requests`, drawn at random: RecBench+'s, or those of some users of the log."""
    config = study.config
    rng = np.random.default_rng([config.data_seed, 0x7A])
    if place.recbench is not None:
        num_candidates = config.requests.num_candidates
        made, num_unknown = read_recbench(place.recbench, dataset, num_candidates, config.data_seed, _can_tell)
        num_given_up = {"unknown": num_unknown}
    else:
        num_users = min(dataset.num_users, -(-place.max_requests // config.requests.per_user) * 2)
        users = np.sort(rng.choice(dataset.num_users, num_users, replace=False))
        nobody = np.empty(0, dtype=np.int64)
        by_group = _make_requests(study, dataset, {g: users if g is Group.TEST else nobody for g in Group})
        made, num_given_up = by_group.of(Group.TEST), by_group.num_given_up
    if len(made) > place.max_requests:
        drawn = rng.choice(len(made), place.max_requests, replace=False)
        made = tuple(made[number] for number in sorted(drawn.tolist()))
    return RequestSet({group: made if group is Group.TEST else () for group in Group}, num_given_up)


def _can_tell(titles: Sequence[str]) -> bool:
    """Whether titles can be told apart as they are shown."""
    return are_tellable([clean_title(title) for title in titles])


def _write_requests(study: RequestStudy, step: RunStep, dataset: Log, made: RequestSet) -> None:
    """Requests and their prompts, and how many there are."""
    everyone = [request for group in Group for request in made.of(group)]
    lm = study.open_lm(study.first_lm.folder)
    prompts = build_request_prompts(dataset, everyone, study.config.prompt, lm.count_tokens, chat_tokens(lm))
    rows = {group.value: [_row(request) for request in made.of(group)] for group in Group}
    atomic_write_json(step.folder / REQUESTS, rows)
    atomic_write_json(step.folder / PROMPTS, [asdict(prompt) for prompt in prompts])
    step.note(
        num_requests={group.value: len(made.of(group)) for group in Group},
        num_given_up=dict(made.num_given_up),
        num_history_items_cut=sum(prompt.num_items_cut for prompt in prompts),
    )


def embed_items(study: RequestStudy, task: RequestTask) -> np.ndarray:
    """LightGCN's item embeddings, Float32 [I, D], from train users alone."""
    config = study.config
    with study.step(EMBED, "", {"requests": task.tests.digest}) as step:
        if not step.is_done:
            users = user_groups(task.dataset, config.split, config.data_seed)[Group.TRAIN]
            seed = derived_seed(config.data_seed, "embed")
            found = fit_item_embeddings(task.dataset, users, seed, study.progress)
            save_file({"vectors_ID": found.vectors_ID}, step.folder / VECTORS)
            recall = {"recall": found.recall, "knn_recall": found.knn_recall}
            step.log({**recall, "k": found.k, "num_held_out": found.num_held_out})
            step.note(**recall, recall_k=found.k, num_held_out=found.num_held_out)
    return load_file(study.run.folder("embed") / VECTORS)["vectors_ID"]


def _request(row: Mapping[str, Any]) -> Request:
    return Request(
        number=row["number"],
        kind=RequestKind(row["kind"]),
        user=row["user"],
        text=row["text"],
        conditions=tuple(Condition(**one) for one in row["conditions"]),
        candidates=tuple(row["candidates"]),
        answer=row["answer"],
        mentioned=tuple(row["mentioned"]),
        history=tuple(row["history"]),
        rating=tuple(float("nan") if star is None else star for star in row["rating"]),
    )


def _row(request: Request) -> dict[str, Any]:
    """A request with unknown ratings as null: JSON has no NaN."""
    return asdict(request) | {"rating": [None if rating != rating else rating for rating in request.rating]}
