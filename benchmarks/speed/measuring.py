"""Times of two implementations in turn, a machine's limits, and profiles of where the time goes."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.speed.figures import Line, Machine, Products, Profile, Side

Result = TypeVar("Result")
Other = TypeVar("Other")

PACKAGES = (
    "recloop",
    "torch",
    "numpy",
    "polars",
    "transformers",
    "trl",
    "sentence-transformers",
    "pytrec-eval-terrier",
    "pandas",
)
ENVIRONMENT = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_DYNAMIC", "MKL_CBWR", "POLARS_MAX_THREADS")
MATMUL_SIZE, COPY_BYTES = 1024, 64_000_000
PROFILE_ROWS = 12
BUDGET_S = 100.0  # of one race; a repetition that would exceed it is not started


@dataclass(frozen=True, slots=True)
class Race:
    """The times of two implementations, and the result of each in the last repetition."""

    ours: Side
    against: Side
    our_result: Any
    their_result: Any


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds and result of one call; garbage is collected before it, not during it."""
    gc.collect()
    gc.disable()
    try:
        start_s = time.perf_counter()
        result = work()
        return time.perf_counter() - start_s, result
    finally:
        gc.enable()


def race(
    ours: tuple[str, float, Callable[[], Any]],
    against: tuple[str, float, Callable[[], Any]],
    repetitions: int,
    step: Callable[..., Any],
) -> Race:
    """The times of ours, theirs, ours, theirs, ..., so that the machine's other load affects both.

    A slow machine does fewer repetitions, but at least one, to stay within `BUDGET_S`.

    Args:
        ours, against: name, amount of work, and the work.
        step: called after each repetition.
    """
    walls: list[tuple[float, float]] = []
    our_result = their_result = None
    start_s = time.perf_counter()
    for done in range(repetitions):
        if done and (time.perf_counter() - start_s) * (done + 1) / done > BUDGET_S:
            step(repetitions - done)
            break
        our_wall_s, our_result = timed(ours[2])
        their_wall_s, their_result = timed(against[2])
        walls.append((our_wall_s, their_wall_s))
        step()
    our_walls, their_walls = zip(*walls, strict=True)
    return Race(
        Side(name=ours[0], amount=ours[1], wall_s=our_walls),
        Side(name=against[0], amount=against[1], wall_s=their_walls),
        our_result,
        their_result,
    )


def repeat(name: str, amount: float, work: Callable[[], Any], repetitions: int) -> tuple[Side, Any]:
    """The times of one implementation alone, and its last result."""
    walls: list[float] = []
    result = None
    for _ in range(repetitions):
        wall_s, result = timed(work)
        walls.append(wall_s)
    return Side(name=name, amount=amount, wall_s=tuple(walls)), result


def growth_line(name: str, xs: tuple[int, ...], work_of: Callable[[int], Callable[[], Any]]) -> Line:
    """Seconds by the size of the work; every size is done twice and the faster one counts."""
    walls: list[float] = []
    for x in xs:
        work = work_of(x)
        walls.append(min(timed(work)[0] for _ in range(2)))
    return Line(name=name, x=tuple(map(float, xs)), y=tuple(walls))


def profile(path: str, work: Callable[[], Any]) -> Profile:
    """The operations by their own time, and the rate of the matrix products.

    Operations are counted in one pass and timed in another, since counting is slow.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    operations = count_products(work)
    wall_s, _ = timed(work)
    with torch_profile(activities=[ProfilerActivity.CPU]) as taken:
        work()
    events = sorted(taken.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total_us = sum(event.self_cpu_time_total for event in events)
    rows = tuple(
        (event.key, event.self_cpu_time_total / 1e3, event.self_cpu_time_total / total_us)
        for event in events[:PROFILE_ROWS]
    )
    return Profile(path=path, rows=rows, gflops=operations / wall_s / 1e9)


def products_of(ours: Callable[[], Any], against: Callable[[], Any], amount: float) -> Products:
    """The matrix products per unit of two implementations of the same work."""
    return Products(ours=count_products(ours) / amount, against=count_products(against) / amount)


def count_products(work: Callable[[], Any]) -> float:
    """Floating-point operations of all matrix products; counting slows the work down."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def python_profile(path: str, work: Callable[[], Any]) -> Profile:
    """The functions by their own time, for work outside torch."""
    import cProfile
    import pstats

    profiler = cProfile.Profile()
    profiler.runcall(work)
    found: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    own = sorted(((stat[2], where) for where, stat in found.items()), reverse=True)
    total_s = sum(seconds for seconds, _ in own)
    rows = tuple(
        (f"{Path(file).name}:{name}" if file != "~" else name, seconds * 1e3, seconds / total_s)
        for seconds, (file, _, name) in own[:PROFILE_ROWS]
    )
    return Profile(path=path, rows=rows)


def describe_machine(threads: int) -> Machine:
    """This machine and its present limits."""
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    return Machine(
        processor=processor_name(),
        cores=os.cpu_count() or 1,
        threads=threads,
        memory_gb=round(page * pages / 1e9, 1),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        matmul_gflops=matmul_gflops(),
        copy_gb_s=copy_gb_s(),
        environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        versions={"python": platform.python_version(), **versions_of(PACKAGES)},
    )


def processor_name() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions_of(packages: tuple[str, ...]) -> dict[str, str]:
    """The installed versions; an absent package is left out."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def matmul_gflops() -> float:
    """Billions of operations per second: the best of ten products of two square float32 matrices."""
    import torch

    a, b = torch.randn(2, MATMUL_SIZE, MATMUL_SIZE)
    wall_s = min(timed(lambda: a @ b)[0] for _ in range(10))
    return 2 * MATMUL_SIZE**3 / wall_s / 1e9


def copy_gb_s() -> float:
    """Gigabytes read and written per second: the best of ten copies of an array larger than the caches."""
    import torch

    source = torch.zeros(COPY_BYTES // 4)
    target = torch.empty_like(source)
    wall_s = min(timed(lambda: target.copy_(source))[0] for _ in range(10))
    return 2 * COPY_BYTES / wall_s / 1e9
