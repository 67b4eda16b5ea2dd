"""A language model that follows hints and learns them, for tests of Re2LLM."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from recloop.llm.language_model import Sampling
from recloop.prompts.reflection import ASK_ANALYSIS, ASK_SAME, ASK_WRONG, write_hint
from recloop.records import Completion, Prompt


class FakeHintFollower:
    """Answers next-item prompts by the attribute a hint names, and learns such hints from its mistakes.

    With ``Go by genre ...`` it puts the candidates that share a value of that attribute with the latest
    item first, the rest in the order of the prompt; without a hint, or with one that names no attribute, it keeps
    the prompt's order. Asked to reflect, it finds the attributes that the answer shares with the latest item and
    turns each into a hint. It is deterministic, whatever the sampling.
    """

    def __init__(self) -> None:
        self.num_asked = 0  # prompts answered so far: shows what a cache spared

    @property
    def name(self) -> str:
        return "fake-hint-follower"

    def count_tokens(self, text: str) -> int:
        return len(re.findall(r"\w+|[^\w\s]", text))

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        for position, prompt in enumerate(prompts):
            self.num_asked += 1
            text = self._answer(prompt.text)
            num_tokens = min(len(text.split()) + 1, sampling.max_tokens)
            completion = Completion(prompt.user, 0, text, num_tokens, is_finished=True, logp_sum=-float(num_tokens))
            yield position, tuple(replace(completion, completion=number) for number in sampling.completion_numbers)

    def _answer(self, text: str) -> str:
        lines = text.splitlines()
        told = {kind: line.partition(": ")[2] for line in lines for kind in TOLD if line.startswith(kind)}
        if lines[-1] == ASK_SAME:
            return "Yes." if told["New hint"] in lines[1:-2] else "No."
        start = next(n for n, line in enumerate(lines) if line.endswith("candidates:"))
        num = int(lines[start].split()[0])
        last, *offered = (_attributes_of(line) for line in (lines[start - 1], *lines[start + 1 : start + 1 + num]))
        if lines[-1] == ASK_WRONG:
            return "The list went by nothing."
        shared = [f for f, v in _attributes_of(told.get("The right one was", "")).items() if last.get(f) == v]
        if lines[-1] == ASK_ANALYSIS:
            attributes = [f for f in shared if f != "title"]
            return f"It shares the {' and '.join(attributes)}." if attributes else "It shares nothing."
        if lines[-1].startswith("Write at most"):
            return "\n".join(write_hint(f) for f in shared if f != "title") or "No hint."
        attribute = next((f for f in last if f"by {f}" in told.get("Hint", "")), "")
        ranked = sorted(offered, key=lambda one: not attribute or one.get(attribute) != last[attribute])
        asked = int(lines[-1].split()[2])
        return "\n".join(f"{place}. {one['title']}" for place, one in enumerate(ranked[:asked], 1))


TOLD = ("The right one was", "Hint", "New hint")


def _attributes_of(line: str) -> dict[str, str]:
    """Title and attributes of an item's line."""
    *cells, title = line.split(" | ")
    return {
        "title": title.strip('"'),
        **{name: value for name, _, value in (c.partition(" ") for c in cells)},
    }
