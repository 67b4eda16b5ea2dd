"""What a run shows while it goes and when it is done, read from the files in its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from recloop.errors import RunError
from recloop.evaluation.results import COMPLETIONS
from recloop.evaluation.terminal import RESULTS, read_results
from recloop.experiment.manifest import MANIFEST, read_manifest
from recloop.experiment.run_folder import METRICS, SCRATCH, STEPS

MAX_POINTS, MAX_USERS, MAX_COMPLETIONS = 200, 12, 16
PART = ".part"
VERB_OF = {"lm": "train", "reranker": "fit"}  # by the folder that steps of this verb write to
CHECKPOINT = "trainer_state.json"  # of transformers' trainer, in each checkpoint
# Charts, by the metrics that make them: title, and what counts on the horizontal axis.
CHARTS = {
    "loss": ("Training loss", "step"),
    "reward_margin": ("Reward margin of preference pairs", "step"),
    "reward": ("Mean reward", "step"),
    "valid_ndcg": ("Rerankers on valid users, NDCG@5", "epoch"),
}


def view_run(run: Path) -> dict[str, Any]:
    """Steps, curves, completions with rewards and tables of a run, as JSON values.

    Raises:
        RunError: the folder is no run, or is damaged.
    """
    parts = parts_in_progress(run)
    newest = max(_newest_time(path) for path in (run / MANIFEST, run / SCRATCH, *parts))
    view = _view_at(run, (newest, *(path.name for path in parts)))
    now = {"name": step_name(parts[0]), "idle_s": max(0, round(time.time() - newest))} if parts else None
    return {**view, "now": None if view["is_finished"] else now}


def parts_in_progress(run: Path) -> list[Path]:
    """The hidden folders that steps write to before they are done, the newest first."""
    found = [path for folder in (run, run / STEPS, *run.glob("*/")) for path in folder.glob(f".*{PART}")]
    return sorted({path for path in found if path.is_dir()}, key=_newest_time, reverse=True)


def step_name(part: Path) -> str:
    """The step that writes into a hidden folder: its name, with the verb where another folder than steps/ holds it."""
    name, folder = part.name.removeprefix(".").removesuffix(PART), part.parent.name
    return name if folder == STEPS else f"{VERB_OF.get(folder, folder)}.{name}"


@lru_cache(maxsize=4)
def _view_at(run: Path, stamp: tuple[Any, ...]) -> dict[str, Any]:  # noqa: ARG001
    """The view of a run at one moment: many pages that look at it cost one reading."""
    manifest = read_manifest(run)
    steps: Mapping[str, Any] = manifest["steps"]
    is_evaluated = "evaluate" in steps
    return {
        "method": manifest["method"],
        "name": run.resolve().name,
        "is_finished": "report" in steps,
        "steps": [
            {"name": name, "wall_s": entry["wall_s"], "tokens": entry.get("tokens", 0)} for name, entry in steps.items()
        ],
        "charts": charts(rows_so_far(run, steps)),
        "completions": completions(run, steps),
        "table": first_table(read_results(run, manifest)) if is_evaluated and (run / RESULTS).is_file() else None,
    }


def rows_so_far(run: Path, steps: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of metrics: those of done steps, and what the step in progress has written."""
    for file in (run / METRICS, *(part / METRICS for part in parts_in_progress(run))):
        for line in _text(file).splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                continue  # the last line is being written
    for folder in sorted((run / SCRATCH).glob("*/")):
        if folder.name not in steps:
            yield from ({"run_step": folder.name, **row} for row in _trainer_history(folder))


def charts(rows: Iterator[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A chart for each metric of `CHARTS` that the rows hold, a line a step; at most `MAX_POINTS` of a line."""
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in rows:
        for metric, (_, axis) in CHARTS.items():
            x, y = row.get(axis), row.get(metric)
            if isinstance(x, int | float) and isinstance(y, int | float) and y == y:
                lines.setdefault(metric, {}).setdefault(str(row.get("run_step", "")), []).append((x, y))
    return [
        {
            "title": title,
            "x": axis,
            "lines": [{"name": name, "points": _thinned(points)} for name, points in lines[metric].items()],
        }
        for metric, (title, axis) in CHARTS.items()
        if metric in lines
    ]


def completions(run: Path, steps: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Some users with what was written about them and its rewards, the best first."""
    frame = _rewarded(run) if "evaluate" in steps else _rewarded_so_far(run, steps)
    if frame is None or not frame.height:
        return []
    users = frame["user_id"].unique(maintain_order=True).head(MAX_USERS)
    frame = frame.filter(pl.col("user_id").is_in(users.implode())).sort("reward", descending=True, nulls_last=True)
    return [
        {
            "user_id": user,
            "texts": frame.filter(pl.col("user_id") == user).head(MAX_COMPLETIONS).drop("user_id").to_dicts(),
        }
        for user in users
    ]


def first_table(results: Mapping[str, Any]) -> dict[str, Any]:
    """The first table by its tested metric: estimates with intervals, and the tested differences."""
    table, labels = results["tables"][0], results["labels"]
    main = table["metrics"][0]
    contrasts = [
        {
            "name": labels[one["name"]],
            "against": labels[one["against"]],
            **{side: one["difference"][side] for side in ("value", "low", "high")},
            "verdict": one["verdict"],
        }
        for one in main["contrasts"]
    ]
    rows = [
        {"name": one["name"], "label": labels[one["name"]]}
        | {side: one["estimate"][side] for side in ("value", "low", "high")}
        for one in main["variants"]
    ]
    told = {"title": table["title"], "metric": main["metric"], "unit": table["unit"], "num_users": main["num_users"]}
    return {**told, "is_demonstration": table["is_demonstration"], "rows": rows, "contrasts": contrasts}


def _rewarded(run: Path) -> pl.DataFrame | None:
    """What a finished run wrote: with rewards, where any were given."""
    if not (run / COMPLETIONS).is_file():
        return None
    frame = pl.read_parquet(run / COMPLETIONS).select("user_id", "variant", "text", "reward")
    rewarded = frame.filter(pl.col("reward").is_not_null())
    return rewarded if rewarded.height else frame


def _rewarded_so_far(run: Path, steps: Mapping[str, Any]) -> pl.DataFrame | None:
    """The texts and rewards of the last reward step of a run of DPO4Rec that goes on; None before there is one."""
    written: Path | None = None
    paired: tuple[Path, Path] | None = None
    for name, entry in steps.items():  # in the order done: texts, then their rewards
        if name.startswith("sample.") and (run / entry["folder"] / "reward.parquet").is_file():
            written = run / entry["folder"]
        elif name.startswith("reward.r") and written is not None:
            paired = written, run / entry["folder"]
    if paired is None:
        return None
    text, reward = pl.read_parquet(paired[0] / "reward.parquet"), pl.read_parquet(paired[1] / "rewards.parquet")
    ids = reward["user_id"].unique(maintain_order=True)
    numbers = text["user"].unique(maintain_order=True)
    if len(ids) != len(numbers):  # both are in the order of the users' numbers
        raise RunError(f"{run} rewards {len(ids)} users and has texts of {len(numbers)}; restore its files")
    names = pl.DataFrame({"user": numbers, "user_id": ids})
    found = text.join(names, on="user").join(reward, on=["user_id", "completion"], how="left", maintain_order="left")
    return found.select("user_id", pl.lit(paired[0].name.split(".")[1]).alias("variant"), "text", "reward")


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    every = -(-len(points) // MAX_POINTS)
    return points if every <= 1 else [*points[:-1:every], points[-1]]


def _trainer_history(folder: Path) -> list[dict[str, Any]]:
    """What a trainer has logged, by its newest checkpoint that is whole: one may be written or removed just now."""
    for file in sorted(folder.rglob(CHECKPOINT), key=_newest_time, reverse=True):
        try:
            return json.loads(_text(file))["log_history"]
        except ValueError:
            continue
    return []


def _text(file: Path) -> str:
    """What a file holds; nothing where it is gone by now."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _newest_time(path: Path) -> float:
    """When a file, or any in a folder, was last written; 0 where it is gone by now."""
    try:
        inside = list(path.rglob("*")) if path.is_dir() else []
        return max(one.stat().st_mtime for one in (path, *inside))
    except OSError:
        return 0.0
