"""The Dockerfile without Docker: its words are the project's, its files are there, and its health check works."""

import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from recloop.cli import app

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
STEPS = [line.split(maxsplit=1) for line in TEXT.splitlines() if line.strip() and not line.startswith("#")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def told(word: str) -> list[str]:
    return [rest for step, rest in STEPS if step == word]


def test_it_serves_by_a_command_that_recloop_has() -> None:
    (entry,), (command,) = told("ENTRYPOINT"), told("CMD")
    assert json.loads(entry) == ["recloop"]
    chosen, bound, _ = app.parse_args(json.loads(command), print_error=False, exit_on_error=False)
    assert chosen.__name__ == "serve"
    assert (bound.arguments["host"], bound.arguments["port"]) == ("0.0.0.0", 8000)
    assert told("EXPOSE") == ["8000"]


def test_its_user_is_not_root_and_is_made_before() -> None:
    words = [step for step, _ in STEPS]
    (user,) = told("USER")
    assert user != "root"
    assert any(re.search(rf"useradd .*\b{user}\b", rest) for rest in told("RUN"))
    assert words.index("USER") > max(place for place, word in enumerate(words) if word == "RUN")


def test_what_it_copies_is_in_the_repository_and_not_ignored() -> None:
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = {source for rest in told("COPY") for source in rest.split()[:-1]}
    assert copied == kept
    assert all((ROOT / source).exists() for source in copied)


def test_its_torch_and_its_extras_are_those_of_the_project() -> None:
    arguments = dict(rest.split("=", 1) for rest in told("ARG"))
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"TORCH ?= {shlex.split(arguments['TORCH'])[0]}\n" in make
    assert shlex.split(arguments["TORCH_INDEX"])[0].endswith("/cpu")
    (extras,) = re.findall(r"source\[([\w,]+)\]", TEXT)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    assert "serve" in extras.split(",")


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_its_health_check_sees_whether_the_service_answers(status: int, code: int) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    (check,) = told("HEALTHCHECK")
    _, name, snippet = json.loads(check[check.index("[") :])
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        snippet = snippet.replace(":8000", f":{server.server_port}")
        done = subprocess.run([sys.executable, name, snippet], capture_output=True, timeout=30, check=False)
        server.shutdown()
    assert done.returncode == code


@pytest.mark.slow
def test_a_wheel_can_be_made_of_what_it_copies(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    import shutil

    for source in {one for rest in told("COPY") for one in rest.split()[:-1]}:
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / source)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    import zipfile

    names = zipfile.ZipFile(wheel).namelist()
    assert {"recloop/serving/page/index.html", "recloop/serving/page/page.css"} <= set(names)
