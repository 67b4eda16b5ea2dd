"""Run folders of others: manifests, configurations, results and step files, opened, read and reused."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.mutate import mutated, mutated_tree
from fuzz.target import Case, Kind, require
from recloop.evaluation.results import Results
from recloop.evaluation.terminal import show
from recloop.experiment.reuse import require_source_run, reuse_step
from recloop.experiment.run_folder import RunFolder
from recloop.experiment.step import forecast_of_reuse
from recloop.methods.registry import method_named
from recloop.methods.run import reuse_run
from recloop.progress import SILENT
from recloop.settings import validate

NAMES = (
    "../important",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a/../../b",
    "../../../.bashrc",
    "steps/\x1b[31m",
    "C:\\x",
    "~",
    ".lock",
)
METHOD = "dpo4rec"


def _make(work: Path) -> Case:
    model = work / "run-template"
    config = method_named(METHOD).config().model_dump(mode="json")
    _write_run(model, config)

    def case(rng: random.Random, folder: Path) -> Callable[[], None]:
        run = folder / "run"
        shutil.copytree(model, run)
        _damage(run, rng)
        act = rng.choice((_open, _reopen, _show, _results, _reuse, _reuse, _forecast))
        return lambda: act(run, folder, config)

    return case


def _write_run(path: Path, config: dict[str, Any]) -> None:
    with RunFolder.open(path, config, method=METHOD) as run:
        for name, folder in (("prepare", None), ("sample.0", "steps/sample.0"), ("evaluate", None), ("report", None)):
            with run.step(name, {"seed": 0}, folder, fingerprint=f"print of {name}") as step:
                (step.folder / "sub").mkdir(parents=True)
                (step.folder / "sub" / "rows.txt").write_text(f"rows of {name}\n")
                step.log({"loss": 1.0})
                step.note(tokens=12, usage={"requests": 3})
    (path / "results.json").write_text(json.dumps(RESULTS))
    (path / "report.html").write_text("<html></html>")
    (path / "per_user.parquet").write_bytes(b"PAR1")


ESTIMATE = {"value": 0.5, "low": 0.4, "high": 0.6, "by_seed": [0.5]}
RESULTS: dict[str, Any] = {
    "labels": {"no_text": "no text", "trained": "trained"},
    "tables": [
        {
            "title": "PRM", "reranker": "prm", "unit": "user", "is_demonstration": True, "below_chance": "",
            "metrics": [
                {
                    "metric": "ndcg@5", "num_users": 9, "num_lists": 9, "mean": "macro", "empty": "drop",
                    "variants": [{"name": name, "estimate": ESTIMATE} for name in ("no_text", "trained")],
                    "contrasts": [
                        {"name": "trained", "against": "no_text", "difference": ESTIMATE, "p": 0.04, "p_holm": 0.08,
                         "verdict": "no difference shown"},
                    ],
                },
            ],
        },
    ],
}  # fmt: skip


def _damage(run: Path, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2))):
        match rng.randrange(10):
            case 0 | 1 | 2 | 3:
                _rewrite(run / "manifest.json", rng)
            case 4:
                _damage_name(run / "manifest.json", rng)
            case 5 | 6:
                _rewrite(run / rng.choice(("config.json", "results.json")), rng)
            case 7:
                file = rng.choice([path for path in sorted(run.rglob("*")) if path.is_file()])
                file.write_bytes(mutated(file.read_bytes(), "json", rng))
            case 8:
                _link(rng.choice(sorted(run.rglob("*"))), run, rng)
            case _:
                odd = rng.choice(sorted(run.rglob("*")))
                shutil.rmtree(odd) if odd.is_dir() else odd.unlink()
                if rng.random() < 0.3:
                    odd.mkdir()


def _rewrite(file: Path, rng: random.Random) -> None:
    if not file.is_file():
        return
    if rng.random() < 0.3:
        file.write_bytes(mutated(file.read_bytes(), "json", rng))
        return
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return
    file.write_text(json.dumps(mutated_tree(value, rng)), encoding="utf-8", errors="surrogatepass")


def _damage_name(file: Path, rng: random.Random) -> None:
    """A step's folder, an output or a whole step with a name that leads elsewhere."""
    try:
        value = json.loads(file.read_bytes())
        steps = value["steps"]
        name = rng.choice(list(steps))
        odd, place = rng.choice(NAMES), rng.randrange(4)
        if place == 0:
            steps[name]["folder"] = odd
        elif place == 1:
            steps[name]["outputs"][odd] = {"bytes": 1, "sha256": "0" * 64}
        elif place == 2:
            steps[odd] = steps.pop(name)
        else:
            value["reuses_from"] = odd
        file.write_text(json.dumps(value))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return


def _link(path: Path, run: Path, rng: random.Random) -> None:
    precious = run.parent.parent / "sentinel" / "beside"
    target = rng.choice((precious, precious / "precious.txt", run, Path("/nowhere"), path))
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    path.symlink_to(target)


def _open(run: Path, folder: Path, config: dict[str, Any]) -> None:  # noqa: ARG001
    with RunFolder.open(run, config, method=METHOD) as opened:
        _go_on(opened)


def _reopen(run: Path, folder: Path, config: dict[str, Any]) -> None:  # noqa: ARG001
    with RunFolder.reopen(run) as opened:
        validate(method_named(opened.manifest["method"]).config, opened.config)
        _go_on(opened)


def _go_on(run: RunFolder, *, is_reusing: bool = False) -> None:
    """Read what is done, do what is not, and a step more."""
    for name in ("prepare", "sample.0", "more"):
        folder = "steps/sample.0" if name == "sample.0" else None
        if is_reusing:
            reuse_step(run, name, ("data", "seeds"), f"print of {name}", SILENT)
        with run.step(name, {"seed": 0}, folder, fingerprint=f"print of {name}") as step:
            if not step.is_done:
                (step.folder / "out.txt").write_text("out\n")
        if name != "more":
            require(bool(run.digest(name)), "no digest")


def _show(run: Path, folder: Path, config: dict[str, Any]) -> None:  # noqa: ARG001
    require(bool(show(run)), "nothing to show")
    look = RunFolder.look(run)
    for step in look.manifest["steps"]:
        look.folder(step)


def _results(run: Path, folder: Path, config: dict[str, Any]) -> None:  # noqa: ARG001
    results = Results(run)
    results.table()
    results.contrasts()
    repr(results)
    results._repr_html_()


def _reuse(run: Path, folder: Path, config: dict[str, Any]) -> None:
    require_source_run(run, METHOD)
    with RunFolder.open(folder / "new", config, method=METHOD) as new:
        reuse_run(new, run)
        _go_on(new, is_reusing=True)


def _forecast(run: Path, folder: Path, config: dict[str, Any]) -> None:  # noqa: ARG001
    require_source_run(run, METHOD)
    forecast_of_reuse(method_named(METHOD).steps, config, run)


KIND = Kind("manifests", 5_000, _make)
