"""Request prompts: candidates one a line, what the user said, and an answer that ends in a box.

`reference_answer` has the form that a small language model can learn. Answers in other words are read in the same
way (`recloop.prompts.request_answer`).

Source: ReRec (arXiv 2604.07851), the task. Deviations: candidates and mentioned items have their attributes, since
a small model does not know the items; the reference answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel

from recloop.llm.chat import CHAT_TOKENS
from recloop.prompts.budget import PromptTooLong, counted_by_lines, within_budget
from recloop.prompts.claims import HistoryItem
from recloop.prompts.lines import NOUNS, candidate_line, history_items, history_line, line_from, one_line
from recloop.records import Condition, Log, Prompt, Request
from recloop.settings import setting

SYSTEM = "You recommend one item for a request, step by step."
TASK = "Say what is wanted, check candidates, one a paragraph, and end with \\boxed{Title}."
MAX_REQUEST_CHARS = 600
TRAINING_BUDGETS = ("sft.max_prompt_tokens", "grpo.max_prompt_tokens")  # of ReRec, for the same prompts
MAX_CHECKED = 6  # candidates that a reference answer checks, the right one last


class RequestPromptConfig(BaseModel, frozen=True, extra="forbid"):
    """How a request is put into words."""

    max_prompt_tokens: int = setting(768, "token budget of a whole prompt; oldest history lines are cut", ge=64)
    show_attributes: bool = setting(True, "attributes beside each title; off for models that know the items")


def clean_request(text: str) -> str:
    """A request fit for one line: no line breaks or characters that structure a prompt; quotes stay.

    Example:
        >>> clean_request('A film like "Iron Tide" \\n<|end|> please')
        'A film like "Iron Tide" end please'
    """
    return one_line(text, r"[|<>\[\]{}]")[:MAX_REQUEST_CHARS].strip()


def request_text(
    noun: str,
    attributes: Sequence[str],
    candidates: Sequence[HistoryItem],
    request: str,
    history: Sequence[HistoryItem] = (),
    mentioned: Sequence[HistoryItem] = (),
) -> str:
    """The user turn of a request prompt: `noun` is a plural, `mentioned` the items that the request names."""
    lines = [f"{len(candidates)} {noun}:", *(candidate_line(attributes, item) for item in candidates)]
    if history:
        lines += ["History, oldest first:", *(history_line(attributes, item) for item in history)]
    if mentioned:
        lines += ["Mentioned:", *(candidate_line(attributes, item) for item in mentioned)]
    return "\n".join([*lines, f"Request: {clean_request(request)}", TASK])


def reference_answer(
    attributes: Sequence[str],
    candidates: Sequence[HistoryItem],
    wanted: Sequence[Condition],
    answer: int,
    mentioned: HistoryItem | None = None,
) -> str:
    """The answer to a request that a small language model learns.

    It says what a mentioned item has, what is wanted, which candidates meet one of the conditions, and the box.
    These candidates are listed up to the right one, each as the rest of its line from that value on. The condition is
    the one whose attribute comes first, so that the rest of a line shows whether the others are met too; if more than
    `MAX_CHECKED` candidates meet it, it is the next one.

    Args:
        wanted: the conditions in their order, cleaned as the candidates' values are.
        answer: position of the right candidate.
        mentioned: the item that stands for the first condition.

    Example:
        >>> items = [HistoryItem("Iron Tide", (("War",), ("Ann Vale",)), None),
        ...          HistoryItem("Paper Crown", (("Drama",), ("Bo Lee",)), None),
        ...          HistoryItem("Velvet Harbour", (("Drama",), ("Ann Vale",)), None)]
        >>> wanted = [Condition("director", "Ann Vale"), Condition("genre", "Drama")]
        >>> print(reference_answer(("genre", "director"), items, wanted, answer=2))
        Wanted: director Ann Vale, genre Drama.
        <BLANKLINE>
        With Drama | director Bo Lee | "Paper Crown": no.
        <BLANKLINE>
        With Drama | director Ann Vale | "Velvet Harbour": yes.
        <BLANKLINE>
        \\boxed{Velvet Harbour}
    """
    meeting: dict[Condition, list[int]] = {}
    for condition in sorted(wanted, key=lambda condition: attributes.index(condition.attribute)):
        column = attributes.index(condition.attribute)
        meeting[condition] = [n for n, item in enumerate(candidates) if condition.value in item.values[column]]
    few = [condition for condition, places in meeting.items() if len(places) <= MAX_CHECKED]
    start = few[0] if few else min(meeting, key=lambda condition: len(meeting[condition]))
    passed_by = [place for place in meeting[start] if place < answer]
    checked = [*passed_by[: MAX_CHECKED - 1], answer]
    paragraphs: list[str] = []
    if mentioned is not None:
        attribute = wanted[0].attribute
        values = ", ".join(mentioned.values[attributes.index(attribute)]) or "unknown"
        paragraphs.append(f"The mentioned one has {attribute} {values}.")
    paragraphs.append("Wanted: " + ", ".join(f"{one.attribute} {one.value}" for one in wanted) + ".")
    for place in checked:
        verdict = "yes" if place == answer else "no"
        paragraphs.append(f"With {line_from(attributes, candidates[place], start.attribute, start.value)}: {verdict}.")
    return "\n\n".join([*paragraphs, f"\\boxed{{{candidates[answer].title}}}"])


def build_request_prompts(
    log: Log,
    requests: Sequence[Request],
    config: RequestPromptConfig,
    count_tokens: Callable[[str], int],
    around: int = CHAT_TOKENS,
) -> list[Prompt]:
    """One prompt per request, its number the user; the oldest history lines are cut until it fits, or SettingError.

    `around`: tokens of the chat template, as `chat_tokens` counts them.
    """
    noun, attributes = NOUNS[log.domain], log.attributes if config.show_attributes else ()
    shown = history_items(log, attributes)
    budget = config.max_prompt_tokens - around - count_tokens(SYSTEM)
    count = counted_by_lines(count_tokens)

    def fitting(request: Request) -> Prompt:
        candidates, mentioned = shown(request.candidates), shown(request.mentioned)
        history = shown(request.history, request.rating)
        num_cut = 0
        while True:
            kept = history[num_cut:]
            text = request_text(noun, attributes, candidates, request.text, kept, mentioned)
            num_over = count(text) - budget
            if num_over <= 0:
                return Prompt(request.number, SYSTEM, text, len(kept), num_cut)
            if not kept:
                least = config.max_prompt_tokens + num_over
                raise PromptTooLong("prompt.max_prompt_tokens", config.max_prompt_tokens, least)
            num_cut += max(1, min(len(kept), num_over // 30))  # a line has thirty tokens at most, about

    return within_budget(fitting, requests, TRAINING_BUDGETS, "; or fewer requests.num_candidates")
