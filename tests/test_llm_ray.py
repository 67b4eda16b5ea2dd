"""A language model on Ray's workers: what it writes, and what is left of a run that was killed."""

import fcntl
import shutil
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from fake_server import FakeServer
from recloop.errors import GenerationError, SettingError
from recloop.experiment.ray_jobs import RayConfig, do_jobs, num_workers
from recloop.llm import ray_lm, sampling
from recloop.llm.cache import CompletionCache, request_key
from recloop.llm.config import LmConfig
from recloop.llm.language_model import Sampling
from recloop.llm.load import lm_from_config
from recloop.llm.ray_lm import SHARD, SO_FAR, RayLM, recover
from recloop.llm.sampling import fill, sample_completions
from recloop.records import Prompt
from test_llm_cache import make_prompts
from tiny_lm import build_tiny_lm

SAMPLING = Sampling(num_completions=4, temperature=1.0, top_p=0.9, max_tokens=24, seed=0)
HERE = RayConfig(num_workers=2)


@pytest.fixture(scope="module")
def lm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayConfig]:
    ray = pytest.importorskip("ray")
    num_workers(HERE)
    yield HERE
    ray.shutdown()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CompletionCache]:
    with CompletionCache(tmp_path / "completions.sqlite") as opened:
        yield opened


def local(folder: Path) -> LmConfig:
    return LmConfig.model_validate({"name": f"transformers:{folder}"})


def behind(server: FakeServer, **pace: float) -> LmConfig:
    return LmConfig.model_validate({"name": f"openai:{server.base_url}#instant", "pace": pace})


def by_ray(config: LmConfig, folder: Path, shards: Path) -> RayLM:
    return RayLM(config, folder, HERE, shards)


@pytest.mark.slow
def test_workers_write_what_one_process_writes(cluster, lm_folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sampling, "CHUNK_COMPLETIONS", 16)  # four prompts
    config, lm = local(lm_folder), lm_from_config(local(lm_folder))
    prompts = make_prompts(range(30))
    twins = [replace(prompts[number], user=100 + number) for number in (0, 7, 29)]  # the same text about other users
    found = {}
    for engine in ("process", "ray"):
        with CompletionCache(tmp_path / f"{engine}.sqlite") as cache:
            some = replace(SAMPLING, num_completions=2)  # of a few prompts two are there, which makes other batches
            sample_completions(lm, prompts[3:8], some, cache)
            which = lm if engine == "process" else by_ray(config, lm_folder, tmp_path / "ray.shards")
            found[engine] = sample_completions(which, prompts + twins, SAMPLING, cache)
            assert cache.num_completions == 30 * 4
    assert found["ray"].completions_UN == found["process"].completions_UN  # log-probabilities to the last bit
    assert by_ray(config, lm_folder, tmp_path / "ray.shards").name == lm.name
    assert not (tmp_path / "ray.shards").exists()


def test_units_are_what_one_process_writes_at_once(lm_folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sampling, "CHUNK_COMPLETIONS", 16)
    lm, asked = lm_from_config(local(lm_folder)), []

    class Watched:
        name, count_tokens = lm.name, lm.count_tokens

        def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Generator:
            asked.append((sampling, list(prompts)))
            yield from lm.generate(prompts, sampling)

    prompts = make_prompts(range(30))
    prompts += [replace(prompts[number], user=100 + number) for number in (0, 7, 29)]
    ray_config = by_ray(local(lm_folder), lm_folder, tmp_path / "completions.shards")
    ray_config.__dict__["_name_in_a_worker"] = lm.name  # which a worker would say
    with CompletionCache(tmp_path / "one.sqlite") as cache:
        sample_completions(lm, prompts[3:8], replace(SAMPLING, num_completions=2), cache)
        units = list(sampling._units(ray_config, sampling._longest_first(prompts), SAMPLING, cache))
        sample_completions(Watched(), prompts, SAMPLING, cache)
    assert units == asked
    assert len(units) > 8


def test_many_prompts_are_ordered_in_parts(monkeypatch) -> None:
    prompts = make_prompts(range(30))
    whole = sampling._longest_first(prompts)
    monkeypatch.setattr(sampling, "ORDERED_TOGETHER", 8)
    parts = sampling._longest_first(prompts)
    assert whole != parts
    assert sorted(whole, key=lambda prompt: prompt.user) == sorted(parts, key=lambda prompt: prompt.user) == prompts
    assert parts[8:16] == sampling._longest_first(prompts[8:16])


@pytest.mark.slow
def test_what_goes_wrong_in_a_worker_is_told_as_it_is_here(cluster, cache, tmp_path) -> None:
    faults = ["401"]
    with FakeServer(lambda seen: faults[0]) as server:
        lm = by_ray(behind(server), Path("server"), tmp_path / "completions.shards")
        prompts, one = make_prompts(range(8)), replace(SAMPLING, num_completions=1)
        with pytest.raises(GenerationError, match=r"127\.0\.0\.1 takes no request .*; set lm\.pace\.api_key_env"):
            sample_completions(lm, prompts, one, cache)
        faults[0] = ""  # the key was set: the run goes on
        assert len(sample_completions(lm, prompts, one, cache).completions_UN) == 8


@pytest.mark.slow
def test_a_cluster_without_room_is_one_error(cluster) -> None:
    with pytest.raises(SettingError, match=r"ray.num_workers=3 needs as often 1000 CPUs and 0 GPUs, got a cluster of"):
        num_workers(RayConfig(num_workers=3, cpus_per_worker=1000))
    with pytest.raises(SettingError, match="1 GPUs, got a cluster of"):
        next(do_jobs(RayConfig(gpus_per_worker=1), None, []))


@pytest.mark.slow
def test_a_server_is_asked_by_all_workers_no_more_than_by_one_process(cluster, cache, tmp_path) -> None:
    with FakeServer(delay_s=0.02) as server:
        lm = by_ray(behind(server, max_concurrency=4), Path("server"), tmp_path / "completions.shards")
        prompts = make_prompts(range(80))
        found = sample_completions(lm, prompts, replace(SAMPLING, num_completions=1), cache, purpose="sample")
        assert server.most_open <= 4
        assert set(server.delivered().values()) == {1}
        again = sample_completions(lm.here, prompts, replace(SAMPLING, num_completions=1), cache)
        assert again.completions_UN == found.completions_UN
        assert len(server.seen) == cache.usage("sample").requests == 80


def half_written(lm: RayLM, prompts: Sequence[Prompt]) -> Path:
    """A unit of which its worker was killed midway; its path without a suffix."""

    def dies(own: object, asked: Sequence[Prompt], sampling: Sampling, so_far: CompletionCache, purpose: str) -> None:
        fill(own, asked[: len(asked) // 2], sampling, so_far, purpose)
        raise KeyboardInterrupt

    lm.shards.mkdir()
    name = ray_lm._ask(lm.shards, lm.name, (replace(SAMPLING, num_completions=1), prompts), "sample")
    with pytest.raises(KeyboardInterrupt):
        ray_lm._Writer(lm.config, lm.folder, lm.shards)((name, dies))
    return lm.shards / name


def test_what_a_killed_worker_had_is_not_asked_for_again(cache, tmp_path) -> None:
    with FakeServer() as server:
        lm = by_ray(behind(server), Path("server"), tmp_path / "completions.shards")
        prompts = make_prompts(range(10))
        unit = half_written(lm, prompts)
        assert unit.with_suffix(SO_FAR).exists()
        assert not unit.with_suffix(SHARD).exists()

        ray_lm._Writer(lm.config, lm.folder, lm.shards)((unit.name, fill))  # the worker that Ray starts in its place
        shard = pl.read_parquet(unit.with_suffix(SHARD))
        keys = [request_key(lm.name, prompt, replace(SAMPLING, num_completions=1)).hex() for prompt in prompts]
        assert sorted(shard["request"]) == sorted(keys)
        assert set(server.delivered().values()) == {1}
        assert len(server.seen) == 10
        assert list(lm.shards.glob(f"*{SO_FAR}*")) == []


def test_what_a_killed_run_had_is_not_asked_for_again(cache, tmp_path) -> None:
    with FakeServer() as server:
        lm = by_ray(behind(server), Path("server"), tmp_path / "completions.shards")
        prompts = make_prompts(range(10))
        half_written(lm, prompts)
        recover(cache)
        assert (cache.num_completions, cache.usage("sample").requests) == (5, 5)
        assert [path.name for path in lm.shards.iterdir()] == [".lock"]
        sample_completions(lm.here, prompts, replace(SAMPLING, num_completions=1), cache)
        assert len(server.seen) == cache.num_completions == 10


def test_a_worker_of_a_killed_run_writes_nothing_after_another_run_has_recovered(cache, tmp_path) -> None:
    with FakeServer() as server:
        lm = by_ray(behind(server), Path("server"), tmp_path / "completions.shards")
        unit = half_written(lm, make_prompts(range(10)))
        recover(cache)
        ray_lm._Writer(lm.config, lm.folder, lm.shards)((unit.name, fill))
        assert len(server.seen) == 5


def test_recovery_waits_until_no_worker_writes(cache, tmp_path) -> None:
    with FakeServer() as server:
        lm = by_ray(behind(server), Path("server"), tmp_path / "completions.shards")
        half_written(lm, make_prompts(range(10)))
        with ray_lm._held(lm.shards, fcntl.LOCK_SH):
            recovery = threading.Thread(target=lambda: ray_lm._held(lm.shards, fcntl.LOCK_EX).__enter__(), daemon=True)
            recovery.start()
            time.sleep(0.3)
            assert recovery.is_alive()
        recovery.join(timeout=5)
        assert not recovery.is_alive()


def test_a_shard_merged_twice_is_paid_once(cache, tmp_path) -> None:
    with FakeServer() as server:
        lm = by_ray(behind(server), Path("server"), tmp_path / "completions.shards")
        unit = half_written(lm, make_prompts(range(10)))
        ray_lm._settle(unit)
        shutil.copytree(lm.shards, tmp_path / "before")
        assert ray_lm._merge(unit, cache) == 5
        usage = cache.usage()
        assert ray_lm._merge(tmp_path / "before" / unit.name, cache) == 5  # as after a kill before it was removed
        assert cache.usage() == usage
        assert cache.num_completions == 5


def test_caps_that_several_processes_cannot_keep_are_refused(tmp_path) -> None:
    config = LmConfig.model_validate({"name": "openai:http://127.0.0.1:9/v1#m", "budget": {"max_requests": 5}})
    with pytest.raises(SettingError, match=r"lm\.budget is kept by one process"):
        by_ray(config, Path("server"), tmp_path)
