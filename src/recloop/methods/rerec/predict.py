"""`recloop ask`: a request in a user's own words, answered by the language model of a ReRec run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recloop.errors import RunError, SettingError
from recloop.experiment.run_folder import RunFolder
from recloop.llm.bundled import in_shown_names
from recloop.llm.chat import chat_tokens
from recloop.llm.language_model import LanguageModel, Sampling
from recloop.methods.rerec.config import ReRecConfig
from recloop.methods.rerec.data import RequestTask, embed_items, open_study, prepare
from recloop.methods.rerec.report import FULL
from recloop.methods.rerec.train import SUPERVISED
from recloop.progress import SILENT
from recloop.prompts.request import build_request_prompts
from recloop.prompts.request_answer import are_tellable, read_answer
from recloop.records import Condition, Prompt, Request, RequestKind

VOTES = 8  # answers drawn, beside the likeliest one, for the candidates' scores
SHOWN = 5


@dataclass(frozen=True, slots=True)
class RequestAnswer:
    """What a language model answered a request.

    text: the likeliest answer. pick: the title it picks, None where it picks none; `status` says why.
    shares: how often `VOTES` other answers name each title, the most frequent first.
    candidates: titles. label: the step of the model.
    """

    text: str
    pick: str | None
    status: str
    shares: Mapping[str, float]
    candidates: tuple[str, ...]
    label: str


@dataclass(frozen=True, slots=True)
class RequestModel:
    """A run's last language model with all it needs to answer requests."""

    config: ReRecConfig
    task: RequestTask
    vectors_ID: np.ndarray
    lm: LanguageModel
    label: str

    def answer(self, text: str, user: str | None = None) -> RequestAnswer:
        """The answer to a request in a user's words.

        Args:
            user: the id of whose history is shown, and left out of the candidates; None for nobody's.

        Raises:
            SettingError: no such user, no words, or a request that names no attribute and comes from nobody.
        """
        task, config = self.task, self.config
        if not text.strip():
            raise SettingError(f"a request must say what is wanted, got {text!r}; write it in your own words")
        items, rating = history_of(task, user, config.requests.history_items)
        named = conditions_named(task, text)
        if not named and not items:
            raise SettingError(
                f"a request must name an attribute of the catalogue or come from a user, got {text!r}; "
                f"name a {task.dataset.attributes[0]}, or give --user"
            )
        candidates = find_candidates(task, self.vectors_ID, named, items, config.requests.num_candidates)
        told, kind = in_shown_names(text, task.columns), RequestKind.EXPLICIT_1
        request = Request(0, kind, -1, told, tuple(named), candidates, candidates[0], (), items, rating)
        room = chat_tokens(self.lm)
        (prompt,) = build_request_prompts(task.dataset, [request], config.prompt, self.lm.count_tokens, room)
        return answer(self.lm, prompt, task.tests.candidate_titles(request), config.lm.max_tokens, self.label)


def open_request_model(run: RunFolder, config: ReRecConfig) -> RequestModel:
    """The language model to ask; RunError: the run has no trained one yet."""
    study = open_study(config, run, SILENT, None)
    label = last_model(run, config)
    task = prepare(study)
    return RequestModel(config, task, embed_items(study, task), study.open_lm(run.folder(label)), label)


def ask_run(run: RunFolder, config: ReRecConfig, text: str, user: str | None = None) -> str:
    """The reasoning, the pick and the candidates' scores, as text; see `RequestModel.answer`."""
    told = open_request_model(run, config).answer(text, user)
    pick = f"no pick ({told.status})" if told.pick is None else f"pick: {told.pick}"
    lines = [f"  {share:6.0%}  {title}" for title, share in list(told.shares.items())[:SHOWN]]
    others = f"          {len(told.candidates) - len(lines)} others less often"
    return "\n".join([told.text, "", pick, "", f"share of {VOTES} answers ({told.label}):", *lines, others])


def last_model(run: RunFolder, config: ReRecConfig) -> str:
    """The step of the model to ask, which ended its variant's way: ReRec's, else another's, else the supervised."""
    seed, steps = config.seeds[0], run.manifest["steps"]
    for variant in sorted(config.variants, key=lambda variant: variant != FULL):
        for name in steps:
            if name.startswith(f"train.{variant}.s{seed}.e") and steps[name]["inputs"]["passed"][1] >= 1:
                return name
    if run.is_done(f"train.{SUPERVISED}.s{seed}"):
        return f"train.{SUPERVISED}.s{seed}"
    raise RunError(f"{run.path} has no trained model yet; go on with: recloop resume {run.path}")


def history_of(task: RequestTask, user_id: str | None, num: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """A user's latest items and stars, oldest first."""
    if user_id is None:
        return (), ()
    dataset = task.dataset
    found = dataset.users.filter(dataset.users["user_id"] == user_id)
    if not found.height:
        known = ", ".join(dataset.users["user_id"].head(3).to_list())
        raise SettingError(f"{dataset.name} has no user {user_id}; its users are {known}, ...")
    log = dataset.interactions.filter(dataset.interactions["user"] == found["user"][0]).tail(num)
    return tuple(log["item"].to_list()), tuple(log["rating"].fill_null(float("nan")).to_list())


def conditions_named(task: RequestTask, text: str) -> list[Condition]:
    """Attributes whose value stands in the request as whole words, whatever their case."""
    folded = text.casefold()
    return [
        one for one in task.graph.items_with if re.search(rf"(?<!\w){re.escape(one.value.casefold())}(?!\w)", folded)
    ]


def find_candidates(
    task: RequestTask, vectors_ID: np.ndarray, named: list[Condition], history: tuple[int, ...], num: int
) -> tuple[int, ...]:
    """Items with most of the attributes named, those near the history first; in the catalogue's order."""
    met_I = np.zeros(task.graph.num_items)
    for condition in named:
        met_I[list(task.graph.items_with[condition])] += 1
    near_I = vectors_ID @ vectors_ID[list(history)].mean(axis=0) if history else np.zeros(len(met_I))
    chosen: list[int] = []
    for item in np.lexsort((-near_I, -met_I)).tolist():
        titles = [task.tests.titles[one] for one in (*chosen, item)]
        if item not in history and are_tellable(titles):
            chosen.append(item)
        if len(chosen) == num:
            break
    return tuple(sorted(chosen))


def answer(lm: LanguageModel, prompt: Prompt, titles: list[str], max_tokens: int, label: str) -> RequestAnswer:
    """The likeliest answer, its pick or why there is none, and how often other answers name each candidate."""
    ((_, (best,)),) = lm.generate([prompt], Sampling(1, 0.0, 1.0, max_tokens, 0))
    ((_, completions_N),) = lm.generate([prompt], Sampling(VOTES, 1.0, 1.0, max_tokens, 0))
    likeliest = read_answer(best.text, titles, is_finished=best.is_finished)
    first = likeliest.first
    pick = None if first is None else titles[first]
    named = (read_answer(one.text, titles, is_finished=one.is_finished).first for one in completions_N)
    votes = Counter(place for place in named if place is not None)
    shown = sorted(votes.items(), key=lambda pair: (-pair[1], pair[0]))
    shares = {titles[place]: num / VOTES for place, num in shown}
    return RequestAnswer(best.text, pick, likeliest.status.value, shares, tuple(titles), label)
