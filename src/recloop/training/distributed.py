"""One call of a training function in several processes that share every step, one GPU each.

Each process holds the whole model and sees its share of a step's rows; gradients are averaged between them
(torch's DistributedDataParallel, through accelerate). Without a GPU the processes share the CPU, which is
good for trying it out and for nothing else.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recloop import errors
from recloop.errors import RecloopError, SettingError, TrainingError
from recloop.progress import SILENT, Progress

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

RANK = "RECLOOP_RANK"  # a name of its own: schedulers set RANK for whole machines
POLL_S = 0.2


def is_first() -> bool:
    """Whether this process is the one that writes files: the only one, or the first of several."""
    return os.environ.get(RANK, "0") == "0"


def is_one_of_several() -> bool:
    """Whether this process was started to share a call with others."""
    return RANK in os.environ


def run_in_processes(call: Callable[[Progress], object], count: int, name: str, total: int, progress: Progress) -> None:
    """Run `call` in so many new processes at once and wait for all of them.

    Args:
        call: can be pickled; it gets the progress that its process reports to.
        name, total: what is being done, and how many rows that is.

    Raises:
        SettingError: more processes than GPUs, where there is a GPU.
        RecloopError: the first that a process raised.
        TrainingError: a process ended otherwise.
    """
    import torch
    from torch.multiprocessing.spawn import (
        ProcessContext,
        ProcessExitedException,
        ProcessRaisedException,
        start_processes,
    )

    num_gpus = torch.cuda.device_count()
    if 0 < num_gpus < count:
        raise SettingError(
            f"every process needs a GPU of its own, got processes={count} and {num_gpus} GPUs; lower processes"
        )
    told: SimpleQueue[tuple[str, Any]] = torch.multiprocessing.get_context("spawn").SimpleQueue()
    context = start_processes(_work, (call, count, _free_port(), told), nprocs=count, join=False)
    assert isinstance(context, ProcessContext)
    failures: list[RecloopError] = []
    try:
        with progress.stage(f"{name} in {count} processes", total=total, unit="rows") as step:
            while not context.join(timeout=POLL_S):
                _read(told, step, failures)
            _read(told, step, failures)
    except (ProcessExitedException, ProcessRaisedException) as error:
        _read(told, lambda _: None, failures)
        why = str(error).strip().splitlines()[-1]
        raise next(iter(failures), None) or TrainingError(
            f"all {count} processes must come to their end, but one did not ({why}); "
            f"what was reached is kept: run it again, with processes=1 to see more"
        ) from error
    finally:
        for process in context.processes:
            if process is not None and process.is_alive():
                process.terminate()
                process.join()


def _read(told: SimpleQueue[tuple[str, Any]], step: Callable[[float], None], failures: list[RecloopError]) -> None:
    """Pass on what the processes have told since the last time."""
    while not told.empty():
        kind, what = told.get()
        if kind == "rows":
            step(what)
        else:
            failures.append(getattr(errors, kind)(what))


class _Telling(Progress):
    """The progress of the first process: its rows go to the parent."""

    def __init__(self, told: SimpleQueue[tuple[str, Any]]) -> None:
        super().__init__(None)
        self._told = told

    @contextmanager
    def stage(self, name: str, total: float | None = None, unit: str = "steps") -> Generator[Any]:  # noqa: ARG002
        yield lambda amount: self._told.put(("rows", amount))


def _work(
    rank: int,
    call: Callable[[Progress], object],
    count: int,
    port: int,
    told: SimpleQueue[tuple[str, Any]],
) -> None:
    """The life of one process."""
    import torch

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    os.environ |= {
        RANK: str(rank),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        call(_Telling(told) if rank == 0 else SILENT)
    except RecloopError as error:
        told.put((type(error).__name__, str(error)))
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
