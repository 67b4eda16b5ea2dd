"""What the service reads of a finished run of DPO4Rec: the one place that knows `FinishedRun` from inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.methods.dpo4rec.names import UNTUNED
from recloop.methods.dpo4rec.run_models import RunModels, Who
from recloop.methods.predict import FinishedRun
from recloop.records import Group
from recloop.rerankers.request_scorer import RequestScorer, prepare_requests

if TYPE_CHECKING:
    from jaxtyping import Float32

    from recloop.llm.language_model import LanguageModel

MAX_RATINGS = 21  # different ones that the page offers, as 0 to 100 in steps of 5
LOADING = Lock()  # two threads that import transformers at once see half of it


@dataclass(frozen=True)
class ServedModel:
    """A finished run of DPO4Rec, opened for many requests.

    owners: users who own a list, by id, with their group and the row of their first list in it; test users first.
    writers: by variant, the run's models with the language model that writes that variant's texts.
    ratings: different ones that the log holds, lowest first, some of them where there are many; none without ratings.
    tries: how often a text is drawn at most, until it says nothing unsupported; 1 does not check.
    """

    finished: FinishedRun
    scorer: RequestScorer
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    owners: Mapping[str, tuple[Group, int]]
    writers: Mapping[str, RunModels]
    folded_titles: tuple[str, ...] = field(repr=False)
    ratings: tuple[float, ...]
    tries: int = 1

    @property
    def variant(self) -> str:
        """Whose texts are served: the trained language model's, or the untuned one's of a run without training."""
        return self.finished.variant

    @property
    def models(self) -> RunModels:
        """The parts of the run."""
        return self.finished.models

    def known_text(self, who: Who, variant: str) -> str | None:
        """The first text that the run has about somebody, and may be served; None without one; milliseconds."""
        return self.models.first_text(who, variant, only_true=self.tries > 1)

    def write(self, who: Who, variant: str) -> str:
        """What a variant's language model writes about somebody; it takes seconds."""
        writer = self.writers[variant]
        with LOADING:
            _ = writer.lm
        return writer.texts([who], seed=0, tries=self.tries)[0]

    def encode(self, text: str) -> Float32[np.ndarray, " D"]:
        """The vector of a text that the run does not have; milliseconds."""
        self.open_encoder()
        return self.models.encode(text)

    def open_encoder(self) -> None:
        """Load the text encoder, which takes seconds, before a request waits for it."""
        with LOADING:
            self.models.study.open_encoder()

    def find_items(self, words: str, limit: int) -> list[int]:
        """Items whose titles hold the words, whatever their case; those that begin with them first."""
        folded = words.casefold()
        found = [item for item, title in enumerate(self.folded_titles) if folded in title]
        return sorted(found, key=lambda item: (not self.folded_titles[item].startswith(folded), item))[:limit]

    def describe(self, user_id: str) -> dict[str, Any]:
        """A user of the log: group, history, a list with what was chosen of it, and what the run has written.

        Raises:
            DataError: the log has no such user.
        """
        items, ratings = self.models.history(user_id)
        texts = {variant: self.known_text(user_id, variant) for variant in self.writers}
        told = {"user_id": user_id, "group": "", "history": self._named(items, "rating", ratings), "candidates": []}
        told |= {"ratings": self.ratings}
        if user_id in self.owners:
            group, row = self.owners[user_id]
            lists = self.models.task.lists.of(group)
            is_item_L = lists.is_item_BL[row]
            shown = self._named(lists.items_BL[row][is_item_L], "label", lists.labels_BL[row][is_item_L])
            told |= {"group": group.value, "candidates": shown}
        return told | {"texts": {variant: text for variant, text in texts.items() if text is not None}}

    def _named(self, items: np.ndarray, name: str, values: np.ndarray) -> list[dict[str, Any]]:
        known = (None if np.isnan(value) else value for value in values.tolist())
        return [
            {"item_id": self.item_ids[item], "title": self.titles[item], name: value}
            for item, value in zip(items.tolist(), known, strict=True)
        ]


class UntunedModels(RunModels):
    """The models of a run with the language model that it began with."""

    @property
    def variant(self) -> str:
        return UNTUNED

    @cached_property
    def lm(self) -> LanguageModel:
        return self.study.open_lm(self.study.first_lm.folder)


def open_model(finished: FinishedRun, tries: int = 1) -> ServedModel:
    """Read the log, the reranker, and the texts about the run's users with their vectors; no language model.

    Args:
        tries: as `ServedModel` has it.

    Raises:
        SettingError: a run of another method, or its reranker reads a first stage's scores.
    """
    models = finished.models
    writers = {finished.variant: models}
    if finished.variant != UNTUNED:
        writers[UNTUNED] = UntunedModels(models.run, models.objects, models.more_items)
        writers[UNTUNED].__dict__["task"] = models.task  # else it reads the log again
    items = finished.log.items.select("item_id", "title")
    ids, titles = tuple(items["item_id"]), tuple(items["title"])
    folded = tuple(title.casefold() for title in titles)
    _ = models.vector_of_text, models.number_of_item, models.number_of_user  # before a request waits for them
    if tries > 1:
        writers[UNTUNED].__dict__["check"] = models.check
    owners, ratings = _owners(models), _ratings(models)
    scorer = prepare_requests(finished.reranker)
    return ServedModel(finished, scorer, ids, titles, owners, writers, folded, ratings, tries)


def _ratings(models: RunModels) -> tuple[float, ...]:
    found = models.task.log.interactions["rating"].drop_nulls().drop_nans().unique().sort().to_numpy()
    if len(found) > MAX_RATINGS:
        found = found[np.linspace(0, len(found) - 1, MAX_RATINGS).round().astype(int)]
    return tuple(found.tolist())


def _owners(models: RunModels) -> dict[str, tuple[Group, int]]:
    ids = models.log.users.sort("user")["user_id"].to_list()
    found: dict[str, tuple[Group, int]] = {}
    for group in (Group.TEST, Group.VALID, Group.REWARD, Group.TRAIN):
        owners, first_rows = np.unique(models.task.lists.of(group).user_B, return_index=True)
        found |= {ids[user]: (group, row) for user, row in zip(owners.tolist(), first_rows.tolist(), strict=True)}
    return found
