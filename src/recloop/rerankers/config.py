"""What a reranker is made of and how it is fitted. Free of torch, so that settings load fast."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

RerankerKind = Literal["dlcm", "prm", "setrank", "mir"]


class RerankerConfig(BaseModel):
    """One reranker: backbone, knowledge adaptor, inputs, fit.

    Source: KAR (arXiv 2306.10933) for the adaptor and the sizes; the fit's settings were chosen on valid
    users of MovieLens-1M.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: RerankerKind = Field(default="prm", description="backbone")
    adaptor: Literal["hea", "mlp"] = Field(
        default="hea", description="knowledge adaptor: hybrid experts as in KAR, or one plain MLP per tower"
    )
    use_id_history: bool = Field(
        default=False, description="let candidates attend to the items and stars of the knowledge window"
    )
    use_item_knowledge: bool = Field(default=False, description="give the adapted item vectors to the candidates")
    match_texts: bool = Field(
        default=True, description="add the product of the adapted text and a projection of the candidate"
    )
    embed: int = Field(default=32, ge=2, description="width of item, attribute value and star embeddings")
    adapted: int = Field(default=32, ge=2, description="width of an adapted knowledge vector")
    expert_hidden: int = Field(default=128, ge=2, description="hidden width of an expert, and of the MLP adaptor")
    shared_experts: int = Field(default=2, ge=1, description="experts that serve both towers")
    private_experts: int = Field(default=5, ge=1, description="experts of each tower")
    attention: int = Field(default=64, ge=2, description="width inside self-attention; a multiple of heads")
    heads: int = Field(default=2, ge=1, description="attention heads")
    gru: int = Field(default=64, ge=2, description="state width of recurrent parts")
    mlp: tuple[int, ...] = Field(default=(200, 80), min_length=1, description="hidden widths of the scoring MLP")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="on candidate inputs and inside the scoring MLP")
    text_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="on adapted texts: without it a text soon stands for its train user's name",
    )
    loss: Literal["softmax", "bce"] = Field(
        default="softmax",
        description="list softmax or per-item cross entropy; SetRank keeps its attention-rank loss",
    )
    temperature: float | None = Field(
        default=None, gt=0, description="divides the scores inside the training loss; None leaves them alone"
    )
    lr: float = Field(default=2e-3, gt=0, description="Adam's step size")
    final_lr_share: float = Field(default=0.1, gt=0, le=1, description="lr falls in a line to this share of itself")
    weight_decay: float = Field(default=0.0, ge=0, description="decoupled weight decay")
    batch_size: int = Field(default=256, ge=1, description="lists per step; a small log takes fewer")
    lists_per_user: int = Field(
        default=4,
        ge=1,
        description="lists of one user put into the same step, so that its text is adapted once",
    )
    min_epoch_steps: int = Field(
        default=50, ge=1, description="steps of an epoch at least: a small log is passed over several times"
    )
    average_epochs: float = Field(
        default=0.0,
        ge=0,
        description="keep an exponential average of the weights over about so many epochs; 0 keeps the last",
    )
    max_epochs: int = Field(default=10, ge=1, description="epochs at most; lr falls to its share by the last")
    patience: int = Field(default=3, ge=1, description="epochs without a better valid NDCG@5 before stopping")
