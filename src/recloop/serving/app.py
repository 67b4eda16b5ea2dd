"""The routes of the service: bodies in, replies out, and one form for whatever is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.resources import files
from itertools import islice
from typing import Annotated, Any, get_type_hints

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from recloop import __version__
from recloop.errors import BudgetError, DataError, GenerationError, RecloopError, RunError, SettingError
from recloop.serving.guard import BodyError, Receive, Scope, Send, problem_body
from recloop.serving.progress_view import view_run
from recloop.serving.schemas import (
    MAX_FOUND,
    MAX_ID_CHARS,
    AskReply,
    AskRequest,
    ErrorReply,
    ExplainReply,
    ExplainRequest,
    FoundItem,
    FoundUser,
    HintReply,
    HintRequest,
    ProfileReply,
    ProfileRequest,
    RerankReply,
    RerankRequest,
    UserReply,
)
from recloop.serving.service import Service
from recloop.serving.work_queue import OverloadedError

MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
STATUS_OF: dict[type[Exception], tuple[int, str]] = {
    DataError: (422, "unknown_or_unusable"),
    SettingError: (422, "unknown_or_unusable"),
    OverloadedError: (503, "overloaded"),
    GenerationError: (502, "language_model_failed"),
    BudgetError: (503, "budget_reached"),
    RunError: (409, "not_of_this_run"),
}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
Search = Annotated[str, Query(max_length=MAX_ID_CHARS)]
Limit = Annotated[int, Query(ge=1, le=MAX_FOUND)]


class BodyRoute(APIRoute):
    """A route that reads its one body itself: FastAPI's own way takes four times as long, most of it for the reply.

    Its errors reach the application's handlers as those of any other route do.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        endpoint, form = self.endpoint, get_type_hints(self.endpoint)["body"]

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise HTTPException(415, f"the body must be application/json, got {kind[:40] or 'no content-type'!r}")
            body = form.model_validate_json(await request.body())
            reply = Response(to_json(await endpoint(body)), media_type="application/json")
            await reply(scope, receive, send)

        self.app = answer


def make_app(service: Service) -> FastAPI:
    """The application of a service; it opens the run when it starts."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        opening = asyncio.create_task(service.open())
        yield
        opening.cancel()
        service.close()

    answers: dict[int | str, dict[str, Any]] = {
        "4XX": {"model": ErrorReply, "description": "refused, with the reason"},
        422: {"model": ErrorReply, "description": "a field that does not fit, or an id that the log does not have"},
        503: {"model": ErrorReply, "description": "no room now; ask again after Retry-After seconds"},
    }
    about = f"A run of {service.method} by recloop. Where a token is set, send `Authorization: Bearer TOKEN`."
    app = FastAPI(
        title="recloop serve", version=__version__, description=about, lifespan=lifespan, docs_url=None, redoc_url=None,
        responses=answers,
    )  # fmt: skip
    add_model_routes(app, service)
    add_look_up_routes(app, service)
    add_process_routes(app, service)
    add_refusals(app)
    return app


def add_model_routes(app: FastAPI, service: Service) -> None:
    """What models answer."""

    async def rerank(body: RerankRequest) -> Any:
        """Rank candidates for a user of the log or for a history, by a text about them."""
        return await service.ranking.rerank(body)

    async def explain(body: ExplainRequest) -> Any:
        """What each sentence or clause of a text changes in the scores."""
        return await service.ranking.explain(body)

    async def profile(body: ProfileRequest) -> Any:
        """What a language model of the run says about a user, from the run or written now."""
        return await service.ranking.profile(body)

    async def ask(body: AskRequest) -> Any:
        """Answer a wish in words (a run of ReRec)."""
        return await service.ask(body)

    async def hint(body: HintRequest) -> Any:
        """Choose a hint and rank what follows a session (a run of Re2LLM)."""
        return await service.hint(body)

    replies = {rerank: RerankReply, explain: ExplainReply, profile: ProfileReply, ask: AskReply, hint: HintReply}
    for answer, reply in replies.items():
        app.router.add_api_route(
            f"/{answer.__name__}", answer, methods=["POST"], response_model=reply, route_class_override=BodyRoute,
            tags=["models"],
        )  # fmt: skip


def add_look_up_routes(app: FastAPI, service: Service) -> None:
    """What the page shows of the log and of the run."""

    @app.get("/items", response_model=list[FoundItem])
    async def items(search: Search = "", limit: Limit = 20) -> Any:
        """Items whose titles hold some words."""
        model = service.ranking.model
        found = await asyncio.to_thread(model.find_items, search, limit)
        return [{"item_id": model.item_ids[item], "title": model.titles[item]} for item in found]

    @app.get("/users", response_model=list[FoundUser])
    async def users(search: Search = "", limit: Limit = 20) -> Any:
        """Users who own a list, test users first, whose ids begin with some letters."""
        owners = service.ranking.model.owners
        found = islice((user_id for user_id in owners if user_id.startswith(search)), limit)
        return [{"user_id": user_id, "group": owners[user_id][0].value} for user_id in found]

    @app.get("/users/{user_id:path}", response_model=UserReply)
    async def user(user_id: str) -> Any:
        """A user's history, list and texts."""
        return service.ranking.model.describe(user_id)

    @app.get("/run")
    async def run() -> Response:
        """The run: steps, curves, completions with rewards, tables. A run that goes on is read as it is now."""
        view = await asyncio.to_thread(view_run, service.run)
        return Response(to_json({**view, "problem": service.problem}), media_type="application/json")


def add_process_routes(app: FastAPI, service: Service) -> None:
    """The process, and the page's files."""
    folder = files("recloop.serving") / "page"
    page = {one.name: one.read_bytes() for one in folder.iterdir()}

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok", "version": __version__}

    @app.get("/ready")
    async def ready(response: Response) -> dict[str, Any]:
        """200 when the run can be asked, else 503 and why not."""
        response.status_code = 503 if service.problem else 200
        return {"ready": not service.problem, "reason": service.problem}

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    @app.get("/page/{name}", include_in_schema=False)
    async def page_file(name: str = "index.html") -> Response:
        if name not in page:
            raise HTTPException(404, "the page has no such file")
        safety = {"content-security-policy": CSP, "referrer-policy": "no-referrer"}
        return Response(page[name], headers=safety, media_type=MEDIA_TYPES["." + name.rpartition(".")[2]])


def add_refusals(app: FastAPI) -> None:
    """Every error as `ErrorReply`, with its status; nothing of what was sent is repeated but ids and names."""

    def refuse(request: Request, status: int, code: str, message: str, **more: Any) -> Response:
        request_id = request.scope.get("state", {}).get("request_id", "")
        body = problem_body(code, message, request_id, more.get("fields"))
        return Response(body, status, more.get("headers"), "application/json")

    async def misfit(request: Request, error: Exception) -> Response:
        assert isinstance(error, ValidationError | RequestValidationError)
        found = error.errors() if isinstance(error, RequestValidationError) else error.errors(include_input=False)
        if found[0]["type"] == "json_invalid":
            return refuse(request, 400, "no_json", "the body must be JSON, got something else; check its quotes")
        fields = [{"where": ".".join(map(str, one["loc"])), "problem": str(one["msg"])[:200]} for one in found[:20]]
        worst = max(fields, key=lambda field: field["where"].count("."))  # of what a field may be, the nearest form
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        message = f"{worst['where']}: {worst['problem']}".removeprefix(": ") + more
        return refuse(request, 422, "does_not_fit", message, fields=fields)

    async def expected(request: Request, error: Exception) -> Response:
        status, code = next((STATUS_OF[k] for k in type(error).__mro__ if k in STATUS_OF), (500, "failed"))
        retry = {"retry-after": str(error.retry_after_s)} if isinstance(error, OverloadedError) else None
        return refuse(request, status, code, str(error), headers=retry)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        said = str(error.detail)
        told = {404: "there is no such path; see /openapi.json", 405: "this path is asked in another way"}
        message = told.get(error.status_code, said) if said in ("Not Found", "Method Not Allowed") else said
        return refuse(request, error.status_code, "http", message, headers=error.headers)

    async def bad_body(request: Request, error: Exception) -> Response:
        assert isinstance(error, BodyError)
        return refuse(request, error.status, "body", str(error), headers={"connection": "close"})

    async def left(request: Request, _: Exception) -> Response:
        return refuse(request, 400, "left", "the client left before the body had come")

    async def defect(request: Request, _: Exception) -> Response:
        return refuse(request, 500, "defect", "a defect of the service; its log has more under this request id")

    handlers = {
        ValidationError: misfit, RequestValidationError: misfit, RecloopError: expected, StarletteHTTPException: http,
        BodyError: bad_body, ClientDisconnect: left, Exception: defect,
    }  # fmt: skip
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
