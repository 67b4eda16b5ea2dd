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
from recloop.methods.re2llm.data import VECTORS_FILE, ask, clean_items, open_study, readable_sessions
from recloop.methods.re2llm.hint_base import read_hint_base
from recloop.methods.re2llm.policies import POLICY
from recloop.methods.re2llm.reflection import HINTS
from recloop.progress import SILENT
from recloop.prompts.next_item import SessionText, next_item_text, parse_ranking, with_distinct_titles
from recloop.prompts.title_match import Found, TitleIndex, distinct_titles, normalised
from recloop.prompts.user_profile import NOUNS, history_line
from recloop.rerankers.session_baselines import likely_next
from recloop.training.hint_policy import load_policy

NEAR_TITLES = 3


def recommend(
    config: Re2llmConfig,
    folder: RunFolder,
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
    study = open_study(config, folder, SILENT, None, lm, encoder)
    policy_stage = f"train.s{config.seeds[0]}"
    if not folder.is_done(policy_stage):
        raise RunError(f"{folder.path} has no policy yet ({policy_stage}); finish with: recloop resume {folder.path}")
    task, _ = readable_sessions(study)
    items = clean_items(task, config)
    shown = find_titles(task, session, "--session")
    num = len(task.test[0].candidates)
    offered = find_titles(task, candidates, "--candidates") if candidates else likely_next(task, shown, num)
    text = SessionText(
        NOUNS[task.domain],
        task.attributes,
        tuple(items[i] for i in shown),
        with_distinct_titles([items[i] for i in offered]),
    )
    lines = [history_line(task.attributes, items[i]) for i in shown]
    with EncoderCache(folder.path / VECTORS_FILE) as cache:
        state_1D = encode_texts(study.open_encoder(), lines, cache).mean(axis=0, keepdims=True)
    base = read_hint_base(folder.folder("explore") / HINTS)
    policy = folder.folder(policy_stage) / POLICY  # absent where exploration left no hint
    number = int(load_policy(policy).choose(state_1D.astype(np.float64))[0]) if policy.is_file() else 0
    hint, num_ranked = base.texts[number], config.question.num_ranked
    answer = ask(study, {0: next_item_text(text, hint, num_ranked)}, "ask")[0]
    ranking = parse_ranking(answer.text, [item.title for item in text.candidates], num_ranked)
    titles = task.items["title"].to_list()
    ranked = [f"{place}. {titles[offered[p]]}" for place, p in enumerate(ranking.places, 1)]
    return "\n".join([f"hint: {hint or '(none)'}", *(ranked or ["the language model named no candidate"])])


def find_titles(task: SessionTask, told: str, flag: str) -> list[int]:
    """The items that titles parted by semicolons name, each once.

    Raises:
        SettingError: no title. DataError: one that the catalogue does not have, or has twice.
    """
    names = [name.strip() for name in told.split(";") if name.strip()]
    if not names:
        raise SettingError(f'{flag} wants titles parted by semicolons, got none; write {flag} "A; B; C"')
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
                raise DataError(f"{flag}: {name!r} is {why.value} among {len(titles):,} titles; {hint}")
    return list(dict.fromkeys(found))
