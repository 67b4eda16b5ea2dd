"""One process of a training job: ``accelerate launch --config_file FILE -m recloop.training.launch FOLDER``.

The folder holds ``job.json``: ``run``, ``prompts``, ``pairs`` and ``config`` of a DPO run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recloop.errors import RecloopError, RunError
from recloop.progress import SILENT, Progress
from recloop.records import Pair, Prompt
from recloop.training.dpo import DpoConfig, run_dpo
from recloop.training.processes import JOB_FILE, is_first, leave_error
from recloop.training.result import TrainingRun


def main(arguments: Sequence[str]) -> int:
    """0 when the job is done; an error of recloop's is left in the folder and raised."""
    if len(arguments) != 1 or not (Path(arguments[0]) / JOB_FILE).is_file():
        raise RunError(f"a folder with {JOB_FILE} is wanted, got {' '.join(arguments) or 'none'}")
    folder = Path(arguments[0])
    job = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    prompts = {prompt["user"]: Prompt(**prompt) for prompt in job["prompts"]}
    pairs = [Pair(**pair) for pair in job["pairs"]]
    try:
        run_dpo(_run_from(job["run"]), prompts, pairs, DpoConfig.model_validate(job["config"]))
    except RecloopError as error:
        leave_error(folder, error)
        raise
    finally:
        _leave_group()
    return 0


def _run_from(told: dict[str, Any]) -> TrainingRun:
    folders = {name: None if told[name] is None else Path(told[name]) for name in ("reference_folder", "scratch")}
    progress = Progress(sys.stderr) if is_first() else SILENT
    return TrainingRun(Path(told["lm_folder"]), Path(told["out"]), told["seed"], **folders, progress=progress)


def _leave_group() -> None:
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
