import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from recloop.cli import main
from recloop.errors import MissingPackageError, RunError, SettingError
from recloop.experiment.run_folder import RunFolder
from recloop.experiment.step import StepKind, Steps
from recloop.methods import trackers, tracking
from recloop.methods.method import Method, run_method
from recloop.methods.run import run
from recloop.methods.trackers import StepReport, TrackedRun, trackers_named
from recloop.methods.tracking import points_of, send_news, settings_to_send
from recloop.progress import SILENT, Progress
from whole_runs import DEADLINE_S, SETTINGS, result_of, start, whole_run, words_of

PREPARE, TRAIN = StepKind("prepare", reads=("seed",)), StepKind("train", reads=("seed",))
EVALUATE = StepKind("evaluate", is_cheap=True)
METHODS = tuple(SETTINGS) if os.environ.get("RECLOOP_SOAK") == "full" else ("re2llm",)
NOT_A_METRIC = {"seed", "step", "round", "epoch", "reward_model"}  # of a row: they say which curve, and where on it
TABLE = "Evaluators: PRM"


class ToyConfig(BaseModel, frozen=True, extra="forbid"):
    seed: int = 0
    owner: str = "ann@example.org"


def recipe(steps: Steps) -> None:
    """Two rounds of training, a table and a report; KILL_IN names the step in which it kills its own process."""
    with steps.step(PREPARE, "", {}):
        pass
    for r in range(2):
        with steps.step(TRAIN, f"r{r}.s0", {"r": r}) as step:
            if not step.is_done:
                step.log(*({"lm": "trained", "seed": 0, "step": i, "loss": 1 / (i + r + 1)} for i in range(1, 4)))
                step.log({"round": r, "seed": 0, "reward_mean": 0.1 * r, "by": {"user": 0.25, "list": [0.5, 0.75]}})
                step.note(tokens=100 + r)
                die_in(step.name)
    with steps.step(EVALUATE, "", {}) as step:
        if not step.is_done:
            row = {"table": TABLE, "variant": "trained", "metric": "ndcg@5"}
            step.log({**row, "value": 0.4, "low": 0.3, "high": 0.5, "by_seed": [0.4]})
            (steps.run.path / "report.html").write_text("<p>report</p>")
            step.publish("report.html")
            die_in(step.name)


def die_in(step: str) -> None:
    if os.environ.get("KILL_IN") == step:
        os.kill(os.getpid(), signal.SIGKILL)


TOY = Method("toy", ToyConfig, recipe, (PREPARE, TRAIN, EVALUATE))


def run_toy(path: Path, report_to: str | None, progress: Progress = SILENT, method: Method = TOY) -> None:
    with RunFolder.open(path, ToyConfig().model_dump(), method="toy") as run:
        run_method(method, ToyConfig(), run, progress, None, report_to)


def killed_toy(path: Path, step: str, report_to: str) -> None:
    """A run that is killed in this step, and the processes of its trackers, which then end by themselves."""
    call = f"run_toy(Path({str(path)!r}), {report_to!r})"
    script = f"from pathlib import Path; from test_methods_tracking import run_toy; {call}"
    search = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run([sys.executable, "-c", script], env=os.environ | {"KILL_IN": step, "PYTHONPATH": search})
    assert done.returncode == -signal.SIGKILL


def heard(lines: list[str]) -> Progress:
    class Ear:
        def write(self, text: str) -> None:
            lines.extend(filter(None, text.splitlines()))

        def flush(self) -> None: ...

    return Progress(Ear())  # pyright: ignore[reportArgumentType]


def logged_values(run: Path) -> Counter[float]:
    """Every number of metrics.jsonl, but for those that only say where it belongs."""

    def numbers(value: Any) -> list[float]:
        if isinstance(value, dict | list):
            parts = value.values() if isinstance(value, dict) else value
            return [number for part in parts for number in numbers(part)]
        return [] if isinstance(value, str) else [float(value)]

    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{name: value for name, value in row.items() if name not in NOT_A_METRIC} for row in rows]
    return Counter(number for row in kept for number in numbers(row))


def in_mlflow(store: Path) -> list[dict[tuple[str, int], float]]:
    """What each run of a file store holds, read from its files: a line is time, value and step."""
    runs: list[dict[tuple[str, int], float]] = []
    for metrics in sorted(store.glob("*/*/metrics"), key=lambda folder: folder.stat().st_ctime):
        held: dict[tuple[str, int], float] = {}
        for file in (path for path in metrics.rglob("*") if path.is_file()):
            for line in file.read_text().splitlines():
                _, value, x = line.split()
                point = (file.relative_to(metrics).as_posix(), int(x))
                assert point not in held, f"{point} was logged twice"
                held[point] = float(value)
        runs.append(held)
    return runs


def in_tensorboard(run: Path) -> dict[tuple[str, int], float]:
    """What TensorBoard's own reader finds."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    events = [(tag, event.step, event.value) for tag in reader.Tags()["scalars"] for event in reader.Scalars(tag)]
    assert len({event[:2] for event in events}) == len(events), "a number was logged twice"
    return {(tag, step): value for tag, step, value in events}


def without_costs(points: dict[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    return {point: value for point, value in points.items() if not point[0].startswith("cost/")}


def require_mirrored(run: Path, store: Path) -> None:
    """Both trackers have each number of metrics.jsonl once, and each step's costs."""
    [mlflow_points] = in_mlflow(store)
    board = in_tensorboard(run)
    assert Counter(without_costs(mlflow_points).values()) == logged_values(run)
    assert {(trackers.mlflow_name(key), x): value for (key, x), value in board.items()} == pytest.approx(
        mlflow_points, rel=1e-6
    )
    for step, entry in json.loads((run / "manifest.json").read_text())["steps"].items():
        assert mlflow_points[f"cost/{step}/wall_s", 0] == entry["wall_s"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An MLflow file store that runs are sent to."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    return tmp_path / "mlruns"


class FakeTracker:
    """Keeps what it is sent; fails at the step named in `fails_at`."""

    fails_at = ""

    def __init__(self, run: TrackedRun, run_id: str) -> None:
        self.run, self.run_id = run, run_id or "made"
        self.points: list[tuple[str, int, float]] = []
        self.repeats: list[str] = []
        self.closed: bool | None = None

    def send(self, report: StepReport, *, is_repeat: bool) -> None:
        if is_repeat:
            self.repeats.append(report.step)
        if report.step == self.fails_at:
            raise ConnectionError("no route to tracker")
        self.points += [(point.key, point.x, point.value) for point in report.points]

    def close(self, *, is_finished: bool) -> None:
        self.closed = is_finished


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[FakeTracker]:
    """The trackers that were opened under the name mlflow, in this process."""
    opened: list[FakeTracker] = []

    def open_fake(run: TrackedRun, run_id: str) -> FakeTracker:
        opened.append(FakeTracker(run, run_id))
        return opened[-1]

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", open_fake)
    return opened


def test_each_number_of_a_row_has_a_curve_and_a_place_on_it() -> None:
    rows: list[dict[str, Any]] = [
        {"run_step": "train.trained.s0", "lm": "trained", "seed": 0, "step": 7.0, "loss": 0.5},
        {"run_step": "reward.r1.s0", "round": 1, "seed": 0, "metric": "loglik", "reliability": 0.25},
        {"run_step": "reward_model.s0", "variant": "reward_model", "reward_model": 1, "epoch": 2, "valid_ndcg": 0.125},
        {"run_step": "train.rerec.s0.e1", "lm": "rerec", "seed": 0, "epoch": 1, "step": 3, "kl": 0.75},
        {"run_step": "evaluate", "table": "A/B", "variant": "no_text", "metric": "hr@1", "value": 1, "by_seed": [2, 3]},
        {"run_step": "embed", "recall": 4},
        {"run_step": "embed", "recall": 5},
    ]
    assert [(point.key, point.x, point.value) for point in points_of(rows)] == [
        ("train.trained.s0/loss", 7, 0.5),
        ("reward.s0/loglik/reliability", 1, 0.25),
        ("reward_model.s0/m1/valid_ndcg", 2, 0.125),
        ("train.rerec.s0.e1/kl", 3, 0.75),
        ("evaluate/A_B/no_text/hr@1", 0, 1.0),
        ("evaluate/A_B/no_text/hr@1.by_seed.0", 0, 2.0),
        ("evaluate/A_B/no_text/hr@1.by_seed.1", 0, 3.0),
        ("embed/recall", 0, 4.0),
        ("embed/recall", 1, 5.0),
    ]


def test_nothing_secret_is_sent() -> None:
    config = {
        "owner": "ann@example.org",
        "beta": 0.1,
        "names": ["a", "b"],
        "service": {"password": "hunter2", "max_tokens": 5},
        "lm": {
            "name": "openai:http://127.0.0.1/v1#m",
            "pace": {"headers": {"api-key": "env:KEY"}},
            "budget": {"max_cost": 3.0},
            "server": {"extra_body": {"user": "sk-123"}, "query": {"v": "1"}, "stream": False},
        },
        "preflight": "off",
    }
    assert settings_to_send(config) == {
        "owner": "[email]",
        "beta": 0.1,
        "names": '["a", "b"]',
        "service.password": "[secret]",
        "service.max_tokens": 5,
        "lm.name": "openai:http://[ip]/v1#m",
        "lm.server.stream": False,
    }


@pytest.mark.parametrize(
    ("given", "near"), [("mlfow", "did you mean mlflow?"), ("wandb,tensorbord", "tensorboard?"), ("", "report to ")]
)
def test_an_unknown_tracker_is_one_error_before_a_folder_is_made(
    given: str, near: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: SimpleNamespace(origin="there"))
    with pytest.raises(SettingError, match="there is no tracker"):
        trackers_named(given)
    assert main(["run", "re2llm", "--out", str(tmp_path / "run"), "--report-to", given]) == 2
    assert near in capsys.readouterr().err
    with pytest.raises(SettingError, match="there is no tracker"):
        run("re2llm", out=tmp_path / "run", report_to=given)
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "trackio" else SimpleNamespace(origin=None))
    for name in ("trackio", "wandb"):  # the second is a folder ./wandb
        with pytest.raises(MissingPackageError, match=rf"{name} is not installed; pip install 'recloop\[{name}\]'"):
            trackers_named(["none", name][1:])
    assert trackers_named("none") == ()
    assert trackers_named(None) is None


def test_a_step_is_sent_once_and_a_failed_one_again(
    tmp_path: Path, fake: list[FakeTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy(tmp_path / "run", "none")
    said: list[str] = []
    with monkeypatch.context() as away:
        away.setattr(FakeTracker, "fails_at", "train.r1.s0")
        with pytest.raises(ConnectionError):
            send_news(tmp_path / "run", "mlflow", None, said.append)
    send_news(tmp_path / "run", "mlflow", None, said.append)
    assert send_news(tmp_path / "run", "mlflow", None, said.append) is None  # nothing is left, so none is opened
    assert said == ["mlflow: the tracked run is made"]
    first, second = fake
    assert (first.repeats, second.repeats) == ([], ["train.r1.s0"])
    points = first.points + second.points
    assert first.points
    assert max(Counter(points).values()) == 1
    values = Counter(value for key, _, value in points if not key.startswith("cost/"))
    assert values == logged_values(tmp_path / "run")
    assert {key: value for key, _, value in points if key.endswith("/tokens")} == {
        "cost/train.r0.s0/tokens": 100.0,
        "cost/train.r1.s0/tokens": 101.0,
    }


def test_a_run_that_goes_on_is_watched_and_told_its_end(
    tmp_path: Path, fake: list[FakeTracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeTracker, "fails_at", "prepare")
    said: list[str] = []
    words = iter([None, None, None, "finished"])

    def told(wait_s: float) -> str | None:
        match word := next(words):
            case None if not (tmp_path / "run" / "report.html").exists():
                run_toy(tmp_path / "run", "none")
            case None:
                monkeypatch.setattr(FakeTracker, "fails_at", "")
                (tmp_path / "run" / "manifest.json").touch()
            case _:
                assert fake[-1].closed is None
        return word

    with RunFolder.open(tmp_path / "run", ToyConfig().model_dump(), method="toy"):
        pass
    tracking.follow(tmp_path / "run", "mlflow", said.append, told)
    assert len(said) == 2
    assert "mlflow is not reached (ConnectionError: no route to tracker)" in said[1]
    assert fake[-1].closed is True
    values = Counter(value for key, _, value in fake[-1].points if not key.startswith("cost/"))
    assert values == logged_values(tmp_path / "run")


def test_a_step_that_another_run_paid_for_has_no_costs(tmp_path: Path, fake: list[FakeTracker]) -> None:
    from recloop.experiment.reuse import reuse_from

    run_toy(tmp_path / "first", "none")
    with RunFolder.open(tmp_path / "second", ToyConfig().model_dump(), method="toy") as run:
        reuse_from(run, tmp_path / "first")
        run_method(TOY, ToyConfig(), run, SILENT)
    send_news(tmp_path / "second", "mlflow", None, lambda _: None)
    steps = {key.split("/")[1] for key, _, _ in fake[0].points if key.startswith("cost/")}
    assert steps == {"evaluate"}
    assert sum(1 for key, _, _ in fake[0].points if key.endswith("/loss")) == 6


def test_a_moved_folder_and_a_lost_id_begin_a_new_tracked_run(tmp_path: Path, store: Path) -> None:
    run_toy(tmp_path / "run", "none")
    said: list[str] = []
    send_news(tmp_path / "run", "mlflow", None, said.append)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    send_news(tmp_path / "moved", "mlflow", None, said.append)
    assert len(said) == 2
    assert f"a new one: {said[0].split()[-1]} was begun in {tmp_path / 'run'}" in said[1]
    first, second = in_mlflow(store)
    assert first == second
    [newest] = [path for path in store.glob("*/*") if path.name == said[1].split(",")[0].split()[-1]]
    shutil.rmtree(newest)
    state = tmp_path / "moved" / ".trackers" / "mlflow.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"steps": {}}))
    send_news(tmp_path / "moved", "mlflow", None, said.append)
    assert f"a new one: {newest.name} is not there" in said[2]
    assert in_mlflow(store) == [first, first]
    state.unlink()
    send_news(tmp_path / "moved", "mlflow", None, said.append)
    assert in_mlflow(store) == [first, first, first]


def test_mlflow_is_asked_what_it_has_of_a_step_whose_sending_was_cut(tmp_path: Path, store: Path) -> None:
    run_toy(tmp_path / "run", "none")
    send_news(tmp_path / "run", "mlflow", None, lambda _: None)
    [whole] = in_mlflow(store)
    [metrics] = store.glob("*/*/metrics")
    (metrics / "train.r1.s0" / "trained" / "loss").unlink()  # of the step, a part did not come through
    state = tmp_path / "run" / ".trackers" / "mlflow.json"
    told = json.loads(state.read_text())
    del told["steps"]["train.r1.s0"]
    state.write_text(json.dumps(told | {"sending": "train.r1.s0"}))
    send_news(tmp_path / "run", "mlflow", None, lambda _: None)
    assert in_mlflow(store) == [whole]
    told = json.loads(state.read_text())
    told["steps"]["train.r0.s0"] = 64 * "0"  # it has been done again since
    state.write_text(json.dumps(told))
    send_news(tmp_path / "run", "mlflow", None, lambda _: None)
    assert in_mlflow(store) == [whole]


def test_a_damaged_state_is_refused(tmp_path: Path, fake: list[FakeTracker]) -> None:
    run_toy(tmp_path / "run", "none")
    (tmp_path / "run" / ".trackers").mkdir()
    (tmp_path / "run" / ".trackers" / "mlflow.json").write_text('{"run_id": 7}')
    with pytest.raises(RunError, match="must be what a run wrote"):
        send_news(tmp_path / "run", "mlflow", None, lambda _: None)
    assert fake == []


@pytest.mark.slow
def test_mlflow_and_tensorboard_have_what_the_run_logged_and_the_run_is_the_same(tmp_path: Path, store: Path) -> None:
    pytest.importorskip("tensorboard")
    lines: list[str] = []
    run, plain = tmp_path / "run", tmp_path / "plain"
    run_toy(run, "tensorboard,mlflow", heard(lines))
    run_toy(plain, None)
    assert sorted(line.split(":")[0] for line in lines) == ["mlflow", "tensorboard"]
    require_mirrored(run, store)
    board = in_tensorboard(run)
    assert board["train.r1.s0/trained/loss", 3] == pytest.approx(1 / 5)
    assert board["train.s0/reward_mean", 1] == pytest.approx(0.1)
    assert board[f"evaluate/{TABLE}/trained/ndcg@5.low", 0] == pytest.approx(0.3)
    [mlflow_run] = [file.parent for file in store.glob("*/*/meta.yaml")]
    assert (mlflow_run / "artifacts" / "report.html").read_text() == "<p>report</p>"
    assert (mlflow_run / "params" / "owner").read_text() == "[email]"
    assert "status: 3" in (mlflow_run / "meta.yaml").read_text()  # finished
    reports, plain_reports = (json.loads((path / "manifest.json").read_text())["steps"] for path in (run, plain))
    for step, entry in reports.items():
        for name in ("fingerprint", "inputs", "outputs", "published"):
            assert entry.get(name) == plain_reports[step].get(name)
    assert (run / "config.json").read_bytes() == (plain / "config.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["train.r1.s0", "evaluate"])
def test_a_killed_run_goes_on_in_the_same_tracked_run(step: str, tmp_path: Path, store: Path) -> None:
    pytest.importorskip("tensorboard")
    run, lines = tmp_path / "run", list[str]()
    killed_toy(run, step, "tensorboard,mlflow")
    assert len(json.loads((run / "manifest.json").read_text())["steps"]) == {"train.r1.s0": 2, "evaluate": 3}[step]
    run_toy(run, None, heard(lines))  # to the trackers that it was sent to before
    require_mirrored(run, store)
    assert not [line for line in lines if "a new one" in line]


@pytest.mark.slow
def test_another_tracker_gets_all_of_a_run_that_goes_on(tmp_path: Path, store: Path) -> None:
    pytest.importorskip("tensorboard")
    run = tmp_path / "run"
    killed_toy(run, "evaluate", "tensorboard")
    run_toy(run, "mlflow")
    [points] = in_mlflow(store)
    assert Counter(without_costs(points).values()) == logged_values(run)


@pytest.mark.slow
@pytest.mark.parametrize("is_silent", [False, True])
def test_an_unreachable_tracker_costs_one_line_and_the_rest_is_sent_later(
    is_silent: bool, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    with socket.socket() as server, monkeypatch.context() as away:
        server.bind(("127.0.0.1", 0))
        if is_silent:
            server.listen()  # it takes a connection and answers nothing
        away.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        away.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        away.setattr(tracking, "MOST_WAIT_S", 5.0 if is_silent else 120.0)
        begun = time.monotonic()
        run_toy(tmp_path / "run", "mlflow", heard(lines))
        assert not is_silent or time.monotonic() - begun < 30
    assert len(lines) == 1
    assert ("has not got all" if is_silent else "is not reached") in lines[0]
    assert str(tmp_path / "run") in lines[0]
    run_toy(tmp_path / "run", None)
    [points] = in_mlflow(store)
    assert Counter(without_costs(points).values()) == logged_values(tmp_path / "run")


FAKE_WANDB = """
import json, os, pathlib
def put(**what):
    with open(os.environ["FAKE_FILE"], "a") as file: file.write(json.dumps(what) + "\\n")
class Settings(dict): pass
class Artifact:
    def __init__(self, name, type): self.name, self.file = name, None
    def add_file(self, path): self.text = pathlib.Path(path).read_text()
class Run:
    def __init__(self, id): self.id = self.name = id
    def define_metric(self, name, step_metric): put(define=[name, step_metric])
    def log(self, values, step=None): put(x=values.pop("step", step), log=values)
    def log_artifact(self, artifact): put(artifact=artifact.text)
    def finish(self, exit_code=None): put(finish=exit_code)
def init(project, name, config, resume, id=None, group=None, settings=None):
    put(init=[project, id or name, resume], config=config)
    return Run(id or name)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio_get_each_number_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By modules with the signatures of wandb 0.31 and trackio 0.43 that write what they are called with."""
    (tmp_path / "fakes" / name).mkdir(parents=True)
    (tmp_path / "fakes" / name / "__init__.py").write_text(FAKE_WANDB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fakes"))
    monkeypatch.setenv("FAKE_FILE", str(tmp_path / "calls.jsonl"))
    monkeypatch.setattr(trackers, "find_spec", lambda name: SimpleNamespace(origin="there"))
    killed_toy(tmp_path / "run", "evaluate", "none")
    run_toy(tmp_path / "run", name)
    run_toy(tmp_path / "run", name)  # all is sent: nothing is opened
    calls = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    [(project, run_id, resume)] = [call["init"] for call in calls if "init" in call]
    assert (project, resume) == ("recloop", "allow")
    assert json.loads((tmp_path / "run" / ".trackers" / f"{name}.json").read_text())["run_id"] == run_id
    logged = [(call["x"], key, value) for call in calls if "log" in call for key, value in call["log"].items()]
    numbers = [point for point in logged if point[1] != "report"]
    assert len({point[:2] for point in numbers}) == len(numbers)
    values = Counter(value for _, key, value in numbers if not key.startswith("cost/"))
    assert values == logged_values(tmp_path / "run")
    if name == "wandb":
        assert [call["artifact"] for call in calls if "artifact" in call] == ["<p>report</p>"]
        assert [call["finish"] for call in calls if "finish" in call] == [0]
        assert {"define": ["*", "step"]} in calls
    else:
        assert [value for _, key, value in logged if key == "report"] == [(tmp_path / "run" / "report.html").as_uri()]


@pytest.mark.soak
@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_is_mirrored_and_gives_the_same_results(method: str, tmp_path: Path, store: Path) -> None:
    run, last = tmp_path / "run", {"re2llm": "steps/sample", "dpo4rec": "lm/trained.s0", "rerec": "lm/supervised.s0"}
    process = start("run", method, *words_of(method), "--out", str(run), "--report-to", "tensorboard,mlflow")
    while not (run / last[method]).exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert start("resume", str(run)).wait(DEADLINE_S) == 0
    require_mirrored(run, store)
    assert (run / "results.json").read_bytes() == (whole_run(method) / "results.json").read_bytes()
    assert result_of(run) == result_of(whole_run(method))
