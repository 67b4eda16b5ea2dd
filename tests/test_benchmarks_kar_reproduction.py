"""The reproduction on a sample of the real log: every variant and its numbers."""

import json
import sqlite3
from contextlib import closing

import pytest

from benchmarks.kar_reproduction.bench import (
    ReproducedVariant,
    ReproductionConfig,
    reproduction_table,
    run_reproduction,
)
from recloop.encoders.load import EncoderConfig
from recloop.rerankers.config import RerankerConfig


@pytest.mark.slow
def test_every_variant_is_measured_on_the_same_lists_and_better_than_chance(shared_data, tmp_path):
    config = ReproductionConfig(
        data_path=shared_data / "ml-1m",
        users=300,
        vector_width=16,
        reranker=RerankerConfig(kind="prm", max_epochs=2, min_epoch_steps=1),
    )
    table = run_reproduction(config, tmp_path)
    variants = json.loads((tmp_path / "reproduction.json").read_text())["variants"]
    names = ["no text", "rating-weighted mean", "shuffled mean", "item vectors", "mean and item vectors"]
    assert [one["name"] for one in variants] == names
    assert all(name in table for name in names)
    assert len({one["empty_share"] for one in variants}) == 1
    # 2.2 of 10 items are positive: chance puts NDCG@5 of a list with a positive near .35
    floor = 0.35 * (1 - variants[0]["empty_share"])
    assert all(floor + 0.05 < one["means"]["ndcg@5"] < 1 - one["empty_share"] for one in variants)


@pytest.mark.slow
def test_texts_are_measured_as_vectors_are_and_written_once(shared_data, tmp_path):
    config = ReproductionConfig(
        data_path=shared_data / "ml-1m",
        users=60,
        variants="texts",
        encoder=EncoderConfig(name="static"),
        reranker=RerankerConfig(kind="dlcm", max_epochs=1, min_epoch_steps=1),
    )
    first = run_reproduction(config, tmp_path)
    variants = json.loads((tmp_path / "reproduction.json").read_text())["variants"]
    assert [one["name"] for one in variants] == ["text", "shuffled text", "all that is supported"]
    assert len({one["means"]["ndcg@5"] for one in variants}) == 3  # three different things were read
    with closing(sqlite3.connect(tmp_path / "completions.sqlite")) as cache, cache:
        completions = cache.execute("select count(*), count(distinct text) from completions").fetchone()
    assert completions[0] == 60
    assert completions[1] > 40
    again = run_reproduction(config, tmp_path)
    assert [line.split()[:-1] for line in again.splitlines()] == [line.split()[:-1] for line in first.splitlines()]


def test_the_table_adds_the_mean_over_seeds():
    fitted = [
        ReproducedVariant("no text", seed, {"ndcg@5": v, "map@5": v, "map_kar@5": v}, 0.1, 5, 60.0, 9000.0)
        for seed, v in enumerate((0.5, 0.6))
    ]
    last = reproduction_table(fitted).splitlines()[-1].split()
    assert last[-4:] == ["mean", "0.5500", "0.5500", "0.5500"]
