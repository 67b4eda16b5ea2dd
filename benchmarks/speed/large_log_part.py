"""Reads 25 million simulated interactions from Parquet into candidate lists: seconds, memory, growth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.speed.bench import Bench
from benchmarks.speed.figures import Figure, Findings, Growth, Line, Side, Target

SIZES = (1_562_500, 6_250_000, 25_000_000)
PER_USER, NUM_ITEMS = 154, 59_000  # of MovieLens-25M
WANTED_S, WANTED_GB, WANTED_POWER = 60.0, 6.0, 1.15
SCRIPT = (
    "import sys; from pathlib import Path; "
    "from benchmarks.speed.large_log_part import prepare; prepare(Path(sys.argv[1]))"
)


def measure(bench: Bench) -> Findings:
    """Time each size once, in its own process, so that its peak memory is known."""
    sizes = tuple(bench.amount(size, 2_000 * 4**place) for place, size in enumerate(SIZES))
    walls: list[float] = []
    memories: list[float] = []
    lists = 0
    with bench.progress.stage("large log", sum(sizes), "interactions") as step:
        for size in sizes:
            file = write_log(bench.scratch / f"{size}.parquet", size)
            done = subprocess.run([sys.executable, "-c", SCRIPT, str(file)], capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            walls.append(found["wall_s"])
            memories.append(found["peak_gb"])
            lists = found["num_lists"]
            file.unlink()
            step(size)
    power = float(np.polyfit(np.log(sizes), np.log(walls), 1)[0])
    xs = tuple(map(float, sizes))
    side = Side(name="read_table_log and build_lists", amount=sizes[-1], wall_s=(walls[-1],))
    return Findings(
        figures=(
            Figure(
                name=f"read and prepare {sizes[-1]:,} interactions",
                unit="interactions",
                ours=side,
                targets=(
                    Target(what="time", wanted="at most", limit=WANTED_S, value=walls[-1], unit="s"),
                    Target(what="memory", wanted="at most", limit=WANTED_GB, value=memories[-1], unit="GB"),
                    Target(what="power of the growth", wanted="at most", limit=WANTED_POWER, value=power),
                ),
                notes=(f"{lists:,} lists; once; peak memory of the whole process",),
            ),
        ),
        growths=(
            Growth(
                title="Reading and preparing a log: cost by interactions",
                x_label="interactions",
                y_label="seconds, gigabytes",
                lines=(
                    Line(name="seconds", x=xs, y=tuple(walls)),
                    Line(name="peak memory, GB", x=xs, y=tuple(memories)),
                ),
            ),
        ),
        bound=(
            "Ids are text until they are checked and numbered. The two joins that number them, the search for "
            "repeated rows and one sort of all interactions take the time. The text columns take the memory."
        ),
    )


def write_log(file: Path, num_rows: int, per_user: int = PER_USER, num_items: int = NUM_ITEMS) -> Path:
    """A Parquet file of interactions with popular and rare items and no pair twice, ids as numbers."""
    rng = np.random.default_rng(0)
    num_users = max(10, num_rows // per_user)
    num_drawn = int(num_rows * 1.1)
    items = (num_items * rng.random(num_drawn) ** 2).astype(np.int64)
    keys = np.unique(rng.integers(num_users, size=num_drawn) * num_items + items)
    keys = np.sort(rng.choice(keys, min(num_rows, len(keys)), replace=False, shuffle=False))
    pl.DataFrame(
        {
            "user": keys // num_items,
            "item": keys % num_items,
            "rating": rng.integers(1, 6, len(keys)).astype(np.float32),
            "time": rng.integers(10**9, 2 * 10**9, len(keys)),
        }
    ).write_parquet(file)
    return file


def prepare(file: Path) -> None:
    """Runs in its own process: reads, makes the lists of all users, prints seconds and peak memory."""
    import time

    from recloop.data.lists import ProtocolConfig, build_lists
    from recloop.data.table_config import TableLogConfig
    from recloop.data.table_log import read_table_log
    from recloop.experiment.peak_memory import peak_memory_bytes
    from recloop.records import Group

    start_s = time.perf_counter()
    dataset = read_table_log(file, TableLogConfig(rating="rating", time="time"))
    lists = build_lists(dataset, {Group.TRAIN: np.arange(dataset.num_users)}, ProtocolConfig(), seed=0)
    wall_s = time.perf_counter() - start_s
    print(json.dumps({"wall_s": wall_s, "peak_gb": peak_memory_bytes() / 1e9, "num_lists": len(lists.train)}))
