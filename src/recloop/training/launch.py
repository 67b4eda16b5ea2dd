"""One process of a training job: ``accelerate launch --config_file FILE -m recloop.training.launch FOLDER``.

The folder holds ``job.json``: ``folders``, ``seed``, ``prompts``, ``pairs`` and ``config`` of a DPO run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

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
    import torch

    folder = Path(arguments[0])
    job = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    prompts = {prompt["user"]: Prompt(**prompt) for prompt in job["prompts"]}
    pairs = [Pair(**pair) for pair in job["pairs"]]
    folders = {name: path and Path(path) for name, path in job["folders"].items()}
    run = TrainingRun(**folders, seed=job["seed"], progress=Progress(sys.stderr) if is_first() else SILENT)
    try:
        run_dpo(run, prompts, pairs, DpoConfig.model_validate(job["config"]))
    except RecloopError as error:
        leave_error(folder, error)
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
