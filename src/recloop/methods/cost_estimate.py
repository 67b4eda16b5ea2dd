"""What the plans of `--dry-run` have in common: lines of steps with their times, and what a server costs."""

from __future__ import annotations

from collections.abc import Sequence

from recloop.llm.config import LmConfig, LocalLmConfig
from recloop.llm.server.cost import Usage
from recloop.progress import format_seconds

PlannedStep = tuple[str, str, float]  # verb, amount in words, seconds on two CPU cores


def plan_lines(steps: Sequence[PlannedStep]) -> list[str]:
    """A line per step, and one for all of them."""
    return [
        *(f"  {verb:<9} {amount:<64} {format_seconds(wall_s):>14}" for verb, amount, wall_s in steps),
        f"  {'in all':<74} {format_seconds(sum(wall_s for *_, wall_s in steps)):>14}",
    ]


def times_note(lm: LocalLmConfig, verbs: str) -> list[str]:
    """A warning where times were guessed for another language model."""
    if lm.name.startswith("bundled"):
        return []
    return [f"  times of {verbs} are those of the bundled model, not of {lm.name}"]


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
