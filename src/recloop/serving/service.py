"""A run folder that is served: what is opened of it, its queues, and what it is able to answer by now."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recloop.errors import RecloopError, RunError
from recloop.experiment.run_folder import RunFolder
from recloop.serving.metrics import ServiceMetrics
from recloop.serving.schemas import AskRequest, HintRequest
from recloop.serving.work_queue import OverloadedError, WorkQueue

if TYPE_CHECKING:
    from recloop.methods.predict import FinishedRun
    from recloop.methods.re2llm.predict import SessionModel
    from recloop.methods.rerec.predict import RequestModel
    from recloop.serving.ranking import RankingService

ANSWERS = {"dpo4rec": "/rerank, /explain and /profile", "rerec": "/ask", "re2llm": "/hint"}
POLL_S = 2.0
ENCODER_WAITING, ENCODER_S = 64, 30.0


class Service:
    """One run, served. It holds the opened models and their queues.

    Args:
        run: the folder; of a run that is not finished the page shows its progress, and the rest follows when it is.
        llm_waiting: requests that may wait for the language model, which does one at a time.
        llm_s: how long one of them waits.
        tries: how often a text is drawn at most, until it says nothing unsupported; 1 does not check.
        finished: the run as `recloop.load` opened it, where it was made with objects.
    """

    def __init__(
        self, run: Path, *, llm_waiting: int = 8, llm_s: float = 120.0, tries: int = 1,
        finished: FinishedRun | None = None,
    ) -> None:  # fmt: skip
        self.run, self.metrics, self.method = run, ServiceMetrics(), str(RunFolder.look(run).manifest["method"])
        self.llm = WorkQueue("the language model", llm_waiting, llm_s)
        self.encoder = WorkQueue("the text encoder", ENCODER_WAITING, ENCODER_S)
        self.problem = "it is being opened"  # why it cannot answer; empty when it can
        self.metrics.watch("recloop_ready", "Whether the run can be asked.", lambda: not self.problem)
        self.metrics.watch("recloop_llm_waiting", "Requests that wait for it.", lambda: self.llm.num_waiting)
        self.metrics.watch("recloop_encoder_waiting", "Requests that wait for it.", lambda: self.encoder.num_waiting)
        self._finished, self._tries = finished, tries
        self._opened: Any = None

    async def open(self) -> None:
        """Wait until the run is finished, open it, and then what the first new text needs."""
        try:
            while not RunFolder.look(self.run).is_done("report"):
                self.problem = f"{self.run} is not finished; go on with: recloop resume {self.run}"
                await asyncio.sleep(POLL_S)
            self._opened = await asyncio.to_thread(self._open)
        except RecloopError as error:
            self.problem = str(error)
            return
        except Exception as error:
            self.problem = f"it could not be opened ({type(error).__name__}); the service's output says where"
            raise
        self.problem = ""
        if self.method == "dpo4rec":
            with suppress(RecloopError):  # whoever sends a text will be told
                await self.encoder.run(self.ranking.model.open_encoder)
        gc.freeze()  # else every full collection walks over all that was imported, and requests wait

    def _open(self) -> Any:
        """Imports of heavy packages are here, so that the process answers before they are done."""
        folder = RunFolder.look(self.run)
        match self.method:
            case "dpo4rec":
                from recloop.methods.predict import load
                from recloop.serving.model import open_model
                from recloop.serving.ranking import RankingService

                model = open_model(self._finished or load(self.run), self._tries)
                return RankingService.of(model, self.encoder, self.llm, self.metrics)
            case "rerec":
                from recloop.methods.rerec.config import ReRecConfig
                from recloop.methods.rerec.predict import open_request_model

                return open_request_model(folder, ReRecConfig.model_validate(folder.config))
            case "re2llm":
                from recloop.methods.re2llm.config import Re2llmConfig
                from recloop.methods.re2llm.predict import open_session_model

                return open_session_model(folder, Re2llmConfig.model_validate(folder.config))
            case _:
                raise RunError(f"a run of {self.method} answers nothing; serve one of {', '.join(ANSWERS)}")

    def close(self) -> None:
        """Refuse what waits for a model; what is being done goes on."""
        self.llm.close()
        self.encoder.close()

    @property
    def ranking(self) -> RankingService:
        """Of a run of DPO4Rec."""
        return self._as("dpo4rec")

    async def ask(self, body: AskRequest) -> dict[str, Any]:
        """The reply to `AskRequest`."""
        model: RequestModel = self._as("rerec")
        answer = await self.llm.run(lambda: model.answer(body.request, body.user))
        self.metrics.written.inc()
        told: Mapping[str, Any] = asdict(answer)
        return {"answer": told["text"], **{name: told[name] for name in ("pick", "status", "shares", "candidates")}}

    async def hint(self, body: HintRequest) -> dict[str, Any]:
        """The reply to `HintRequest`; DataError: a title that the catalogue does not have."""
        model: SessionModel = self._as("re2llm")
        shown = model.find_titles(body.session, "the session")
        offered = None if body.candidates is None else model.find_titles(body.candidates, "candidates")
        hint, titles = await self.llm.run(lambda: model.recommend(shown, offered))
        self.metrics.written.inc()
        return {"hint": hint, "ranking": titles}

    def _as(self, method: str) -> Any:
        if self.method != method:
            raise RunError(f"a run of {self.method} answers {ANSWERS.get(self.method, 'nothing')}, not this")
        if self.problem:
            raise OverloadedError(f"the run cannot be asked yet: {self.problem}", 2)
        return self._opened
