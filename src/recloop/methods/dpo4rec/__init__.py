"""DPO4Rec (RLRF4Rec, arXiv 2410.05939): a recommender's metric tunes the language model that writes about its users."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.method import Method

if TYPE_CHECKING:
    from recloop.experiment.run_folder import RunFolder
    from recloop.experiment.step import StepKind
    from recloop.methods.study import Study
    from recloop.progress import Progress


def _open(config: Dpo4RecConfig, run: RunFolder, progress: Progress, until: str | None, **objects: Any) -> Study:
    from recloop.methods.study import OwnParts, open_study, require_trainable

    own = OwnParts(**objects)
    require_trainable(own, config.rounds)
    if own.reranker is not None:  # reward model and evaluator are of the one kind that was passed
        config = config.model_copy(update={"backbones": (own.identities()["reranker"].rpartition(".")[2],)})
    return open_study(config, run, progress, until, own)


def _recipe(study: Study) -> None:
    from recloop.methods.dpo4rec.recipe import dpo4rec

    dpo4rec(study)


def _steps() -> Sequence[StepKind]:
    from recloop.methods.dpo4rec.steps import STEPS

    return STEPS


def _forecast(config: Dpo4RecConfig) -> str:
    from recloop.methods.dpo4rec.cost_estimate import forecast

    return forecast(config)


METHOD = Method("dpo4rec", Dpo4RecConfig, _recipe, _steps, _open, _forecast)
