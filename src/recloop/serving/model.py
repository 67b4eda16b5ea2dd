"""What the service reads of a finished run of DPO4Rec: the one place that knows `FinishedRun` from inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from recloop.encoders.sentence import encode_texts
from recloop.methods.dpo4rec.names import UNTUNED
from recloop.methods.dpo4rec.run_models import RunModels, Who
from recloop.methods.predict import FinishedRun
from recloop.records import Group
from recloop.rerankers.request_scorer import RequestScorer, prepare_requests

if TYPE_CHECKING:
    from jaxtyping import Float32

    from recloop.llm.language_model import LanguageModel

LOADING = Lock()  # two threads that import transformers at once see half of it


@dataclass(frozen=True, slots=True)
class ShownUser:
    """A user of the log: the history that texts are about, and a list with what was chosen of it.

    items, ratings: the history, oldest first; ratings NaN where unknown.
    candidates, labels: of the user's first list.
    texts: by variant, what the run's language models wrote.
    vector_D: of the served variant's text; None where the run has none.
    """

    group: str
    items: np.ndarray
    ratings: np.ndarray
    candidates: np.ndarray
    labels: np.ndarray
    texts: Mapping[str, str]
    vector_D: Float32[np.ndarray, " D"] | None


@dataclass(frozen=True)
class ServedModel:
    """A finished run of DPO4Rec, opened for many requests. Items are numbers here.

    users: those who own a list, by id; test users first.
    writers: by variant, the run's models with the language model that writes that variant's texts.
    """

    finished: FinishedRun
    scorer: RequestScorer
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    users: Mapping[str, ShownUser]
    writers: Mapping[str, RunModels]
    folded_titles: tuple[str, ...] = field(repr=False)

    @property
    def variant(self) -> str:
        """Whose texts are served: the trained language model's, or the untuned one's of a run without training."""
        return self.finished.variant

    def numbers(self, item_ids: Sequence[str], what: str) -> list[int]:
        """Item numbers; DataError, with ids that are near, for one that the log does not have."""
        return self.finished.models.item_numbers(item_ids, what)

    def write(self, who: Who, variant: str) -> str:
        """What a variant's language model writes about somebody; it takes seconds."""
        writer = self.writers[variant]
        with LOADING:
            _ = writer.lm
        return writer.texts([who], seed=0)[0]

    def encode(self, texts: Sequence[str]) -> list[Float32[np.ndarray, " D"]]:
        """The vectors of texts, each encoded alone: others beside it would move its last digits. Milliseconds each."""
        self.open_encoder()
        encoder = self.finished.models.study.open_encoder()
        return [encode_texts(encoder, [text])[0] for text in texts]

    def open_encoder(self) -> None:
        """Load the text encoder, which takes seconds, before a request waits for it."""
        with LOADING:
            self.finished.models.study.open_encoder()

    def find_items(self, words: str, limit: int) -> list[int]:
        """Items whose titles hold the words, whatever their case; those that begin with them first."""
        folded = words.casefold()
        found = [item for item, title in enumerate(self.folded_titles) if folded in title]
        return sorted(found, key=lambda item: (not self.folded_titles[item].startswith(folded), item))[:limit]


class UntunedModels(RunModels):
    """The models of a run with the language model that it began with."""

    @property
    def variant(self) -> str:
        return UNTUNED

    @cached_property
    def lm(self) -> LanguageModel:
        return self.study.open_lm(self.study.first_lm.folder)


def open_model(finished: FinishedRun) -> ServedModel:
    """Read the log, the reranker, and the texts about the run's users with their vectors; no language model.

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
    scorer = prepare_requests(finished.reranker)
    return ServedModel(finished, scorer, ids, titles, shown_users(models, tuple(writers)), writers, folded)


def shown_users(models: RunModels, variants: Sequence[str]) -> dict[str, ShownUser]:
    """Users who own a list, test users first, by id."""
    lists, ids = models.task.lists, models.log.users.sort("user")["user_id"].to_list()
    written = {variant: models.written(variant) for variant in variants}
    users: dict[str, ShownUser] = {}
    for group in (Group.TEST, Group.VALID, Group.REWARD, Group.TRAIN):
        of_group = lists.of(group)
        owners, first_rows = np.unique(of_group.user_B, return_index=True)
        for user, row in zip(owners.tolist(), first_rows.tolist(), strict=True):
            is_item_L = of_group.is_item_BL[row]
            candidates, labels = of_group.items_BL[row][is_item_L], of_group.labels_BL[row][is_item_L]
            texts = {variant: by_user[user][0] for variant, by_user in written.items() if user in by_user}
            items, ratings = lists.histories.of(user)
            vector_D = models.stored_vectors.get(user)
            users[ids[user]] = ShownUser(group.value, items, ratings, candidates, labels, texts, vector_D)
    return users
