"""Jobs on the workers of a Ray cluster. Ray places the workers, starts them again, and repeats what died with one."""

# Ray is optional, so the checker may find none.
# pyright: reportMissingImports=false

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from recloop.errors import RecloopError, SettingError, needs_extra
from recloop.settings import setting

MAX_DEATHS = 20  # of workers at one job, before the job is taken for the cause
JOBS_AHEAD = 2  # given to each worker: one to do, and one that waits
# Of the process that starts the run: what decides the last bits of sums, and whether models are looked for elsewhere.
TOLD = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_DYNAMIC", "MKL_CBWR", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE")


class RayConfig(BaseModel, frozen=True, extra="forbid"):
    """Where a Ray cluster is, and what of it is used."""

    address: str = setting(
        "", "auto on a machine of the cluster, or HOST:PORT; empty: Ray is started on this machine alone, for the run"
    )
    num_workers: int | None = setting(None, "processes that hold a model; none: as many as the cluster has room", ge=1)
    cpus_per_worker: int = setting(1, "CPU cores of each; the threads of its arithmetic are those of the run", ge=1)
    gpus_per_worker: float = setting(0.0, "GPUs of each; below 1 several share one", ge=0)


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker does with each job.

    key: tells it from other work; workers stay, with their models, until other work comes.
    begin: called once in each worker; gives what is called with each job.
    """

    key: str
    begin: Callable[[], Callable[[Any], Any]] = field(compare=False)


class _JobWorker:
    def __init__(self, begin: Callable[[], Callable[[Any], Any]]) -> None:
        self._begin = begin
        self._work: Callable[[Any], Any] | None = None

    def do(self, place: int, job: Any) -> tuple[int, Any]:
        if self._work is None:  # not in __init__, whose errors Ray takes for the death of the worker
            self._work = self._begin()
        return place, self._work(job)


def do_jobs(config: RayConfig, work: Work, jobs: Sequence[Any]) -> Generator[tuple[int, Any]]:
    """Place and result of each job as it is done, in any order; jobs and results should be small.

    Raises:
        SettingError: no cluster there, or it has no room for the workers.
        MissingPackageError: Ray is not installed.
        RecloopError: what a job raised.
    """
    num = num_workers(config)
    try:
        pool = _pool(config, num, work)
        yield from pool.map_unordered(lambda worker, job: worker.do.remote(*job), list(enumerate(jobs)))
    except BaseException as error:
        _pool.cache_clear()  # what its workers still have to do is not wanted any more
        if isinstance(cause := getattr(error, "cause", None), RecloopError):
            raise cause from None
        raise


def num_workers(config: RayConfig) -> int:
    """How many workers there are; SettingError where the cluster has no room for them."""
    has: dict[str, float] = _connect(config).cluster_resources()
    wants = {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}
    most = int(min(has.get(what, 0) // amount for what, amount in wants.items() if amount))
    if most < (config.num_workers or 1):
        raise SettingError(
            f"ray.num_workers={config.num_workers or 1} needs as often {wants['CPU']} CPUs and {wants['GPU']:g} GPUs, "
            f"got a cluster of {has.get('CPU', 0):g} and {has.get('GPU', 0):g}; start more machines or ask for less"
        )
    return config.num_workers or most


def _connect(config: RayConfig) -> Any:
    """The module `ray`, connected to the configured cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers what it is used for
    with needs_extra("ray"):
        import ray
    if not ray.is_initialized():
        told = {"env_vars": {name: os.environ[name] for name in TOLD if name in os.environ}}
        try:
            ray.init(
                address=config.address or "local", runtime_env=told, log_to_driver=False, logging_level=logging.ERROR
            )
        except (ConnectionError, ValueError) as error:
            raise SettingError(
                f"ray.address must be that of a running cluster, got {config.address} ({error}); start one with: "
                f"ray start --head, or leave the address out"
            ) from error
    return ray


# One at a time: its workers hold their share of the cluster until no name for them is left.
@lru_cache(maxsize=1)
def _pool(config: RayConfig, num: int, work: Work) -> Any:
    """Ray's pool of actors, each listed once for each job that it may have."""
    import ray
    from ray.util import ActorPool

    kind = ray.remote(_JobWorker).options(
        num_cpus=config.cpus_per_worker,
        num_gpus=config.gpus_per_worker,
        max_restarts=-1,
        max_task_retries=MAX_DEATHS,
        scheduling_strategy="SPREAD",
    )
    return ActorPool([kind.remote(work.begin) for _ in range(num)] * JOBS_AHEAD)
