"""A ReRec model as a plain recommender: what comes next in a test user's history, beside three baselines.

No model is trained on this. The baselines learn from the whole histories of train and reward users.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recloop.data.sessions import Session, SessionConfig, SessionTask, cut_sessions, draw_candidates
from recloop.data.splits import user_groups
from recloop.errors import DataError
from recloop.evaluation.per_user_scores import VariantScores
from recloop.evaluation.score import MetricsConfig, chance_scores, variant_from_ranks
from recloop.experiment.step import StepKind
from recloop.files import atomic_write_json
from recloop.llm.cache import CompletionCache
from recloop.llm.chat import chat_tokens
from recloop.llm.language_model import Sampling
from recloop.llm.sampling import sample_completions
from recloop.methods.rerec.data import RequestStudy, RequestTask
from recloop.methods.study import COMPLETIONS_FILE, LmRef, derived_seed
from recloop.prompts.claims import HistoryItem
from recloop.prompts.lines import NOUNS, clean_item
from recloop.prompts.next_item import SYSTEM, SessionText, next_item_text, parse_ranking, with_distinct_titles
from recloop.records import Group, Prompt
from recloop.rerankers.metrics import NOT_RANKED
from recloop.rerankers.session_baselines import baseline_ranks

NUM_RANKED = 10
NUM_SHOWN = 10  # items of each history, the latest before the last
NEXT_METRICS = MetricsConfig(names=("hr@1", "ndcg@10"), empty="zero", mean="user")
RANKS = "ranks.json"


SAMPLE_NEXT = StepKind("sample", reads=("next_item", "grpo.max_prompt_tokens"), part="next")
NEXT_BASELINES = StepKind("sample", reads=("next_item", "seeds"), part="next.baselines")


def cut_histories(study: RequestStudy, task: RequestTask) -> SessionTask | None:
    """One session a user, of as many test users as asked for, None for 0; DataError: no history is long enough."""
    config, dataset = study.config, task.dataset
    if not config.next_item.users:
        return None
    settings = SessionConfig(cut="user", max_items=NUM_SHOWN)
    groups = user_groups(dataset, config.split, config.data_seed)
    cut = {one.user: one for one in cut_sessions(dataset, settings)}
    rng = np.random.default_rng([config.data_seed, 0x4E])
    able = np.intersect1d(groups[Group.TEST], list(cut))
    if not len(able):
        raise DataError(
            f"next items need test users with more than {settings.min_items} interactions, got none; "
            f"set next_item.users to 0"
        )
    tested = np.sort(rng.permutation(able)[: config.next_item.users])
    fitted = np.intersect1d(np.concatenate([groups[Group.TRAIN], groups[Group.REWARD]]), list(cut))

    def session(user: int) -> Session:
        *shown, answer = cut[user].items
        drawn = draw_candidates(shown, answer, dataset.num_items, config.requests.num_candidates, rng)
        return Session(user, cut[user].time, tuple(shown), answer, drawn)

    return SessionTask(
        dataset.name,
        dataset.domain,
        dataset.items.select("item", "item_id", "title", *dataset.attributes),
        dataset.attributes,
        tuple(map(session, fitted.tolist())),
        tuple(map(session, tested.tolist())),
        user_ids=tuple(dataset.users["user_id"].to_list()),
    )


def fitting_text(study: RequestStudy, task: SessionTask, session: Session) -> SessionText:
    """What a session's prompt shows, without the oldest items that would make it too long."""
    lm = study.open_lm(study.first_lm.folder)

    def lines(items: Sequence[int]) -> list[HistoryItem]:
        rows = task.items[list(items)].select("title", *task.attributes).iter_rows()
        return [clean_item(title, values) for title, *values in rows]

    offered = with_distinct_titles(lines(session.candidates))
    text = SessionText(NOUNS[task.domain], task.attributes, tuple(lines(session.items)), offered)
    budget = study.config.grpo.max_prompt_tokens - chat_tokens(lm) - lm.count_tokens(SYSTEM)
    while len(text.shown) > 1 and lm.count_tokens(next_item_text(text, "", NUM_RANKED)) > budget:
        text = replace(text, shown=text.shown[1:])
    return text


def rank_next(study: RequestStudy, task: SessionTask | None, lm: LmRef, seed: int) -> str | None:
    """The model's rank of every test user's last item, at temperature 0; the step that holds them."""
    if task is None:
        return None
    inputs = {"lm": lm.digest, "requests": study.run.digest("prepare")}
    with study.step(SAMPLE_NEXT, f"next.{lm.label}.s{seed}", inputs) as step:
        if not step.is_done:
            texts = [fitting_text(study, task, session) for session in task.test]
            prompts = [
                Prompt(number, SYSTEM, next_item_text(text, "", NUM_RANKED), len(text.shown), 0)
                for number, text in enumerate(texts)
            ]
            sampling = Sampling(1, 0.0, 1.0, study.config.lm.max_tokens, 0)
            with CompletionCache(study.run.path / COMPLETIONS_FILE) as cache:
                completions = sample_completions(study.open_lm(lm.folder), prompts, sampling, cache, study.progress)
            ranks: list[int] = []
            for text, session, row in zip(texts, task.test, completions.completions_UN, strict=True):
                titles = [item.title for item in text.candidates]
                ranking = parse_ranking(row[0].text, titles, NUM_RANKED)
                ranks.append(ranking.rank_of(session.answer_place) or NOT_RANKED)
            atomic_write_json(step.folder / RANKS, ranks)
            step.note(tokens=sum(row[0].num_tokens for row in completions.completions_UN))
            step.log({"next": lm.label, "seed": seed, "hr@1": float(np.mean(np.array(ranks) == 1))})
    return step.name


def rank_by_baselines(study: RequestStudy, task: SessionTask) -> dict[str, dict[int, np.ndarray]]:
    """By baseline and seed: the rank of every test user's last item."""
    from recloop.rerankers.sasrec import sasrec_ranks

    seeds = study.config.seeds
    with study.step(NEXT_BASELINES, "next.baselines", {"requests": study.run.digest("prepare")}) as step:
        if not step.is_done:
            sasrec = {seed: sasrec_ranks(task, derived_seed(seed, "sasrec")).tolist() for seed in seeds}
            atomic_write_json(step.folder / RANKS, {str(seed): ranks for seed, ranks in sasrec.items()})
    sasrec = json.loads((study.run.folder(step.name) / RANKS).read_text(encoding="utf-8"))
    return baseline_ranks(task, {seed: np.array(sasrec[str(seed)], dtype=np.int64) for seed in seeds})


def next_item_scores(study: RequestStudy, task: SessionTask, steps: dict[tuple[str, int], str]) -> list[VariantScores]:
    """The scores of the baselines, then of every language model by what `rank_next` gave for a variant and seed."""
    ranks = rank_by_baselines(study, task)
    for (name, seed), step in steps.items():
        stored = json.loads((study.run.folder(step) / RANKS).read_text(encoding="utf-8"))
        ranks.setdefault(name, {})[seed] = np.array(stored, dtype=np.int64)
    user_S = np.array([session.user for session in task.test], dtype=np.int64)
    num_S = np.array([len(session.candidates) for session in task.test], dtype=np.int64)
    chance = chance_scores(num_S, study.config.seeds, user_S, NEXT_METRICS)
    return [chance, *(variant_from_ranks(name, by_seed, user_S, NEXT_METRICS) for name, by_seed in ranks.items())]
