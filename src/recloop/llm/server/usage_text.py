"""What a manifest says of served language models, in words; free of anything slow to import."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

PUT_ASIDE = ("rejected", "failed")  # `CompletionStatus` of prompts without any answer


def num_put_aside(stages: Mapping[str, Mapping[str, Any]]) -> int:
    """Completions of a run whose prompts no server answered."""
    return sum(entry.get("unusable", {}).get(status, 0) for entry in stages.values() for status in PUT_ASIDE)


def total_usage(stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All stages' usage together; empty where nothing was served."""
    notes = [entry["server"] for entry in stages.values() if "server" in entry]
    if not notes:
        return {}
    total: dict[str, Any] = {key: sum(note[key] for note in notes) for key in notes[0] if key != "currency"}
    return total | {"currency": notes[0]["currency"]}


def describe_server_usage(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lines for people: what the model behind a server did and cost, and what it left without a text."""
    lines: list[str] = []
    total = total_usage(stages)
    if total:
        lines.append(
            f"model behind a server: {total['requests']:,} requests ({total['retries']:,} retries), "
            f"{total['input_tokens']:,} tokens read ({total['cached_tokens']:,} cached), "
            f"{total['output_tokens']:,} written, {total['wasted_tokens']:,} wasted, "
            f"{total['cost']:.2f} {total['currency']}"
        )
    unusable: Counter[str] = Counter()
    for entry in stages.values():
        unusable.update(entry.get("unusable", {}))
    if unusable:
        counts = ", ".join(f"{num:,} {status}" for status, num in unusable.most_common())
        lines.append(f"completions without a usable text: {counts}; their users stay, with an empty text")
    return lines
