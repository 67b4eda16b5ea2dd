"""What a finished run leaves, for use: texts about users the log has never seen, and rankings of their candidates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recloop.errors import DataError, RunError, SettingError
from recloop.evaluation.results import Results
from recloop.experiment.run_folder import RunFolder
from recloop.llm.completion_text import SENTENCE_END
from recloop.methods.dpo4rec.names import UNTUNED
from recloop.methods.dpo4rec.run_models import RunModels, Who
from recloop.methods.run import require_objects
from recloop.records import CandidateLists, Log

if TYPE_CHECKING:
    from recloop.rerankers.fitted import FittedReranker

NOTHING, EVERYTHING = "nothing", "everything"
SECTION = re.compile(r"(By [^:]+: )(.+?)\.?$")  # of a canonical text


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

    Users and items are named by the ids of the log. Who is meant is said by a user's id, which stands for the history
    and the first text that the run has, or by a history: item ids, oldest first, or pairs of an item id and its rating.
    No language model is loaded where a text is given or the run has one, and no encoder for the latter.
    """

    run: RunFolder
    objects: dict[str, Any]
    more_items: pl.DataFrame | None = None

    @property
    def results(self) -> Results:
        """Tables, contrasts, per-user scores and completions."""
        return Results(self.run.path)

    @property
    def log(self) -> Log:
        """The log, with the items that `with_items` added."""
        return self.models.log

    @property
    def log_as_read(self) -> Log:
        """The log as it was read: a bundled language model is shown some columns under other names."""
        return self.models.log_as_read

    @property
    def lists(self) -> CandidateLists:
        """The candidate lists of the run and the histories they follow."""
        return self.models.task.lists

    @property
    def reranker(self) -> FittedReranker:
        """The reranker that is used: the first evaluator of the variant."""
        return self.models.reranker

    @property
    def variant(self) -> str:
        """The variant that is used: ``trained``, or ``untuned`` where nothing was trained."""
        return self.models.variant

    @property
    def user_ids(self) -> list[str]:
        """Users about whom the run has a text."""
        ids = self.models.task.log.users["user_id"]
        return [ids[number] for number in self.models.written(self.variant)]

    def with_items(self, items: Any) -> FinishedRun:
        """The same run with items that came after it: they can be ranked, and stand in histories.

        What is known of one is its title and its attributes. Its id says nothing yet, nor does a value that no item of
        the log has.

        Args:
            items: a data frame of polars or pandas: ``item_id``, ``title``, and any of the log's attributes (lists, or
                text with ``|`` between values).

        Raises:
            DataError: a column is missing, or an id is taken.
        """
        frame = items if isinstance(items, pl.DataFrame) else pl.DataFrame(items)
        require_columns(frame.columns, ("item_id", "title"), "new items")
        ids = frame["item_id"].cast(pl.String)
        taken = ids.filter(ids.is_duplicated() | ids.is_in(self.log.items["item_id"].implode()))
        if len(taken):
            raise DataError(f"new items need ids of their own, got {taken[0]!r} again; leave out what is known")
        attributes = [value_lists(frame, attribute) for attribute in self.log_as_read.attributes]
        more = frame.select(ids.alias("item_id"), pl.col("title").cast(pl.String).fill_null(ids), *attributes)
        return replace(self, more_items=more if self.more_items is None else pl.concat([self.more_items, more]))

    def texts(self, user: str, variant: str | None = None) -> tuple[str, ...]:
        """What the run has about a user of the log; nothing where the language model was not asked.

        Args:
            variant: ``untuned`` or ``trained``; None for the one that is used.

        Raises:
            DataError: the log has no such user.
            SettingError: another variant.
        """
        if variant not in (None, UNTUNED, self.variant):
            raise SettingError(f"a variant is {UNTUNED} or {self.variant}, got {variant}; name one of them")
        return self.models.written(variant or self.variant).get(self.models.user_number(user), ())

    def profile(self, who: Who, *, seed: int = 0, tries: int = 1) -> str:
        """What the run's language model wrote about a user, or writes about somebody new.

        Args:
            who: a user's id, or a history.
            seed: of sampling, where the run has no text; the temperature is the run's.
            tries: above 1, what the run has about a user is checked, and a new text is drawn at most so often, until
                the history supports all that it says (`recloop.truth_check`); it is empty if none does. 1 does not
                check.

        Raises:
            DataError: an item or a user the log does not have, or no item.
        """
        return self.profiles([who], seed=seed, tries=tries)[0]

    def profiles(
        self, whom: Sequence[Who], *, seed: int = 0, tries: int = 1, cache: str | Path | None = None
    ) -> list[str]:
        """`profile` of several, in one batch.

        Args:
            cache: SQLite file of completions; what it holds is not written again. None keeps nothing.
        """
        return self.models.texts(whom, seed, cache, tries)

    def rerank(
        self,
        who: Who,
        candidates: Sequence[str],
        *,
        text: str | None = None,
        seed: int = 0,
        first_stage: Sequence[float] | None = None,
    ) -> pl.DataFrame:
        """Candidates by their score, the best first: ``item_id``, ``title``, ``score``.

        Args:
            who: a user's id, or a history.
            candidates: item ids; the reranker scores them as one list.
            text: about the user, in place of what the language model wrote or would write.
            seed: of sampling, where a text is written.
            first_stage: a score for each candidate, where the run's reranker reads them (``reranker.use_scores``).

        Raises:
            DataError: an item or a user the log does not have, or candidates that are not two different ones at least.
        """
        items = self.models.candidates(candidates)
        text = self.profile(who, seed=seed) if text is None else text
        return self._ranked(who, items, [self.models.encode(text)], [NOTHING], first_stage).drop("left_out", "rank")

    def explain(
        self,
        who: Who,
        candidates: Sequence[str],
        *,
        text: str | None = None,
        seed: int = 0,
        first_stage: Sequence[float] | None = None,
    ) -> pl.DataFrame:
        """What each part of the text changes: the ranking with it left out. Arguments and errors as of `rerank`.

        Returns:
            Columns ``left_out, item_id, title, score, rank``, the best first. ``left_out`` is ``nothing`` for the
            ranking of `rerank`, then each part of the text (a sentence, or a side of a canonical one), then
            ``everything``: the ranking for a user with the mean of the train users' texts.
        """
        models, items = self.models, self.models.candidates(candidates)
        text = self.profile(who, seed=seed) if text is None else text
        vectors = [models.encode(text)]
        parts = text_parts(text)
        vectors += [models.encode(rest) for _, rest in parts]
        if models.reranker.scaler is not None:
            vectors.append(models.reranker.scaler.centre_D)
        left_out = [NOTHING, *(part for part, _ in parts), EVERYTHING]
        return self._ranked(who, items, vectors, left_out, first_stage)

    def score(self, lists: pl.DataFrame, texts: Mapping[str, str] | None = None) -> pl.DataFrame:
        """The lists with a column ``score``, higher is better, rows in their order. No language model is asked.

        Args:
            lists: a row for each candidate: ``user_id``, ``item_id``, ``list_id`` where a user has several lists, and
                ``first_stage`` where the run's reranker reads such scores. The rows of a list stand together.
            texts: about users, by their id, in place of those that the run has.

        Raises:
            DataError: a missing column, an item or a user the log does not have, a candidate twice in a list, a user
                without a text.
        """
        require_columns(lists.columns, ("user_id", "item_id"), "lists")
        if lists.is_empty():
            return lists.with_columns(score=pl.lit(None, pl.Float32))
        texts, models = texts or {}, self.models
        keys = [name for name in ("list_id", "user_id") if name in lists.columns]
        list_n = lists.select(pl.struct(keys).rle_id().cast(pl.Int64)).to_series().to_numpy()
        first_B = np.flatnonzero(np.diff(list_n, prepend=-1))
        place_n = np.arange(len(list_n)) - first_B[list_n]
        at, shape = (list_n, place_n), (len(first_B), int(place_n.max()) + 1)
        items_BL, is_item_BL = np.zeros(shape, np.int64), np.zeros(shape, dtype=bool)
        item_n = np.array(models.item_numbers(lists["item_id"].cast(pl.String).to_list(), "lists"))
        places = np.sort(list_n * self.log.num_items + item_n)
        if (twice := places[1:] == places[:-1]).any():
            item_id = self.log.items["item_id"][int(places[twice.argmax()] % self.log.num_items)]
            raise DataError(
                f"candidates of a list must differ, got {item_id!r} twice; leave one out, or give a list_id"
            )
        items_BL[at], is_item_BL[at] = item_n, True
        score_BL = None
        if "first_stage" in lists.columns:
            score_BL = np.full(shape, np.nan, np.float32)
            score_BL[at] = lists["first_stage"].cast(pl.Float32).to_numpy()
        user_B = lists["user_id"].cast(pl.String)[first_B].to_list()
        row_of = {user: row for row, user in enumerate(dict.fromkeys(user_B))}
        vectors_UD = models.vectors(list(row_of), texts)
        rows_B = np.array([row_of[user] for user in user_B])
        scores_BL = models.score(list(row_of), vectors_UD, rows_B, items_BL, is_item_BL, score_BL)
        return lists.with_columns(score=pl.Series(scores_BL[at], dtype=pl.Float32))

    @cached_property
    def models(self) -> RunModels:
        """The parts that all of this is made of, each opened when it is first needed."""
        return RunModels(self.run, self.objects, self.more_items)

    def _ranked(
        self,
        who: Who,
        items: Sequence[int],
        vectors: Sequence[np.ndarray],
        left_out: Sequence[str],
        first_stage: Sequence[float] | None,
    ) -> pl.DataFrame:
        """The candidates ranked under each of the vectors, one table under the other."""
        if first_stage is not None and not self.reranker.config.use_scores:
            raise DataError("the run's reranker reads no first-stage scores, got some; leave first_stage out")
        shape = len(vectors), len(items)
        score_VL = None if first_stage is None else np.tile(np.asarray(first_stage, np.float32), (shape[0], 1))
        if score_VL is not None and score_VL.shape != shape:
            raise DataError(f"first_stage needs a score for each of {len(items)} candidates, got {len(score_VL[0])}")
        scores_VL = self.models.score(
            [who] * shape[0], np.stack(vectors), np.arange(shape[0]), np.tile(np.array(items), (shape[0], 1)),
            np.ones(shape, dtype=bool), score_VL,
        )  # fmt: skip
        named = self.log.items[items].select("item_id", "title")
        frames = [
            named.select(left_out=pl.lit(name), item_id="item_id", title="title", score=pl.Series(scores_L.tolist()))
            .sort("score", descending=True, maintain_order=True)
            .with_columns(rank=pl.int_range(1, pl.len() + 1))
            for name, scores_L in zip(left_out, scores_VL, strict=True)
        ]
        return pl.concat(frames)


def text_parts(text: str) -> list[tuple[str, str]]:
    """The parts of a text, each with the text that is left without it: sentences, or sides of canonical sections.

    Example:
        >>> text_parts("By genre: likes Drama; dislikes War. By era: mixed.")[0]
        ('By genre: likes Drama', 'By genre: dislikes War. By era: mixed.')
    """
    sentences = SENTENCE_END.split(text.strip()) if text.strip() else []
    found: list[tuple[str, str]] = []
    for place, sentence in enumerate(sentences):
        section = SECTION.match(sentence)
        sides = section[2].split("; ") if section else []
        if section and len(sides) > 1:
            shorter = [f"{section[1]}{'; '.join(sides[:n] + sides[n + 1 :])}." for n in range(len(sides))]
            told = [(f"{section[1]}{side}", rest) for side, rest in zip(sides, shorter, strict=True)]
        else:
            told = [(sentence, "")]
        found += [
            (part, " ".join(filter(None, [*sentences[:place], rest, *sentences[place + 1 :]]))) for part, rest in told
        ]
    return found


def require_columns(columns: Sequence[str], wanted: Sequence[str], what: str) -> None:
    """DataError where a column is missing."""
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise DataError(f"{what}: there is no column {missing[0]}, got {', '.join(columns) or 'none'}; rename yours")


def value_lists(frame: pl.DataFrame, attribute: str, separator: str = "|") -> pl.Expr:
    """The values of an attribute as lists; an empty list where nothing is known."""
    if attribute not in frame.columns:
        return pl.lit([], dtype=pl.List(pl.String)).alias(attribute)
    column = pl.col(attribute)
    if frame[attribute].dtype != pl.List:
        column = (
            column.cast(pl.String)
            .fill_null("")
            .str.split(separator)
            .list.eval(pl.element().str.strip_chars().filter(pl.element().str.strip_chars() != ""))
        )
    return column.cast(pl.List(pl.String)).fill_null([])
