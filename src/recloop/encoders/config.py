"""The setting that chooses a text encoder."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class EncoderConfig(BaseModel):
    """Which frozen encoder turns texts into vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        default="minilm",
        pattern=r"^(minilm|static|claims|sentence:.+)$",
        description="minilm; static, MiniLM's token vectors averaged, far faster and coarser; claims, "
        "what texts in canonical form claim (the bundled model's), exactly and nothing else; or "
        "sentence:NAME_OR_FOLDER for a sentence-transformers or BERT model",
    )
    by_polarity: bool = Field(
        default=False,
        description="likes and dislikes encoded apart, side by side: encoders hardly see which is which",
    )
