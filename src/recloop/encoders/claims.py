"""A text encoder for texts in canonical form: it reads exactly their claims, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from recloop.prompts.claims import Claim, ParsedCompletion, Polarity, parse_claims, section_heads

if TYPE_CHECKING:
    from jaxtyping import Float32

WIDTH = 256
HEAD = section_heads("[^:.;]{1,60}")
WEIGHTS = {Polarity.LIKES: 1.0, Polarity.ALSO: 0.5, Polarity.DISLIKES: -1.0}  # ALSO: a guess


class ClaimsEncoder:
    """The sum of the claims' vectors: a fixed random direction per value of an attribute, its sign the polarity.

    Directions of different values are nearly orthogonal. So a linear layer can tell likes from dislikes, which it
    hardly can with a sentence encoder's vectors. Nothing is fitted, and the order of claims is lost. A text that
    is not in the form of `recloop.prompts.claims` has a vector of zeros.

    Source: random projections of sparse vectors, Achlioptas 2001.
    """

    @property
    def name(self) -> str:
        return f"claims-1-{WIDTH}"

    @property
    def width(self) -> int:
        return WIDTH

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "B D"]:
        vectors_BD = np.zeros((len(texts), WIDTH), dtype=np.float32)
        for vector_D, text in zip(vectors_BD, texts, strict=True):
            for claim in read_claims(text):
                vector_D += WEIGHTS[claim.polarity] * _direction(claim.attribute, claim.value)
        return vectors_BD


def read_claims(text: str) -> tuple[Claim, ...]:
    """The claims of a text with any attributes."""
    return read_summary(text).claims


def read_summary(text: str) -> ParsedCompletion:
    """`parse_claims` for a text with any attributes."""
    return parse_claims(text, tuple(dict.fromkeys(HEAD.findall(text.strip()))))


@lru_cache(maxsize=100_000)
def _direction(attribute: str, value: str) -> Float32[np.ndarray, " D"]:
    """A vector of length 1 from the bits of a hash."""
    digest = hashlib.shake_256(f"{attribute}\0{value}".encode()).digest(WIDTH // 8)
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8)).astype(np.float32)
    return (2 * bits - 1) / np.float32(WIDTH**0.5)
