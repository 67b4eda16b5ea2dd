"""`recloop.run`: a whole method from Python, with names or with objects of your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from recloop.errors import RunError, SettingError
from recloop.evaluation.results import Results
from recloop.experiment.reuse import copy_rows, reuse_from
from recloop.experiment.run_folder import RunFolder
from recloop.methods.method import Method, run_method
from recloop.methods.registry import method_named
from recloop.methods.study import COMPLETIONS_FILE, VECTORS_FILE
from recloop.methods.trackers import trackers_named
from recloop.progress import Progress, terminal_progress
from recloop.records import Log
from recloop.settings import validate

OBJECTS = "objects"  # in the manifest: which parts of the run were passed as objects
NAMED_BY = {"data": "name", "lm": "name", "encoder": "name", "reranker": "kind", "prompt": "template"}
# What an object must have to stand for a part of a run, and what tells more; recloop.testing checks what it promises.
CALLABLE = ("__call__",)
FORMS = {
    "data": (("interactions", "items", "users"), "recloop.Log.from_frames makes a log of data frames"),
    "lm": (("name", "generate", "count_tokens"), "see recloop.llm.language_model.LanguageModel"),
    "encoder": (("name", "width", "encode"), "see recloop.encoders.sentence.TextEncoder"),
    "reranker": (CALLABLE, "see recloop.rerankers.protocol.Backbone"),
    "prompt": (CALLABLE, "see recloop.prompts.template.PromptTemplate"),
    "reward": (CALLABLE, "see recloop.rewards.function.RewardFunction"),
}


def run(
    method: str | Method,
    *,
    data: Log | str | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    until: str | None = None,
    reuse: str | Path | None = None,
    report_to: str | Sequence[str] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Results:
    """Run a method from data to report, or go on with a run; its results.

    Args:
        method: ``dpo4rec``, ``rerec``, ``re2llm``, or a `Method` of your own.
        data: a log, the name of one, or the settings of the section ``data``; None for the method's default.
        out: the run folder. One that holds the same run is continued. None for ``runs/METHOD-TIME``.
        until: stop after the first step of this verb, e.g. ``"sample"``; the results then say what is done.
        reuse: another run's folder; its steps that would come out the same are not done again.
        report_to: ``tensorboard``, ``mlflow``, ``wandb``, ``trackio``, or several; ``"none"`` for none. None for those
            that the run was sent to before. It changes no result (docs/trackers.md).
        progress: told how far the run is; None for the terminal.
        settings: of the method, a value or a mapping a section: ``seeds=[0, 1]``, ``dpo={"beta": 0.1}``. In place of a
            section's settings stands what its name would pick, as a name or an object: ``lm``, ``encoder``,
            ``reranker``, ``prompt``; ``reward`` takes a mapping or a reward function.

    Raises:
        SettingError: no such method, setting or tracker, or a value that does not fit.
        MissingPackageError: a tracker is not installed.
        RunError: the folder holds another run, or one made with objects that are not given.

    Example:
        results = recloop.run("dpo4rec", data=log, out="runs/mine", reranker="dlcm", seeds=[0, 1, 2])
        results.table()
    """
    chosen = method_named(method) if isinstance(method, str) else method
    tree, objects = _sort_out({"data": data, **settings} if data is not None else settings)
    config = validate(chosen.config, tree)
    trackers_named(report_to)  # before a folder is made
    folder = Path(out) if out is not None else new_folder(chosen.name)
    with RunFolder.open(folder, config.model_dump(mode="json"), method=chosen.name, form=chosen.config) as opened:
        if reuse is not None:
            reuse_run(opened, Path(reuse))
        require_objects(opened, objects)
        run_method(chosen, config, opened, progress or terminal_progress(), until, report_to, **objects)
    return Results(folder)


def _sort_out(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings as a tree, and the objects among them, by the part of a run they stand for."""
    tree: dict[str, Any] = {}
    objects: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Mapping) or name not in (*NAMED_BY, "reward"):
            tree[name] = value
        elif isinstance(value, str | Path) and name in NAMED_BY:
            tree[name] = {NAMED_BY[name]: str(value)}
        elif isinstance(value, str | Path):
            raise SettingError(f"reward takes a mapping of settings or a reward function, got {value!r}; see examples/")
        else:
            _require_form(name, value)
            objects["log" if name == "data" else name] = value
    return tree, objects


def _require_form(name: str, value: object) -> None:
    needed, more = FORMS[name]
    missing = [attribute for attribute in needed if not hasattr(value, attribute)]
    if missing:
        form = "a function or class" if needed is CALLABLE else f"an object with {', '.join(needed)}"
        lacks = "" if len(missing) == len(needed) else f" without {', '.join(missing)}"
        raise SettingError(
            f"{name} takes a name, a mapping of settings or {form}, got {type(value).__name__}{lacks}; {more}"
        )


def require_objects(run: RunFolder, objects: Mapping[str, Any]) -> None:
    """Note which parts of a run are objects; RunError where it goes on with others than it began with."""
    given = sorted(objects)
    if run.manifest.get("steps") and run.manifest.get(OBJECTS, []) != given:
        was, got = (
            ", ".join("data" if name == "log" else name for name in names) or "none"
            for names in (run.manifest.get(OBJECTS, []), given)
        )
        raise RunError(f"{run.path} was begun with these objects: {was}; got {got}; pass the same, by these names")
    if run.manifest.get(OBJECTS, []) != given:
        run.remember(**{OBJECTS: given})


def reuse_run(run: RunFolder, source: Path) -> None:
    """From now on reuse what another run has done and would be the same here; see `recloop.experiment.reuse`."""
    reuse_from(run, source)
    take_caches(run, source)


def take_caches(run: RunFolder, source: Path) -> None:
    """Begin with another run's completions and vectors.

    Completions and vectors are kept by the content of prompt, weights, sampling and text. A run that has none yet gets
    the other's, so that none is paid for twice even where a step must be done again.
    """
    from recloop.encoders.sentence import EncoderCache
    from recloop.llm.cache import CompletionCache

    content = {
        COMPLETIONS_FILE: (CompletionCache, ("prompts", "requests", "completions")),
        VECTORS_FILE: (EncoderCache, ("vectors",)),
    }
    for name, (make, tables) in content.items():
        old, new = source / name, run.path / name
        if old.is_file() and not old.is_symlink() and not new.exists():
            make(new).close()  # makes its tables
            copy_rows(old, new, tables)


def new_folder(method: str) -> Path:
    """Where a run goes when no folder was named."""
    return Path("runs") / f"{method}-{datetime.now():%Y%m%d-%H%M%S}"
