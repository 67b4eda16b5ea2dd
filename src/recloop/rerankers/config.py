"""What a reranker is made of and how it is fitted. Free of torch, so that settings load fast."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

RerankerKind = Literal["dlcm", "prm", "setrank", "mir"]

# As in KAR; nobody changed them.
HEADS = 2
SHARED_EXPERTS, PRIVATE_EXPERTS = 2, 5


class RerankerConfig(BaseModel):
    """One reranker: backbone, knowledge adaptor, inputs, fit.

    Source: KAR (arXiv 2306.10933) for the adaptor and the sizes. The fit's settings were chosen on valid users of
    MovieLens-1M.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: RerankerKind = Field(
        json_schema_extra={"shown_first": True},
        default="prm",
        description="backbone; not read where one is passed as an object",
    )
    adaptor: Literal["hea", "mlp"] = Field(
        default="hea", description="knowledge adaptor: hybrid experts as in KAR, or one plain MLP per tower"
    )
    use_id_history: bool = Field(
        default=False, description="let candidates attend to the items and ratings of the knowledge window"
    )
    use_item_knowledge: bool = Field(default=False, description="give the adapted item vectors to the candidates")
    embed: int = Field(default=32, ge=2, description="width of item, attribute value and rating embeddings")
    adapted: int = Field(default=32, ge=2, description="width of an adapted knowledge vector")
    expert_hidden: int = Field(default=128, ge=2, description="hidden width of an expert, and of the MLP adaptor")
    attention: int = Field(default=64, ge=2, description="width inside self-attention; an even number")
    gru: int = Field(default=64, ge=2, description="state width of recurrent parts")
    mlp: tuple[int, ...] = Field(default=(200, 80), min_length=1, description="hidden widths of the scoring MLP")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="on candidate inputs and inside the scoring MLP")
    text_dropout: float = Field(
        json_schema_extra={"shown_first": True},
        default=0.0,
        ge=0,
        lt=1,
        description="on adapted texts: without it a text becomes its train user's name",
    )
    lr: float = Field(default=2e-3, gt=0, description="Adam's step size; it falls linearly to a tenth")
    batch_size: int = Field(default=256, ge=1, description="lists per step; a small log takes fewer")
    min_epoch_steps: int = Field(
        default=50, ge=1, description="fewest steps in an epoch: a small log is passed over several times"
    )
    average_epochs: float = Field(
        default=0.0,
        ge=0,
        description="keep an exponential average of the weights over about this many epochs; 0: the last weights",
    )
    max_epochs: int = Field(
        json_schema_extra={"shown_first": True},
        default=10,
        ge=1,
        description="most epochs; lr reaches a tenth at the last",
    )
    patience: int = Field(default=3, ge=1, description="epochs without a better valid NDCG@5 before stopping")
