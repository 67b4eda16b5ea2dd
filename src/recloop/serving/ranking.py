"""One request's way through a finished run of DPO4Rec: whose history, which text, what scores."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.errors import DataError, SettingError
from recloop.methods.predict import text_parts
from recloop.rerankers.request_scorer import ListRequest
from recloop.serving.batching import Batcher
from recloop.serving.metrics import ServiceMetrics
from recloop.serving.model import ServedModel, ShownUser
from recloop.serving.schemas import Asker, ExplainRequest, ProfileRequest, RerankRequest
from recloop.serving.work_queue import WorkQueue

if TYPE_CHECKING:
    from torch import Tensor

MAX_TEXTS = 20_000  # kept as the reranker reads them, 32 numbers each
MAX_PARTS = 24
History = tuple[np.ndarray, np.ndarray]


class Kept(OrderedDict[Any, Any]):
    """The values that were asked for last, at most `MAX_TEXTS`."""

    def keep(self, key: Any, value: Any) -> Any:
        """The value, now the newest."""
        self[key] = value
        if len(self) > MAX_TEXTS:
            self.popitem(last=False)
        return value

    def find(self, key: Any) -> Any:
        """The value, made the newest; None where it is not kept."""
        value = self.get(key)
        if value is not None:
            self.move_to_end(key)
        return value


@dataclass(frozen=True, slots=True)
class RankingService:
    """A served model with its queues and what it keeps.

    encoding, writing: queues of the text encoder and of the language model.
    adapted: texts as the reranker reads them. written: texts by variant and history.
    """

    model: ServedModel
    batcher: Batcher[ListRequest, np.ndarray]
    encoding: WorkQueue
    writing: WorkQueue
    metrics: ServiceMetrics
    adapted: Kept = field(default_factory=Kept)
    written: Kept = field(default_factory=Kept)

    @classmethod
    def of(cls, model: ServedModel, encoding: WorkQueue, writing: WorkQueue, metrics: ServiceMetrics) -> RankingService:
        """With empty caches."""
        batcher = Batcher(model.scorer.score, lambda query: len(query.items_L), metrics.batch.observe)
        return cls(model, batcher, encoding, writing, metrics)

    async def rerank(self, body: RerankRequest) -> dict[str, Any]:
        """The reply to `RerankRequest`; DataError: an item or user that the log does not have."""
        items = self.model.numbers(body.candidates, "candidates")
        history = self.history(body)
        text, source = (body.text, "request") if body.text is not None else await self.text(body, self.model.variant)
        adapted = self.adapted_user(body.user) if source == "run" and body.user is not None else None
        if adapted is None:
            (adapted,) = await self.adapt([text])
        scores_L = await self.batcher(ListRequest(np.array(items, dtype=np.int64), adapted, history))
        order = np.argsort(-scores_L, kind="stable").tolist()
        scores, ids, titles = scores_L.tolist(), body.candidates, self.model.titles
        ranking = [{"item_id": ids[p], "title": titles[items[p]], "score": scores[p]} for p in order]
        return {"ranking": ranking, "text": text, "source": source}

    async def explain(self, body: ExplainRequest) -> dict[str, Any]:
        """The reply to `ExplainRequest`: the candidates' scores with each part of the text left out."""
        items = self.model.numbers(body.candidates, "candidates")
        history, items_L = self.history(body), np.array(items, dtype=np.int64)
        parts = text_parts(body.text)[:MAX_PARTS]
        adapted_P = await self.adapt([body.text, *(rest for _, rest in parts)])
        queries = [ListRequest(items_L, adapted, history) for adapted in adapted_P]
        scores_L, *without_PL = await asyncio.gather(*(self.batcher(query) for query in queries))
        order = np.argsort(-scores_L, kind="stable").tolist()
        ids, titles = body.candidates, self.model.titles
        ranking = [
            {
                "item_id": ids[p],
                "title": titles[items[p]],
                "score": float(scores_L[p]),
                "changes": [float(scores_L[p] - other_L[p]) for other_L in without_PL],
            }
            for p in order
        ]
        return {"parts": [part for part, _ in parts], "ranking": ranking}

    async def profile(self, body: ProfileRequest) -> dict[str, Any]:
        """The reply to `ProfileRequest`; DataError: an unknown user, or a variant that the run does not have."""
        if body.variant not in self.model.writers:
            raise DataError(f"the run has only texts of the {self.model.variant} model, got variant {body.variant}")
        self.history(body)
        text, source = await self.text(body, body.variant)
        return {"text": text, "variant": body.variant, "source": source}

    async def text(self, asker: Asker, variant: str) -> tuple[str, str]:
        """What is said about whom, and whether it was in the ``run`` or ``written`` for the service."""
        if asker.user is not None:
            if (text := self.user(asker.user).texts.get(variant)) is not None:
                return text, "run"
            who = asker.user
        else:
            who = asker.pairs
        key = variant, str(who)
        if (text := self.written.find(key)) is None:
            # Kept in the work itself: whoever asked may have left when it is done, and will ask again.
            text = await self.writing.run(lambda: self.written.keep(key, self.model.write(who, variant)))
            self.metrics.written.inc()
        return text, "written"

    async def adapt(self, texts: Sequence[str]) -> list[Tensor]:
        """Texts as the reranker reads them; those that are not kept are encoded."""
        found = {text: self.adapted.find(text) for text in texts}
        if new := [text for text, adapted in found.items() if adapted is None]:
            vectors = await self.encoding.run(lambda: self.model.encode(new))
            self.metrics.encoded.inc(len(new))
            for text, vector_D in zip(new, vectors, strict=True):
                found[text] = self.adapted.keep(text, self.model.scorer.adapt(vector_D))
        return [found[text] for text in texts]

    def adapted_user(self, user_id: str) -> Tensor | None:
        """The run's own text about a user, by the vector that the run has of it; None where it has none."""
        key, vector_D = ("user", user_id), self.user(user_id).vector_D
        if vector_D is None:
            return None
        found = self.adapted.find(key)
        return self.adapted.keep(key, self.model.scorer.adapt(vector_D)) if found is None else found

    def history(self, asker: Asker) -> History:
        """Items and ratings; DataError: an item or user that the log does not have."""
        if asker.user is not None:
            user = self.user(asker.user)
            return user.items, user.ratings
        items = self.model.numbers([item for item, _ in asker.pairs], "history")
        return np.array(items, dtype=np.int64), np.array([rating for _, rating in asker.pairs], dtype=np.float32)

    def describe(self, user_id: str) -> dict[str, Any]:
        """The reply to a look-up of a user; SettingError where the log has no such user with a list."""
        user, ids, titles = self.user(user_id), self.model.item_ids, self.model.titles

        def named(items: np.ndarray, name: str, values: np.ndarray) -> list[dict[str, Any]]:
            pairs = zip(items.tolist(), map(_known, values.tolist()), strict=True)
            return [{"item_id": ids[item], "title": titles[item], name: value} for item, value in pairs]

        return {
            "user_id": user_id,
            "group": user.group,
            "history": named(user.items, "rating", user.ratings),
            "candidates": named(user.candidates, "label", user.labels),
            "texts": dict(user.texts),
        }

    def user(self, user_id: str) -> ShownUser:
        """SettingError where the log has no such user with a list."""
        if user_id not in self.model.users:
            known = ", ".join(list(self.model.users)[:3])
            raise SettingError(f"the run has no user {user_id} with a list; its users are {known}, ...")
        return self.model.users[user_id]


def _known(rating: float) -> float | None:
    """None for NaN, which equals nothing and would be asked for again and again."""
    return None if np.isnan(rating) else rating
