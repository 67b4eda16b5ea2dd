"""A text encoder that reads likes and dislikes separately.

Sentence encoders hardly tell them apart: with all-MiniLM-L6-v2 "likes War; dislikes Drama" is close to "likes
Drama; dislikes War". Here they are two vectors side by side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recloop.encoders.claims import read_summary
from recloop.encoders.sentence import TextEncoder, count_cut
from recloop.llm.completion_text import SENTENCE_END
from recloop.prompts.claims import Claim, ParsedCompletion, Polarity, write_summary

if TYPE_CHECKING:
    from jaxtyping import Float32

PROSE_END = re.compile(rf"\s*\n\s*|{SENTENCE_END.pattern}")
CLAUSE_END = re.compile(r";\s*|,?\s+(?=(?:but|however|while|whereas|although|though)\b)", re.IGNORECASE)
HEAD = re.compile(r"([^:;]{1,60}:)\s+")
# After the clause's first word "Not" and "Never" before a capital are part of a name ("Not Your Mother's").
DENIAL = re.compile(
    r"\b(?:dislik|avoid|hat(?:e|es|ed)\b|reject|averse|aversion|seldom\b|rarely\b|unlikely\b"
    r"|(?:no|little|less) (?:interest|taste|liking))"
    r"|(?:^\W*|\b(?!(?-i:[A-Z][a-z]+ [A-Z])))(?:not|never)\b|n['’]t\b",
    re.IGNORECASE,
)
SPLIT = "polarity-2"  # names the rules by which texts are split


class PolarityEncoder:
    """Affirmed and denied clauses through another encoder, their vectors side by side, twice as wide.

    A text without one of the two has zeros there.

    Args:
        inner: encodes the two halves.
    """

    def __init__(self, inner: TextEncoder) -> None:
        self._inner = inner

    @property
    def name(self) -> str:
        return f"{SPLIT}-{self._inner.name}"

    @property
    def width(self) -> int:
        return 2 * self._inner.width

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "B D"]:
        halves = [split_polarity(text) for text in texts]
        distinct = sorted({half for pair in halves for half in pair if half}, key=lambda t: (len(t), t))
        vectors_ND = np.concatenate([self._inner.encode(distinct), np.zeros((1, self._inner.width), dtype=np.float32)])
        place_of = {half: place for place, half in enumerate(distinct)} | {"": len(distinct)}
        place_B2 = np.array([[place_of[half] for half in pair] for pair in halves], dtype=np.int64)
        return vectors_ND[place_B2.reshape(-1, 2)].reshape(len(texts), self.width)

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of these texts have a half that is longer than what the inner encoder reads."""
        return sum(count_cut(self._inner, [half for half in split_polarity(t) if half]) > 0 for t in texts)


def split_polarity(text: str) -> tuple[str, str]:
    """What a text affirms, and what it denies, each under the head of its sentence.

    A text in the canonical form of `recloop.prompts.claims` is split by its claims. In prose, a clause with a
    word of denial is denied as a whole, which is a rule of thumb.

    Example:
        >>> split_polarity("By genre: likes War; dislikes Drama. By era: likes 1990s.")
        ('By genre: likes War. By era: likes 1990s.', 'By genre: dislikes Drama.')
        >>> split_polarity("Enjoys noir, but avoids musicals.")
        ('Enjoys noir.', 'but avoids musicals.')
    """
    parsed = read_summary(text)
    if parsed.is_well_formed:
        return _split_claims(parsed)
    affirmed: list[str] = []
    denied: list[str] = []
    for head, clause in _clauses(text):
        side = denied if DENIAL.search(clause) or DENIAL.search(head) else affirmed
        side.append(f"{head} {clause}".strip() + ("" if clause[-1] in ".!?" else "."))
    return " ".join(affirmed), " ".join(denied)


def _split_claims(parsed: ParsedCompletion) -> tuple[str, str]:
    """Both sides as summaries; a section without claims, and a summary without sections, denies nothing."""
    affirmed: list[Claim] = []
    denied: list[Claim] = []
    for claim in parsed.claims:
        (denied if claim.polarity is Polarity.DISLIKES else affirmed).append(claim)
    only_denied = {claim.attribute for claim in denied} - {claim.attribute for claim in affirmed}
    attributes = [attribute for attribute in parsed.attributes if attribute not in only_denied]
    return (
        write_summary(affirmed, attributes) if attributes or not denied else "",
        write_summary(denied) if denied else "",
    )


def _clauses(text: str) -> Iterator[tuple[str, str]]:
    """(head of its sentence or "", clause) in their order."""
    for sentence in PROSE_END.split(text.strip()):
        found = HEAD.match(sentence)
        head = found[1] if found else ""
        for clause in CLAUSE_END.split(sentence[found.end() :] if found else sentence):
            if clause.strip():
                yield head, clause.strip()
