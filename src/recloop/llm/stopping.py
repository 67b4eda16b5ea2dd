"""When a completion of which only a few sentences are read may stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.llm.completion_text import first_sentences

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64

MARKS = (".", "!", "?")
MARK_BYTES = tuple(f"<0x{ord(mark):02X}>" for mark in MARKS)  # as tokens of a vocabulary with byte fallback


class SentenceStop:
    """Whether unfinished completions have more than their first sentences.

    Only a completion with a sentence mark can have more, so only those are turned into text.

    Args:
        tokenizer: of the language model.
        vocab_size: number of tokens of its output; may exceed the tokenizer's.
        num_sentences: how many sentences are read.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, num_sentences: int) -> None:
        self._tokenizer = tokenizer
        self._num_sentences = num_sentences
        self._is_mark_V = np.zeros(max(vocab_size, len(tokenizer)), dtype=bool)
        for number, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
            self._is_mark_V[number] = token in MARK_BYTES or any(mark in token for mark in MARKS)

    def is_over(self, tokens_RT: Int64[np.ndarray, "R T"]) -> Bool[np.ndarray, " R"]:
        """Whether a further sentence has begun.

        Args:
            tokens_RT: each completion so far, without padding.
        """
        is_over_R = np.zeros(len(tokens_RT), dtype=bool)
        rows = np.flatnonzero(self._is_mark_V[tokens_RT].any(axis=1))
        texts = self._tokenizer.batch_decode(tokens_RT[rows].tolist(), skip_special_tokens=True)
        is_over_R[rows] = [first_sentences(t.strip(), self._num_sentences) != t.strip() for t in texts]
        return is_over_R
