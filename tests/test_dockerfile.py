"""The Dockerfile without Docker: its words are the project's, its files are there, and its health check works."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import tomllib
import urllib.request
from collections.abc import Callable
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
    for source in {one for rest in told("COPY") for one in rest.split()[:-1]}:
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, tmp_path / source)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    import zipfile

    names = zipfile.ZipFile(wheel).namelist()
    assert {"recloop/serving/page/index.html", "recloop/serving/page/page.css"} <= set(names)


@pytest.mark.soak
def test_in_a_bare_environment_its_steps_make_a_service_that_a_user_without_rights_runs(tmp_path: Path) -> None:
    """All but the downloads: what is installed already stands in for PyTorch and the other packages of the index."""
    pytest.importorskip("hatchling")
    home, run, token = tmp_path / "home", tmp_path / "run", "0123456789abcdef"
    bin_folder = bare_environment(tmp_path / "venv", home)
    image = {name: value for rest in told("ENV") for name, _, value in (part.partition("=") for part in rest.split())}
    environment = {"PATH": f"{bin_folder}:/usr/bin:/bin", "HOME": str(home), "RECLOOP_SERVE_TOKEN": token} | image

    for source in {one for rest in told("COPY") for one in rest.split()[:-1]}:
        (home / "source").mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
        copy(ROOT / source, home / "source" / source)
    (install,) = (rest for rest in told("RUN") if "./source" in rest)
    install = install.replace("pip install", "pip install -q --no-index --no-deps --no-build-isolation")
    subprocess.run(install, shell=True, cwd=home, env=environment, check=True, timeout=300)
    assert not (home / "source").exists()

    settings = "--rounds 0 --variants trained --preflight off --data.simulated.num-users 40 --completions.test 1"
    words = ["recloop", "run", "dpo4rec", *settings.split(), "--reranker.max-epochs", "1", "--out", str(run)]
    subprocess.run(words, cwd=home, env=environment, check=True, timeout=600, capture_output=True)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    (entry,), (command,), (check,) = told("ENTRYPOINT"), told("CMD"), told("HEALTHCHECK")
    command = command.replace("/run-folder", str(run)).replace("8000", port)
    check = check[check.index("[") :].replace("8000", port)
    user = as_the_user_of_the_image()

    def is_healthy() -> bool:
        done = subprocess.run([*user, *json.loads(check)], cwd=home, env=environment, capture_output=True, timeout=60)
        return done.returncode == 0

    assert not is_healthy()
    serve = [*user, *json.loads(entry), *json.loads(command)]
    with subprocess.Popen(serve, cwd=home, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_until(is_healthy, process)
            owner = re.search(r"Uid:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            assert owner is not None
            assert int(owner[1]) != 0
            url, shown = f"http://127.0.0.1:{port}", {"authorization": f"Bearer {token}"}
            wait_until(lambda: json.load(urllib.request.urlopen(f"{url}/ready"))["ready"], process)
            for path, words_inside in (("/", b"<title>recloop"), ("/run", b'"is_finished":true')):
                with urllib.request.urlopen(urllib.request.Request(url + path, headers=shown)) as reply:
                    assert words_inside in reply.read()
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert json.loads(said.splitlines()[-1])["event"] == "stopped"
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def bare_environment(folder: Path, home: Path) -> Path:
    """A virtual environment that sees the packages of this one, but not recloop; the folder of its commands."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "installed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    home.mkdir()
    if os.getuid() == 0:
        (made,) = (rest for rest in told("RUN") if rest.startswith("useradd"))
        number = int(re.findall(r"--uid (\d+)", made)[0])
        os.chown(home, number, number)
    return folder / "bin"


def as_the_user_of_the_image() -> list[str]:
    """What runs a command as that user, who may read all, as in an image, and write nothing but what is their own."""
    if os.getuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root, and no setpriv here")
    (made,) = (rest for rest in told("RUN") if rest.startswith("useradd"))
    number = re.findall(r"--uid (\d+)", made)[0]
    kept = [f"--{rights}=-all,+dac_read_search" for rights in ("bounding-set", "inh-caps", "ambient-caps")]
    return ["setpriv", "--reuid", number, "--regid", number, "--clear-groups", "--no-new-privs", *kept]


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + 120
    while True:
        try:
            if is_so():
                return
        except OSError:  # urllib's refusals too
            pass
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
