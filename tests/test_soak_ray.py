"""Ray under a whole run, under kills of workers and drivers, and on two machines of which one dies.

Only in `RECLOOP_SOAK=full`: Ray's own processes want both cores for minutes.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench_ray import with_kills
from fake_server import FakeServer
from recloop.config import load_config
from recloop.encoders import ray_encoder, sentence
from recloop.experiment.ray_jobs import RayConfig, Work, do_jobs
from recloop.llm import sampling
from recloop.methods.dpo4rec import evaluate, reward
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.run import run
from recloop.progress import SILENT
from recloop.rewards import reranker_reward
from whole_runs import SETTINGS, manifest_of, result_of

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(os.environ.get("RECLOOP_SOAK", "short") != "full", reason="only in RECLOOP_SOAK=full"),
]


def test_a_run_by_ray_is_the_run_of_one_process(tmp_path, monkeypatch) -> None:
    """Rows of all tables, weights, metrics and fingerprints, over some ten units, chunks and blocks of each part."""
    ray = pytest.importorskip("ray")
    for module, name, size in ((sampling, "CHUNK_COMPLETIONS", 16), (sentence, "CHUNK_TEXTS", 16)):
        monkeypatch.setattr(module, name, size)
    monkeypatch.setattr(reranker_reward, "BLOCK_USERS", 4)
    works: set[str] = set()

    def watched(config: RayConfig, work: Work, jobs: Sequence[object]) -> Iterator[tuple[int, object]]:
        works.add(work.key.partition(" ")[0])
        return do_jobs(config, work, jobs)

    for module in (evaluate, reward, ray_encoder):
        monkeypatch.setattr(module, "do_jobs", watched)
    words = [*SETTINGS["dpo4rec"].items(), ("variants", "fitted"), ("preflight", "off"), ("reward.num-models", "2")]
    found = {}
    for engine in ("process", "ray"):
        config = load_config(Dpo4RecConfig, None, [*words, ("engine", engine), ("ray.num-workers", "2")])
        run("dpo4rec", out=tmp_path / engine, progress=SILENT, **config.model_dump())
        found[engine] = result_of(tmp_path / engine)
    ray.shutdown()
    assert works == {"encode", "fit", "reward"}
    assert {"completions.parquet", "rewards.parquet", "pairs.parquet", "per_user.parquet"} <= set(
        found["ray"]["tables"]
    )
    for what, expected in found["process"].items():
        assert found["ray"][what] == expected, what
    steps = {name: manifest_of(tmp_path / name)["steps"] for name in found}
    prints = {name: {step: entry["fingerprint"] for step, entry in steps[name].items()} for name in found}
    assert prints["ray"] == prints["process"]
    assert not (tmp_path / "ray" / "completions.shards").exists()
    assert not (tmp_path / "ray" / "fits.ahead").exists()


def test_kills_of_workers_and_drivers_lose_nothing_and_pay_what_was_in_flight(tmp_path) -> None:
    pytest.importorskip("ray")
    with FakeServer() as server:
        outcome = with_kills(server, 1500, every_s=0)
    assert outcome.lost == 0
    assert outcome.twice <= outcome.most_twice
    assert outcome.left == ["completions.sqlite"]


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A cluster's address and its second machine: two `ray start` on this one."""
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    source = Path(__file__).resolve().parents[1] / "src"
    for name, value in (
        ("RAY_AUTH_MODE", "token"),
        ("RAY_USAGE_STATS_ENABLED", "0"),
        ("PYTHONPATH", str(source)),
    ):
        monkeypatch.setenv(name, value)
    head = ["--head", f"--port={address.rpartition(':')[2]}", "--num-cpus=2", "--include-dashboard=false"]
    head += [f"--temp-dir=/tmp/ray-test-{os.getpid()}"]  # short: it holds sockets
    started = [start(*head), start(f"--address={address}", "--num-cpus=1")]
    yield address, started[1]
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def start(*words: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, "--block"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(15)
    assert process.poll() is None
    return process


def test_a_machine_that_dies_loses_nothing(machines) -> None:
    address, second = machines
    with FakeServer() as server:
        outcome = with_kills(server, 1500, 1e9, address, lambda: os.killpg(second.pid, signal.SIGKILL))
    assert second.wait() == -signal.SIGKILL
    assert outcome.lost == 0
    assert outcome.twice <= outcome.most_twice
