"""Reasoning and tool calls in an answer, by the marks that models put around them."""

from __future__ import annotations

import re
from collections.abc import Sequence

# How models mark their reasoning: its begin and its end. Each is what one family of models was trained to write.
MARKS = (
    *(
        (f"<{name}>", f"</{name}>")
        for name in ("think", "thinking", "reasoning", "thought", "seed:think", "scratchpad")
    ),
    ("[THINK]", "[/THINK]"),  # Mistral
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|think|>", "<|/think|>"),
    ("<unused94>thought", "<unused95>"),  # MedGemma
    ("Here is my thought process:", "Here is my response:"),  # Granite
)
# Channels of gpt-oss, as written and as they stand when the server leaves out special tokens.
FINAL_CHANNEL = re.compile(r"<\|channel\|>\s{0,9}final\b[^<]{0,99}(<\|constrain\|>[^<]{0,99})?<\|message\|>")
CHANNEL_END = re.compile(r"<\|(end|return)\|>")
OTHER_CHANNEL = re.compile(r"<\|channel\|>\s{0,9}(analysis|commentary)\b")
BARE_FINAL = re.compile(r"^\s*(analysis|commentary).*assistant\s{0,9}final(?=\W|[A-Z\d\u00c0-\uffff]|$)", re.DOTALL)
BARE_ANALYSIS = re.compile(r"^\s*(analysis|commentary)(?=[A-Z])")
TOOL_CALL = re.compile(
    r"<tool_call>|<\|tool_calls?(_begin)?\|>|<｜tool▁calls▁begin｜>|\[TOOL_CALLS\]|<\|python_tag\|>|<function(=|_calls?>)"
    r"|<\|START_ACTION\|>",
    re.IGNORECASE,
)


def without_reasoning(text: str, more: Sequence[tuple[str, str]] = ()) -> str:
    """The text after and between pieces of reasoning; one that was never closed reaches to the end.

    Args:
        more: begin and end of the reasoning of models that `MARKS` does not know.

    Example:
        >>> without_reasoning("[THINK]Two dramas.[/THINK]Likes drama.")
        'Likes drama.'
        >>> without_reasoning("analysisTwo dramas.assistantfinalLikes drama.")
        'Likes drama.'
    """
    finals = list(FINAL_CHANNEL.finditer(text))
    if finals:
        text = CHANNEL_END.split(text[finals[-1].end() :], maxsplit=1)[0]
    elif OTHER_CHANNEL.search(text) or (BARE_ANALYSIS.match(text) and not BARE_FINAL.match(text)):
        return ""
    else:
        text = BARE_FINAL.sub("", text)
    lowered = text.lower()
    for begin, end in (*MARKS, *more):
        if begin.lower() in lowered or end.lower() in lowered:
            text = _without(text, begin, end)
            lowered = text.lower()
    return text


def has_tool_call(text: str) -> bool:
    """Whether a text calls a tool in place of answering."""
    return TOOL_CALL.search(text) is not None


def _without(text: str, begin: str, end: str) -> str:
    """The text outside of its reasoning, in one pass: an answer may hold thousands of marks."""
    kept: list[str] = []
    place, is_inside = 0, False
    for mark in re.finditer(f"({re.escape(begin)})|{re.escape(end)}", text, re.IGNORECASE):
        if mark[1] is None:
            kept, place, is_inside = (kept if is_inside else []), mark.end(), False  # else its begin was in the prompt
        elif not is_inside:
            kept.append(text[place : mark.start()])
            is_inside = True
    return "".join(kept) if is_inside else "".join([*kept, text[place:]])
