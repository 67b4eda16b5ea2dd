"""Whole runs of each method, as small as they can be and still have every step, for the soak tests; what they leave."""

import atexit
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import polars as pl

SETTINGS: dict[str, dict[str, str]] = {
    "dpo4rec": {
        "data.simulated.num-users": "60",
        "data.simulated.num-items": "60",
        "data.simulated.num-interactions": "12",
        "prompt.max-prompt-tokens": "300",
        "completions.reward": "4",
        "completions.test": "1",
        "dpo.max-pairs": "8",
        "dpo.save-steps": "1",
        "reranker.max-epochs": "2",
    },
    "rerec": {
        "data.simulated.num-users": "24",
        "data.simulated.num-items": "120",
        "data.simulated.num-interactions": "16",
        "requests.per-user": "3",
        "requests.num-candidates": "5",
        "requests.near-misses": "2",
        "lm.max-tokens": "12",
        "sft.max-pairs": "8",
        "sft.epochs": "1",
        "grpo.max-pairs": "4",
        "grpo.batch-size": "1",
        "grpo.gradient-accumulation-steps": "2",
        "grpo.num-generations": "2",
        "grpo.max-reply-tokens": "12",
        "grpo.save-steps": "1",
        "grpo.epochs": "2",
        "retention.tasks": "4",
        "next-item.users": "3",
        "variants": '["grpo_ndcg", "rerec"]',
    },
    "re2llm": {
        "seeds": "[0]",
        "data.simulated-sessions.num-train": "24",
        "data.simulated-sessions.num-test": "12",
        "data.simulated-sessions.num-items": "240",
        "explore.max-mistakes": "12",
        "policy.steps": "64",
        "policy.rollout": "32",
    },
}
PASSING = ("wall_s", "peak_memory_bytes")
DEADLINE_S = 900


def start(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "import sys; from recloop.cli import main; sys.exit(main())", *words]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


FORKS = multiprocessing.get_context("forkserver")  # its children need not import what it has imported
FORKS.set_forkserver_preload(
    ["torch", "transformers", "polars", "scipy.stats", "sklearn", "recloop.cli", "recloop.methods.registry"]
)
DURABLE = ("fsync", "rename", "replace", "unlink", "rmdir")


def forked(words: list[str], call: tuple[int, str, int, int] | None = None) -> BaseProcess:
    """A command in a process that is forked from one with its imports done, which is quick.

    Args:
        call: (number of the call, ``before`` or ``after``, signal, times): at these calls of the functions of `DURABLE`
            it sends itself the signal.
    """
    process = FORKS.Process(target=_command, args=(words, call))
    process.start()
    return process


def _command(words: list[str], call: tuple[int, str, int, int] | None) -> None:
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    if call is not None:
        _count_calls(*call)
    from recloop.cli import main

    sys.exit(main(words))


def _count_calls(at: int, when: str, number: int, times: int) -> None:
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            is_here = at <= calls < at + times
            if is_here and when == "before":
                os.kill(os.getpid(), number)
            result = function(*args, **kwargs)
            if is_here and when == "after":
                os.kill(os.getpid(), number)
            return result

        return call

    for name in DURABLE:
        setattr(os, name, counted(getattr(os, name)))


def finish(process: subprocess.Popen[bytes]) -> None:
    assert process.wait(timeout=DEADLINE_S) == 0


def words_of(method: str) -> list[str]:
    """The settings as they are typed."""
    return [word for key, value in SETTINGS[method].items() for word in (f"--{key}", value)] + ["--preflight", "off"]


@cache
def whole_run(method: str) -> Path:
    """The folder of an uninterrupted run, made once; not to be written to."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    finish(start("run", method, *words_of(method), "--out", str(folder / "whole")))
    return folder / "whole"


def manifest_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())


def sorted_rows(file: Path) -> list[dict[str, Any]]:
    table = pl.read_parquet(file)
    return table.sort(table.columns).to_dicts()


def without_times(value: Any) -> Any:
    """The value without what a clock or the machine's memory decides."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not k.endswith("_s") and k not in PASSING}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def as_text(line: str) -> str:
    return json.dumps(without_times(json.loads(line)), sort_keys=True)


def result_of(run: Path) -> dict[str, Any]:
    """What a run found out, in a form that does not depend on when it found it."""
    steps = manifest_of(run)["steps"]
    results = json.loads((run / "results.json").read_text())
    return {
        "steps": sorted(steps),
        "results": without_times(results),
        "tables": {file.name: sorted_rows(file) for file in sorted(run.glob("*.parquet"))},
        "weights": {
            f"{name}/{output}": facts["sha256"]
            for name, entry in steps.items()
            for output, facts in entry["outputs"].items()
            if output.endswith(".safetensors")
        },
        "metrics": sorted(map(as_text, (run / "metrics.jsonl").read_text().splitlines())),
        "rankings": {file.name: file.read_text() for file in sorted((run / "runs").glob("*.trec"))},
    }


def files_of(run: Path) -> list[str]:
    """The names of all files of a run; what is hidden is of passing use, but nothing half done may stay."""
    names = [path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()]
    assert not [name for name in names if ".part" in name or name.startswith(".scratch")], names
    return sorted(names)
