"""The usable text of an answer: without reasoning and markdown; refusals, empty and endless answers recognised.

Pure functions over text. A reason says what was taken out, and the raw answer stays beside the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from recloop.llm.reasoning import has_tool_call, without_reasoning
from recloop.llm.refusals import is_refusal
from recloop.records import Completion, CompletionStatus

MAX_REPLY_CHARS = 20_000  # guess: ten times the longest knowledge text of KAR; a longer answer is endless
MAX_RAW_CHARS = 2_000  # of a raw text that has no use
CALLED_A_TOOL = "the model called a tool in place of an answer"
REASONING_ONLY = "reasoning used up max_tokens; raise lm.max_tokens, or let the model reason less"
BARRED = frozenset({"Cc", "Cs", "Co", "Cn"})  # Unicode categories: control, surrogate, private use, unassigned

ROLE_MARKER = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|\[/?INST\]")
FENCE_LINE = re.compile(r"^[ \t]*(```|~~~)[\w+-]*[ \t]*$", re.MULTILINE)
LINE_MARK = re.compile(r"^[ \t]*(#{1,6}[ \t]+|[*•-][ \t]+|>[ \t]+)", re.MULTILINE)
EMPHASIS = re.compile(r"(\*\*\*|\*\*|__|`)(?=\S)(.+?)(?<=\S)\1")
# A sentence does not end after an initial ("J. Smith") or before a lower-case letter ("Steven E. de Souza").
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)\s+(?=[^\sa-z])")


def tidy(raw: str, marks: Sequence[tuple[str, str]] = ()) -> tuple[str, CompletionStatus, str]:
    """The usable text of an answer, empty unless its status is ok; the status; and what was found or removed.

    Args:
        marks: begin and end of reasoning, beyond those of `recloop.llm.reasoning`.

    Example:
        >>> tidy("<think>Two dramas.</think>Likes **drama**.")
        ('Likes drama.', <CompletionStatus.OK: 'ok'>, 'removed reasoning, markdown')
        >>> tidy("I'm sorry, but I can't help with that.")[1]
        <CompletionStatus.REFUSED: 'refused'>
    """
    text = printable(raw)
    removed = ["characters that are no text"] if text != raw else []
    answer = without_reasoning(text, marks)
    if len(answer) > MAX_REPLY_CHARS:
        return "", CompletionStatus.TOO_LONG, f"{len(answer):,} characters where {MAX_REPLY_CHARS:,} are allowed"
    if has_tool_call(answer):
        return "", CompletionStatus.EMPTY, CALLED_A_TOOL
    if answer != text:
        removed.append("reasoning")
    for name, step in (("markers", _unmarked), ("markdown", _plain)):
        text = step(answer)
        if text != answer:
            removed.append(name)
        answer = text
    text = text.strip()
    reason = f"removed {', '.join(removed)}" if removed else ""
    if not text:
        return "", CompletionStatus.EMPTY, f"nothing is left; {reason}" if reason else "no text"
    if is_refusal(text):
        return "", CompletionStatus.REFUSED, "the model declined"
    return text, CompletionStatus.OK, reason


def tidy_completion(completion: Completion, marks: Sequence[tuple[str, str]] = ()) -> Completion:
    """The completion with its usable text; the raw text stays beside it where the two differ. See `tidy`."""
    if completion.status is not CompletionStatus.OK:
        return completion
    text, status, why = tidy(completion.text, marks)
    if text == completion.text and status is CompletionStatus.OK:
        return completion
    raw = (completion.raw or completion.text)[
        : MAX_RAW_CHARS if status is CompletionStatus.TOO_LONG else MAX_REPLY_CHARS
    ]
    if status is CompletionStatus.EMPTY and raw.strip() and why != CALLED_A_TOOL:
        why = "nothing but reasoning" if completion.is_finished else REASONING_ONLY
    reason = "; ".join(filter(None, (completion.reason, why)))
    return replace(completion, text=text, status=status, reason=reason, raw=printable(raw))


def shorten_completion(completion: Completion, num_sentences: int | None) -> Completion:
    """The completion cut to its first sentences; tokens and log-probability stay those of all that was sampled.

    num_sentences: None leaves it as it is.
    """
    if num_sentences is None or completion.status is not CompletionStatus.OK:
        return completion
    text = first_sentences(completion.text, num_sentences)
    if text == completion.text:
        return completion
    reason = "; ".join(filter(None, (completion.reason, f"cut to {num_sentences} sentences")))
    return replace(completion, text=text, is_finished=True, reason=reason, raw=completion.raw or completion.text)


def first_sentences(text: str, num_sentences: int) -> str:
    """The text up to the end of its sentence number `num_sentences`.

    Example:
        >>> first_sentences("Likes J. Smith. Dislikes war! Old films.", 2)
        'Likes J. Smith. Dislikes war!'
    """
    ends = [found.start() for found in SENTENCE_END.finditer(text)]
    return text[: ends[num_sentences - 1]] if len(ends) >= num_sentences else text


def printable(text: str) -> str:
    """Without control characters, lone surrogates and the mark of undecodable bytes; line breaks and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if c in "\n\t" or (unicodedata.category(c) not in BARRED and c != "\ufffd"))


def _unmarked(text: str) -> str:
    return ROLE_MARKER.sub("", text) if "<" in text or "[" in text else text


def _plain(text: str) -> str:
    """Markdown as plain lines: no fences, headings, bullets or emphasis."""
    return EMPHASIS.sub(r"\2", LINE_MARK.sub("", FENCE_LINE.sub("", text)))
