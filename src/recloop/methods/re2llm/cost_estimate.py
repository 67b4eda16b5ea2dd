"""`--dry-run` for Re2LLM: how many distinct prompts a run asks at most, what they cost, and what is saved."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from recloop.methods.cost_estimate import gpu_plan, server_plan
from recloop.methods.re2llm.config import Re2llmConfig
from recloop.methods.re2llm.data import load_sessions
from recloop.methods.re2llm.hint_base import read_hint_base
from recloop.methods.re2llm.reflection import HINTS_PER_MISTAKE
from recloop.methods.run_log import read_plan_log

TURNS = 3  # of reflection
ANSWER_TOKENS = 80  # a guess: ten titles


@dataclass(frozen=True, slots=True)
class Calls:
    """Distinct prompts of a run, at most.

    answers: sessions times hints, the empty one included. exploration: turns, tries and comparisons of hints.
    repeats: prompts that are answered `repeats.answers` times.
    """

    answers: int
    exploration: int
    repeats: int


def count_calls(config: Re2llmConfig, num_train: int, num_test: int, num_hints: int | None = None) -> Calls:
    """The most distinct prompts a run can ask, with `num_hints` given, or as many as exploration may keep."""
    num_kept = config.explore.max_hints if num_hints is None else num_hints
    exploration = 0
    if num_hints is None:
        per_mistake = TURNS + HINTS_PER_MISTAKE * (2 if config.explore.redundant == "lm" else 1)
        exploration = min(config.explore.max_mistakes, num_train) * per_mistake
    repeats = min(config.repeats.max_sessions, num_test) * (num_kept + 1) if config.repeats.answers else 0
    return Calls((num_train + num_test) * (num_kept + 1), exploration, repeats)


def forecast(config: Re2llmConfig) -> str:
    """The plan of a run, from its data and settings; reads the data, writes nothing, loads no model."""
    task = load_sessions(config, partial(read_plan_log, seed=config.data_seed))
    num_hints: int | None = None
    if config.explore.file is not None:
        num_hints = len(read_hint_base(config.explore.file).hints)
    elif config.explore.hints == "released":
        num_hints = len(task.hints)
    calls = count_calls(config, len(task.train), len(task.test), num_hints)
    hints = f"up to {config.explore.max_hints}" if num_hints is None else f"{num_hints}"
    total = calls.answers + calls.exploration + calls.repeats * config.repeats.answers
    uncached = 2 * len(config.seeds) * config.policy.steps  # every episode with the hint and without
    read = total * (config.question.max_prompt_tokens + config.lm.max_tokens)
    sessions = f"{len(task.train):,} training and {len(task.test):,} test sessions"
    lines = [
        *task.reading,
        f"{task.name}: {task.items.height:,} items, {sessions}",
        f"  hints        {hints}, and the empty one",
        f"  answers      at most {calls.answers:>9,} prompts: sessions x (hints + 1)",
        f"  exploration  at most {calls.exploration:>9,} prompts",
    ]
    if calls.repeats:
        lines.append(f"  repeats      at most {calls.repeats:>9,} prompts, {config.repeats.answers} answers each")
    lines += [
        f"  in all       at most {total:>9,} prompts, each asked once; at most {read:,} tokens",
        f"  without a cache, a loop would send {uncached:,}",
    ]
    lines += gpu_plan(config.lm.gpu, total * config.question.max_prompt_tokens, total * ANSWER_TOKENS, 0)
    if config.lm.uses_server:
        lines += server_plan("", config.lm, total, read, ANSWER_TOKENS)
    return "\n".join(lines)
