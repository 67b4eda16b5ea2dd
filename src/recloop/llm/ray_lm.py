"""A language model on the workers of a Ray cluster, and the files through which it is asked.

Prompts are cut into units. Of each there is a file with what is asked, then one with the answers so far, a completion
cache of its own, and at its end a shard: Parquet, a row per completion, with the completion cache's keys. Shards are
merged into the run's cache as they come. So a worker, a machine or the run itself may be killed: what had arrived is in
one of these files, and whoever goes on with the unit asks for the rest.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl

from recloop.artifacts import rows_of, rows_table
from recloop.errors import ContractError, SettingError
from recloop.experiment.ray_jobs import RayConfig, Work, do_jobs, num_workers
from recloop.files import atomic_write_bytes, fsync, remove_folder
from recloop.llm.cache import CompletionCache, request_key
from recloop.llm.chat import load_tokenizer, render_prompt, token_counter
from recloop.llm.config import LmConfig
from recloop.llm.language_model import LanguageModel, Sampling
from recloop.llm.load import lm_from_config
from recloop.llm.server.config import PaceConfig
from recloop.llm.server.cost import BudgetConfig, Usage
from recloop.progress import SILENT, Progress, Step
from recloop.records import Completion, Prompt

ASKED, SO_FAR, SHARD, LOCK = ".json", ".sqlite", ".parquet", ".lock"
Unit = tuple[Sampling, Sequence[Prompt]]  # prompts in the order in which they are to be written, each once
# Writes what a cache lacks of some prompts into it, and books a server's cost under the purpose.
Fill = Callable[[LanguageModel, Sequence[Prompt], Sampling, CompletionCache, str], None]


@dataclass(frozen=True)
class RayLM:
    """A language model that workers hold; `recloop.llm.sampling.sample_completions` has them write.

    config: of the model, which each worker opens, or of the server that each asks.
    folder: of its weights, under the same path on all machines.
    ray: the cluster.
    shards: `shards_of` the cache that it is sampled into, on a disk that all machines share; there while they write.

    Raises:
        SettingError: caps on what a server may cost, which only one process can keep.
    """

    config: LmConfig
    folder: Path
    ray: RayConfig
    shards: Path

    def __post_init__(self) -> None:
        if self.config.budget != BudgetConfig():
            raise SettingError(
                "lm.budget is kept by one process, got caps with engine=ray; set them at the provider, or leave engine "
                "out"
            )

    @cached_property
    def here(self) -> LanguageModel:
        """The same model, opened in this process."""
        return lm_from_config(self.config, self.folder)

    @property
    def name(self) -> str:
        return self.here.name if self.uses_server else self._name_in_a_worker

    @cached_property
    def _name_in_a_worker(self) -> str:
        ((_, name),) = self._have_done([None])  # the weights stay where there is room for them
        return name

    def count_tokens(self, text: str) -> int:
        return self._count_tokens(text)

    @cached_property
    def _count_tokens(self) -> Callable[[str], int]:
        return self.here.count_tokens if self.uses_server else token_counter(self._tokenizer)

    @property
    def render(self) -> Callable[[Prompt], str] | None:
        """The prompt inside the chat template, up to where the answer begins; None for a server, which does that."""
        return None if self.uses_server else partial(render_prompt, tokenizer=self._tokenizer)

    @property
    def uses_server(self) -> bool:
        return self.config.uses_server

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.folder)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """As every language model does, in this process."""
        return self.here.generate(prompts, sampling)

    def sample(self, units: Iterable[Unit], fill: Fill, cache: CompletionCache, step: Step, purpose: str) -> None:
        """Have workers write what is asked, and bring it into the cache; in a worker, `fill` writes one unit."""
        self.shards.mkdir(exist_ok=True)
        jobs = [(_ask(self.shards, self.name, unit, purpose), fill) for unit in units]
        for place, _ in self._have_done(jobs) if jobs else ():
            step(_merge(self.shards / jobs[place][0], cache))
        remove_folder(self.shards)

    def _have_done(self, jobs: Sequence[tuple[str, Fill] | None]) -> Iterator[tuple[int, Any]]:
        config = self.config
        if self.uses_server:
            config = config.model_copy(update={"pace": _shared_out(config.pace, num_workers(self.ray))})
        key = f"{self.shards} {self.folder} {config.model_dump_json()}"
        return do_jobs(self.ray, Work(key, partial(_Writer, config, self.folder, self.shards.absolute())), jobs)


def shards_of(cache_file: Path) -> Path:
    """Where workers write what goes into a completion cache."""
    return cache_file.with_suffix(".shards")


def recover(cache: CompletionCache, progress: Progress = SILENT) -> None:
    """Bring into the cache what workers wrote for a run that was killed; waits until none of them writes."""
    shards = shards_of(cache.path)
    if not shards.is_dir():
        return
    progress.say(
        f"completions that workers wrote for a run that ended are merged from {shards}, once none writes any more"
    )
    with _held(shards, fcntl.LOCK_EX):
        for asked in sorted(shards.glob(f"*{ASKED}")):
            unit = asked.with_suffix("")
            if unit.with_suffix(SO_FAR).exists() and not unit.with_suffix(SHARD).exists():
                _settle(unit)
            if unit.with_suffix(SHARD).exists():
                _merge(unit, cache)
            asked.unlink(missing_ok=True)


def _shared_out(pace: PaceConfig, num: int) -> PaceConfig:
    """What each of `num` workers may ask of a server, so that together they ask no more than one process would."""
    rates = {name: getattr(pace, name) for name in ("requests_per_min", "tokens_per_min")}
    shares = {name: rate / num for name, rate in rates.items() if rate is not None}
    return pace.model_copy(update={"max_concurrency": max(1, pace.max_concurrency // num), **shares})


class _Writer:
    """In a worker: opens the model, and writes unit by unit."""

    def __init__(self, config: LmConfig, folder: Path, shards: Path) -> None:
        self._lm, self._shards = lm_from_config(config, folder), shards

    def __call__(self, job: tuple[str, Fill] | None) -> str:
        if job is not None:
            name, fill = job
            with _held(self._shards, fcntl.LOCK_SH):
                self._write(self._shards / name, fill)
        return self._lm.name

    def _write(self, unit: Path, fill: Fill) -> None:
        # No more asked: the run was killed, and another one has recovered. Written: the worker before was killed then.
        if not unit.with_suffix(ASKED).exists() or unit.with_suffix(SHARD).exists():
            return
        asked = _read(unit)
        if asked.lm != self._lm.name:
            raise ContractError(
                f"all machines must have the same language model, got {self._lm.name} here and {asked.lm} where the "
                f"run began; copy the model's folder, or share it"
            )
        with CompletionCache(unit.with_suffix(SO_FAR)) as so_far:
            fill(self._lm, asked.prompts, asked.sampling, so_far, asked.purpose)
        _settle(unit)


@dataclass(frozen=True, slots=True)
class Asked:
    """A unit as its file says it: what is asked of which model, and what its cost is booked under."""

    lm: str
    sampling: Sampling
    prompts: tuple[Prompt, ...]
    purpose: str


def _ask(folder: Path, lm_name: str, unit: Unit, purpose: str) -> str:
    """Write down what is asked; the unit's name, which follows from it."""
    sampling, prompts = unit
    keys = b"".join(request_key(lm_name, prompt, sampling) for prompt in prompts)
    name = hashlib.sha256(f"{sampling.completion_numbers}".encode() + keys).hexdigest()[:32]
    asked = {
        "lm": lm_name,
        "sampling": asdict(sampling),
        "prompts": [astuple(prompt) for prompt in prompts],
        "purpose": purpose,
    }
    atomic_write_bytes(folder / f"{name}{ASKED}", json.dumps(asked).encode())
    return name


def _read(unit: Path) -> Asked:
    asked = json.loads(unit.with_suffix(ASKED).read_bytes())
    prompts = tuple(Prompt(*values) for values in asked["prompts"])
    return Asked(asked["lm"], Sampling(**asked["sampling"]), prompts, asked["purpose"])


def _settle(unit: Path) -> None:
    """The answers so far as a shard, whole or absent; their file goes."""
    asked = _read(unit)
    with CompletionCache(unit.with_suffix(SO_FAR)) as so_far:
        usage, held = so_far.usage(), so_far.read(asked.lm, asked.prompts, asked.sampling)
    rows = [
        (request_key(asked.lm, prompt, asked.sampling).hex(), one)
        for prompt, completions in zip(asked.prompts, held, strict=True)
        for one in completions.values()
    ]
    request = pl.Series("request", [key for key, _ in rows], dtype=pl.String)
    table, part = rows_table([one for _, one in rows], Completion), unit.with_suffix(f"{SHARD}.part")
    table.insert_column(0, request).write_parquet(part, metadata={"usage": json.dumps(asdict(usage))})
    fsync(part)
    part.rename(unit.with_suffix(SHARD))
    fsync(unit.parent)
    for suffix in ("", "-wal", "-shm"):
        unit.with_suffix(f"{SO_FAR}{suffix}").unlink(missing_ok=True)


def _merge(unit: Path, cache: CompletionCache) -> int:
    """Bring a shard into the cache, and remove it; its number of completions."""
    asked, shard = _read(unit), unit.with_suffix(SHARD)
    usage = Usage(**json.loads(pl.read_parquet_metadata(shard)["usage"]))
    written: dict[int, list[Completion]] = {prompt.user: [] for prompt in asked.prompts}
    completions = rows_of(pl.read_parquet(shard).drop("request"), Completion)
    for one in completions:
        written[one.user].append(one)
    held = cache.read(asked.lm, asked.prompts, asked.sampling)
    is_new = {one.completion not in has for p, has in zip(asked.prompts, held, strict=True) for one in written[p.user]}
    if is_new != {False}:  # else a kill came between this transaction and the next line
        answers = [(prompt, written[prompt.user]) for prompt in asked.prompts if written[prompt.user]]
        cache.write(asked.lm, asked.sampling, answers, usage, asked.purpose)
    shard.unlink()
    unit.with_suffix(ASKED).unlink()
    return len(completions)


@contextmanager
def _held(folder: Path, how: int) -> Generator[None]:
    """The folder's lock, shared by those who write a unit, or exclusive; it goes with the process that has it."""
    with (folder / LOCK).open("w") as file:
        fcntl.flock(file, how)
        yield
