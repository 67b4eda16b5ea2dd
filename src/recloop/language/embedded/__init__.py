"""The small language model that ships with recloop."""

from pathlib import Path


def embedded_lm_folder() -> Path:
    """The Hugging Face folder of the embedded LM: weights, tokenizer, chat template."""
    return Path(__file__).parent / "weights"
