"""`--dry-run` beyond the plan: the first steps of a run, done in a folder that is removed."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import BaseModel

from recloop.errors import GenerationError
from recloop.experiment.run_folder import RunFolder
from recloop.llm.load import local_folder
from recloop.methods.method import Method, run_method
from recloop.methods.preflight import is_tried
from recloop.progress import SILENT
from recloop.settings import validate

QUARANTINE = "quarantine.jsonl"


def first_findings(method: Method, config: BaseModel) -> str:
    """What the first steps of a run find; a server is not asked."""
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
        run_method(method, config, run, SILENT, verb)
        made = run.manifest["steps"].get(verb, {})
    findings = [f"  {what:<48} {found:>5}   {bound}" for what, found, bound, _ in made.get("findings", ())]
    head = f"preflight, {made['num_checked']} completions:" if findings else "the log has what the run needs"
    return "\n".join([head, *findings])
