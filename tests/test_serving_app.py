"""The service's answers: those of Python, and for what does not fit one clear refusal."""

import asyncio
import json
import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import polars as pl
import pytest

import recloop as rl
from recloop.methods.predict import text_parts
from recloop.methods.re2llm.predict import SessionModel
from recloop.methods.rerec.predict import RequestAnswer
from recloop.serving import schemas
from recloop.serving.service import Service
from served import SETTINGS, Served, make_run, serve

pytestmark = pytest.mark.slow  # one small run for all
TEXT = "By genre: likes Drama, War. By era: likes 1990s; dislikes 1970s."


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> rl.FinishedRun:
    return make_run(tmp_path_factory.mktemp("served") / "run")


@pytest.fixture(scope="module")
def served(finished: rl.FinishedRun) -> Served:
    return serve(finished)


@pytest.fixture(scope="module")
def ids(served: Served) -> list[str]:
    return list(served.service.ranking.model.item_ids)


def scores_of(reply: httpx2.Response) -> dict[str, float]:
    assert reply.status_code == 200, reply.text
    return {item["item_id"]: item["score"] for item in reply.json()["ranking"]}


def problem_of(reply: httpx2.Response) -> dict[str, Any]:
    error = reply.json()["error"]
    assert error["message"]
    assert error["request_id"] == reply.headers["x-request-id"]
    return error


def test_scores_are_those_of_python(served: Served, finished: rl.FinishedRun, ids: list[str]) -> None:
    history, candidates = ids[:6], ids[20:50]
    expected = finished.rerank(history, candidates, text=TEXT)
    reply = served.post("/rerank", {"history": history, "candidates": candidates, "text": TEXT})
    assert scores_of(reply) == pytest.approx(dict(expected.select("item_id", "score").iter_rows()), abs=1e-6)
    assert [item["item_id"] for item in reply.json()["ranking"]] == expected["item_id"].to_list()
    assert [item["title"] for item in reply.json()["ranking"]] == expected["title"].to_list()
    schemas.RerankReply.model_validate(reply.json())


def test_scores_of_requests_that_come_together_are_those_of_each_alone(served: Served, ids: list[str]) -> None:
    users, rng = list(served.service.ranking.model.owners)[:12], random.Random(0)
    bodies = [{"user": user, "candidates": rng.sample(ids, rng.randint(2, 40))} for user in users]

    async def at_once(client: httpx2.AsyncClient) -> list[httpx2.Response]:
        return await asyncio.gather(*(client.post("/rerank", json=body) for body in bodies))

    def batches() -> float:
        return served.service.metrics.registry.get_sample_value("recloop_rerank_lists_count") or 0

    before = batches()
    together = served.run(at_once)
    assert batches() - before < len(bodies) / 2
    for body, reply in zip(bodies, together, strict=True):
        assert scores_of(reply) == pytest.approx(scores_of(served.post("/rerank", body)), abs=1e-6)


def test_a_user_of_the_log_is_ranked_by_the_runs_text(served: Served, finished: rl.FinishedRun, ids: list[str]) -> None:
    written = finished.results.completions()
    user, text = written.filter(variant="untuned", number=0).select("user_id", "text").row(0)
    reply = served.post("/rerank", {"user": user, "candidates": ids[:10]})
    assert (reply.json()["text"], reply.json()["source"]) == (text, "run")
    expected = finished.rerank(user, ids[:10])
    assert scores_of(reply) == pytest.approx(dict(expected.select("item_id", "score").iter_rows()), abs=1e-6)


def test_of_a_history_the_language_model_writes_once(served: Served, finished: rl.FinishedRun, ids: list[str]) -> None:
    history = [{"item_id": ids[3], "rating": 5}, {"item_id": ids[9], "rating": 1}, ids[4]]
    pairs = [(ids[3], 5.0), (ids[9], 1.0), ids[4]]
    reply = served.post("/profile", {"history": history, "variant": "untuned"})
    assert reply.json() == {"text": finished.profile(pairs), "variant": "untuned", "source": "written"}
    written = served.service.metrics.written._value.get()
    assert served.post("/rerank", {"history": history, "candidates": ids[:5]}).json()["text"] == reply.json()["text"]
    assert served.service.metrics.written._value.get() == written


def test_what_a_part_changes_is_the_score_less_that_without_it(served: Served, ids: list[str]) -> None:
    body = {"user": next(iter(served.service.ranking.model.owners)), "candidates": ids[:8]}
    told = served.post("/explain", body | {"text": TEXT}).json()
    schemas.ExplainReply.model_validate(told)
    whole = scores_of(served.post("/rerank", body | {"text": TEXT}))
    assert {item["item_id"]: item["score"] for item in told["ranking"]} == pytest.approx(whole, abs=1e-6)
    assert len(told["parts"]) == len(text_parts(TEXT)) == 3
    for number, (_, rest) in enumerate(text_parts(TEXT)):
        without = scores_of(served.post("/rerank", body | {"text": rest}))
        for item in told["ranking"]:
            assert item["changes"][number] == pytest.approx(whole[item["item_id"]] - without[item["item_id"]], abs=1e-5)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/rerank", {"user": "u0", "candidates": ["nope", "i1"]}, 422, "no item 'nope'"),
        ("/rerank", {"user": "nobody", "candidates": ["i0", "i1"]}, 422, "no user 'nobody'"),
        ("/rerank", {"user": "u0", "candidates": ["i0", "i1", "i0"]}, 422, "must differ, got 'i0' twice"),
        ("/explain", {"user": "u0", "candidates": ["i0", "i0"], "text": ""}, 422, "must differ, got 'i0' twice"),
        ("/rerank", {"history": ["nope"], "candidates": ["i0", "i1"], "text": ""}, 422, "history: the log has no item"),
        ("/rerank", {"candidates": ["i0", "i1"]}, 422, "got neither"),
        ("/rerank", {"user": "u0", "history": ["i0"], "candidates": ["i0", "i1"]}, 422, "got both"),
        ("/rerank", {"user": "u0", "candidates": ["i0"]}, 422, "at least 2"),
        ("/rerank", {"user": "u0", "candidates": ["i0"] * 1001}, 422, "at most 1000"),
        ("/rerank", {"user": "u0", "candidates": ["i0", "i" * 201]}, 422, "at most 200"),
        ("/rerank", {"user": "u0", "candidates": ["i0", "i1"], "text": "x" * 8001}, 422, "at most 8000"),
        ("/rerank", {"user": "u0", "candidates": ["i0", "i1"], "k": 3}, 422, "k: Extra inputs"),
        ("/rerank", {"history": [{"item_id": "i0", "rating": 1e9}], "candidates": ["i0", "i1"]}, 422, "less than"),
        ("/profile", {"user": "u0", "variant": "trained"}, 422, "only texts of the untuned model"),
        ("/profile", {"user": "u0", "variant": "best"}, 422, "'trained' or 'untuned'"),
        ("/ask", {"request": "a film"}, 409, "a run of dpo4rec answers /rerank"),
        ("/hint", {"session": ["A"]}, 409, "a run of dpo4rec answers /rerank"),
        ("/nowhere", {}, 404, "no such path"),
        ("/run", {}, 405, "asked in another way"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    served: Served, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    reply = served.post(path, body)
    assert reply.status_code == status
    assert words in problem_of(reply)["message"]


def test_200_malformed_requests_are_each_refused_clearly(served: Served) -> None:
    rng = random.Random(0)
    whole = json.dumps({"user": "u0", "candidates": ["i0", "i1"], "text": TEXT}).encode()
    odd: list[Any] = [None, 3, -1.5, "", [], {}, True, "\ud800", ["i0", None], [["i0"]], {"a": 1}, "x" * 9_000, 10**400]

    def malformed(number: int) -> bytes:
        match number % 5:
            case 0:  # cut
                return whole[: rng.randrange(len(whole) - 1)]
            case 1:  # a byte is another; one that is still right is made wrong
                place = rng.randrange(len(whole))
                return whole[:place] + bytes([rng.choice([0, 10, 34, 92, 123, 125, 255])]) + whole[place + 1 :] + b"}"
            case 2:  # a field holds something else
                body = {"user": "u0", "candidates": ["i0", "i1"], "text": TEXT}
                body[rng.choice(["user", "candidates"])] = rng.choice([one for one in odd if one is not None])
                return json.dumps(body).encode()
            case 3:  # no object, or deep
                return rng.choice(
                    [b"[" * 5_000, b'{"user":' * 3_000, b"NaN", b"[]", b'"u0"', b"\xff\xfe", b"null", b""]
                )
            case _:
                return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 300)))

    async def all_of_them(client: httpx2.AsyncClient) -> list[httpx2.Response]:
        headers = {"content-type": "application/json"}
        paths = ["/rerank", "/explain", "/profile", "/ask", "/hint"]
        return [await client.post(rng.choice(paths), content=malformed(n), headers=headers) for n in range(200)]

    replies = served.run(all_of_them)
    assert {reply.status_code for reply in replies} <= {400, 409, 422}
    assert {problem_of(reply)["code"] for reply in replies} == {"no_json", "does_not_fit"}
    assert not any(line["event"] == "defect" for line in served.lines())


def test_a_body_that_is_not_called_json_is_refused(served: Served) -> None:
    reply = served.run(lambda client: client.post("/rerank", content=b"{}", headers={"content-type": "text/plain"}))
    assert reply.status_code == 415


def test_look_ups_find_titles_users_and_what_a_user_did(served: Served, finished: rl.FinishedRun) -> None:
    model = served.service.ranking.model
    words = model.titles[7].split()[-1].lower()
    found = served.get("/items", params={"search": words, "limit": 50}).json()
    assert {item["title"] for item in found} == {title for title in model.titles if words in title.lower()}
    users = served.get("/users", params={"search": "u1"}).json()
    assert users
    assert all(user["user_id"].startswith("u1") for user in users)
    told = served.get(f"/users/{users[0]['user_id']}").json()
    schemas.UserReply.model_validate(told)
    interactions = finished.log.interactions.join(finished.log.users, on="user")
    num_met = interactions.filter(interactions["user_id"] == users[0]["user_id"]).height
    assert 0 < len(told["history"]) <= num_met
    assert sum(item["label"] for item in told["candidates"]) >= 1
    assert told["ratings"] == sorted(set(finished.log.interactions["rating"].drop_nulls()))
    assert served.get("/items", params={"limit": 1000}).status_code == 422


def test_a_user_who_owns_no_list_is_ranked_as_by_python(finished: rl.FinishedRun, ids: list[str]) -> None:
    served = serve(finished)
    owners: Any = served.service.ranking.model.owners
    user = next(iter(owners))
    del owners[user]
    told = served.get(f"/users/{user}").json()
    assert (told["group"], told["candidates"]) == ("", [])
    assert [item["item_id"] for item in told["history"]]
    assert user not in {one["user_id"] for one in served.get("/users", params={"search": user}).json()}
    expected = finished.rerank(user, ids[:10])
    reply = served.post("/rerank", {"user": user, "candidates": ids[:10]})
    assert scores_of(reply) == pytest.approx(dict(expected.select("item_id", "score").iter_rows()), abs=1e-6)


def test_examples_of_the_openapi_page_are_right(served: Served) -> None:
    told = served.get("/openapi.json").json()
    for path, form in (
        ("/rerank", schemas.RerankRequest),
        ("/ask", schemas.AskRequest),
        ("/hint", schemas.HintRequest),
    ):
        name = told["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        fields = told["components"]["schemas"][name.rpartition("/")[2]]["properties"]
        body = {field: about["examples"][0] for field, about in fields.items() if "examples" in about}
        body.pop("history", None)
        form.model_validate(body)


def test_metrics_count_requests_by_route_and_status(served: Served, ids: list[str]) -> None:
    def counted(status: str) -> float:
        labels = {"route": "/rerank", "status": status}
        return served.service.metrics.registry.get_sample_value("recloop_requests_total", labels) or 0

    before = counted("200"), counted("422")
    served.post("/rerank", {"user": "u0", "candidates": ids[:3]})
    served.post("/rerank", {"user": "u0", "candidates": []})
    assert (counted("200"), counted("422")) == (before[0] + 1, before[1] + 1)
    text = served.get("/metrics").text
    assert "recloop_ready 1.0" in text
    assert 'recloop_request_seconds_bucket{le="0.025",route="/rerank"}' in text


def test_the_log_has_no_texts_and_no_histories(served: Served, ids: list[str]) -> None:
    secret = "A sentence nobody else writes."
    served.post("/rerank", {"history": [ids[61]], "candidates": ids[:3], "text": secret})
    served.get("/items", params={"search": secret})
    served.get("/users/u0")
    assert "sentence" not in served.log.getvalue()
    assert ids[61] not in served.log.getvalue()
    assert {line["route"] for line in served.lines()[-3:]} == {"/rerank", "/items", "/users/{user_id:path}"}


def test_64_clients_of_a_slow_language_model_are_all_answered(finished: rl.FinishedRun, ids: list[str]) -> None:
    served = serve(finished, llm_waiting=5, llm_s=2.0)
    model = served.service.ranking.model

    def slow(history: Any, variant: str) -> str:
        time.sleep(0.1)
        return TEXT

    object.__setattr__(model, "write", slow)

    async def at_once(client: httpx2.AsyncClient) -> list[httpx2.Response]:
        bodies = [{"history": [ids[n]], "variant": "untuned"} for n in range(64)]
        return await asyncio.gather(*(client.post("/profile", json=body) for body in bodies))

    replies = served.run(at_once)
    statuses = [reply.status_code for reply in replies]
    assert (statuses.count(200), statuses.count(503)) == (6, 58)
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies if reply.status_code == 503)


def test_a_run_that_is_not_finished_shows_its_progress_and_answers_when_it_is(tmp_path: Path) -> None:
    from recloop.testing import FakeEncoder, FakeLM

    objects: dict[str, Any] = {"lm": FakeLM(), "encoder": FakeEncoder()}
    rl.run("dpo4rec", out=tmp_path / "run", preflight="off", until="encode", **objects, **SETTINGS)
    service = Service(tmp_path / "run")
    service.problem = "the run is not finished"
    served = Served(service)
    assert served.get("/health").status_code == 200
    assert served.get("/ready").status_code == 503
    told = served.get("/run").json()
    assert [step["name"] for step in told["steps"]] == ["prepare", "sample.untuned.s0", "encode.untuned.s0"]
    assert not told["is_finished"]
    reply = served.post("/rerank", {"user": "u0", "candidates": ["i0", "i1"]})
    assert (reply.status_code, problem_of(reply)["code"]) == (503, "overloaded")


def test_texts_are_checked_where_the_service_has_tries(finished: rl.FinishedRun, ids: list[str]) -> None:
    served, untold = serve(finished, tries=40), serve(finished)
    users = finished.user_ids
    checked = dict(zip(users, finished.profiles(users, tries=40), strict=True))
    refused = [user for user, text in checked.items() if text != finished.texts(user)[0]]
    assert 0 < len(refused) < len(users)
    for user in (*refused[:3], next(user for user in users if user not in refused)):
        told = served.post("/profile", {"user": user}).json()
        assert told["text"] == checked[user]
        assert told["source"] == ("run" if checked[user] in finished.texts(user) else "written")
        assert untold.post("/profile", {"user": user}).json()["text"] == finished.texts(user)[0]
        ranked = served.post("/rerank", {"user": user, "candidates": ids[:6]}).json()
        assert (ranked["text"], ranked["source"]) == (told["text"], told["source"])
        shown = served.get(f"/users/{user}").json()["texts"]
        assert shown == ({"untuned": checked[user]} if told["source"] == "run" else {})
    rated = [(item, 1.0 + place % 5) for place, item in enumerate(ids[12:28])]
    history = [{"item_id": item, "rating": rating} for item, rating in rated]
    new = finished.profile(rated, tries=40)
    assert served.post("/profile", {"history": history}).json() == {
        "text": new, "variant": "untuned", "source": "written",
    }  # fmt: skip


def test_requests_and_sessions_are_answered_by_runs_of_their_methods(finished: rl.FinishedRun) -> None:
    served = Served(Service(finished.run.path))
    answer = RequestAnswer(
        "It is a drama. Pick: Heat", "Heat", "ok", {"Heat": 0.75, "Up": 0.25}, ("Heat", "Up"), "train"
    )
    asked: list[tuple[str, str | None]] = []

    def note(text: str, user: str | None) -> RequestAnswer:
        asked.append((text, user))
        return answer

    served.service.method, served.service.problem = "rerec", ""
    served.service._opened = SimpleNamespace(answer=note)
    told = served.post("/ask", {"request": " a drama ", "user": "u3"}).json()
    assert asked == [("a drama", "u3")]
    assert schemas.AskReply.model_validate(told).shares == {"Heat": 0.75, "Up": 0.25}
    assert told["pick"] == "Heat"


def test_a_session_is_answered_by_titles_and_an_unknown_one_is_told(
    finished: rl.FinishedRun,
) -> None:
    served = Served(Service(finished.run.path))
    served.service.method, served.service.problem = "re2llm", ""
    task: Any = SimpleNamespace(items=pl.DataFrame({"title": ["Heat", "Up", "Jaws"]}))
    model = SessionModel(None, task, Path())  # pyright: ignore[reportArgumentType]
    asked: list[tuple[list[int], list[int] | None]] = []

    def recommend(shown: list[int], offered: list[int] | None) -> tuple[str, list[str]]:
        asked.append((shown, offered))
        return "Go by era.", ["Jaws"]

    object.__setattr__(model, "recommend", recommend)
    served.service._opened = model
    told = served.post("/hint", {"session": ["up", "Heat"], "candidates": ["Jaws", "Up"]}).json()
    assert schemas.HintReply.model_validate(told).ranking == ["Jaws"]
    assert served.post("/hint", {"session": ["Heat"]}).status_code == 200
    assert asked == [([1, 0], [2, 1]), ([0], None)]
    reply = served.post("/hint", {"session": ["Nope"]})
    assert (reply.status_code, "'Nope' is unknown" in problem_of(reply)["message"]) == (422, True)


def test_a_run_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    from recloop.testing import FakeEncoder, FakeLM

    objects: dict[str, Any] = {"lm": FakeLM(), "encoder": FakeEncoder()}
    rl.run("dpo4rec", out=tmp_path / "run", preflight="off", **objects, **SETTINGS)
    served = Served(Service(tmp_path / "run"))  # without the objects that it was made with
    asyncio.run(served.service.open())
    reply = served.get("/ready")
    assert (reply.status_code, "begun with these objects: encoder, lm" in reply.json()["reason"]) == (503, True)


def test_the_page_runs_no_script_but_its_own(served: Served) -> None:
    page = served.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    assert " style=" not in page.text
    assert served.get("/page/page.js").headers["content-type"].startswith("text/javascript")
    assert served.get("/page/server.py").status_code == 404
