"""`--dry-run`: the first steps of a run, done in a folder that is removed, and the plan of all steps."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel

from recloop.data.load import DataConfig
from recloop.errors import GenerationError
from recloop.experiment.run_folder import RunFolder
from recloop.llm.load import local_folder
from recloop.methods.method import Method, run_method
from recloop.methods.preflight import is_tried
from recloop.methods.run_log import PROMPT_USERS, PlanLog, read_plan_sample
from recloop.progress import SILENT
from recloop.settings import validate

QUARANTINE = "quarantine.jsonl"


def plan_of(method: Method, config: BaseModel) -> str:
    """What the first steps of a run find, and its plan; a log is read once, by the methods that can be handed one."""
    settings: Any = config
    data = getattr(config, "data", None)
    log = None
    if type(data) is DataConfig and _takes_log(method.open_study):
        log = read_plan_sample(data, settings.data_seed)
    parts: list[str] = []
    if any(kind.verb == "preflight" for kind in method.steps):
        parts.append(first_findings(method, config, log))
    if method.forecast is None:
        return "\n".join([*parts, f"{method.name} has no forecast"])
    known = {"log": log} if log is not None and _takes_log(method.forecast) else {}
    return "\n".join([*parts, method.forecast(config, **known)])


def _takes_log(function: Callable[..., Any]) -> bool:
    parameters = signature(function).parameters.values()
    return any(one.name == "log" or one.kind is Parameter.VAR_KEYWORD for one in parameters)


def first_findings(method: Method, config: BaseModel, log: PlanLog | None = None) -> str:
    """What the first steps of a run find; a server is not asked.

    Args:
        log: of the run, where it was read before; of a large one some users are tried. None: the run reads it.
    """
    tree = config.model_dump(mode="json")
    name = tree.get("lm", {}).get("name", "")
    if name and not name.startswith("openai:"):
        try:
            local_folder(name)
        except GenerationError as error:
            return f"prompts are not made, and nothing is checked: {error}"
    is_sampled = is_tried(config) and not name.startswith("openai:")
    for data in (tree.get("data"), *(place.get("data") for place in tree.get("transfer", ()))):
        if isinstance(data, dict) and "quarantine" in data:
            data["quarantine"] = QUARANTINE  # in the folder that is removed
    config = validate(type(config), tree)
    verb = "preflight" if is_sampled else "prepare"
    with TemporaryDirectory() as folder, RunFolder.open(Path(folder) / "run", tree, method=method.name) as run:
        some: dict[str, Any] = {} if log is None else {"log": log.sample(PROMPT_USERS, tree["data_seed"])}
        run_method(method, config, run, SILENT, verb, **some)
        made = run.manifest["steps"].get(verb, {})
    findings = [f"  {what:<48} {found:>5}   {bound}" for what, found, bound, _ in made.get("findings", ())]
    head = f"preflight, {made['num_checked']} completions:" if findings else "the log has what the run needs"
    if log is not None and log.num_users > PROMPT_USERS:
        findings.append(f"  tried with {PROMPT_USERS:,} of {log.num_users:,} users, drawn")
    return "\n".join([head, *findings])
