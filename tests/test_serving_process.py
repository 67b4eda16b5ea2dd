"""`recloop serve` as a process: its start, its end by a signal, its start after a kill; and its page in a browser."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

import recloop as rl
from recloop.cli import main
from recloop.errors import SettingError
from recloop.methods.dpo4rec.evaluate import SCORES
from recloop.methods.use_files import rows_of_test_lists
from recloop.records import Group
from recloop.serving.server import TOKEN, read_token
from served import serve

SETTINGS = {
    "rounds": "0",
    "variants": "trained",
    "preflight": "off",
    "data.simulated.num-users": "40",
    "data.simulated.num-items": "60",
    "data.simulated.num-interactions": "12",
    "prompt.max-prompt-tokens": "300",
    "completions.test": "1",
    "reranker.max-epochs": "1",
}
DEADLINE_S = 120
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("process") / "run"
    words = [word for key, value in SETTINGS.items() for word in (f"--{key}", value)]
    assert main(["run", "dpo4rec", *words, "--out", str(folder)]) == 0
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


@contextmanager
def serving(run: Path, *words: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and its address, when it is ready."""
    command = [sys.executable, "-m", "recloop.cli", "serve", str(run), "--port", str(port := free_port()), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            deadline_s = time.monotonic() + DEADLINE_S
            while status(f"{url}/ready") != 200:
                assert process.poll() is None
                assert time.monotonic() < deadline_s
                time.sleep(0.1)
            yield process, url
        finally:
            process.kill()


def status(url: str | urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(url) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (urllib.error.URLError, ConnectionError):
        return 0


def ask(url: str, path: str, body: Any) -> Any:
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as reply:
        return json.load(reply)


def wait_for_the_encoder(url: str) -> None:
    deadline_s, body = time.monotonic() + DEADLINE_S, {"user": "u0", "candidates": ["i1", "i2"], "text": "Wait."}
    request = urllib.request.Request(f"{url}/explain", json.dumps(body).encode(), {"content-type": "application/json"})
    while (answered := status(request)) != 200:
        assert answered == 503
        assert time.monotonic() < deadline_s
        time.sleep(1)


@pytest.mark.slow
def test_it_ends_by_a_signal_with_0_and_starts_again_after_a_kill(run: Path) -> None:
    body = {"user": "u0", "candidates": ["i1", "i2", "i3"]}
    with serving(run) as (process, url):
        first = ask(url, "/rerank", body)
        process.send_signal(signal.SIGKILL)
        assert process.wait(DEADLINE_S) == -signal.SIGKILL
    with serving(run) as (process, url):
        assert ask(url, "/rerank", body) == first
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0
    events = [json.loads(line)["event"] for line in said.splitlines()]
    assert (events[0], events[-1]) == ("serving", "stopped")
    assert "request" in events


@pytest.mark.slow
def test_python_command_line_and_service_give_the_scores_of_the_runs_own_evaluation(run: Path, tmp_path: Path) -> None:
    model = rl.load(run)
    rows, lists = rows_of_test_lists(model), model.lists.of(Group.TEST)
    own_n = load_file(model.run.folder("fit.untuned.prm.s0") / SCORES)["scores_BNL"][:, 0][lists.is_item_BL]
    like_own = pytest.approx(own_n, abs=1e-6 * float(np.ptp(own_n)))  # numbers of 32 bits hold no more
    texts = {user: model.texts(user)[0] for user in rows["user_id"].unique()}
    pl.DataFrame({"user_id": list(texts), "text": list(texts.values())}).write_csv(tmp_path / "texts.csv")
    rows.write_csv(tmp_path / "lists.csv")
    words = ["score", str(run), "--lists", str(tmp_path / "lists.csv"), "--out"]
    assert main([*words, str(tmp_path / "own.parquet")]) == 0
    assert main([*words, str(tmp_path / "given.parquet"), "--texts", str(tmp_path / "texts.csv")]) == 0
    files = [pl.read_parquet(tmp_path / name) for name in ("own.parquet", "given.parquet")]
    for scored in (model.score(rows), model.score(rows, texts), *files):
        assert scored["score"].to_numpy() == like_own
    for said in ({}, texts):
        assert scores_one_by_one(model, rows, said) == like_own
        assert scores_of_the_service(model, rows, said) == like_own


@pytest.mark.slow
def test_a_new_text_has_the_same_scores_whatever_stands_beside_it(run: Path) -> None:
    model = rl.load(run)
    rows = rows_of_test_lists(model)
    texts = {user: f"By era: likes {n}s." + n * " By genre: likes War, Drama." for n, user in enumerate(model.user_ids)}
    together_n = model.score(rows, texts)["score"].to_numpy()
    alike = pytest.approx(together_n, abs=1e-6 * float(np.ptp(together_n)))
    assert scores_one_by_one(rl.load(run), rows, texts) == alike
    assert scores_of_the_service(rl.load(run), rows, texts) == alike
    assert model.score(rows)["score"].to_numpy() != alike


def scores_one_by_one(model: rl.FinishedRun, rows: pl.DataFrame, texts: Mapping[str, str]) -> list[float]:
    """Of the rows, each list ranked alone."""
    found: list[float] = []
    for _, own in rows.group_by("list_id", maintain_order=True):
        user, items = own["user_id"][0], own["item_id"].to_list()
        score_of = dict(model.rerank(user, items, text=texts.get(user)).select("item_id", "score").iter_rows())
        found += [score_of[item] for item in items]
    return found


def scores_of_the_service(model: rl.FinishedRun, rows: pl.DataFrame, texts: Mapping[str, str]) -> list[float]:
    """Of the rows, by requests that come together."""
    lists = [(own["user_id"][0], own["item_id"].to_list()) for _, own in rows.group_by("list_id", maintain_order=True)]
    bodies = [{"user": user, "candidates": items, "text": texts.get(user)} for user, items in lists]

    async def at_once(client: httpx2.AsyncClient) -> list[httpx2.Response]:
        return await asyncio.gather(*(client.post("/rerank", json=body) for body in bodies))

    found: list[float] = []
    for reply, (_, items) in zip(serve(model).run(at_once), lists, strict=True):
        score_of = {item["item_id"]: item["score"] for item in reply.json()["ranking"]}
        found += [score_of[item] for item in items]
    return found


@pytest.mark.slow
def test_a_token_is_wanted_and_a_body_of_50_mb_refused_though_its_client_sends_it_all(run: Path) -> None:
    shown = {"authorization": "Bearer 0123456789abcdef"}
    with serving(run, **{TOKEN: "0123456789abcdef"}) as (_, url):
        assert status(f"{url}/run") == 401
        with urllib.request.urlopen(urllib.request.Request(f"{url}/run", headers=shown)) as reply:
            assert json.load(reply)["is_finished"]
        for header, answer in (("", b"401"), ("authorization: Bearer 0123456789abcdef\r\n", b"413")):
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
                size = 50 * 2**20
                client.sendall(f"POST /rerank HTTP/1.1\r\nhost: x\r\n{header}content-length: {size}\r\n\r\n".encode())
                start_s = time.monotonic()
                assert client.recv(12) == b"HTTP/1.1 " + answer
                assert time.monotonic() - start_s < 1
            body = urllib.request.Request(f"{url}/rerank", b"x" * size, shown if header else {})
            assert status(body) == int(answer)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_in_a_browser_the_ranking_follows_the_text(run: Path) -> None:
    browser_api = pytest.importorskip("playwright.sync_api")
    expect = browser_api.expect
    with serving(run) as (_, url), browser_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 500, "height": 900})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.set_default_timeout(1000 * DEADLINE_S)
        wait_for_the_encoder(url)  # a busy machine may refuse what comes before it is there, which is an error line
        page.goto(url)
        page.wait_for_selector(".parts button")
        scores = page.locator(".ranking .score").all_inner_texts()
        text = page.locator("#text").input_value()
        page.locator("#text").fill("By genre: likes War.")
        first_score = page.locator(".ranking .score").first  # functions to wait for need eval, which the page forbids
        expect(first_score).not_to_have_text(scores[0], timeout=1000 * DEADLINE_S)
        page.get_by_role("button", name="Undo my changes").press("Enter")
        expect(first_score).to_have_text(scores[0], timeout=1000 * DEADLINE_S)
        assert page.locator("#text").input_value() == text
        page.locator(".parts button").first.press("Enter")
        assert page.locator(".parts button").first.get_attribute("aria-pressed") == "true"
        page.get_by_role("tab", name="Try it").press("ArrowRight")
        page.wait_for_selector("#panel-run table.steps", state="visible")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert errors == []
        page.close()
        what_finds_no_room_is_asked_again(browser.new_page(), url)
        browser.close()


def what_finds_no_room_is_asked_again(page: Any, url: str) -> None:
    """The first requests of a kind are refused with 503, one for a text with 502: the page goes on nevertheless."""
    refused: dict[str, int] = {}

    def refuse_twice(route: Any) -> None:
        path = urllib.parse.urlparse(route.request.url).path
        refused[path] = refused.get(path, 0) + 1
        if refused[path] > 2:
            route.continue_()
        else:
            body = {"error": {"code": "overloaded", "message": "no room", "request_id": "", "fields": []}}
            route.fulfill(status=503, headers={"retry-after": "1"}, json=body)

    page.set_default_timeout(1000 * DEADLINE_S)
    for path in ("users?limit=1", "explain"):
        page.route(f"{url}/{path}", refuse_twice)
    page.route(f"{url}/profile", lambda route: route.fulfill(status=502, json={"error": {"message": "it is lost"}}))
    page.goto(url)
    page.wait_for_selector(".parts button")
    assert refused == {"/users": 3, "/explain": 3}
    page.get_by_text("A history of your own").click()
    page.locator("#text-note", has_text="No language model has").wait_for()
    assert page.locator("#text").input_value() == ""
    assert page.locator("#text").get_attribute("aria-busy") is None
    page.locator("#text").fill("By genre: likes War.")
    page.wait_for_selector(".parts button")


def test_a_token_is_read_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert read_token(None) is None
    file = tmp_path / "token"
    file.write_text("0123456789abcdef\n")
    assert read_token(file) == "0123456789abcdef"
    monkeypatch.setenv(TOKEN, "fedcba9876543210")
    assert read_token(None) == "fedcba9876543210"
    assert read_token(file) == "0123456789abcdef"


@pytest.mark.parametrize("token", ["", "short", "has a space in it or two", "tab\tin the middle of it", "é" * 20])
def test_a_token_that_is_none_is_refused(token: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token)
    with pytest.raises(SettingError, match="16 printable characters"):
        read_token(tmp_path / "token")


def test_a_folder_that_is_no_run_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path)]) == 1
    assert "no run to read" in capsys.readouterr().err


@pytest.mark.slow
def test_an_address_that_is_taken_is_one_clear_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(run), "--port", port]) == 2
    assert f"127.0.0.1:{port} cannot be listened at" in capsys.readouterr().err
