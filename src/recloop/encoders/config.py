"""The setting that chooses a text encoder."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recloop.errors import SettingError

# The built-in encoders: what a name looks like, and what it stands for.
ENCODERS = {
    "minilm": "all-MiniLM-L6-v2",
    "static": "the mean of MiniLM's token vectors, far faster and coarser",
    "claims": "the claims of texts in the bundled model's form, exactly, and nothing else",
    "sentence:NAME_OR_FOLDER": "a sentence-transformers or BERT model",
}


class EncoderConfig(BaseModel):
    """Which frozen encoder turns texts into vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        json_schema_extra={"shown_first": True},
        default="minilm",
        description="; ".join(f"{name}: {what}" for name, what in ENCODERS.items()),
    )
    by_polarity: bool = Field(
        json_schema_extra={"shown_first": True},
        default=False,
        description="likes and dislikes encoded apart, side by side: encoders hardly tell them apart",
    )

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        kind, _, folder = name.partition(":")
        if name not in ENCODERS and not (kind == "sentence" and folder):
            raise SettingError(f"an encoder must be {' or '.join(ENCODERS)}")
        return name
