"""What a reranker is made of and how it is fitted. Free of torch, so that settings load fast."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from recloop.settings import setting, shown_first

RerankerKind = Literal["dlcm", "prm", "setrank", "mir"]

# As in KAR; nobody changed them.
HEADS = 2
SHARED_EXPERTS, PRIVATE_EXPERTS = 2, 5


class RerankerConfig(BaseModel, frozen=True, extra="forbid"):
    """One reranker: backbone, knowledge adaptor, inputs, fit.

    Source: KAR (arXiv 2306.10933) for the adaptor and the sizes. The fit's settings were chosen on valid users of
    MovieLens-1M.
    """

    kind: RerankerKind = shown_first("prm", "backbone; not read where one is passed as an object")
    adaptor: Literal["hea", "mlp"] = setting(
        "hea", "knowledge adaptor: hybrid experts as in KAR, or one plain MLP per tower"
    )
    use_id_history: bool = setting(False, "let candidates attend to the items and ratings of the knowledge window")
    use_item_knowledge: bool = setting(False, "give the adapted item vectors to the candidates")
    use_scores: bool = setting(
        False, "give the candidates the first stage's scores that came with the lists, standardised in each list"
    )
    embed: int = setting(32, "width of item, attribute value and rating embeddings", ge=2)
    adapted: int = setting(32, "width of an adapted knowledge vector", ge=2)
    expert_hidden: int = setting(128, "hidden width of an expert, and of the MLP adaptor", ge=2)
    attention: int = setting(64, "width inside self-attention; an even number", ge=2)
    gru: int = setting(64, "state width of recurrent parts", ge=2)
    mlp: tuple[int, ...] = setting((200, 80), "hidden widths of the scoring MLP", min_length=1)
    dropout: float = setting(0.0, "on candidate inputs and inside the scoring MLP", ge=0, lt=1)
    text_dropout: float = shown_first(
        0.0, "on adapted texts: without it a text becomes its train user's name", ge=0, lt=1
    )
    lr: float = setting(2e-3, "Adam's step size; it falls linearly to a tenth", gt=0)
    batch_size: int = setting(256, "lists per step; a small log takes fewer", ge=1)
    min_epoch_steps: int = setting(50, "fewest steps in an epoch: a small log is passed over several times", ge=1)
    average_epochs: float = setting(
        0.0, "keep an exponential average of the weights over about this many epochs; 0: the last weights", ge=0
    )
    max_epochs: int = shown_first(10, "most epochs; lr reaches a tenth at the last", ge=1)
    patience: int = setting(
        3,
        "epochs without a better valid NDCG@5 before stopping; the best epoch is kept. 0: never, and the last is kept",
        ge=0,
    )
