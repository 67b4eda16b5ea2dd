"""The models of a finished run and what they wrote, by the ids of the log."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recloop.encoders.sentence import encode_texts
from recloop.errors import DataError, SettingError
from recloop.llm.bundled import with_readable_columns
from recloop.llm.completion_text import shorten_completion
from recloop.llm.generate import generate
from recloop.methods.dpo4rec import METHOD
from recloop.methods.dpo4rec.data import Task, prepare
from recloop.methods.dpo4rec.evaluate import load_reranker
from recloop.methods.dpo4rec.generate import ENCODE, SAMPLE, read_user_texts, read_vectors
from recloop.methods.dpo4rec.names import TRAINED, UNTUNED
from recloop.methods.run_log import read_run_log
from recloop.methods.study import Study
from recloop.progress import SILENT
from recloop.prompts.text_truth import TruthCheck, check_of
from recloop.prompts.user_profile import ProfileWriter, profile_writer
from recloop.records import Completion, Group, Histories, Lists, Log, Prompt, UserVectors
from recloop.settings import validate

if TYPE_CHECKING:
    from recloop.experiment.run_folder import RunFolder
    from recloop.llm.language_model import LanguageModel
    from recloop.rerankers.fitted import FittedReranker

NEAR_IDS = 3
MAX_TEXTS = 20_000  # whose vectors are kept, beside those of the run's own texts
Interaction = str | tuple[str, float]
Who = str | Sequence[Interaction]
"""A user's id in the log, or a history: item ids, oldest first, or pairs of an item id and its rating."""


@dataclass(frozen=True)
class RunModels:
    """What a finished run of DPO4Rec leaves, each part opened when it is first needed.

    Axes: U users asked about, B lists, L places, D columns of a text's vector.

    more_items: that came after the run, in the form of ``Log.items``; None for none.
    """

    run: RunFolder
    objects: dict[str, Any]
    more_items: pl.DataFrame | None = None

    @cached_property
    def study(self) -> Study:
        name = self.run.manifest["method"]
        if name != "dpo4rec":
            raise SettingError(f"profiles and rankings come from runs of dpo4rec, got one of {name}; use recloop ask")
        config = validate(METHOD.config, {**self.run.config, "engine": "process"})
        return METHOD.open_study(config, self.run, SILENT, None, **self.objects)  # pyright: ignore[reportReturnType]

    @property
    def variant(self) -> str:
        """The variant that is used: trained, or untuned where nothing was trained."""
        return TRAINED if self.study.config.rounds else UNTUNED

    @cached_property
    def task(self) -> Task:
        return prepare(self.study)

    @cached_property
    def log(self) -> Log:
        """The log as the language model is shown it, with the further items at the end of its catalogue."""
        if self.more_items is None:
            return self.task.log
        log = self.log_as_read
        number = (pl.int_range(pl.len()) + log.num_items).cast(log.items["item"].dtype)
        more = self.more_items.with_columns(item=number)
        longer = replace(log, items=pl.concat([log.items, more.select(log.items.columns)]))
        return with_readable_columns(longer, self.study.first_lm.folder, SILENT)[0]

    @cached_property
    def log_as_read(self) -> Log:
        config = self.study.config
        return self.study.own.log or read_run_log(config.data, config.data_seed, SILENT, self.run.path)

    @cached_property
    def check(self) -> TruthCheck:
        """Whether a text about a user of the log says nothing unsupported."""
        return check_of(self.log, self.task.lists.histories, self.task.population_rates)

    @cached_property
    def lm(self) -> LanguageModel:
        study, trained = self.study, f"train.{TRAINED}.s{self.study.config.seeds[0]}"
        return study.open_lm(self.run.folder(trained) if study.config.rounds else study.first_lm.folder)

    @cached_property
    def reranker(self) -> FittedReranker:
        """The first evaluator of the variant, which knows the further items too."""
        from recloop.rerankers.more_items import with_more_items

        config = self.study.config
        fitted = load_reranker(self.study, f"fit.{self.variant}.{config.backbones[0]}.s{config.seeds[0]}")
        return fitted if self.more_items is None else with_more_items(fitted, self.task.log, self.log, config.data_seed)

    @cached_property
    def written(self) -> Callable[[str], Mapping[int, tuple[str, ...]]]:
        """By variant, the texts that the run has about users, by their number."""

        @lru_cache(maxsize=2)
        def of(variant: str) -> Mapping[int, tuple[str, ...]]:
            parts = read_user_texts(self.study, variant, SAMPLE.named(self._key(variant))).parts.values()
            return {
                user: tuple(one.text for one in texts)
                for part in parts
                for user, texts in zip(part.user_U.tolist(), part.completions_UN, strict=True)
            }

        return of

    def texts(self, whom: Sequence[Who], seed: int, cache: str | Path | None = None, tries: int = 1) -> list[str]:
        """The first text that the run has about each, or a new one, which `cache` keeps.

        Args:
            tries: as for `FinishedRun.profile`.
        """
        if type(tries) is not int or tries < 1:
            raise SettingError(f"tries must be a whole number from 1, got {tries!r}; 1 writes without a check")
        found = [self.first_text(who, self.variant, only_true=tries > 1) for who in whom]
        missing = [row for row, text in enumerate(found) if text is None]
        if missing:
            prompts = [replace(self.prompt(whom[row]), user=row) for row in missing]
            config = self.study.config
            sampling = {name: getattr(config.lm, name) for name in ("temperature", "top_p", "max_tokens")}
            room = config.completions.sentences
            how: dict[str, Any] = {}
            if tries > 1:
                rates, catalogue = self.task.population_rates, self.check.catalogue
                accept = check_of(self.log, self._histories(whom), rates, catalogue=catalogue)
                check = lambda prompt, completion: accept(prompt, shorten_completion(completion, room))  # noqa: E731
                how = {"accept": check, "tries": tries}
            written = generate(self.lm, prompts, **sampling, seed=seed, cache=cache, progress=SILENT, **how)
            for row, (completion,) in zip(missing, written.completions_UN, strict=True):
                found[row] = shorten_completion(completion, room).text
        return [text or "" for text in found]

    def first_text(self, who: Who, variant: str, *, only_true: bool = False) -> str | None:
        """The first text of a variant that the run has about a user of the log; None where it has none.

        Args:
            only_true: the first that says nothing unsupported, as `truth_check` has it.
        """
        if not isinstance(who, str):
            return None
        user = self.user_number(who)
        own = self.written(variant).get(user, ())
        if only_true:
            own = (text for text in own if text and self.check(_about(user), _said(text)))
        return next(iter(own), None)

    def prompt(self, who: Who) -> Prompt:
        """What the language model is asked about a user; of somebody new no profile is known."""
        if isinstance(who, str):
            user = self.user_number(who)
            return self._prompt_writer(True)(user, *self.task.lists.histories.of(user))
        return self._prompt_writer(False)(0, *self.history(who))

    def vectors(self, users: Sequence[str], texts: Mapping[str, str]) -> np.ndarray:
        """A vector for each user of the log ``[U, D]``: of the text given, else of the run's first one.

        Raises:
            DataError: a user without either.
        """
        said = [texts[user] if user in texts else self.first_text(user, self.variant) for user in users]
        missing = [user for user, text in zip(users, said, strict=True) if text is None]
        if missing:
            raise DataError(
                f"the run has no text about user {missing[0]!r} ({len(missing)} of {len(users)}); write some with "
                f"recloop profile, and give them as texts"
            )
        return np.stack([self.encode(text) for text in said])

    def encode(self, text: object) -> np.ndarray:
        """The vector of a text: the one that the run has of the same text, else of this text encoded alone.

        Others beside it would move its last digits: a score would depend on what else is asked.
        """
        if not isinstance(text, str):
            raise DataError(f"a text about a user is a str, got {text!r}; leave it out, or give one")
        known = self.vector_of_text.get(text)
        if known is None and not text.strip() and self.reranker.scaler is not None:
            return self.reranker.scaler.centre_D  # the reranker was fitted on no empty text: as if all said this
        return self._encode_alone(text) if known is None else known

    def score(
        self, whom: Sequence[Who], vectors_UD: np.ndarray, user_B: np.ndarray, items_BL: np.ndarray,
        is_item_BL: np.ndarray, score_BL: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Scores ``[B, L]`` of lists.

        Args:
            user_B: whose each list is, as rows of `whom` and `vectors_UD`.
            score_BL: of the first stage, where the reranker reads them.
        """
        labels_BL = np.zeros(items_BL.shape, np.float32)
        lists = Lists(Group.TEST, user_B, items_BL, labels_BL, is_item_BL, score_BL=score_BL)
        reranker, rows = self.reranker, UserVectors(np.arange(len(whom)), vectors_UD[:, None])
        if reranker.network.tokens is not None:
            reranker = replace(reranker, histories=self._histories(whom))
        return reranker.score(lists, rows)[:, 0]

    def _histories(self, whom: Sequence[Who]) -> Histories:
        """Their histories, one after the other."""
        pairs = [self.history(who) for who in whom]
        offsets = np.cumsum([0, *(len(items) for items, _ in pairs)])
        items, ratings = (np.concatenate(part) for part in zip(*pairs, strict=True))
        return Histories(offsets, items, ratings)

    def history(self, who: Who) -> tuple[np.ndarray, np.ndarray]:
        """Items and ratings, oldest first."""
        if isinstance(who, str):
            return self.task.lists.histories.of(self.user_number(who))
        pairs = [(one, float("nan")) if isinstance(one, str) else one for one in who]
        items = self.item_numbers([item for item, _ in pairs], "history")
        try:
            ratings = np.array([rating for _, rating in pairs], dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"history: a rating is a number ({error}); give pairs of item and number") from error
        if np.isinf(ratings).any():
            raise DataError("history: a rating is a finite number, got inf; use NaN where none is known")
        lowest, highest = self.rating_range
        outside = ratings[(ratings < lowest) | (ratings > highest)]  # NaN is neither
        if outside.size:
            raise DataError(
                f"history: the log's ratings go from {lowest:g} to {highest:g}, got {outside[0]:g}; give ratings of "
                f"that scale, or NaN where none is known"
            )
        return np.array(items, dtype=np.int64), ratings

    @cached_property
    def rating_range(self) -> tuple[float, float]:
        """From 1, or the log's lowest rating below it, to its highest; without bounds where it has no ratings."""
        ratings = self.task.log.interactions["rating"].drop_nulls().drop_nans().to_numpy()
        return (min(1.0, float(ratings.min())), float(ratings.max())) if ratings.size else (-np.inf, np.inf)

    def user_number(self, user: str) -> int:
        """The number of a user of the log."""
        return _numbers(self.number_of_user, [user], "user")[0]

    def candidates(self, item_ids: Sequence[str]) -> list[int]:
        """The numbers of a list's candidates; DataError where they are not two different items of the log at least."""
        if isinstance(item_ids, str):
            raise DataError(f"candidates are a list of item ids, got the text {item_ids!r}; put it into a list")
        items = self.item_numbers(item_ids, "candidates")
        if len(set(items)) < len(items):
            twice = next(one for place, one in enumerate(item_ids) if one in item_ids[:place])
            raise DataError(f"candidates must differ, got {twice!r} twice; leave one out")
        if len(items) < 2:
            raise DataError(f"a list needs two candidates at least, got {len(items)}; add some")
        return items

    def item_numbers(self, item_ids: Sequence[str], what: str) -> list[int]:
        """The numbers of items; `what` names them in errors."""
        if not item_ids:
            raise DataError(f"{what} must name one item at least, got none; give item ids of the log")
        return _numbers(self.number_of_item, item_ids, "item", f"{what}: ")

    @cached_property
    def number_of_item(self) -> dict[str, int]:
        return dict(self.log.items.select("item_id", "item").iter_rows())

    @cached_property
    def number_of_user(self) -> dict[str, int]:
        return dict(self.task.log.users.select("user_id", "user").iter_rows())

    @cached_property
    def vector_of_text(self) -> Mapping[str, np.ndarray]:
        """The vectors of the texts that the run has of its variant: those that its own evaluation read."""
        texts, parts = self.written(self.variant), read_vectors(self.run.folder(ENCODE.named(self._key(self.variant))))
        return {
            text: vector_D
            for part in parts.values()
            for user, vectors_ND in zip(part.user_U.tolist(), part.vectors_UND, strict=True)
            for text, vector_D in zip(texts[user], vectors_ND, strict=True)
        }

    @cached_property
    def _encode_alone(self) -> Callable[[str], np.ndarray]:
        @lru_cache(maxsize=MAX_TEXTS)
        def encode_alone(text: str) -> np.ndarray:
            return encode_texts(self.study.open_encoder(), [text])[0]

        return encode_alone

    @cached_property
    def _prompt_writer(self) -> Callable[[bool], ProfileWriter]:
        @lru_cache(maxsize=2)
        def writer(is_known: bool) -> ProfileWriter:
            study, config = self.study, self.study.config.prompt
            asked = config if is_known else config.model_copy(update={"include_profile": False})
            return profile_writer(self.log, asked, self.lm, self.task.population_rates, study.own.prompt)

        return writer

    def _key(self, variant: str) -> str:
        return f"{variant}.s{self.study.config.seeds[0]}"


def _numbers(known: Mapping[str, int], ids: Sequence[str], kind: str, where: str = "") -> list[int]:
    missing = [one for one in ids if one not in known]
    if missing:
        near = difflib.get_close_matches(str(missing[0]), list(known), n=NEAR_IDS)
        shown = f"its ids look like {', '.join(list(known)[:NEAR_IDS])}"
        hint = f"did you mean {' or '.join(near)}?" if near else shown
        raise DataError(f"{where}the log has no {kind} {missing[0]!r} ({len(missing)} of {len(ids)}); {hint}")
    return [known[one] for one in ids]


def _about(user: int) -> Prompt:
    return Prompt(user, "", "", 0, 0)


def _said(text: str) -> Completion:
    return Completion(0, 0, text, 0, True, float("nan"))
