"""What the plans of `--dry-run` have in common: lines of steps with their times, and what a server costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recloop.llm.config import LmConfig
from recloop.llm.server.cost import Usage
from recloop.progress import format_seconds


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One line of a plan. amount: in words. wall_s: about, on two CPU cores."""

    verb: str
    amount: str
    wall_s: float


def plan_lines(steps: Sequence[PlannedStep]) -> list[str]:
    """A line per step, and one for all of them."""
    return [
        *(f"  {step.verb:<9} {step.amount:<64} {format_seconds(step.wall_s):>14}" for step in steps),
        f"  {'in all':<74} {format_seconds(sum(step.wall_s for step in steps)):>14}",
    ]


def times_note(lm: LmConfig, verbs: str) -> list[str]:
    """A warning where times were guessed for another language model."""
    if lm.name.startswith("bundled"):
        return []
    return [f"  times of {verbs} are those of the bundled model, not of {lm.name}"]


def server_cost(lm: LmConfig, num_completions: int, tokens_read: int, tokens_each: int) -> str:
    """What a server costs, about and at most.

    Args:
        tokens_each: about how long a completion is.
    """
    about = Usage(input_tokens=tokens_read, output_tokens=num_completions * min(tokens_each, lm.max_tokens))
    most = Usage(input_tokens=tokens_read, output_tokens=num_completions * lm.max_tokens)
    return f"about {about.cost(lm.prices):,.2f}, at most {most.cost(lm.prices):,.2f} {lm.prices.currency}"


def server_caps(lm: LmConfig) -> str:
    """The caps on what a server may be asked, as a line of the plan."""
    caps = [f"{name} {cap:,}" for name, cap in lm.budget.model_dump().items() if cap is not None]
    return f"  caps: {', '.join(caps) or 'none (lm.budget)'}"
