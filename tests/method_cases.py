"""Running a method in tests: with a configuration, in a folder, on objects."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from recloop.evaluation.terminal import show
from recloop.experiment.run_folder import RunFolder
from recloop.methods.method import run_method
from recloop.methods.registry import method_named
from recloop.progress import SILENT


def do_method(name: str, config: BaseModel, path: Path, until: str | None = None, **objects: Any) -> str:
    """Do a run, or go on with it: what the command line would print."""
    with RunFolder.open(path, config.model_dump(mode="json"), method=name) as run:
        return run_method(method_named(name), config, run, SILENT, until, **objects) or show(path)
