"""TensorBoard, MLflow, Weights & Biases and trackio behind one protocol; each is imported when it is opened."""

# The trackers are optional, so the checker may find none of them.
# pyright: reportMissingImports=false, reportMissingModuleSource=false
# pyright: reportUnknownVariableType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from recloop.errors import SettingError, needs_extra
from recloop.files import atomic_write_bytes
from recloop.settings import near_matches

PROJECT = "recloop"  # or MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT, TRACKIO_PROJECT
EVENTS = "tensorboard"  # the folder of a run that TensorBoard reads
MOST_INIT_S = 30.0  # that W&B is waited for at the start
MOST_STEP_CHARS = 200  # of its name in the name of a file
MOST_METRICS, MOST_PARAMS, MOST_PARAM_CHARS = 1000, 100, 6000  # of a request to MLflow


@dataclass(frozen=True, slots=True)
class Point:
    """One number. `x` is what its curve is drawn over: an optimiser step, a round or an epoch; 0 where it has none."""

    key: str
    x: int
    value: float


@dataclass(frozen=True, slots=True)
class StepReport:
    """All that a tracker is told of one done step of a run.

    number: its place in the run.
    digest: of the files that it is read from.
    html: the report for people, where the step has made it.
    """

    step: str
    number: int
    digest: str
    points: tuple[Point, ...]
    html: Path | None = None


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker is told of a run when it first hears of it. `settings` may leave this machine."""

    folder: Path
    method: str
    settings: Mapping[str, Any]


class Tracker(Protocol):
    """One tracked run, open. Its methods raise whatever the tracker's library raises."""

    @property
    def run_id(self) -> str:
        """What the tracker knows the run by."""
        ...

    def send(self, report: StepReport, *, is_repeat: bool) -> None:
        """Log a step; `is_repeat`: it may have been sent before, whole or in part."""
        ...

    def close(self, *, is_finished: bool) -> None:
        """Send what is still on its way; `is_finished`: the run came to its end."""
        ...


@dataclass(frozen=True, slots=True)
class TensorBoard:
    """A file of events per step, which is whole or absent and named by its content: to send again changes nothing."""

    run_id: str
    run: TrackedRun

    def send(self, report: StepReport, *, is_repeat: bool) -> None:  # noqa: ARG002
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.summary.writer.record_writer import RecordWriter
        from tensorboard.util.tensor_util import make_tensor_proto

        buffer, now_s = io.BytesIO(), time.time()
        writer = RecordWriter(buffer)

        def write(step: int, **what: Any) -> None:
            value = Summary(value=[Summary.Value(**what)])
            writer.write(Event(wall_time=now_s, step=step, summary=value).SerializeToString())

        def write_text(tag: str, text: str) -> None:
            write(0, tag=tag, metadata=create_summary_metadata(tag, ""), tensor=make_tensor_proto([text.encode()]))

        writer.write(Event(wall_time=now_s, file_version="brain.Event:2").SerializeToString())
        if report.number == 0:
            write_text("config", "\n".join(f"    {name} = {value}" for name, value in self.run.settings.items()))
        if report.html is not None:
            write_text("report", f"[{report.html}]({report.html.as_uri()})")
        for point in report.points:
            write(point.x, tag=point.key, simple_value=point.value)
        step = report.step.replace("/", "_")[:MOST_STEP_CHARS]
        name = f"events.out.tfevents.{report.number:06d}.{step}.{report.digest[:8]}"
        folder = self.run.folder / EVENTS
        folder.mkdir(exist_ok=True)
        atomic_write_bytes(folder / name, buffer.getvalue())

    def close(self, *, is_finished: bool) -> None:
        pass


def open_tensorboard(run: TrackedRun, run_id: str) -> TensorBoard:  # noqa: ARG001
    """The files of events in the run's own folder."""
    return TensorBoard(EVENTS, run)


@dataclass(frozen=True, slots=True)
class Mlflow:
    """A run of an MLflow server or store; see MLFLOW_TRACKING_URI."""

    run_id: str
    client: Any

    def send(self, report: StepReport, *, is_repeat: bool) -> None:
        from mlflow.entities import Metric

        points = [Point(mlflow_name(point.key), point.x, point.value) for point in report.points]
        if is_repeat:
            has = {point for key in {point.key for point in points} for point in self._held(key)}
            points = [point for point in points if point not in has]
        now_ms = int(time.time() * 1000)
        for part in _parts(points, MOST_METRICS):
            self.client.log_batch(self.run_id, [Metric(point.key, point.value, now_ms, point.x) for point in part])
        if report.html is not None:
            self.client.log_artifact(self.run_id, str(report.html))

    def _held(self, key: str) -> list[Point]:
        return [Point(key, found.step, found.value) for found in self.client.get_metric_history(self.run_id, key)]

    def close(self, *, is_finished: bool) -> None:
        self.client.set_terminated(self.run_id, "FINISHED" if is_finished else "KILLED")


def open_mlflow(run: TrackedRun, run_id: str) -> Mlflow:
    """The run with this id where the server has it, else a new one."""
    import mlflow
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    if run_id:
        try:
            client.update_run(run_id, status="RUNNING")
            return Mlflow(run_id, client)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # gone, or deleted
                raise
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    experiment = client.get_experiment_by_name(name)
    place = experiment.experiment_id if experiment is not None else client.create_experiment(name)
    made = Mlflow(client.create_run(place, run_name=run.folder.name, tags={"method": run.method}).info.run_id, client)
    params = [Param(mlflow_name(key), str(value)[:MOST_PARAM_CHARS]) for key, value in run.settings.items()]
    for part in _parts(params, MOST_PARAMS):
        client.log_batch(made.run_id, params=part)
    return made


def mlflow_name(key: str) -> str:
    """A key in the letters that MLflow takes.

    Example:
        >>> mlflow_name("evaluate/Evaluators: PRM/no_text/ndcg@5")
        'evaluate/Evaluators_ PRM/no_text/ndcg_at_5'
    """
    return re.sub(r"[^\w.\-/ ]", "_", key.replace("@", "_at_"), flags=re.ASCII)


@dataclass(frozen=True, slots=True)
class Wandb:
    """A run of Weights & Biases; see WANDB_PROJECT, WANDB_MODE."""

    run_id: str
    run: Any

    def send(self, report: StepReport, *, is_repeat: bool) -> None:  # noqa: ARG002
        import wandb

        for x, values in _by_x(report.points):
            self.run.log({**values, "step": x})
        if report.html is not None:
            artifact = wandb.Artifact(f"report-{self.run_id}", type="report")
            artifact.add_file(str(report.html))
            self.run.log_artifact(artifact)

    def close(self, *, is_finished: bool) -> None:
        self.run.finish(exit_code=0 if is_finished else 1)


def open_wandb(run: TrackedRun, run_id: str) -> Wandb:
    """The run with this id, or a new one."""
    import wandb

    # Neither what is printed nor what else is on the machine is sent, but for its name.
    off = {f"x_disable_{what}": True for what in ("stats", "meta", "machine_info")}
    settings = wandb.Settings(
        console="off",
        silent=True,
        init_timeout=MOST_INIT_S,
        disable_git=True,
        disable_code=True,
        x_save_requirements=False,
        **off,
    )
    opened = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        id=run_id or uuid4().hex[:12],
        name=run.folder.name,
        group=run.method,
        config=dict(run.settings),
        resume="allow",
        settings=settings,
    )
    opened.define_metric("*", step_metric="step")
    return Wandb(opened.id, opened)


@dataclass(frozen=True, slots=True)
class Trackio:
    """A run of trackio, known by its name; see TRACKIO_PROJECT, TRACKIO_SPACE_ID."""

    run_id: str
    run: Any

    def send(self, report: StepReport, *, is_repeat: bool) -> None:  # noqa: ARG002
        for x, values in _by_x(report.points):
            self.run.log(values, step=x)
        if report.html is not None:
            self.run.log({"report": report.html.as_uri()})

    def close(self, *, is_finished: bool) -> None:  # noqa: ARG002
        self.run.finish()


def open_trackio(run: TrackedRun, run_id: str) -> Trackio:
    """The run with this id, or a new one."""
    import trackio

    name = run_id or f"{run.folder.name}-{uuid4().hex[:6]}"
    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    return Trackio(name, trackio.init(project=project, name=name, config=dict(run.settings), resume="allow"))


def _parts(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _by_x(points: Sequence[Point]) -> Iterator[tuple[int, dict[str, float]]]:
    """What is logged at once: the numbers at each x."""
    for x, found in groupby(sorted(points, key=lambda point: point.x), lambda point: point.x):
        yield x, {point.key: point.value for point in found}


# By the name that users, the extra and the library's module share: (run, its id or "") -> the tracked run.
TRACKERS: dict[str, Callable[[TrackedRun, str], Tracker]] = {
    "tensorboard": open_tensorboard,
    "mlflow": open_mlflow,
    "wandb": open_wandb,
    "trackio": open_trackio,
}


def trackers_named(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The trackers that a user names, as ``"mlflow,wandb"`` or one by one; ``"none"`` for none, None where unsaid.

    Raises:
        SettingError: there is no such tracker.
        MissingPackageError: its library is not installed.
    """
    if given is None:
        return None
    words = [word.strip() for part in ([given] if isinstance(given, str) else given) for word in part.split(",")]
    names = tuple(dict.fromkeys(words))
    if names == ("none",):
        return ()
    for name in names:
        if name not in TRACKERS:
            hint = near_matches(name, list(TRACKERS))
            raise SettingError(f"there is no tracker {name!r}{hint}; report to {', '.join(TRACKERS)}, or none")
        with needs_extra(name):
            found = find_spec(name)
            if found is None or found.origin is None:  # a folder ./wandb is no library
                raise ModuleNotFoundError(name=name)
    return names
