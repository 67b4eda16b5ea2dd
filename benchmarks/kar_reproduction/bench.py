"""KAR's protocol on MovieLens-1M, first with no language model at all.

The star-weighted mean of item vectors stands in for a user's text. It must help (`STAR_MEAN` above
`NO_TEXT`, `BOTH` above `ITEM_VECTORS`), and must not once users have exchanged it (`SHUFFLED` no better
than `NO_TEXT`). With ``--rows texts`` the same for texts: those of the language model, exchanged
ones, and all that a history supports saying.

The mean over lists in which a list without a positive counts as 0 moves with the share of such lists, and
that share moves with the split of users: from .127 to .151 over six splits. Compare rows within a split.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recloop.data.lists import ProtocolConfig, build_lists
from recloop.data.load import DataConfig, read_log
from recloop.data.splits import REPRODUCTION, split_users
from recloop.encoders.config import EncoderConfig
from recloop.encoders.load import encoder_from_config
from recloop.encoders.sentence import EncoderCache, encode_completions
from recloop.files import atomic_write_json
from recloop.llm.cache import CompletionCache
from recloop.llm.chat import chat_tokens
from recloop.llm.config import LmConfig
from recloop.llm.language_model import Sampling
from recloop.llm.load import lm_from_config
from recloop.llm.sampling import sample_completions
from recloop.methods.dpo4rec.baselines import exchange_texts, supported_texts
from recloop.progress import SILENT, Progress
from recloop.prompts.user_profile import PromptConfig, build_prompts, population_rates_of
from recloop.records import Completion, Group, UserCompletions
from recloop.rerankers.config import RerankerConfig
from recloop.rerankers.features import item_features
from recloop.rerankers.item_vectors import item_texts, tfidf_vectors
from recloop.rerankers.metrics import compute_metric, list_mean
from recloop.rerankers.rating_mean import rating_weighted_means
from recloop.rerankers.train import FitData, fit_network

if TYPE_CHECKING:
    from jaxtyping import Float32

    from recloop.records import CandidateLists, Log, UserVectors
    from recloop.rerankers.features import ItemFeatures

NO_TEXT, ITEM_VECTORS = "no knowledge", "item vectors"
STAR_MEAN, BOTH, SHUFFLED = "star-weighted mean", "mean and item vectors", "shuffled mean"
TEXT, SHUFFLED_TEXT, SUPPORTED = "text", "shuffled text", "all that is supported"
METRICS = ("ndcg@5", "map@5", "map_kar@5")


class ReproductionConfig(BaseModel):
    """Where MovieLens-1M is, and what is fitted on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_path: Path = Field(description="the ml-1m folder; metadata and item knowledge are found beside it")
    users: int | None = Field(default=None, ge=20, description="keep this many users only; None for all")
    seeds: tuple[int, ...] = Field(
        default=(0,), min_length=1, description="each a split, lists, weights and shuffle of its own"
    )
    rows: Literal["vectors", "texts", "all"] = Field(
        default="vectors", description="vectors: no language model; texts: one completion a user, encoded"
    )
    lm: LmConfig = Field(default=LmConfig(), description="writes the texts")
    encoder: EncoderConfig = Field(default=EncoderConfig(), description="encodes them")
    prompt: PromptConfig = Field(default=PromptConfig(), description="histories in words")
    vector_width: int = Field(default=128, ge=2, description="TF-IDF components of an item")
    reranker: RerankerConfig = Field(
        default=RerankerConfig(kind="prm", max_epochs=5),
        description="of all rows; use_item_knowledge is set by each",
    )


@dataclass(frozen=True, slots=True)
class ReproducedRow:
    """One fit. Means are over test lists, those without a positive counting as 0, as in KAR's code."""

    row: str
    seed: int
    means: dict[str, float]
    empty_share: float
    epochs: int
    fit_wall_s: float
    lists_per_s: float


def run_reproduction(config: ReproductionConfig, out: Path, progress: Progress = SILENT) -> str:
    """Fit every row under every seed; write ``reproduction.json`` into `out` and return the table.

    Raises:
        DataError: the folder does not hold MovieLens-1M.
    """
    rows: list[ReproducedRow] = []
    out.mkdir(parents=True, exist_ok=True)
    for seed in config.seeds:
        dataset = read_log(DataConfig(name="ml-1m", path=config.data_path, users=config.users), seed)
        groups = split_users(dataset.num_users, REPRODUCTION, seed)
        lists = build_lists(dataset, groups, ProtocolConfig(), seed)
        vectors_ID = tfidf_vectors(item_texts(dataset), config.vector_width, seed)
        features = item_features(dataset, vectors_ID)
        stand_ins: dict[str, UserVectors | None] = {}
        if config.rows != "texts":
            stand_ins |= _vectors_of_rows(dataset, lists, vectors_ID, seed)
        if config.rows != "vectors":
            stand_ins |= _texts_of_rows(config, dataset, lists, out, seed, progress)
        for name, vectors in stand_ins.items():
            reranker = config.reranker.model_copy(update={"use_item_knowledge": name in (ITEM_VECTORS, BOTH)})
            rows.append(_fit_row(name, reranker, features, lists, vectors, seed, progress))
            progress.say(f"seed {seed}, {name}: ndcg@5 {rows[-1].means['ndcg@5']:.4f}")
    about = {"config": config.model_dump(mode="json"), "rows": [asdict(row) for row in rows]}
    atomic_write_json(out / "reproduction.json", about)
    return reproduction_table(rows)


def _vectors_of_rows(
    dataset: Log, lists: CandidateLists, vectors_ID: Float32[np.ndarray, "I D"], seed: int
) -> dict[str, UserVectors | None]:
    """What stands in for the users' texts in each row; means change hands within a group only."""
    means = rating_weighted_means(lists.histories, vectors_ID, np.arange(dataset.num_users))
    shuffled = exchange_texts(means, _users_of_groups(lists), np.random.default_rng(seed))
    return {NO_TEXT: None, STAR_MEAN: means, SHUFFLED: shuffled, ITEM_VECTORS: None, BOTH: means}


def _texts_of_rows(
    config: ReproductionConfig,
    dataset: Log,
    lists: CandidateLists,
    out: Path,
    seed: int,
    progress: Progress,
) -> dict[str, UserVectors]:
    """One completion of every user, the same exchanged within groups, and what a rule would have written."""
    users = np.concatenate(_users_of_groups(lists))
    users.sort()
    lm, encoder = lm_from_config(config.lm), encoder_from_config(config.encoder)
    population_rates = population_rates_of(dataset, lists.histories, np.unique(lists.train.user_B), config.prompt)
    prompts = build_prompts(
        dataset, lists.histories, users, config.prompt, lm.count_tokens, population_rates, chat_tokens(lm)
    )
    sampling = Sampling(1, config.lm.temperature, config.lm.top_p, config.lm.max_tokens, seed)
    with CompletionCache(out / "completions.sqlite") as cache:
        completions = sample_completions(lm, prompts, sampling, cache, progress)
    texts = supported_texts(
        dataset, lists.histories, users.tolist(), config.prompt, dataset.attributes, population_rates
    )
    told = UserCompletions(users, tuple((Completion(u, 0, texts[u], 0, True, float("nan")),) for u in users.tolist()))
    with EncoderCache(out / "vectors.sqlite") as vector_cache:
        written, supported = (encode_completions(encoder, each, vector_cache, progress) for each in (completions, told))
    shuffled = exchange_texts(written, _users_of_groups(lists), np.random.default_rng(seed))
    return {TEXT: written, SHUFFLED_TEXT: shuffled, SUPPORTED: supported}


def _users_of_groups(lists: CandidateLists) -> list[np.ndarray]:
    return [np.unique(lists.of(group).user_B) for group in (Group.TRAIN, Group.VALID, Group.TEST)]


def _fit_row(
    name: str,
    config: RerankerConfig,
    features: ItemFeatures,
    lists: CandidateLists,
    vectors: UserVectors | None,
    seed: int,
    progress: Progress,
) -> ReproducedRow:
    start_s = time.perf_counter()
    reranker = fit_network(
        config, FitData(features, lists.histories, lists.train, lists.valid, vectors), seed, progress
    )
    wall_s = time.perf_counter() - start_s
    scores_BL = reranker.score(lists.test, vectors)[:, 0]
    values = {metric: compute_metric(metric, scores_BL, lists.test) for metric in METRICS}
    return ReproducedRow(
        row=name,
        seed=seed,
        means={metric: list_mean(values_B, "zero") for metric, values_B in values.items()},
        empty_share=float(np.isnan(values[METRICS[0]]).mean()),
        epochs=len(reranker.curve),
        fit_wall_s=wall_s,
        lists_per_s=len(reranker.curve) * len(lists.train) / wall_s,
    )


def reproduction_table(rows: list[ReproducedRow]) -> str:
    """Means over test lists, one line per row and seed, and the mean over seeds when there are several."""
    head = "".join(f"{metric:>11}" for metric in METRICS)
    lines = [
        "Means over test lists; lists without a positive count as 0.",
        f"{'row':<23}{'seed':>5}{head}{'empty':>8}{'epochs':>8}{'lists/s':>9}",
    ]
    for name in dict.fromkeys(row.row for row in rows):
        own = [row for row in rows if row.row == name]
        for row in own:
            values = "".join(f"{row.means[metric]:>11.4f}" for metric in METRICS)
            lines.append(
                f"{name:<23}{row.seed:>5}{values}{row.empty_share:>8.3f}{row.epochs:>8}{row.lists_per_s:>9,.0f}"
            )
        if len(own) > 1:
            means = "".join(f"{np.mean([row.means[metric] for row in own]):>11.4f}" for metric in METRICS)
            lines.append(f"{name:<23}{'mean':>5}{means}")
    return "\n".join(lines)
