"""Where a completion with room for a few sentences is over while it is still being written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.llm.completion_text import first_sentences

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64

MARKS = (".", "!", "?")
MARK_BYTES = tuple(f"<0x{ord(mark):02X}>" for mark in MARKS)  # as tokens of a vocabulary with byte fallback


class SentenceStop:
    """Tells of half-written completions whether they have gone on beyond their first sentences.

    Only a completion with a sentence mark in it can have, so only those are turned into text.

    Args:
        tokenizer: of the language model.
        vocab_size: how many tokens its output has; may exceed the tokenizer's.
        num_sentences: how many sentences a completion has room for.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, num_sentences: int) -> None:
        self._tokenizer = tokenizer
        self._num_sentences = num_sentences
        self._is_mark_V = np.zeros(max(vocab_size, len(tokenizer)), dtype=bool)
        for number, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
            self._is_mark_V[number] = token in MARK_BYTES or any(mark in token for mark in MARKS)

    def is_over(self, tokens_RT: Int64[np.ndarray, "R T"]) -> Bool[np.ndarray, " R"]:
        """Whether the next sentence has begun, after which nothing that follows is read.

        Args:
            tokens_RT: what was written of each completion so far, no padding.
        """
        is_over_R = np.zeros(len(tokens_RT), dtype=bool)
        rows = np.flatnonzero(self._is_mark_V[tokens_RT].any(axis=1))
        texts = self._tokenizer.batch_decode(tokens_RT[rows].tolist(), skip_special_tokens=True)
        is_over_R[rows] = [first_sentences(t.strip(), self._num_sentences) != t.strip() for t in texts]
        return is_over_R
