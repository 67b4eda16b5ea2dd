"""The small language models that ship with recloop, one for each kind of task."""

from pathlib import Path
from typing import Literal

BundledName = Literal["summaries", "answers"]


def bundled_lm_folder(name: BundledName = "summaries") -> Path:
    """The Hugging Face folder of a bundled LM: weights, tokenizer, chat template.

    Args:
        name: summaries writes what a user likes; answers ranks next items, reflects, and answers requests.
    """
    return Path(__file__).parent / "bundled_weights" / name
