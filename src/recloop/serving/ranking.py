"""One request's way through a finished run of DPO4Rec: whose history, which text, what scores."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.errors import DataError
from recloop.methods.predict import text_parts
from recloop.rerankers.request_scorer import ListRequest
from recloop.serving.batching import Batcher
from recloop.serving.metrics import ServiceMetrics
from recloop.serving.model import ServedModel
from recloop.serving.schemas import Asker, ExplainRequest, ProfileRequest, RerankRequest
from recloop.serving.work_queue import WorkQueue

if TYPE_CHECKING:
    from torch import Tensor

MAX_TEXTS = 20_000  # kept as the reranker reads them, 32 numbers each
MAX_PARTS = 24


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
        """The reply to `RerankRequest`; DataError: an item or user that the log does not have, or a candidate twice."""
        items, history = self.model.models.candidates(body.candidates), self.model.models.history(body.who)
        text, source = (body.text, "request") if body.text is not None else await self.text(body, self.model.variant)
        (adapted,) = await self.adapt([text])
        scores_L = await self.batcher(ListRequest(np.array(items, dtype=np.int64), adapted, history))
        order = np.argsort(-scores_L, kind="stable").tolist()
        scores, ids, titles = scores_L.tolist(), body.candidates, self.model.titles
        ranking = [{"item_id": ids[p], "title": titles[items[p]], "score": scores[p]} for p in order]
        return {"ranking": ranking, "text": text, "source": source}

    async def explain(self, body: ExplainRequest) -> dict[str, Any]:
        """The reply to `ExplainRequest`: the candidates' scores with each part of the text left out."""
        items, history = self.model.models.candidates(body.candidates), self.model.models.history(body.who)
        items_L = np.array(items, dtype=np.int64)
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
        variant = body.variant or self.model.variant
        if variant not in self.model.writers:
            raise DataError(f"the run has only texts of the {self.model.variant} model, got variant {variant}")
        self.model.models.history(body.who)  # before anybody waits for a text
        text, source = await self.text(body, variant)
        return {"text": text, "variant": variant, "source": source}

    async def text(self, asker: Asker, variant: str) -> tuple[str, str]:
        """What is said about whom, and whether it was in the ``run`` or ``written`` for the service."""
        who = asker.who
        if (text := self.model.known_text(who, variant)) is not None:
            return text, "run"
        key = variant, str(who)

        def write() -> str:
            # Kept in the work itself: whoever asked may have left when it is done, and will ask again.
            if (text := self.written.find(key)) is None:
                text = self.written.keep(key, self.model.write(who, variant))
                self.metrics.written.inc()
            return text

        text = self.written.find(key)
        return await self.writing.run(write) if text is None else text, "written"

    async def adapt(self, texts: Sequence[str]) -> list[Tensor]:
        """Texts as the reranker reads them; those that neither the run nor the service has read are encoded."""
        model, found = self.model, {text: self.adapted.find(text) for text in texts}
        missing = [text for text, adapted in found.items() if adapted is None]
        of_run = model.models.vector_of_text
        vectors = {text: of_run[text] for text in missing if text in of_run}
        if new := [text for text in missing if text not in vectors]:
            vectors |= await self.encoding.run(lambda: {text: model.encode(text) for text in new})
            self.metrics.encoded.inc(len(new))
        for text, vector_D in vectors.items():
            found[text] = self.adapted.keep(text, model.scorer.adapt(vector_D))
        return [found[text] for text in texts]
