"""What a finished Re2LLM run recommends after a session: the policy's hint, and the language model's list."""

from __future__ import annotations

import difflib

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
from recloop.methods.study import VECTORS_FILE, OwnParts, open_study
from recloop.progress import SILENT
from recloop.prompts.lines import history_line
from recloop.prompts.next_item import next_item_text, parse_ranking
from recloop.prompts.title_match import Found, TitleIndex, distinct_titles, normalised
from recloop.rerankers.session_baselines import likely_next
from recloop.training.hint_policy import load_policy

NEAR_TITLES = 3


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
    study = open_study(config, run, SILENT, None, OwnParts(lm=lm, encoder=encoder))
    policy_step = TRAIN.named(f"s{config.seeds[0]}")
    if not run.is_done(policy_step):
        raise RunError(f"{run.path} has no policy yet ({policy_step}); finish with: recloop resume {run.path}")
    task, _ = readable_sessions(study)
    items, num_ranked = clean_items(task), config.question.num_ranked
    shown = find_titles(task, session, "the session")
    num = len(task.test[0].candidates)
    offered = find_titles(task, candidates, "--candidates") if candidates else likely_next(task, shown, num)
    text = session_text(task, items, shown, offered)
    lines = [history_line(task.attributes, items[i]) for i in shown]
    with EncoderCache(run.path / VECTORS_FILE) as cache:
        state_1D = encode_texts(study.open_encoder(), lines, cache).mean(axis=0, keepdims=True)
    base = read_hint_base(run.folder(EXPLORE.verb) / HINTS)
    policy = run.folder(policy_step) / POLICY  # absent where exploration left no hint
    number = int(load_policy(policy).choose(state_1D.astype(np.float64))[0]) if policy.is_file() else 0
    hint = base.texts[number]
    answer = ask(study, {0: next_item_text(text, hint, num_ranked)}, "ask")[0]
    ranking = parse_ranking(answer.text, [item.title for item in text.candidates], num_ranked)
    titles = task.items["title"].to_list()
    ranked = [f"{place}. {titles[offered[p]]}" for place, p in enumerate(ranking.places, 1)]
    return "\n".join([f"hint: {hint or '(none)'}", *(ranked or ["the language model named no candidate"])])


def find_titles(task: SessionTask, told: str, what: str) -> list[int]:
    """The items that titles parted by semicolons name, each once; SettingError: none. DataError: one not there once."""
    names = [name.strip() for name in told.split(";") if name.strip()]
    if not names:
        raise SettingError(f'{what} must be titles parted by semicolons, got none; write "A; B; C"')
    titles = task.items["title"].to_list()
    index = TitleIndex(distinct_titles(titles))
    found: list[int] = []
    for name in names:
        match index.find_whole(normalised(name)):
            case Found(title=item):
                found.append(item)
            case why:
                near = difflib.get_close_matches(name, titles, n=NEAR_TITLES, cutoff=0.5)
                hint = f"did you mean {'; '.join(near)}?" if near else "look it up in the catalogue"
                raise DataError(f"{what}: {name!r} is {why.value} among {len(titles):,} titles; {hint}")
    return list(dict.fromkeys(found))
