"""Text encoders by name, and completions turned into vectors."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, field_validator

from recloop.encoders.claims import SPLIT, ClaimsEncoder, PolarityEncoder
from recloop.encoders.sentence import EncoderCache, MiniLmEncoder, SentenceEncoder, TextEncoder, encode_completions
from recloop.encoders.static import StaticEncoder
from recloop.errors import SettingError
from recloop.llm.weights import find_model_folder, weights_hash
from recloop.progress import Progress, terminal_progress
from recloop.records import UserCompletions, UserVectors
from recloop.settings import shown_first, validate

BY_NAME = {"minilm": MiniLmEncoder, "static": StaticEncoder, "claims": ClaimsEncoder}


class EncoderConfig(BaseModel, frozen=True, extra="forbid"):
    """Which frozen encoder turns texts into vectors."""

    name: str = shown_first(
        "minilm",
        "minilm: all-MiniLM-L6-v2; static: the mean of MiniLM's token vectors, far faster and coarser; "
        "claims: the claims of texts in the bundled model's form, exactly, and nothing else; "
        "sentence:NAME_OR_FOLDER: a sentence-transformers or BERT model",
    )
    by_polarity: bool = shown_first(
        False, "likes and dislikes encoded apart, side by side: encoders hardly tell them apart"
    )

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        kind, _, folder = name.partition(":")
        if name not in BY_NAME and not (kind == "sentence" and folder):
            raise SettingError(f"an encoder must be {' or '.join(BY_NAME)} or sentence:NAME_OR_FOLDER")
        return name


def load_encoder(name: str | TextEncoder = "minilm", by_polarity: bool = False) -> TextEncoder:
    """The text encoder of this name; an object of your own is returned as it is, or split by polarity.

    Args:
        name: ``minilm`` is all-MiniLM-L6-v2; ``static`` averages its token vectors; ``claims`` reads the claims
            of texts in canonical form; ``sentence:NAME_OR_FOLDER`` is a sentence-transformers or BERT model.
        by_polarity: encode likes and dislikes apart, side by side.

    Raises:
        SettingError: an unknown name.
        GenerationError: there is no such model, or it cannot be read.

    Example:
        >>> load_encoder("claims", by_polarity=True).width
        512
    """
    if isinstance(name, str):
        return encoder_from_config(validate(EncoderConfig, {"name": name, "by_polarity": by_polarity}))
    return PolarityEncoder(name) if by_polarity else name


def encoder_from_config(config: EncoderConfig) -> TextEncoder:
    """The configured text encoder."""
    kind, _, name = config.name.partition(":")
    encoder = SentenceEncoder(name) if kind == "sentence" else BY_NAME[kind]()
    return PolarityEncoder(encoder) if config.by_polarity else encoder


def encoder_inputs(config: EncoderConfig, own: TextEncoder | None) -> dict[str, str]:
    """What a step that encodes depends on beside its settings: weights that others made, and rules.

    Args:
        own: an encoder passed as an object, in place of the configured one.
    """
    if own is not None:
        return {"encoder": own.name}
    kind, _, name = config.name.partition(":")
    rules = {"split": SPLIT} if config.by_polarity else {}
    return rules | ({"encoder": weights_hash(find_model_folder(name))} if kind == "sentence" else {})


def encode(
    encoder: TextEncoder,
    texts: UserCompletions,
    *,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> UserVectors:
    """The vectors of all completions: rows and numbers as they stand in `texts`.

    Args:
        cache: SQLite file of vectors; what it holds is not encoded again. None keeps nothing.
        progress: told how far it is; None for the terminal.

    Raises:
        ContractError: users have different numbers of completions, or the encoder breaks its protocol.
        RunError: the cache is another kind of file.
    """
    progress = progress or terminal_progress()
    if cache is None:
        return encode_completions(encoder, texts, None, progress)
    with EncoderCache(cache) as opened:
        return encode_completions(encoder, texts, opened, progress)
