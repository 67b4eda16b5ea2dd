"""Text encoders by name."""

from __future__ import annotations

from recloop.encoders.claims import ClaimsEncoder
from recloop.encoders.config import EncoderConfig
from recloop.encoders.polarity import SPLIT, PolarityEncoder
from recloop.encoders.sentence import MiniLmEncoder, SentenceEncoder, TextEncoder
from recloop.encoders.static import StaticEncoder
from recloop.llm.weights import find_model_folder, weights_hash
from recloop.settings import validate


def load_encoder(name: str | TextEncoder = "minilm", by_polarity: bool = False) -> TextEncoder:
    """The text encoder of this name; an object of your own is returned as it is, or split by polarity.

    Args:
        name: ``minilm`` is all-MiniLM-L6-v2; ``static`` averages its token vectors; ``claims`` reads the claims
            of texts in canonical form; ``sentence:NAME_OR_FOLDER`` is a sentence-transformers or BERT model.
        by_polarity: encode likes and dislikes apart, side by side.

    Raises:
        SettingError: an unknown name.
        GenerationError: there is no such model, or it cannot be read.
    """
    if isinstance(name, str):
        return encoder_from_config(validate(EncoderConfig, {"name": name, "by_polarity": by_polarity}))
    return PolarityEncoder(name) if by_polarity else name


def encoder_from_config(config: EncoderConfig) -> TextEncoder:
    """The configured text encoder."""
    encoder = _whole_text_encoder(config.name)
    return PolarityEncoder(encoder) if config.by_polarity else encoder


def encoder_inputs(config: EncoderConfig, own: TextEncoder | None) -> dict[str, str]:
    """What a stage that encodes depends on beside its settings: weights of others, and rules.

    Args:
        own: an encoder passed as an object, in place of the configured one.
    """
    if own is not None:
        return {"encoder": own.name}
    kind, _, name = config.name.partition(":")
    rules = {"split": SPLIT} if config.by_polarity else {}
    return rules | ({"encoder": weights_hash(find_model_folder(name))} if kind == "sentence" else {})


def _whole_text_encoder(configured: str) -> TextEncoder:
    kind, _, name = configured.partition(":")
    match kind:
        case "minilm":
            return MiniLmEncoder()
        case "static":
            return StaticEncoder()
        case "claims":
            return ClaimsEncoder()
        case _:
            return SentenceEncoder(name)
