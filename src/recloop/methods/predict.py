"""What a finished run leaves, for use: texts about users the log has never seen, and rankings of their candidates."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recloop.encoders.load import encode
from recloop.errors import DataError, RunError, SettingError
from recloop.evaluation.results import Results
from recloop.experiment.run_folder import RunFolder
from recloop.llm.completion_text import shorten_completion
from recloop.llm.sampling import generate
from recloop.methods.dpo4rec import METHOD
from recloop.methods.dpo4rec.data import Task, prepare
from recloop.methods.dpo4rec.evaluate import load_reranker
from recloop.methods.dpo4rec.names import TRAINED, UNTUNED
from recloop.methods.run import require_objects
from recloop.methods.study import Study
from recloop.progress import SILENT
from recloop.prompts.user_profile import profile_writer
from recloop.records import Completion, Group, Lists, Log, Prompt, UserCompletions
from recloop.settings import validate

if TYPE_CHECKING:
    from recloop.rerankers.fitted import FittedReranker

NEAR_IDS = 3
Interaction = str | tuple[str, float]


def load(run: str | Path, *, data: Log | None = None, **objects: Any) -> FinishedRun:
    """A finished run of DPO4Rec, for use; its `results` are those of a finished run of any method.

    Args:
        run: the run folder.
        data, objects: those that the run was made with, where it was made with objects (see `recloop.run`).

    Raises:
        RunError: no run there, one that is not finished, was made with other objects or without a language model.
    """
    given = objects | ({} if data is None else {"log": data})
    folder = RunFolder.look(Path(run))
    require_objects(folder, given)
    if not folder.is_done("report"):
        raise RunError(f"{run} is not finished; go on with: recloop resume {run}")
    if folder.config.get("variants") == "without_lm":
        raise RunError(f"{run} was made without a language model and left none to use; make one with other variants")
    return FinishedRun(folder, given)


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: what it found, and its language model and reranker, ready for use.

    Items and users are named by the ids of the log. A history is a sequence of item ids, oldest first, or of pairs of
    an item id and its rating.
    """

    run: RunFolder
    objects: dict[str, Any]

    @property
    def results(self) -> Results:
        """Tables, contrasts, per-user scores and completions."""
        return Results(self.run.path)

    def profile(self, history: Sequence[Interaction], *, seed: int = 0) -> str:
        """What the run's language model writes about a user with this history, in training or not.

        Args:
            seed: of sampling; the temperature is the run's.

        Raises:
            DataError: an item the log does not have, or no item.
        """
        config, prompt = self._study.config, self._prompt(history)
        sampling = {name: getattr(config.lm, name) for name in ("temperature", "top_p", "max_tokens")}
        completion = generate(self._lm, [prompt], **sampling, seed=seed).completions_UN[0][0]
        room = config.completions.sentences
        return (completion if room is None else shorten_completion(completion, room)).text

    def rerank(
        self, history: Sequence[Interaction], candidates: Sequence[str], *, text: str | None = None, seed: int = 0
    ) -> pl.DataFrame:
        """Candidates by their score, the best first: ``item_id``, ``title``, ``score``.

        Args:
            history: of the user; read by the language model where no text is given.
            candidates: item ids; the reranker scores them as one list.
            text: about the user, in place of what the language model would write: no model is loaded then.
            seed: of sampling, where a text is written.

        Raises:
            DataError: an item the log does not have, or fewer than two candidates.
        """
        items = self._numbers(candidates, "candidates")
        if len(items) < 2:
            raise DataError(f"a list needs two candidates at least, got {len(items)}; add some")
        said = self.profile(history, seed=seed) if text is None else text
        texts = UserCompletions(np.array([0]), ((Completion(0, 0, said, 0, True, float("nan")),),))
        vectors = encode(self._study.open_encoder(), texts)
        items_BL = np.array([items], dtype=np.int64)
        labels_BL, is_item_BL = np.zeros(items_BL.shape, np.float32), np.ones(items_BL.shape, dtype=bool)
        lists = Lists(Group.TEST, np.array([0]), items_BL, labels_BL, is_item_BL)
        scores_L = self._reranker.score(lists, vectors)[0, 0]
        named = self._task.log.items[items].select("item_id", "title", score=pl.Series(scores_L.tolist()))
        return named.sort("score", descending=True, maintain_order=True)

    @cached_property
    def _study(self) -> Study:
        name = self.run.manifest["method"]
        if name != "dpo4rec":
            raise SettingError(f"profiles and rankings come from runs of dpo4rec, got one of {name}; use recloop ask")
        config = validate(METHOD.config, self.run.config)
        return METHOD.open_study(config, self.run, SILENT, None, **self.objects)  # pyright: ignore[reportReturnType]

    @cached_property
    def _task(self) -> Task:
        return prepare(self._study)

    @cached_property
    def _lm(self) -> Any:
        study, trained = self._study, f"train.{TRAINED}.s{self._study.config.seeds[0]}"
        return study.open_lm(self.run.folder(trained) if study.config.rounds else study.first_lm.folder)

    @cached_property
    def _reranker(self) -> FittedReranker:
        config = self._study.config
        variant = TRAINED if config.rounds else UNTUNED
        return load_reranker(self._study, f"fit.{variant}.{config.backbones[0]}.s{config.seeds[0]}")

    def _prompt(self, history: Sequence[Interaction]) -> Prompt:
        pairs = [(one, float("nan")) if isinstance(one, str) else one for one in history]
        items = np.array(self._numbers([item for item, _ in pairs], "history"), dtype=np.int64)
        ratings = np.array([rating for _, rating in pairs], dtype=np.float32)
        task, study = self._task, self._study
        alone = study.config.prompt.model_copy(update={"include_profile": False})  # nothing is known of a new user
        return profile_writer(task.log, alone, self._lm, task.population_rates, study.own.prompt)(0, items, ratings)

    def _numbers(self, item_ids: Sequence[str], what: str) -> list[int]:
        known = self._number_of
        missing = [item for item in item_ids if item not in known]
        if missing:
            near = difflib.get_close_matches(str(missing[0]), list(known), n=NEAR_IDS)
            shown = f"its ids look like {', '.join(list(known)[:NEAR_IDS])}"
            hint = f"did you mean {' or '.join(near)}?" if near else shown
            raise DataError(f"{what}: the log has no item {missing[0]!r} ({len(missing)} of {len(item_ids)}); {hint}")
        if not item_ids:
            raise DataError(f"{what} must name one item at least, got none; give item ids of the log")
        return [known[item] for item in item_ids]

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return dict(self._task.log.items.select("item_id", "item").iter_rows())
