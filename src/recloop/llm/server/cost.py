"""What a language model behind a server costs, caps on it, and a summary in words; quick to import for the CLI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise
from typing import Any

from pydantic import BaseModel

from recloop.errors import BudgetError
from recloop.settings import setting

UNANSWERED = ("rejected", "failed")  # `CompletionStatus` of prompts without any answer


class PriceConfig(BaseModel, frozen=True, extra="forbid"):
    """What the provider charges, in any currency, per million tokens."""

    input: float = setting(0.0, "a million tokens read", ge=0)
    cached_input: float | None = setting(None, "a million tokens read from the provider's cache; none: as input", ge=0)
    output: float = setting(0.0, "a million tokens written", ge=0)
    currency: str = setting("USD", "what the prices are in; only shown", max_length=8)


class BudgetConfig(BaseModel, frozen=True, extra="forbid"):
    """Caps over the whole run. A cap that is reached ends the run; with a higher one the run goes on."""

    max_requests: int | None = setting(None, "requests sent, failed ones included", ge=1)
    max_tokens: int | None = setting(None, "tokens read and written, waste included", ge=1)
    max_cost: float | None = setting(None, "money by lm.prices, waste included", gt=0)


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts that add up. What was cut off on the way came without a bill: it counts as the most it may have cost."""

    requests: int = 0  # sent
    retries: int = 0  # how many of them repeated one
    input_tokens: int = 0  # read
    cached_tokens: int = 0  # of these, from the provider's cache
    output_tokens: int = 0  # written
    wasted_requests: int = 0  # answered only in part, or unreadably
    wasted_tokens: int = 0  # read and written for nothing
    wasted_output_tokens: int = 0  # of these, written
    throttled: int = 0  # answers that said "too many"
    redactions: int = 0  # patterns taken out of prompts before they were sent
    odd_ends: int = 0  # answers that ended for a reason unknown here
    odd_counts: int = 0  # answers whose numbers of tokens cannot be; they were estimated
    other_models: int = 0  # answers that name another model than was asked
    request_s: float = 0.0  # that requests were open, summed over requests

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, name) + getattr(other, name) for name in COUNTS))

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.wasted_tokens

    def cost(self, prices: PriceConfig) -> float:
        """Money, waste included."""
        cached = prices.input if prices.cached_input is None else prices.cached_input
        fresh = max(0, self.input_tokens - self.cached_tokens)
        written = self.output_tokens + self.wasted_output_tokens
        read = fresh + self.wasted_tokens - self.wasted_output_tokens
        return (read * prices.input + self.cached_tokens * cached + written * prices.output) / 1e6

    def as_note(self, prices: PriceConfig) -> dict[str, Any]:
        """The counts for a manifest, with their cost."""
        counts = {name: getattr(self, name) for name in COUNTS}
        counts["request_s"] = round(self.request_s, 3)
        return counts | {"cost": round(self.cost(prices), 6), "currency": prices.currency}


COUNTS = tuple(f.name for f in fields(Usage))
ODD = {
    "odd_ends": "answers ended for a reason that recloop does not know and count as unfinished",
    "odd_counts": "answers came with impossible numbers of tokens, which were estimated in their place",
    "other_models": "answers name another model than the one asked for",
    "redactions": "personal details were taken out of prompts before they were sent",
}


def over_budget(usage: Usage, budget: BudgetConfig, prices: PriceConfig) -> BudgetError | None:
    """The error to end with when `usage`, so far plus the most that the next request may add, is beyond a cap."""
    checks = (
        ("max_requests", usage.requests, budget.max_requests, ""),
        ("max_tokens", usage.tokens, budget.max_tokens, ""),
        ("max_cost", usage.cost(prices), budget.max_cost, f" {prices.currency}"),
    )
    for name, value, cap, unit in checks:
        if cap is not None and value > cap:
            what = name.removeprefix("max_")
            return BudgetError(
                f"lm.budget.{name} is {cap:,}{unit}, and the next request could bring {what} to "
                f"{value:,.6g}{unit}; the answers so far are in the cache: raise the cap and resume the run"
            )
    return None


def share_out(total: int, guesses: Sequence[int]) -> list[int]:
    """Whole numbers of tokens, one per guess, in proportion to the guesses and with this total.

    Example:
        >>> share_out(10, [1, 1, 2])
        [2, 3, 5]
    """
    ends = list(accumulate(guesses if sum(guesses) else [1] * len(guesses), initial=0))
    marks = [total * end // max(1, ends[-1]) for end in ends]
    return [after - before for before, after in pairwise(marks)]


def num_unanswered(steps: Mapping[str, Mapping[str, Any]]) -> int:
    """Completions of a run whose prompts no server answered, by its manifest's steps."""
    return sum(entry.get("unusable", {}).get(status, 0) for entry in steps.values() for status in UNANSWERED)


def describe_server_usage(steps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines for people: the requests and cost of all steps together, and completions without a usable text."""
    lines: list[str] = []
    notes = [entry["server"] for entry in steps.values() if "server" in entry]
    if notes:
        keys = dict.fromkeys(key for note in notes for key in note if key != "currency")
        total = {key: sum(note.get(key, 0) for note in notes) for key in keys}
        lines.append(
            f"language model behind a server: {total['requests']:,} requests ({total['retries']:,} retries), "
            f"{total['input_tokens']:,} tokens read ({total['cached_tokens']:,} cached), "
            f"{total['output_tokens']:,} written, {total['wasted_tokens']:,} wasted, "
            f"{total['cost']:.2f} {notes[0]['currency']}"
        )
        lines += [f"{total[key]:,} {what}" for key, what in ODD.items() if total.get(key)]
    unusable: Counter[str] = Counter()
    for entry in steps.values():
        unusable.update(entry.get("unusable", {}))
    if unusable:
        counts = ", ".join(f"{num:,} {status}" for status, num in unusable.most_common())
        lines.append(f"completions without a usable text: {counts}; their users stay, with an empty text")
    return lines
