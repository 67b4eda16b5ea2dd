"""Number of threads and how they wait: fitting and sampling, alone and beside a busy process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np

from benchmarks.speed.bench import Bench
from benchmarks.speed.figures import Figure, Findings, Side

DEFAULT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # set by `recloop`
NUM_LISTS, NUM_PROMPTS = 1_024, 4
WORK = "from benchmarks.speed.threads_part import work; work({lists}, {prompts}, {repetitions})"
NEIGHBOUR = "import torch; torch.set_num_threads(1); a = torch.randn(512, 512)\nwhile True: a @ a"


def measure(bench: Bench) -> Findings:
    """Time the command line's settings against the other choices, each in a new process."""
    cores = os.cpu_count() or 1
    choices = [
        {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": policy}
        for threads, policy in ((1, "ACTIVE"), (cores, "PASSIVE"), (cores, "ACTIVE"))
    ]
    figures: list[Figure] = []
    with bench.progress.stage("threads", 2 * (len(choices) + 1), "settings") as step:
        for place in ("alone", "beside another job"):
            sides = [_run(bench, DEFAULT, place)]
            step()
            for choice in choices:
                sides.append(_run(bench, choice, place))
                step()
            for name in ("fit", "sample"):
                ours = sides[0][name]
                figures += [
                    Figure(name=f"{name}, {place}", unit="repetitions", ours=ours, against=other[name])
                    for other in sides[1:]
                ]
    return Findings(
        figures=tuple(figures),
        bound=(
            "With one thread a run gives the same bits whatever else the machine does, so the command line sets it; "
            "`OMP_NUM_THREADS` in the environment overrides it. The ratios show its cost alone and its gain beside "
            "another job. Threads that spin while they wait (ACTIVE) take the core that the other job needs; threads "
            "that sleep (PASSIVE) wake too late for small products. The other parts of this page use all cores and "
            "threads that spin for a while, then sleep."
        ),
    )


def work(num_lists: int, num_prompts: int, repetitions: int) -> None:
    """Runs in its own process: fits and samples, prints the seconds of each repetition."""
    from benchmarks.speed.bench import SpeedConfig
    from benchmarks.speed.measuring import timed
    from benchmarks.speed.rerank_task import rerank_task
    from benchmarks.speed.sampling_part import simulated_prompts
    from benchmarks.speed.training_part import SEED, fit_once, settings, teachable
    from recloop.data.simulated import SimulatedConfig
    from recloop.llm.bundled import bundled_lm_folder
    from recloop.llm.language_model import Sampling
    from recloop.llm.local import TransformersLM

    num_users = 20 * num_lists // SimulatedConfig().num_interactions
    task = rerank_task(SpeedConfig(share=min(1.0, max(0.05, num_users / 2000))))
    train = teachable(task.train)
    train = train.take(np.arange(min(num_lists, len(train))))
    lm = TransformersLM(bundled_lm_folder(), device="cpu")
    prompts = simulated_prompts(lm, num_prompts)
    sampling = Sampling(num_completions=10, temperature=1.0, top_p=1.0, max_tokens=32, seed=0)
    config = settings("prm", with_items=True)
    walls: dict[str, list[float]] = {"fit": [], "sample": []}
    for _ in range(repetitions + 1):
        walls["fit"].append(timed(lambda: fit_once(task, train, config, SEED))[0])
        walls["sample"].append(timed(lambda: list(lm.generate(prompts, sampling)))[0])
    print(json.dumps({name: seconds[1:] for name, seconds in walls.items()}))


def _run(bench: Bench, choice: dict[str, str], place: str) -> dict[str, Side]:
    script = WORK.format(
        lists=bench.amount(NUM_LISTS, 64), prompts=bench.amount(NUM_PROMPTS, 1), repetitions=bench.repetitions
    )
    with _neighbour(wanted=place != "alone"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **choice},
            capture_output=True,
            text=True,
            check=True,
        )
    name = f"{choice['OMP_NUM_THREADS']} threads, {choice['OMP_WAIT_POLICY'].lower()}"
    walls: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return {key: Side(name=name, amount=1, wall_s=tuple(seconds)) for key, seconds in walls.items()}


@contextmanager
def _neighbour(*, wanted: bool) -> Generator[None]:
    """Run the block beside a process that multiplies matrices on one thread."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])
    try:
        yield
    finally:
        process.kill()
        process.wait()
