"""Time of commands that compute nothing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from benchmarks.speed.bench import Bench
from benchmarks.speed.figures import Check, Figure, Findings, Target
from benchmarks.speed.measuring import race
from recloop.experiment.run_folder import RunFolder

CALLS = 10  # in one repetition
WANTED_S = 0.3


def measure(bench: Bench) -> Findings:
    """Time whole processes, from start to exit, against one that imports torch."""
    folder = bench.scratch / "run"
    with RunFolder.open(folder, {"seed": 0}) as run, run.step("prepare", {}):
        pass
    calls = bench.amount(CALLS, 1)
    figures: list[Figure] = []
    with bench.progress.stage("commands", 2 * bench.repetitions, "repetitions") as step:
        for words in (("--help",), ("show", str(folder))):
            command = ["-c", "import sys; from recloop.cli import main; sys.exit(main(sys.argv[1:]))", *words]
            found = race(
                (f"recloop {words[0]}", calls, lambda command=command: run_python(command, calls)),
                ("python that imports torch", 1, lambda: run_python(["-c", "import torch"], 1)),
                bench.repetitions,
                step,
            )
            wall_s = float(np.median(1 / found.ours.rates))
            failed = float(found.our_result)
            figures.append(
                Figure(
                    name=f"recloop {words[0]}",
                    unit="calls",
                    ours=found.ours,
                    against=found.against,
                    checks=(Check(what="calls that failed", value=failed, most=0),),
                    targets=(Target(what="time", wanted="at most", limit=WANTED_S, value=wall_s, unit="s"),),
                )
            )
    return Findings(
        figures=tuple(figures),
        bound="The start of the interpreter, and for `show` the modules that read a run; none is heavy.",
    )


def run_python(arguments: list[str], times: int) -> int:
    """Number of failures among so many starts of Python."""
    done = [subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=False) for _ in range(times)]
    return sum(process.returncode != 0 for process in done)
