"""Rows without a language model, and the shuffled row: what a text must beat to be worth anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from recloop.methods.context import Loop, derived_seed
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.evaluate import (
    BEST_TEMPLATE,
    HISTORY_TEXT,
    ID_HISTORY,
    NO_TEXT,
    PUBLISHED_TEXT,
    SHUFFLED,
    STAR_MEAN,
    Scored,
    item_vectors,
    evaluate_variant,
)
from recloop.methods.dpo4rec.generate import (
    FIT,
    GROUPS,
    TEST,
    UserTextVectors,
    encode_user_texts,
    fixed_texts,
)
from recloop.prompts.claims import PopulationRates, true_claims, write_summary
from recloop.prompts.user_profile import PromptConfig, history_items, history_line
from recloop.records import Log, Group, Histories, UserVectors
from recloop.rerankers.fitted import FittedReranker
from recloop.rerankers.rating_mean import star_weighted_means


def evaluate_baselines(loop: Loop, task: Task, seed: int) -> list[Scored]:
    """The rows that need no language model, where all rows are wanted."""
    if loop.config.rows != "all":
        return []
    told = encode_user_texts(loop, fixed_texts(HISTORY_TEXT, history_texts(loop, task), task), seed)
    published = published_texts(loop, task)
    written = encode_user_texts(loop, fixed_texts(PUBLISHED_TEXT, published, task), seed) if published else None
    return [
        *evaluate_variant(loop, task, None, seed, NO_TEXT),
        *evaluate_variant(loop, task, None, seed, ID_HISTORY, use_id_history=True),
        *evaluate_variant(loop, task, star_means(loop, task), seed, STAR_MEAN),
        *evaluate_variant(loop, task, told, seed, HISTORY_TEXT),
        *([] if written is None else evaluate_variant(loop, task, written, seed, PUBLISHED_TEXT)),
        *best_template(loop, task, seed),
    ]


def history_texts(loop: Loop, task: Task) -> dict[int, str]:
    """Every user's history as the prompt shows it, newest first: what an encoder cuts is then the oldest."""
    lines_of = history_items(task.dataset, loop.config.prompt)
    histories, attributes = task.lists.histories, task.dataset.attributes
    return {
        user: "\n".join(history_line(attributes, item) for item in reversed(lines_of(*histories.of(user))))
        for user in task.prompts
    }


def published_texts(loop: Loop, task: Task) -> dict[int, str]:
    """The texts that came with the log; none when it brings none, or not for every user of a list."""
    if task.dataset.user_knowledge is None:
        return {}
    texts = dict(task.dataset.user_knowledge.select("user", "text").iter_rows())
    missing = [user for user in task.prompts if user not in texts]
    if missing:
        loop.progress.say(
            f"no row {PUBLISHED_TEXT}: {len(missing):,} of {len(task.prompts):,} users have no published text"
        )
        return {}
    return {user: texts[user] for user in task.prompts}


def star_means(loop: Loop, task: Task) -> UserTextVectors:
    """The star-weighted mean of the item vectors of every user's window."""
    vectors_ID = item_vectors(loop, task)

    def of(*groups: Group) -> UserVectors:
        return star_weighted_means(task.lists.histories, vectors_ID, task.users_of(*groups))

    digest = hashlib.sha256(vectors_ID.tobytes()).hexdigest()
    return UserTextVectors(STAR_MEAN, digest, {part: of(*GROUPS[part]) for part in (FIT, TEST)})


def best_template(loop: Loop, task: Task, seed: int) -> list[Scored]:
    """True claims about one attribute, or about all of them: per backbone, the template best on valid users."""
    attributes = task.dataset.attributes
    templates = {attribute: (attribute,) for attribute in attributes} | (
        {"all": attributes} if len(attributes) > 1 else {}
    )
    scored: list[Scored] = []
    for name, shown in templates.items():
        texts = fixed_texts(f"template_{name}", template_texts(loop, task, shown), task)
        scored += evaluate_variant(loop, task, encode_user_texts(loop, texts, seed), seed, texts.row)
    best: dict[str, Scored] = {}
    valid_ndcg: dict[str, float] = {}
    for candidate in scored:
        score = best_valid_ndcg(loop, candidate.stage)
        if score > valid_ndcg.get(candidate.ranker, -1.0):
            best[candidate.ranker], valid_ndcg[candidate.ranker] = candidate, score
    return [Scored(BEST_TEMPLATE, b.ranker, b.seed, b.stage, b.row) for b in best.values()]


def template_texts(loop: Loop, task: Task, attributes: tuple[str, ...]) -> dict[int, str]:
    """All that a user's history supports saying about these attributes, in the canonical form."""
    return supported_texts(
        task.dataset, task.lists.histories, task.prompts, loop.config.prompt, attributes, task.population_rates
    )


def supported_texts(
    dataset: Log,
    histories: Histories,
    users: Iterable[int],
    config: PromptConfig,
    attributes: Sequence[str],
    population_rates: PopulationRates | None = None,
) -> dict[int, str]:
    """For each user all claims about these attributes that the history supports, in the canonical form."""
    lines_of = history_items(dataset, config)
    texts: dict[int, str] = {}
    for user in users:
        claims = [c for c, _ in true_claims(dataset.attributes, lines_of(*histories.of(user)), population_rates)]
        texts[user] = write_summary([claim for claim in claims if claim.attribute in attributes], attributes)
    return texts


def best_valid_ndcg(loop: Loop, stage: str) -> float:
    """The valid score of the epoch an evaluator was kept at."""
    return max(epoch.valid_ndcg for epoch in FittedReranker.load(loop.run.folder(stage)).curve)


def evaluate_shuffled(loop: Loop, task: Task, vectors: UserTextVectors, seed: int) -> list[Scored]:
    """The same texts given to other users of the same group, evaluator refitted; not to make choices."""
    if loop.config.rows == "trained":
        return []
    rng = np.random.default_rng(derived_seed(seed, SHUFFLED))
    parts = {
        part: exchange_texts(vectors.parts[part], [task.users_of(group) for group in GROUPS[part]], rng)
        for part in (FIT, TEST)
    }
    shuffled = UserTextVectors(SHUFFLED, vectors.digest, parts)
    return evaluate_variant(loop, task, shuffled, seed, SHUFFLED)


def exchange_texts(vectors: UserVectors, groups: Sequence[np.ndarray], rng: np.random.Generator) -> UserVectors:
    """Every user of a group gets the texts of another user of that group."""
    row_U = np.arange(len(vectors.user_U))
    for users in groups:
        rows = vectors.rows_of(users)
        row_U[rows] = rows[derangement(len(rows), rng)]
    return UserVectors(vectors.user_U, vectors.vectors_UND[row_U])


def derangement(num: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation that leaves nothing in its place: one random cycle through all (`num` of at least 2)."""
    order = rng.permutation(num)
    places = np.empty(num, dtype=np.int64)
    places[order] = np.roll(order, 1)
    return places
