"""Training in several processes, which `accelerate launch` starts; what its environment tells each of them.

Each holds the model, or its shard of it, and sees its share of a step's rows. Gradients are averaged between them. Only
the first writes files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from recloop import errors
from recloop.errors import RecloopError, SettingError, TrainingError
from recloop.files import atomic_write_json

CONFIGS = Path(__file__).parent / "accelerate_configs"
JOB_FILE, ERROR_FILE, OUTPUT_FILE = "job.json", "error.json", "launch.log"


def num_processes() -> int:
    """How many processes train together; 1 outside of `accelerate launch`."""
    # Schedulers set WORLD_SIZE and RANK for whole machines; LOCAL_RANK comes from accelerate and torchrun alone.
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def is_first() -> bool:
    """True in the process that writes files."""
    return num_processes() == 1 or os.environ.get("RANK", "0") == "0"


def is_sharded() -> bool:
    """True when FSDP or DeepSpeed spreads one model over the processes."""
    return any(os.environ.get(f"ACCELERATE_USE_{kind}") == "true" for kind in ("FSDP", "DEEPSPEED"))


def launch(folder: Path, job: dict[str, Any], accelerate_config: str) -> None:
    """Run a job in several processes to its end, by ``accelerate launch ... -m recloop.training.launch FOLDER``.

    Args:
        folder: of the job; made if absent.
        job: as `recloop.training.launch` reads it, in JSON.
        accelerate_config: ddp, fsdp or deepspeed_zero3, on all GPUs of this machine, or a YAML file.

    Raises:
        SettingError: no such configuration, or fewer than two GPUs for one that needs them.
        RecloopError: what a process raised; TrainingError where it ended otherwise.
    """
    where = _where(accelerate_config)
    command = [sys.executable, "-m", "accelerate.commands.launch", *where, "-m", "recloop.training.launch", str(folder)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    atomic_write_json(folder / JOB_FILE, job)
    with (folder / OUTPUT_FILE).open("w", encoding="utf-8") as output:
        done = subprocess.run(command, stdout=output, stderr=output, check=False)
    if done.returncode == 0:
        return
    if (folder / ERROR_FILE).is_file():
        told = json.loads((folder / ERROR_FILE).read_text(encoding="utf-8"))
        raise getattr(errors, told["type"])(told["message"])
    raise TrainingError(
        f"every process must come to its end, but one died (accelerate launch ended with {done.returncode}); its "
        f"output is in {folder / OUTPUT_FILE}. What was reached is kept: run it again"
    )


def leave_error(folder: Path, error: RecloopError) -> None:
    """Leave an error for `launch` to raise; the first process to fail is heard."""
    told = json.dumps({"type": type(error).__name__, "message": str(error)})
    with suppress(FileExistsError), (folder / ERROR_FILE).open("x", encoding="utf-8") as file:
        file.write(told)


def _where(accelerate_config: str) -> list[str]:
    """Flags of `accelerate launch` that say where the processes run."""
    own = CONFIGS / f"{accelerate_config}.yaml"
    if not own.is_file() and not Path(accelerate_config).is_file():
        names = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.yaml")))
        raise SettingError(f"accelerate_config must be {names} or a YAML file, got {accelerate_config}")
    if not own.is_file():
        return ["--config_file", accelerate_config]
    import torch

    num_gpus = torch.cuda.device_count()
    if num_gpus < 2:
        raise SettingError(
            f"accelerate_config={accelerate_config} needs two GPUs or more, got {num_gpus}; leave it out"
        )
    return ["--config_file", str(own), "--num_processes", str(num_gpus)]
