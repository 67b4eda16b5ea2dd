"""What a manifest says of served language models, in words; free of anything slow to import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

PUT_ASIDE = ("rejected", "failed")  # `DraftStatus` of prompts without any answer


def num_put_aside(stages: Mapping[str, Mapping[str, Any]]) -> int:
    """Drafts of a run whose prompts no server answered."""
    return sum(entry.get("unusable", {}).get(status, 0) for entry in stages.values() for status in PUT_ASIDE)


def served_total(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All stages' spending together; empty where nothing was served."""
    notes = [entry["served"] for entry in stages.values() if "served" in entry]
    if not notes:
        return {}
    total: dict[str, Any] = {key: sum(note[key] for note in notes) for key in notes[0] if key != "currency"}
    return total | {"currency": notes[0]["currency"]}


def describe_served(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines for people: what the served model did and cost, and what it left without a text."""
    lines: list[str] = []
    total = served_total(stages)
    if total:
        lines.append(
            f"served model: {total['requests']:,} requests ({total['retries']:,} retries), "
            f"{total['input_tokens']:,} tokens read ({total['cached_tokens']:,} cached), "
            f"{total['output_tokens']:,} written, {total['wasted_tokens']:,} wasted, "
            f"{total['cost']:.2f} {total['currency']}"
        )
    unusable: Counter[str] = Counter()
    for entry in stages.values():
        unusable.update(entry.get("unusable", {}))
    if unusable:
        counts = ", ".join(f"{num:,} {status}" for status, num in unusable.most_common())
        lines.append(f"drafts without a usable text: {counts}; their users stay, with an empty text")
    return lines
