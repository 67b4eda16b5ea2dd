"""What the plans of `--dry-run` have in common: lines of steps with their times, and what a server costs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import prod
from pathlib import Path

from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.config import GpuConfig, LmConfig, LocalLmConfig
from recloop.llm.server.cost import Usage
from recloop.llm.smollm2 import NUM_PARAMETERS as SMOLLM2_PARAMETERS
from recloop.progress import format_seconds

BUNDLED_PARAMETERS = 3_300_000
BYTES_PER_PARAMETER = 4, 2  # here on a CPU, on a GPU
PlannedStep = tuple[str, str, float]  # verb, amount in words, seconds on two CPU cores


def plan_lines(steps: Sequence[PlannedStep]) -> list[str]:
    """A line per step, and one for all of them."""
    return [
        *(f"  {verb:<9} {amount:<64} {format_seconds(wall_s):>14}" for verb, amount, wall_s in steps),
        f"  {'in all':<74} {format_seconds(sum(wall_s for *_, wall_s in steps)):>14}",
    ]


def num_parameters(lm: LocalLmConfig) -> int | None:
    """How large a model in this process is, by its weights or else its name; None where neither says it.

    Example:
        >>> num_parameters(LocalLmConfig(name="transformers:org/Model-1.5B-Instruct"))
        1500000000
    """
    kind, _, name = lm.name.partition(":")
    if kind == "smollm2":
        return SMOLLM2_PARAMETERS
    folder = Path(name) if kind == "transformers" else bundled_lm_folder()
    files = sorted(folder.glob("model*.safetensors")) if folder.is_dir() else []
    if files:
        return sum(_numbers_in(file) for file in files)
    found = re.search(r"(\d+(?:\.\d+)?)([BM])(?![a-z])", name, re.IGNORECASE)
    return round(float(found[1]) * {"B": 1e9, "M": 1e6}[found[2].upper()]) if found else None


def _numbers_in(file: Path) -> int:
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def slowness(lm: LocalLmConfig) -> float:
    """How many times longer than the bundled model this one takes: about in proportion to its parameters."""
    return (num_parameters(lm) or BUNDLED_PARAMETERS) / BUNDLED_PARAMETERS


def lm_note(lm: LocalLmConfig, verbs: str) -> list[str]:
    """What the model wants, and how far the times of these steps can be believed."""
    if lm.name.startswith("bundled"):
        return []
    size = None if lm.name.startswith("openai:") else num_parameters(lm)
    if size is None:
        return [f"  times of {verbs} are those of the bundled model, not of {lm.name}, whose size is not known"]
    on_cpu, on_gpu = (f"{size * num_bytes / 1e9:,.1f} GB" for num_bytes in BYTES_PER_PARAMETER)
    memory = f"{on_cpu} on a CPU (float32), {on_gpu} on a GPU (bfloat16)"
    return [
        f"  {lm.name}: {size / 1e9:,.2f} B parameters, {memory}; twice that to train it with LoRA",
        f"  times of {verbs} are in proportion to its parameters, on two CPU cores; a GPU takes a small part of them",
    ]


def gpu_plan(gpu: GpuConfig, read: float, written: float, trained: float) -> list[str]:
    """Tokens that one or more GPUs read, write and train on, and the hours of one where its rates are given."""
    rates = {"read": gpu.read_per_s, "written": gpu.written_per_s, "trained": gpu.trained_per_s}
    tokens = {"read": read, "written": written, "trained": trained}
    lines = [f"  tokens: about {', '.join(f'{num:,.0f} {what}' for what, num in tokens.items())}"]
    missing = [f"lm.gpu.{what}-per-s" for what, rate in rates.items() if rate is None and tokens[what]]
    if missing:
        return [*lines, f"  GPU hours: not known; give {', '.join(missing)}"]
    hours = sum(num / (rates[what] or 1) for what, num in tokens.items()) / 3600
    return [*lines, f"  GPU hours: about {hours:,.1f} of one, {hours * gpu.price:,.2f} {gpu.currency}"]


def server_plan(asked: str, lm: LmConfig, num_completions: int, tokens_read: int, tokens_each: int) -> list[str]:
    """What a server is asked, and what that costs, about (`tokens_each` a completion) and at most; the caps on it."""
    costs = (
        Usage(input_tokens=tokens_read, output_tokens=num_completions * tokens).cost(lm.prices)
        for tokens in (min(tokens_each, lm.max_tokens), lm.max_tokens)
    )
    about, most = (f"{cost:,.2f}" for cost in costs)
    caps = [f"{name} {cap:,}" for name, cap in lm.budget.model_dump().items() if cap is not None]
    return [
        f"  {asked}about {about}, at most {most} {lm.prices.currency}",
        f"  caps: {', '.join(caps) or 'none (lm.budget)'}",
    ]
