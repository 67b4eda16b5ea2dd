"""KAR's protocol on MovieLens-1M, first with no language model at all.

The rating-weighted mean of item vectors replaces a user's text. It must help (`RATING_MEAN` above
`NO_TEXT`, `BOTH` above `ITEM_VECTORS`), and must not help after users exchanged it (`SHUFFLED` no better than
`NO_TEXT`). With ``--variants texts`` the same is measured for texts: those of the language model, exchanged ones, and
all claims that a history supports.

A list without a positive counts as 0, so means depend on the share of such lists. That share depends on the split of
users: from .127 to .151 over six splits. So compare variants within a split.
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
from recloop.encoders.load import EncoderConfig, encoder_from_config
from recloop.encoders.sentence import EncoderCache, encode_completions
from recloop.files import atomic_write_json
from recloop.llm.cache import CompletionCache
from recloop.llm.config import LmConfig
from recloop.llm.language_model import Sampling
from recloop.llm.load import lm_from_config
from recloop.llm.sampling import sample_completions
from recloop.methods.dpo4rec.ablations import exchange_texts
from recloop.methods.dpo4rec.baselines import supported_texts
from recloop.progress import SILENT, Progress
from recloop.prompts.user_profile import PromptConfig, population_rates_of, profile_writer
from recloop.records import Completion, Group, UserCompletions
from recloop.rerankers.config import RerankerConfig
from recloop.rerankers.features import item_features, item_texts, rating_weighted_means, tfidf_vectors
from recloop.rerankers.metrics import compute_metric
from recloop.rerankers.train import FitData, fit_network

if TYPE_CHECKING:
    from jaxtyping import Float32

    from recloop.records import CandidateLists, Log, UserVectors
    from recloop.rerankers.features import ItemFeatures

NO_TEXT, ITEM_VECTORS = "no text", "item vectors"
RATING_MEAN, BOTH, SHUFFLED = "rating-weighted mean", "mean and item vectors", "shuffled mean"
TEXT, SHUFFLED_TEXT, SUPPORTED = "text", "shuffled text", "all that is supported"
METRICS = ("ndcg@5", "map@5", "map_kar@5")


class ReproductionConfig(BaseModel):
    """Where MovieLens-1M is, and which variants are fitted on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_path: Path = Field(description="the ml-1m folder; metadata and item knowledge are found beside it")
    users: int | None = Field(default=None, ge=20, description="keep this many users only; None for all")
    seeds: tuple[int, ...] = Field(
        default=(0,), min_length=1, description="each has its own split, lists, weights and shuffle"
    )
    variants: Literal["vectors", "texts", "all"] = Field(
        default="vectors", description="vectors: no language model; texts: one completion a user, encoded"
    )
    lm: LmConfig = Field(default=LmConfig(), description="writes the texts")
    encoder: EncoderConfig = Field(default=EncoderConfig(), description="encodes them")
    prompt: PromptConfig = Field(default=PromptConfig(), description="histories in words")
    vector_width: int = Field(default=128, ge=2, description="TF-IDF components of an item")
    reranker: RerankerConfig = Field(
        default=RerankerConfig(kind="prm", max_epochs=5),
        description="of all variants; each sets use_item_knowledge",
    )


@dataclass(frozen=True, slots=True)
class ReproducedVariant:
    """The numbers of one fit. Means are over test lists, where one without a positive counts as 0, as in KAR's code."""

    name: str
    seed: int
    means: dict[str, float]
    empty_share: float
    epochs: int
    fit_wall_s: float
    lists_per_s: float


def run_reproduction(config: ReproductionConfig, out: Path, progress: Progress = SILENT) -> str:
    """The table of every variant under every seed; ``reproduction.json`` in `out` has its numbers.

    Raises:
        DataError: the folder does not hold MovieLens-1M.
    """
    fitted: list[ReproducedVariant] = []
    out.mkdir(parents=True, exist_ok=True)
    for seed in config.seeds:
        dataset = read_log(DataConfig(name="ml-1m", path=config.data_path, users=config.users), seed)
        groups = split_users(dataset.num_users, REPRODUCTION, seed)
        lists = build_lists(dataset, groups, ProtocolConfig(), seed)
        vectors_ID = tfidf_vectors(item_texts(dataset), config.vector_width, seed)
        features = item_features(dataset, vectors_ID)
        inputs: dict[str, UserVectors | None] = {}
        if config.variants != "texts":
            inputs |= _vectors_by_variant(dataset, lists, vectors_ID, seed)
        if config.variants != "vectors":
            inputs |= _texts_by_variant(config, dataset, lists, out, seed, progress)
        for name, vectors in inputs.items():
            reranker = config.reranker.model_copy(update={"use_item_knowledge": name in (ITEM_VECTORS, BOTH)})
            fitted.append(_fit_variant(name, reranker, features, lists, vectors, seed, progress))
            progress.say(f"seed {seed}, {name}: ndcg@5 {fitted[-1].means['ndcg@5']:.4f}")
    about = {"config": config.model_dump(mode="json"), "variants": [asdict(one) for one in fitted]}
    atomic_write_json(out / "reproduction.json", about)
    return reproduction_table(fitted)


def _vectors_by_variant(
    dataset: Log, lists: CandidateLists, vectors_ID: Float32[np.ndarray, "I D"], seed: int
) -> dict[str, UserVectors | None]:
    """The vectors that replace the users' texts in each variant; means are exchanged within a group only."""
    means = rating_weighted_means(lists.histories, vectors_ID, np.arange(dataset.num_users))
    shuffled = exchange_texts(means, _users_of_groups(lists), np.random.default_rng(seed))
    return {NO_TEXT: None, RATING_MEAN: means, SHUFFLED: shuffled, ITEM_VECTORS: None, BOTH: means}


def _texts_by_variant(
    config: ReproductionConfig,
    dataset: Log,
    lists: CandidateLists,
    out: Path,
    seed: int,
    progress: Progress,
) -> dict[str, UserVectors]:
    """The vectors of one completion per user, of the same exchanged within groups, and of texts written by a rule."""
    users = np.concatenate(_users_of_groups(lists))
    users.sort()
    lm, encoder = lm_from_config(config.lm), encoder_from_config(config.encoder)
    population_rates = population_rates_of(dataset, lists.histories, np.unique(lists.train.user_B), config.prompt)
    write = profile_writer(dataset, config.prompt, lm, population_rates)
    prompts = [write(user, *lists.histories.of(user)) for user in users.tolist()]
    sampling = Sampling(1, config.lm.temperature, config.lm.top_p, config.lm.max_tokens, seed)
    with CompletionCache(out / "completions.sqlite") as cache:
        completions = sample_completions(lm, prompts, sampling, cache, progress)
    texts = supported_texts(dataset, lists.histories, users.tolist(), dataset.attributes, population_rates)
    by_rule = UserCompletions(
        users, tuple((Completion(u, 0, texts[u], 0, True, float("nan")),) for u in users.tolist())
    )
    with EncoderCache(out / "vectors.sqlite") as vector_cache:
        written, supported = (
            encode_completions(encoder, each, vector_cache, progress) for each in (completions, by_rule)
        )
    shuffled = exchange_texts(written, _users_of_groups(lists), np.random.default_rng(seed))
    return {TEXT: written, SHUFFLED_TEXT: shuffled, SUPPORTED: supported}


def _users_of_groups(lists: CandidateLists) -> list[np.ndarray]:
    return [np.unique(lists.of(group).user_B) for group in (Group.TRAIN, Group.VALID, Group.TEST)]


def _fit_variant(
    name: str,
    config: RerankerConfig,
    features: ItemFeatures,
    lists: CandidateLists,
    vectors: UserVectors | None,
    seed: int,
    progress: Progress,
) -> ReproducedVariant:
    start_s = time.perf_counter()
    reranker = fit_network(
        config, FitData(features, lists.histories, lists.train, lists.valid, vectors), seed, progress
    )
    wall_s = time.perf_counter() - start_s
    scores_BL = reranker.score(lists.test, vectors)[:, 0]
    values = {metric: compute_metric(metric, scores_BL, lists.test) for metric in METRICS}
    return ReproducedVariant(
        name=name,
        seed=seed,
        means={metric: float(np.nan_to_num(values_B).mean()) for metric, values_B in values.items()},
        empty_share=float(np.isnan(values[METRICS[0]]).mean()),
        epochs=len(reranker.curve),
        fit_wall_s=wall_s,
        lists_per_s=len(reranker.curve) * len(lists.train) / wall_s,
    )


def reproduction_table(fitted: list[ReproducedVariant]) -> str:
    """Means over test lists, a line per variant and seed, and the mean over seeds when there are several."""
    head = "".join(f"{metric:>11}" for metric in METRICS)
    lines = [
        "Means over test lists; lists without a positive count as 0.",
        f"{'variant':<23}{'seed':>5}{head}{'empty':>8}{'epochs':>8}{'lists/s':>9}",
    ]
    for name in dict.fromkeys(one.name for one in fitted):
        own = [one for one in fitted if one.name == name]
        for one in own:
            values = "".join(f"{one.means[metric]:>11.4f}" for metric in METRICS)
            lines.append(
                f"{name:<23}{one.seed:>5}{values}{one.empty_share:>8.3f}{one.epochs:>8}{one.lists_per_s:>9,.0f}"
            )
        if len(own) > 1:
            means = "".join(f"{np.mean([one.means[metric] for one in own]):>11.4f}" for metric in METRICS)
            lines.append(f"{name:<23}{'mean':>5}{means}")
    return "\n".join(lines)
