"""Encoders that read claims: their values exactly, or what is liked and what is disliked as two texts.

Sentence encoders hardly tell likes from dislikes: with all-MiniLM-L6-v2 "likes War; dislikes Drama" is close to
"likes Drama; dislikes War".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from recloop.encoders.sentence import TextEncoder, count_cut
from recloop.llm.completion_text import SENTENCE_END
from recloop.prompts.claims import Claim, ParsedCompletion, Polarity, parse_claims, section_heads, write_summary

if TYPE_CHECKING:
    from jaxtyping import Float32

WIDTH = 256
SECTION_HEAD = section_heads("[^:.;]{1,60}")
WEIGHTS = {Polarity.LIKES: 1.0, Polarity.ALSO: 0.5, Polarity.DISLIKES: -1.0}  # ALSO: a guess
PROSE_END = re.compile(rf"\s*\n\s*|{SENTENCE_END.pattern}")
CLAUSE_END = re.compile(r";\s*|,?\s+(?=(?:but|however|while|whereas|although|though)\b)", re.IGNORECASE)
PROSE_HEAD = re.compile(r"([^:;]{1,60}:)\s+")
# After the clause's first word "Not" and "Never" before a capital are part of a name ("Not Your Mother's").
DENIAL = re.compile(
    r"\b(?:dislik|avoid|hat(?:e|es|ed)\b|reject|averse|aversion|seldom\b|rarely\b|unlikely\b"
    r"|(?:no|little|less) (?:interest|taste|liking))"
    r"|(?:^\W*|\b(?!(?-i:[A-Z][a-z]+ [A-Z])))(?:not|never)\b|n['’]t\b",
    re.IGNORECASE,
)
SPLIT = "polarity-2"  # names the rules by which texts are split


class ClaimsEncoder:
    """The sum of the claims' vectors: a fixed random direction per value of an attribute, its sign the polarity.

    Directions of different values are nearly orthogonal, so a linear layer can tell likes from dislikes. Nothing is
    fitted, and the order of claims is lost. A text that is not in the form of `recloop.prompts.claims` has zeros.

    Source: random projections of sparse vectors, Achlioptas 2001.
    """

    name, width = f"claims-1-{WIDTH}", WIDTH

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "B D"]:
        vectors_BD = np.zeros((len(texts), WIDTH), dtype=np.float32)
        for vector_D, text in zip(vectors_BD, texts, strict=True):
            for claim in read_summary(text).claims:
                vector_D += WEIGHTS[claim.polarity] * _direction(claim.attribute, claim.value)
        return vectors_BD


def read_summary(text: str) -> ParsedCompletion:
    """`parse_claims` for a text with any attributes."""
    return parse_claims(text, tuple(dict.fromkeys(SECTION_HEAD.findall(text.strip()))))


@lru_cache(maxsize=100_000)
def _direction(attribute: str, value: str) -> Float32[np.ndarray, " D"]:
    """A vector of length 1 from the bits of a hash."""
    digest = hashlib.shake_256(f"{attribute}\0{value}".encode()).digest(WIDTH // 8)
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8)).astype(np.float32)
    return (2 * bits - 1) / np.float32(WIDTH**0.5)


class PolarityEncoder:
    """Affirmed and denied clauses through another encoder, their vectors side by side, twice as wide.

    A text without one of the two has zeros there.
    """

    def __init__(self, inner: TextEncoder) -> None:
        self._inner = inner
        self.name, self.width = f"{SPLIT}-{inner.name}", 2 * inner.width

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
        found = PROSE_HEAD.match(sentence)
        head = found[1] if found else ""
        for clause in CLAUSE_END.split(sentence[found.end() :] if found else sentence):
            if clause.strip():
                yield head, clause.strip()
