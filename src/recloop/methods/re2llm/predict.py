"""What a finished Re2LLM run recommends after a session: the policy's hint, and the language model's list."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from recloop.data.sessions import SessionTask
from recloop.encoders.sentence import EncoderCache, TextEncoder, encode_texts
from recloop.errors import DataError, RunError, SettingError
from recloop.experiment.run_folder import RunFolder
from recloop.llm.language_model import LanguageModel
from recloop.methods.re2llm.config import Re2llmConfig
from recloop.methods.re2llm.data import ask, clean_items, readable_sessions, session_text
from recloop.methods.re2llm.hint_base import read_hint_base
from recloop.methods.re2llm.policies import POLICY, TRAIN
from recloop.methods.re2llm.reflection import EXPLORE, HINTS
from recloop.methods.study import VECTORS_FILE, OwnParts, Study, open_study
from recloop.progress import SILENT
from recloop.prompts.claims import HistoryItem
from recloop.prompts.lines import history_line
from recloop.prompts.next_item import next_item_text, parse_ranking
from recloop.prompts.title_match import Found, TitleIndex, distinct_titles, normalised
from recloop.rerankers.session_baselines import likely_next
from recloop.training.hint_policy import load_policy

NEAR_TITLES = 3


@dataclass(frozen=True)
class SessionModel:
    """A run's hint policy and language model, with all they need to rank what follows a session."""

    study: Study
    task: SessionTask
    policy: Path

    def recommend(self, shown: Sequence[int], offered: Sequence[int] | None = None) -> tuple[str, list[str]]:
        """The hint, empty for none, and the titles that the language model ranks, best first.

        Args:
            shown: the session's items, oldest first.
            offered: the candidates; None for those that the training sessions make likely.

        Raises:
            DataError: one candidate.
        """
        study, task, num_ranked = self.study, self.task, self.study.config.question.num_ranked
        offered = likely_next(task, shown, len(task.test[0].candidates)) if offered is None else offered
        if len(offered) < 2:
            raise DataError(f"a list needs two candidates at least, got {len(offered)}; add some")
        text = session_text(task, self.items, shown, offered)
        lines = [history_line(task.attributes, self.items[i]) for i in shown]
        with EncoderCache(study.run.path / VECTORS_FILE) as cache:
            state_1D = encode_texts(study.open_encoder(), lines, cache).mean(axis=0, keepdims=True)
        base = read_hint_base(study.run.folder(EXPLORE.verb) / HINTS)
        chosen = int(load_policy(self.policy).choose(state_1D.astype(np.float64))[0]) if self.policy.is_file() else 0
        answer = ask(study, {0: next_item_text(text, base.texts[chosen], num_ranked)}, "ask")[0]
        ranking = parse_ranking(answer.text, [item.title for item in text.candidates], num_ranked)
        return base.texts[chosen], [self.titles[offered[place]] for place in ranking.places]

    def find_titles(self, told: Sequence[str], what: str) -> list[int]:
        """The items that titles name, each once; SettingError: none. DataError: one not there once."""
        names = [name.strip() for name in told if name.strip()]
        if not names:
            raise SettingError(f'{what} must be titles parted by semicolons, got none; write "A; B; C"')
        found: list[int] = []
        for name in names:
            match self.index.find_whole(normalised(name)):
                case Found(title=item):
                    found.append(item)
                case why:
                    near = difflib.get_close_matches(name, self.titles, n=NEAR_TITLES, cutoff=0.5)
                    hint = f"did you mean {'; '.join(near)}?" if near else "look it up in the catalogue"
                    raise DataError(f"{what}: {name!r} is {why.value} among {len(self.titles):,} titles; {hint}")
        return list(dict.fromkeys(found))

    @cached_property
    def titles(self) -> list[str]:
        """Of the catalogue, by item number."""
        return self.task.items["title"].to_list()

    @cached_property
    def items(self) -> tuple[HistoryItem, ...]:
        """The catalogue, fit for lines of a prompt."""
        return clean_items(self.task)

    @cached_property
    def index(self) -> TitleIndex:
        """Finds titles, however they are written."""
        return TitleIndex(distinct_titles(self.titles))


def open_session_model(run: RunFolder, config: Re2llmConfig, own: OwnParts | None = None) -> SessionModel:
    """What ranks the next item of a session; RunError: the run has not yet learnt to choose hints."""
    study = open_study(config.model_copy(update={"engine": "process"}), run, SILENT, None, own)
    policy_step = TRAIN.named(f"s{config.seeds[0]}")
    if not run.is_done(policy_step):
        raise RunError(f"{run.path} has no policy yet ({policy_step}); finish with: recloop resume {run.path}")
    task, _ = readable_sessions(study)
    return SessionModel(study, task, run.folder(policy_step) / POLICY)  # absent where exploration left no hint


def recommend(
    run: RunFolder,
    config: Re2llmConfig,
    session: str,
    candidates: str = "",
    *,
    lm: LanguageModel | None = None,
    encoder: TextEncoder | None = None,
) -> str:
    """The hint and the list for one session, in words.

    Args:
        session: titles parted by semicolons, oldest first.
        candidates: titles parted by semicolons; empty for those that the training sessions make likely.

    Raises:
        RunError: the run has not yet learnt to choose hints.
        DataError: a title the catalogue does not have.
    """
    model = open_session_model(run, config, OwnParts(lm=lm, encoder=encoder))
    shown = model.find_titles(session.split(";"), "the session")
    offered = model.find_titles(candidates.split(";"), "--candidates") if candidates else None
    hint, titles = model.recommend(shown, offered)
    ranked = [f"{place}. {title}" for place, title in enumerate(titles, 1)]
    return "\n".join([f"hint: {hint or '(none)'}", *(ranked or ["the language model named no candidate"])])
