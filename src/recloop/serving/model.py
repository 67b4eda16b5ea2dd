"""What the service reads of a finished run of DPO4Rec: the one place that knows `FinishedRun` from inside."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.encoders.sentence import encode_texts
from recloop.methods.dpo4rec.generate import ENCODE, SAMPLE, UserTexts, read_user_texts, read_vectors
from recloop.methods.dpo4rec.names import TRAINED, UNTUNED
from recloop.methods.predict import FinishedRun, Interaction
from recloop.records import Group
from recloop.serving.scorer import ListScorer

if TYPE_CHECKING:
    from jaxtyping import Float32

    from recloop.records import Log, UserVectors


LOADING = Lock()  # two threads that import transformers at once see half of it


@dataclass(frozen=True, slots=True)
class ShownUser:
    """A user of the log: the history that texts are about, and a list with what was chosen of it.

    items, ratings: the history, oldest first; ratings NaN where unknown.
    candidates, labels: of the user's first list; none for a user who owns no list.
    texts: by variant, what the run's language models wrote.
    """

    group: str
    items: np.ndarray
    ratings: np.ndarray
    candidates: np.ndarray
    labels: np.ndarray
    texts: Mapping[str, str]


@dataclass(frozen=True)
class ServedModel:
    """A finished run of DPO4Rec, opened for many requests. Items are numbers here, texts are known by their words.

    writers: by variant, the run with the language model that writes that variant's texts.
    users: those who own a list, by id; test users first.
    vectors: of the texts that the run has of the served variant, by user id.
    """

    finished: FinishedRun
    scorer: ListScorer
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    users: Mapping[str, ShownUser]
    vectors: Mapping[str, Float32[np.ndarray, " D"]]
    writers: Mapping[str, FinishedRun]
    folded_titles: tuple[str, ...] = field(repr=False)

    @property
    def variant(self) -> str:
        """Whose texts are served: the trained language model's, or the untuned one's of a run without training."""
        return next(iter(self.writers))

    def numbers(self, item_ids: Sequence[str], what: str) -> list[int]:
        """Item numbers; DataError, with ids that are near, for one that the log does not have."""
        return self.finished._numbers(item_ids, what)

    def write(self, history: Sequence[Interaction], variant: str) -> str:
        """What a variant's language model writes about a history; it takes seconds."""
        writer = self.writers[variant]
        with LOADING:
            _ = writer._lm
        return writer.profile(history)

    def encode(self, texts: Sequence[str]) -> list[Float32[np.ndarray, " D"]]:
        """The vectors of texts, each encoded alone: others beside it would move its last digits. Milliseconds each."""
        self.open_encoder()
        return [encode_texts(self.finished._study.open_encoder(), [text])[0] for text in texts]

    def open_encoder(self) -> None:
        """Load the text encoder, which takes seconds, before a request waits for it."""
        with LOADING:
            self.finished._study.open_encoder()

    def find_items(self, words: str, limit: int) -> list[int]:
        """Items whose titles hold the words, whatever their case; those that begin with them first."""
        folded = words.casefold()
        found = [item for item, title in enumerate(self.folded_titles) if folded in title]
        return sorted(found, key=lambda item: (not self.folded_titles[item].startswith(folded), item))[:limit]


def open_model(finished: FinishedRun) -> ServedModel:
    """Read the log, the reranker, and the texts about the run's users with their vectors; no language model.

    Raises:
        SettingError: a run of another method.
        ContractError: its reranker reads no texts, or a first stage's scores.
    """
    study, task = finished._study, finished._task
    variants = (TRAINED, UNTUNED) if study.config.rounds else (UNTUNED,)

    def key(variant: str) -> str:
        return f"{variant}.s{study.config.seeds[0]}"

    items = task.log.items.select("item_id", "title")
    titles = tuple(items["title"])
    written = {
        variant: first_texts(read_user_texts(study, variant, SAMPLE.named(key(variant)))) for variant in variants
    }
    users = shown_users(task.log, task.lists, written)
    stored = first_vectors(read_vectors(study.run.folder(ENCODE.named(key(variants[0])))))
    ids = task.log.users.sort("user")["user_id"].to_list()
    vectors = {ids[user]: vector_D for user, vector_D in stored.items()}
    writers = {variants[0]: finished}
    if study.config.rounds:
        writers[UNTUNED] = UntunedRun(finished.run, finished.objects)
        writers[UNTUNED].__dict__["_task"] = task  # else it reads the log again
    scorer = ListScorer.of(finished._reranker)
    folded = tuple(title.casefold() for title in titles)
    return ServedModel(finished, scorer, tuple(items["item_id"]), titles, users, vectors, writers, folded)


def first_texts(texts: UserTexts) -> dict[int, str]:
    """The first completion of each user, by user."""
    parts = texts.parts.values()
    pairs = (pair for part in parts for pair in zip(part.user_U.tolist(), part.completions_UN, strict=True))
    return {user: completions_N[0].text for user, completions_N in pairs}


def first_vectors(parts: Mapping[str, UserVectors]) -> dict[int, np.ndarray]:
    """The vector of the first completion of each user, by user."""
    pairs = (pair for one in parts.values() for pair in zip(one.user_U.tolist(), one.vectors_UND, strict=True))
    return {user: vectors_ND[0] for user, vectors_ND in pairs}


def shown_users(log: Log, lists: Any, written: Mapping[str, Mapping[int, str]]) -> dict[str, ShownUser]:
    """Users who own a list, test users first, by id."""
    ids = log.users.sort("user")["user_id"].to_list()
    users: dict[str, ShownUser] = {}
    for group in (Group.TEST, Group.VALID, Group.REWARD, Group.TRAIN):
        of_group = lists.of(group)
        owners, first_rows = np.unique(of_group.user_B, return_index=True)
        for user, row in zip(owners.tolist(), first_rows.tolist(), strict=True):
            is_item_L = of_group.is_item_BL[row]
            candidates, labels = of_group.items_BL[row][is_item_L], of_group.labels_BL[row][is_item_L]
            texts = {variant: by_user[user] for variant, by_user in written.items() if user in by_user}
            items, ratings = lists.histories.of(user)
            users[ids[user]] = ShownUser(group.value, items, ratings, candidates, labels, texts)
    return users


class UntunedRun(FinishedRun):
    """The run with the language model that it began with."""

    @cached_property
    def _lm(self) -> Any:
        return self._study.open_lm(self._study.first_lm.folder)
