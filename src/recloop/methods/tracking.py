"""What a run's files say, sent to experiment trackers by a process of its own beside the run.

A run only writes its folder. Beside it, one process a tracker (`main`) looks for newly done steps and sends their rows
of ``metrics.jsonl``, what they cost, and the report. What was sent is kept in ``.trackers`` in the run folder, so that
a run that was killed loses nothing and sends nothing twice. A tracker that cannot be reached costs the run no time
before its end, and there `MOST_WAIT_S` at most.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, cast

from pydantic import BaseModel

from recloop.errors import shown
from recloop.experiment.manifest import CONFIG, MANIFEST, PASSING, read_manifest, read_object, require_form
from recloop.experiment.run_folder import METRICS, RunFolder
from recloop.files import atomic_write_json
from recloop.llm.server.config import SECRET_NAME
from recloop.llm.server.redaction import redact
from recloop.methods.trackers import TRACKERS, Point, StepReport, TrackedRun, Tracker
from recloop.progress import Progress

STATES, REPORT = ".trackers", "report.html"
LOOK_EVERY_S, MOST_WAIT_S = 1.0, 60.0
MOST_REASON_CHARS = 200
FINISHED = "finished"  # what the process of a tracker is told at the end of a run
REST = "what is missing is sent by: recloop resume"
FREE_FORM = ("lm.server.query", "lm.server.extra_body")  # may hold anything, so they are not sent
AXES = ("step", "round", "epoch")  # of a row: what its curve is drawn over, the first that it has
NUMBERED = {"seed": "s", "round": "r", "epoch": "e", "reward_model": "m"}  # whole numbers that tell curves apart
COSTS = ("wall_s", "peak_memory_bytes", "tokens")
SERVER_COSTS = ("requests", "input_tokens", "cached_tokens", "output_tokens", "wasted_tokens", "cost")


class SentSteps(BaseModel, strict=True, extra="forbid"):
    """What a tracker has of a run: its id there, the folder it was sent from, and the digest of each step sent.

    sending: the step that was being sent when this was written; empty for none.
    """

    run_id: str = ""
    folder: str = ""
    steps: dict[str, str] = {}
    sending: str = ""


def points_of(rows: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Every number of a step's rows of ``metrics.jsonl``, with the name of its curve and its place there.

    Example:
        >>> points_of([{"run_step": "train.trained.s0", "lm": "trained", "seed": 0, "step": 3, "loss": 0.5}])
        [Point(key='train.trained.s0/loss', x=3, value=0.5)]
        >>> points_of([{"run_step": "evaluate", "variant": "trained", "metric": "ndcg@5", "value": 0.4, "low": 0.3}])
        [Point(key='evaluate/trained/ndcg@5', x=0, value=0.4), Point(key='evaluate/trained/ndcg@5.low', x=0, value=0.3)]
    """
    points: list[Point] = []
    seen: Counter[str] = Counter()  # of rows without an axis
    for row in rows:
        axis = next((name for name in AXES if name in row), None)
        x = None if axis is None else int(row[axis])
        words = [word for word in str(row["run_step"]).split(".") if (axis, word) != ("round", f"r{x}")]
        labels: list[str] = []
        values: dict[str, Any] = {}
        for name, value in row.items():
            if name in NUMBERED and name != axis:
                labels += [word for word in (f"{NUMBERED[name]}{value}",) if word not in words]
            elif isinstance(value, str) and name != "run_step":
                labels += [value.replace("/", "_")] if value and value not in words else []
            elif name not in (axis, "run_step"):
                values[name] = value
        curve = "/".join([".".join(words), *labels])
        for name, value in _numbers(values):
            key = f"{curve}.{name}" if "value" in values else f"{curve}/{name}"
            key = curve if name == "value" else key
            points.append(Point(key, seen[key] if x is None else x, value))
            seen[key] += 1
    return points


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a JSON value, with their dotted names."""
    if isinstance(value, dict | list):
        parts = cast(Any, value.items() if isinstance(value, dict) else enumerate(value))
        for key, part in parts:
            yield from _numbers(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, int | float):
        yield name, float(value)


def costs_of(step: str, entry: Mapping[str, Any]) -> list[Point]:
    """What a step of a manifest cost: seconds, bytes, tokens, money; nothing where another run has paid for it."""
    if entry.get("reused_from"):
        return []
    server = entry.get("server") or {}
    costs = {name: entry[name] for name in COSTS if name in entry}
    costs |= {f"server.{name}": server[name] for name in SERVER_COSTS if name in server}
    return [Point(f"cost/{step}/{name}", 0, float(value)) for name, value in costs.items()]


def settings_to_send(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration with dotted names, less what decides no result or may hold a secret.

    Example:
        >>> settings_to_send({"lm": {"name": "openai:http://10.0.0.7/v1#m", "pace": {"api_key_env": "KEY"}}})
        {'lm.name': 'openai:http://[ip]/v1#m'}
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        key = f"{prefix}{name}"
        if key in (*PASSING, *FREE_FORM):
            continue
        if isinstance(value, dict):
            found |= settings_to_send(cast(dict[str, Any], value), f"{key}.")
        elif isinstance(value, int | float | None):
            found[key] = value
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            found[key] = "[secret]" if text and SECRET_NAME.search(name) else redact(text)[0]
    return found


def digest_of_step(step: str, entry: Mapping[str, Any]) -> str:
    """SHA-256 of what there is to send of a done step, by its entry in the manifest."""
    files = [entry["outputs"].get(METRICS), entry.get("published", {}).get(REPORT)]
    return hashlib.sha256(json.dumps([step, files], sort_keys=True).encode()).hexdigest()


def read_step(folder: Path, number: int, step: str, entry: Mapping[str, Any]) -> StepReport | None:
    """What there is to send of a done step; None where its rows are not there, as while it is done again."""
    points, facts = costs_of(step, entry), entry["outputs"].get(METRICS)
    if facts is not None:
        file = folder / entry["folder"] / METRICS
        rows = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(rows).hexdigest() != facts["sha256"]:
            return None
        points += points_of(map(json.loads, rows.splitlines()))
    html = folder / REPORT if REPORT in entry.get("published", {}) else None
    return StepReport(step, number, digest_of_step(step, entry), tuple(points), html)


def send_news(folder: Path, name: str, tracker: Tracker | None, say: Callable[[str], None]) -> Tracker | None:
    """Send what a tracker does not have yet of a run; the tracker, which is opened when there is something to send.

    Args:
        folder: of the run, absolute.
        tracker: what this returned the last time.

    Raises:
        RunError: the run's files are damaged.
        Exception: whatever the tracker's library raises, e.g. where it cannot be reached.
    """
    file, manifest = folder / STATES / f"{name}.json", read_manifest(folder)
    sent = _sent_steps(file)
    digests = {step: digest_of_step(step, entry) for step, entry in manifest["steps"].items()}
    if not digests or (sent.folder == str(folder) and digests.items() <= sent.steps.items()):
        return tracker
    file.parent.mkdir(exist_ok=True)
    if tracker is None:
        run = TrackedRun(folder, manifest["method"], settings_to_send(read_object(folder / CONFIG)))
        tracker, sent = _open(run, name, sent, say)
    for number, (step, entry) in enumerate(manifest["steps"].items()):
        if sent.steps.get(step) == digests[step]:
            continue
        report = read_step(folder, number, step, entry)
        if report is None:
            break
        is_repeat = step in (sent.sending, *sent.steps)  # cut off, or done again since
        sent = sent.model_copy(update={"sending": step})
        atomic_write_json(file, sent.model_dump())
        tracker.send(report, is_repeat=is_repeat)
        sent = sent.model_copy(update={"sending": "", "steps": {**sent.steps, step: digests[step]}})
        atomic_write_json(file, sent.model_dump())
    return tracker


def _open(run: TrackedRun, name: str, sent: SentSteps, say: Callable[[str], None]) -> tuple[Tracker, SentSteps]:
    """The tracked run that was begun, or a new one, and what it has."""
    was_here = sent.folder == str(run.folder)
    tracker = TRACKERS[name](run, sent.run_id if was_here else "")
    if was_here and tracker.run_id == sent.run_id:
        return tracker, sent
    why = ""
    if sent.run_id:
        why = f", a new one: {sent.run_id} " + ("is not there" if was_here else f"was begun in {sent.folder}")
    say(f"{name}: the tracked run is {tracker.run_id}{why}")
    sent = SentSteps(run_id=tracker.run_id, folder=str(run.folder))
    atomic_write_json(run.folder / STATES / f"{name}.json", sent.model_dump())
    return tracker, sent


def _sent_steps(file: Path) -> SentSteps:
    """What is known to be sent; nothing where the file is gone. RunError where it is not what `send_news` wrote."""
    if not file.is_file():
        return SentSteps()
    found = read_object(file)
    require_form(file, found, SentSteps)
    return SentSteps.model_validate(found)


def follow(folder: Path, name: str, say: Callable[[str], None], told: Callable[[float], str | None]) -> None:
    """Send what is new of a run until told of its end, and then what is left. One warning, whatever goes wrong.

    Args:
        told: waits for so many seconds; None while the run goes on, then `FINISHED` or another word.
    """
    tracker: Tracker | None = None
    seen_ns, word, has_warned = 0, None, False
    while word is None:
        word = told(LOOK_EVERY_S)
        try:
            now_ns = (folder / MANIFEST).stat().st_mtime_ns
            if word is None and now_ns == seen_ns:
                continue
            seen_ns = now_ns
            tracker = send_news(folder, name, tracker, say)
            if tracker is not None and word is not None:
                tracker.close(is_finished=word == FINISHED)
        except Exception as error:  # a tracker may fail in any way, and the run goes on
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:MOST_REASON_CHARS]
            if not has_warned:
                say(f"{name} is not reached ({reason}); the run goes on; {REST} {folder}")
            has_warned = True


@contextmanager
def reported(run: RunFolder, names: Sequence[str] | None, progress: Progress) -> Generator[None]:
    """While what is inside runs, its steps are sent to these trackers; whatever befalls them, it goes on.

    Args:
        names: see `trackers_named`; None for those that the run was sent to before.
    """
    states = run.path / STATES
    if names is None:
        names = [name for name in TRACKERS if (states / f"{name}.lock").is_file()]
    for name in names:
        states.mkdir(exist_ok=True)
        (states / f"{name}.lock").touch()
    started = [_start(run.path.resolve(), name, progress) for name in names]
    word = "stopped"
    try:
        yield
        word = FINISHED
    finally:
        deadline_s = time.monotonic() + MOST_WAIT_S
        for process, *_ in started:
            with suppress(OSError), cast(Any, process.stdin) as pipe:
                pipe.write(word)
        for name, (process, listener, said) in zip(names, started, strict=True):
            try:
                process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            listener.join()
            if process.returncode and not any(REST in line for line in said):
                progress.say(f"{name} has not got all of the run; {REST} {run.path}")


def _start(folder: Path, name: str, progress: Progress) -> tuple[subprocess.Popen[str], Thread, list[str]]:
    """The process that sends a run to a tracker, what hands on its news, and the news so far."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "recloop.methods.tracking", str(folder), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        start_new_session=True,  # Ctrl-C is for the run; this process then sends what is left
    )

    said: list[str] = []

    def listen() -> None:
        with cast(Any, process.stdout) as lines:
            for line in lines:
                said.append(line)
                progress.say(line.rstrip())

    listener = Thread(target=listen, daemon=True)
    listener.start()
    return process, listener, said


def main(arguments: Sequence[str]) -> None:
    """The process of one tracker, given the run's folder and the tracker's name. Its input ends when the run does."""
    folder, name = Path(arguments[0]), arguments[1]
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    news = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # trackers print what nobody asked for

    def say(text: str) -> None:
        with suppress(BrokenPipeError):
            print(shown(text), file=news, flush=True)

    def told(wait_s: float) -> str | None:
        if not select.select([sys.stdin], [], [], wait_s)[0]:
            return None
        signal.alarm(int(MOST_WAIT_S))  # ends this process
        return sys.stdin.read()

    with (folder / STATES / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of a run that was killed, the process may still be at work
        follow(folder, name, say, told)


if __name__ == "__main__":
    main(sys.argv[1:])
