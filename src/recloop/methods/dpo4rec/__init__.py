"""DPO4Rec (RLRF4Rec, arXiv 2410.05939): a recommender's metric tunes the language model that writes about its users."""

from __future__ import annotations

from typing import Any

from recloop.experiment.run_folder import RunFolder
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.cost_estimate import forecast
from recloop.methods.dpo4rec.recipe import STEPS, dpo4rec
from recloop.methods.method import Method
from recloop.methods.study import OwnParts, Study, open_study, require_trainable
from recloop.progress import Progress


def _open(config: Dpo4RecConfig, run: RunFolder, progress: Progress, until: str | None, **objects: Any) -> Study:
    own = OwnParts(**objects)
    require_trainable(own, config.rounds)
    if own.reranker is not None:  # reward model and evaluator are of the one kind that was passed
        config = config.model_copy(update={"backbones": (own.identities()["reranker"].rpartition(".")[2],)})
    return open_study(config, run, progress, until, own)


METHOD = Method("dpo4rec", Dpo4RecConfig, dpo4rec, STEPS, _open, forecast)
