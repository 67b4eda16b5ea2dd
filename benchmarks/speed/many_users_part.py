"""DPO4Rec's first step, `prepare`, for 10,000 to a million users: processor time, memory, growth.

``python -m benchmarks.speed.many_users_part USERS ROWS_PER_USER`` measures one size: a million users with 100 rows each
take twenty minutes, 16 GB of memory and 1 GB of disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.speed.bench import Bench
from benchmarks.speed.figures import Figure, Findings, Growth, Line, Side, Target
from benchmarks.speed.large_log_part import write_log
from recloop.data.vocabulary import VOCABULARIES, attribute_values, deal_values, item_titles
from recloop.records import Domain

SIZES = ((10_000, 30), (100_000, 30), (10_000, 10), (100_000, 10), (1_000_000, 10))  # users, rows of each
TARGET, GROWING = 1, slice(2, None)  # the size that the targets of time and memory are about; the curve
MOST_ITEMS = 200_000
VALUES = 10, 12, 2_500  # most, of each attribute
WANTED_S, WANTED_GB, WANTED_POWER = 60.0, 2.0, 1.15
SCRIPT = (
    "import sys; from pathlib import Path; from benchmarks.speed.many_users_part import prepare; "
    "prepare(Path(sys.argv[1]))"
)


def measure(bench: Bench) -> Findings:
    """Time each size once, in its own process, so that its peak memory is known."""
    sizes = tuple(bench.amount(size, 2 * size // 100) for size, _ in SIZES)
    found: list[dict[str, float]] = []
    with bench.progress.stage("many users", sum(sizes), "users") as step:
        for size, (_, per_user) in zip(sizes, SIZES, strict=True):
            found.append(measure_size(bench.scratch / f"{size}-{per_user}", size, per_user))
            bench.progress.say(f"{size:,} users: {found[-1]}")
            step(size)
    cpus, memories = ([one[name] for one in found] for name in ("cpu_s", "peak_gb"))
    xs, curve = tuple(map(float, sizes[GROWING])), tuple(cpus[GROWING])
    power = float(np.diff(np.log(curve))[-1] / np.diff(np.log(xs))[-1])
    targets = (
        Target(what="processor time", wanted="at most", limit=WANTED_S, value=cpus[TARGET], unit="s"),
        Target(what="memory", wanted="at most", limit=WANTED_GB, value=memories[TARGET], unit="GB"),
    )
    growth = Target(what="power of the growth", wanted="at most", limit=WANTED_POWER, value=power)
    figures = [
        Figure(
            name=f"prepare DPO4Rec, {size:,} users, {one['num_rows']:,} rows, {one['num_items']:,} items",
            unit="users",
            ours=Side(name="recloop prepare dpo4rec", amount=size, wall_s=(one["wall_s"],)),
            targets=targets if place == TARGET else (growth,) if place == len(sizes) - 1 else (),
            notes=(f"once; {one['cpu_s']:.1f} s of processor time, {one['peak_gb']:.2f} GB at most",),
        )
        for place, (size, one) in enumerate(zip(sizes, found, strict=True))
    ]
    lines = (
        Line(name="processor time, s", x=xs, y=curve),
        Line(name="peak memory, GB", x=xs, y=tuple(memories[GROWING])),
    )
    title = "prepare, from a table of 10 rows a user to prompts: cost by users"
    return Findings(
        figures=tuple(figures),
        growths=(Growth(title=title, x_label="users", y_label="seconds, gigabytes", lines=lines),),
        bound=(
            "Prompts take four fifths of the time, user by user: what a history repeats, one to four renderings of "
            "the template until it fits, and their tokens, which are counted line by line and remembered. Importing "
            "torch and transformers is seconds of the smallest size. The power is that of the two largest sizes of 10 "
            "rows a user."
        ),
    )


def measure_size(folder: Path, num_users: int, per_user: int) -> dict[str, float]:
    """Seconds, memory and numbers of one size, prepared in a process of its own."""
    write_tables(folder, num_users, per_user)
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def write_tables(folder: Path, num_users: int, per_user: int) -> None:
    """``log.parquet``, `per_user` rows a user, and ``items.parquet`` with a title, era, genres and director each."""
    folder.mkdir()
    num_items = min(max(num_users // 2, 200), MOST_ITEMS)
    write_log(folder / "log.parquet", num_users * per_user, per_user, num_items)
    rng, domain = np.random.default_rng(1), Domain.MOVIES
    columns: dict[str, object] = {"item": np.arange(num_items), "title": item_titles(domain, num_items, rng)}
    for place, (name, most) in enumerate(zip(VOCABULARIES[domain].attributes, VALUES, strict=True)):
        values = np.array(attribute_values(domain, place, min(most, max(num_items // 20, 5)), rng))
        columns[name] = values[deal_values(len(values), num_items, rng)]
        if name == "genre":
            second = values[deal_values(len(values), num_items, rng)]
            columns[name] = [f"{one}|{other}" for one, other in zip(columns[name], second, strict=True)]  # type: ignore[call-overload]
    pl.DataFrame(columns).write_parquet(folder / "items.parquet")


def prepare(folder: Path) -> None:
    """Runs in its own process: reads, prepares, prints seconds and peak memory."""
    import time

    import recloop
    from recloop.experiment.peak_memory import peak_memory_bytes

    start_s = time.perf_counter()
    attributes = VOCABULARIES[Domain.MOVIES].attributes
    table = {"rating": "rating", "time": "time", "items": folder / "items.parquet", "attributes": attributes}
    log = recloop.load_log("table", path=folder / "log.parquet", table={**table, "domain": "movies"})
    peaks = [peak_memory_bytes()]  # a step counts its own
    recloop.run("dpo4rec", data=log, out=folder / "run", until="prepare")
    peaks.append(peak_memory_bytes())
    found = {"wall_s": time.perf_counter() - start_s, "cpu_s": time.process_time(), "peak_gb": max(peaks) / 1e9}
    print(json.dumps({**found, "num_rows": log.interactions.height, "num_items": log.num_items}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(measure_size(Path(scratch) / "size", int(sys.argv[1]), int(sys.argv[2])))
