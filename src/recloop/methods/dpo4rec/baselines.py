"""Texts that no language model wrote: what a text must beat to be worth anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import SCORE, Reading, evaluate_each, load_reranker, write_scores
from recloop.methods.dpo4rec.generate import (
    FIT,
    GROUPS,
    TEST,
    UserTexts,
    UserTextVectors,
    encode_user_texts,
    fixed_texts,
)
from recloop.methods.dpo4rec.names import (
    AS_SHOWN,
    BEST_TEMPLATE,
    FIRST_STAGE,
    HISTORY_TEXT,
    ITEM_KNN,
    POPULARITY,
    PUBLISHED_TEXT,
    RATING_MEAN,
    Scored,
    Trained,
)
from recloop.methods.study import Study
from recloop.prompts.claims import PopulationRates, true_claims, write_summary
from recloop.prompts.lines import history_items, history_line
from recloop.records import Histories, Log
from recloop.rerankers.features import rating_weighted_means
from recloop.rerankers.protocol import Reranker


def history_texts(study: Study, task: Task, trained: Trained) -> UserTexts:  # noqa: ARG001
    """Every user's history as the prompt shows it, newest first: what an encoder cuts is then the oldest."""
    lines_of = history_items(task.log)
    histories, attributes = task.lists.histories, task.log.attributes
    texts = {
        user: "\n".join(history_line(attributes, item) for item in reversed(lines_of(*histories.of(user))))
        for user in task.prompts
    }
    return fixed_texts(HISTORY_TEXT, texts, task)


def published_texts(study: Study, task: Task, trained: Trained) -> UserTexts | None:  # noqa: ARG001
    """The texts that came with the log; None when it brings none, or not for every user of a list."""
    if task.log.user_knowledge is None:
        return None
    texts = dict(task.log.user_knowledge.select("user", "text").iter_rows())
    missing = [user for user in task.prompts if user not in texts]
    if missing:
        study.progress.say(
            f"no variant {PUBLISHED_TEXT}: {len(missing):,} of {len(task.prompts):,} users have no published text"
        )
        return None
    return fixed_texts(PUBLISHED_TEXT, {user: texts[user] for user in task.prompts}, task)


def rating_means(study: Study, task: Task, trained: Trained) -> UserTextVectors:  # noqa: ARG001
    """The rating-weighted mean of the item vectors of every user's window."""
    vectors_ID, histories = task.item_vectors(), task.lists.histories
    parts = {part: rating_weighted_means(histories, vectors_ID, task.users_of(*GROUPS[part])) for part in (FIT, TEST)}
    return UserTextVectors(RATING_MEAN, hashlib.sha256(vectors_ID.tobytes()).hexdigest(), parts)


def best_template(study: Study, task: Task, seed: int) -> list[Scored]:
    """True claims about one attribute, or about all of them: per backbone, the template best on valid users."""
    attributes = task.log.attributes
    templates = {attribute: (attribute,) for attribute in attributes}
    templates |= {"all": attributes} if len(attributes) > 1 else {}

    def reading(name: str, shown: Sequence[str]) -> Reading:
        said = supported_texts(task.log, task.lists.histories, task.prompts, shown, task.population_rates)
        texts = fixed_texts(f"template_{name}", said, task)
        return Reading(texts.variant, encode_user_texts(study, texts, seed))

    readings = (reading(name, shown) for name, shown in templates.items())
    scored = [row for rows in evaluate_each(study, task, seed, readings) for row in rows]
    best: dict[str, Scored] = {}
    valid_ndcg: dict[str, float] = {}
    for candidate in scored:
        score = best_valid_ndcg(study, candidate.step)
        if score > valid_ndcg.get(candidate.ranker, -1.0):
            best[candidate.ranker], valid_ndcg[candidate.ranker] = candidate, score
    return [Scored(BEST_TEMPLATE, b.ranker, b.seed, b.step, b.variant) for b in best.values()]


def supported_texts(
    log: Log,
    histories: Histories,
    users: Iterable[int],
    attributes: Sequence[str],
    population_rates: PopulationRates | None = None,
) -> dict[int, str]:
    """For each user all claims about these attributes that the history supports, in the canonical form."""
    lines_of = history_items(log)
    texts: dict[int, str] = {}
    for user in users:
        claims = [c for c, _ in true_claims(log.attributes, lines_of(*histories.of(user)), population_rates)]
        texts[user] = write_summary([claim for claim in claims if claim.attribute in attributes], attributes)
    return texts


def list_baselines(study: Study, task: Task, seed: int) -> list[Scored]:
    """Rankings of shown lists without training, in every backbone's table: as shown, first stage, popularity, kNN."""
    from recloop.rerankers.list_baselines import AsShown, FirstStage, ItemKnn, Popularity

    lists, num_items = task.lists, task.log.num_items
    rankers: dict[str, Reranker] = {
        AS_SHOWN: AsShown(),
        FIRST_STAGE: FirstStage(),
        POPULARITY: Popularity.fit(num_items, lists.histories, lists.train),
        ITEM_KNN: ItemKnn.fit(num_items, lists.histories, lists.train),
    }
    needed = {AS_SHOWN: ("positions", lists.test.position_BL), FIRST_STAGE: ("scores", lists.test.score_BL)}
    scored: list[Scored] = []
    for name, ranker in rankers.items():
        what, known_BL = needed.get(name, ("", lists.test.labels_BL))
        if known_BL is None or np.isnan(known_BL[lists.test.is_item_BL]).any():
            study.progress.say(f"no variant {name}: not every shown list of test users has {what}")
            continue
        with study.step(SCORE, f"{name}.s{seed}", {"lists": task.digest}) as step:
            rows = [Scored(name, backbone, seed, step.name, name) for backbone in study.config.backbones]
            if not step.is_done:
                write_scores(study, task, [ranker], None, rows[0], step.folder)
        scored += rows
    return scored


def best_valid_ndcg(study: Study, step: str) -> float:
    """The valid score of the epoch an evaluator was kept at."""
    return max(epoch.valid_ndcg for epoch in load_reranker(study, step).curve)
