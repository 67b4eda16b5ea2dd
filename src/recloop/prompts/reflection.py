"""Reflection: in three turns, a language model looks at its own wrong answer and writes short hints.

Turn 1 says that nothing in the list was next and asks what went wrong. Turn 2 shows the answer and asks what the
list overlooked. Turn 3 asks for hints that would help with other sessions too.

Source: Re2LLM (arXiv 2403.16427), section on reflective exploration. Deviations: each turn is its own prompt, with
all that was said before, so that any model and the completion cache can answer it; whether a hint leaks a title is
checked, not only asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from recloop.prompts.claims import HistoryItem
from recloop.prompts.lines import candidate_line, clean_line
from recloop.prompts.next_item import LIST_MARK, MAX_HINT_CHARS, SessionText, clean_hint, next_item_text
from recloop.prompts.title_match import normalised, ways_to_write, words_of

MAX_TURN_CHARS = 600  # guess: of each earlier turn, repeated in the next
MIN_HINT_WORDS, MAX_HINT_WORDS = 3, 40  # guesses
ASK_WRONG = "None of these came next. What went wrong?"
ASK_ANALYSIS = "What does the right one share with the session that the list overlooked?"
ASK_HINTS = "Write at most {num} short hints for other sessions, one per line, each an instruction that names no title."
ASK_SAME = "Does one of the known hints already say this? Answer yes or no."
LEADING_WORD = re.compile(r"^(?:hints?|tips?|advice|rule)\s*\d*\s*[:.)\-]\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ParsedHints:
    """The hints of a reply, and how many were left out, by reason."""

    hints: tuple[str, ...]
    num_leaking: int  # they name the answer or a candidate
    num_unfit: int  # too short or too long for an instruction
    num_repeated: int  # said twice
    num_beyond: int  # more than asked for


def reflection_text(
    session: SessionText,
    ranked: Sequence[str],
    num_ranked: int,
    answer: HistoryItem,
    num_hints: int,
    replies: Sequence[str] = (),
) -> str:
    """The next turn: the first without a reply, the second, with the answer, after one, the third after two."""
    given = "; ".join(f'"{title}"' for title in ranked) or "no candidate"
    asks = (
        f"The right one was: {candidate_line(session.attributes, answer)}\n{ASK_ANALYSIS}",
        ASK_HINTS.format(num=num_hints),
    )
    lines = [next_item_text(session, "", num_ranked), f"The list was: {given}.", ASK_WRONG]
    for reply, ask in zip(replies, asks[: len(replies)], strict=True):
        lines += [f"Reply: {clean_line(reply, MAX_TURN_CHARS)}", ask]
    return "\n".join(lines)


def same_text(hint: str, known: Sequence[str]) -> str:
    """A prompt that asks whether a hint says nothing new; `says_yes` reads the reply."""
    return "\n".join(["Known hints:", *map(clean_hint, known), f"New hint: {clean_hint(hint)}", ASK_SAME])


def says_yes(text: str) -> bool:
    """Whether a reply to `same_text` begins with yes."""
    return normalised(text).strip(" \"'*.").startswith("yes")


def write_hint(attribute: str) -> str:
    """The canonical hint: one attribute to go by."""
    return f"Go by {attribute}: put candidates with the {attribute} of the latest items first."


def parse_hints(text: str, titles: Sequence[str], max_hints: int) -> ParsedHints:
    """The hints of a reply to turn 3.

    Every line is one hint, without list marks, quotes and a leading ``Hint:``; a line that ends in a colon is a
    heading. A hint is an instruction of 3 to 40 words that names none of the candidates' `titles`.

    Example:
        >>> titles = ["Quiet Bridge"]
        >>> parsed = parse_hints("1. Prefer the same genre.\\n2. Watch Quiet Bridge next.", titles, 3)
        >>> parsed.hints, parsed.num_leaking
        (('Prefer the same genre.',), 1)
    """
    kept: dict[tuple[str, ...], str] = {}
    num_leaking = num_unfit = num_repeated = 0
    for line in filter(str.strip, text.splitlines()):
        bare = LEADING_WORD.sub("", LIST_MARK.sub("", line, count=1)).strip().strip("\"'“”*_ ")
        if not bare or bare.endswith(":"):
            continue
        words = words_of(normalised(bare))
        if names_title(bare, titles):
            num_leaking += 1
        elif not MIN_HINT_WORDS <= len(words) <= MAX_HINT_WORDS or len(bare) > MAX_HINT_CHARS:
            num_unfit += 1
        elif words in kept:
            num_repeated += 1
        else:
            kept[words] = clean_hint(bare)
    hints = tuple(kept.values())
    return ParsedHints(hints[:max_hints], num_leaking, num_unfit, num_repeated, max(0, len(hints) - max_hints))


def names_title(text: str, titles: Sequence[str]) -> bool:
    """Whether a text names a title: its words in a row, with a capital where the title is one plain word.

    The title's article may be absent or follow. A title of one word (``Drama``, ``Heat``) is often an ordinary
    word. It counts where the text writes it with a capital and not as its first word, or where it has digits
    (``8MM``). In a script without capitals every word counts as written with one.
    """
    words = words_of(normalised(text))
    later = (re.sub(r"^\W+", "", chunk) for chunk in text.split()[1:])
    capitals = {words_of(normalised(word))[0] for word in later if word and not word[0].islower()} - {"i"}
    for title in titles:
        for own in ways_to_write(normalised(re.sub(r"\s*\(\d+\)$", "", title))):
            if len(own) == 1 and own[0] not in capitals and not re.search(r"\d", own[0]):
                continue
            if any(words[start : start + len(own)] == own for start in range(len(words) - len(own) + 1)):
                return True
    return False
