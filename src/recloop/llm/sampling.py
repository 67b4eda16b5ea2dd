"""N completions for every prompt, each generated once however often it is asked for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import Any

import numpy as np

from recloop.errors import ContractError, GenerationError
from recloop.experiment.ray_jobs import num_workers
from recloop.llm.cache import CompletionCache, request_key
from recloop.llm.completion_text import tidy_completion
from recloop.llm.language_model import LanguageModel, Sampling, prompt_digest
from recloop.llm.ray_lm import RayLM, Unit, recover
from recloop.llm.server.client import ServerLM
from recloop.llm.server.cost import Usage
from recloop.llm.shared_prefix import share_heads
from recloop.progress import SILENT, Progress, Step
from recloop.records import Completion, CompletionStatus, Prompt, UserCompletions

CHUNK_COMPLETIONS = 1024  # committed together: a kill costs at most these, some ten seconds of the bundled LM
ORDERED_TOGETHER = 100_000  # prompts whose texts are copied and compared at once
SERVER_UNIT, UNITS_PER_WORKER = 2048, 4  # prompts that a worker has a server answer: so many, or fewer for all to work
CLAIMED_TOGETHER = 32
OTHERS_POLL_S = 0.25
CHECK_IT = "run recloop.testing.check_language_model on it"
REDACTED_SHOWN = 5
MANY = 20  # guess: with so many completions and none usable, model or settings are wrong


def sample_completions(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    cache: CompletionCache,
    progress: Progress = SILENT,
    purpose: str = "",
) -> UserCompletions:
    """The users in ascending order with their N completions; only those that the cache lacks are generated.

    For a model in this process, work is cut into chunks that depend on the prompts alone and are committed
    whole. So a run that was killed and resumed puts the same prompts into the same batches as one that was not,
    and even the last bits of a logit agree. Answers of a server are committed as they arrive.

    A prompt without a usable answer keeps its user: its completions are empty texts whose status says why.
    `purpose` names the work in the cache's record of what a server has cost.
    """
    repeated = [user for user, num in Counter(prompt.user for prompt in prompts).items() if num > 1]
    if repeated:
        raise GenerationError(f"each user must have one prompt, got several for user {repeated[0]}; sample them apart")
    recover(cache, progress)
    in_order = _longest_first(prompts)
    num_wanted = len(prompts) * sampling.num_completions
    with progress.stage("sample completions", total=num_wanted, unit="completions") as step:
        if isinstance(server := lm.here if isinstance(lm, RayLM) and lm.uses_server else lm, ServerLM):
            _say_what_is_taken_out(server, in_order, progress)
        if isinstance(lm, RayLM):
            lm.sample(_units(lm, in_order, sampling, cache), fill, cache, step, purpose)
            step.skip(num_wanted - step.done)
        elif isinstance(lm, ServerLM):
            _stream(lm, in_order, sampling, cache, step, purpose)
        else:
            chunk = max(1, CHUNK_COMPLETIONS // sampling.num_completions)
            chunks = [in_order[start : start + chunk] for start in range(0, len(in_order), chunk)]
            _fill_all(lm, chunks, sampling, cache, step)
    ordered = tuple(sorted(prompts, key=lambda prompt: prompt.user))
    held_U = cache.read(lm.name, ordered, sampling)
    completions_UN = tuple(tuple(held[number] for number in sampling.completion_numbers) for held in held_U)
    return UserCompletions(np.array([prompt.user for prompt in ordered], dtype=np.int64), completions_UN, ordered)


def _longest_first(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts of similar length side by side, and those with a common beginning together; many in parts."""
    ordered: list[Prompt] = []
    for start in range(0, len(prompts), ORDERED_TOGETHER):
        part = prompts[start : start + ORDERED_TOGETHER]
        texts = [prompt.system + prompt.text for prompt in part]
        together = [sorted((-len(texts[n]), part[n].user, n) for n in head.members) for head in share_heads(texts, 0)]
        ordered += [part[n] for members in sorted(together) for *_, n in members]
    return ordered


def _units(lm: RayLM, prompts: Sequence[Prompt], sampling: Sampling, cache: CompletionCache) -> Iterator[Unit]:
    """What the cache lacks, in parts for workers: those of a model in a worker are what one process writes at once."""
    size = max(1, CHUNK_COMPLETIONS // sampling.num_completions)
    if lm.uses_server:
        size = min(SERVER_UNIT, max(1, len(prompts) // (UNITS_PER_WORKER * num_workers(lm.ray))))
    seen: set[bytes] = set()
    for start in range(0, len(prompts), size):
        # One process would find what it has written a chunk before.
        fresh = [p for p in prompts[start : start + size] if prompt_digest(p) not in seen]
        seen.update(map(prompt_digest, fresh))
        for span, missing in _missing(lm.name, fresh, sampling, cache, with_gaps=not lm.uses_server).items():
            yield sampling.only(span), missing


def fill(
    lm: LanguageModel, prompts: Sequence[Prompt], sampling: Sampling, cache: CompletionCache, purpose: str = ""
) -> None:
    """Write what the cache lacks of these prompts, in this order, each once; see `sample_completions`."""
    with SILENT.stage("sample completions") as step:
        if isinstance(lm, ServerLM):
            _stream(lm, prompts, sampling, cache, step, purpose)
        else:
            _fill(lm, prompts, sampling, cache, step)


def _fill_all(
    lm: LanguageModel, chunks: Sequence[Sequence[Prompt]], sampling: Sampling, cache: CompletionCache, step: Step
) -> None:
    """Every chunk once, in whichever process; one that another process works on is looked at again later."""
    left = list(chunks)
    while left:
        later: list[Sequence[Prompt]] = []
        for prompts in left:
            held = cache.read(lm.name, prompts, sampling)
            keys = {
                request_key(lm.name, prompt, sampling)
                for prompt, completions in zip(prompts, held, strict=True)
                if len(completions) < sampling.num_completions
            }
            try:
                if len(cache.leases.claim(list(keys))) == len(keys):
                    _fill(lm, prompts, sampling, cache, step)
                else:
                    later.append(prompts)
            finally:
                cache.leases.release_all()
        if len(later) == len(left):
            time.sleep(OTHERS_POLL_S)
        left = later


def _fill(lm: LanguageModel, prompts: Sequence[Prompt], sampling: Sampling, cache: CompletionCache, step: Step) -> None:
    """Generate what the cache lacks of these prompts, and commit it at once."""
    fresh: list[tuple[Prompt, Sequence[Completion]]] = []
    for span, wanted in _missing(lm.name, prompts, sampling, cache).items():
        for position, completions_N in _checked(lm, wanted, sampling.only(span)):
            fresh.append((wanted[position], tuple(map(tidy_completion, completions_N))))
            step(len(completions_N))
            cache.leases.renew()
    if fresh:
        cache.write(lm.name, sampling, fresh)
    step.skip(len(prompts) * sampling.num_completions - sum(len(completions_N) for _, completions_N in fresh))


def _missing(
    lm_name: str, prompts: Sequence[Prompt], sampling: Sampling, cache: CompletionCache, with_gaps: bool = True
) -> dict[range, list[Prompt]]:
    """Prompts by the completions that the cache lacks of them, each prompt once.

    with_gaps: what it holds between two that it lacks is drawn again: that is rare, and changes nothing.
    """
    missing: dict[range, dict[bytes, Prompt]] = {}
    for prompt, held in zip(prompts, cache.read(lm_name, prompts, sampling), strict=True):
        absent = [number for number in sampling.completion_numbers if number not in held]
        firsts = absent[:1] if with_gaps else [n for n in absent if n - 1 not in absent]
        lasts = absent[-1:] if with_gaps else [n for n in absent if n + 1 not in absent]
        for first, last in zip(firsts, lasts, strict=True):
            missing.setdefault(range(first, last + 1), {}).setdefault(prompt_digest(prompt), prompt)
    return {span: list(by_digest.values()) for span, by_digest in missing.items()}


def _checked(
    lm: LanguageModel, prompts: Sequence[Prompt], sampling: Sampling
) -> Iterable[tuple[int, tuple[Completion, ...]]]:
    seen: set[int] = set()
    for position, completions_N in lm.generate(prompts, sampling):
        numbers = [completion.completion for completion in completions_N]
        is_known = 0 <= position < len(prompts) and position not in seen
        if not is_known or numbers != list(sampling.completion_numbers):
            raise ContractError(
                f"{lm.name} must yield each position of {len(prompts)} prompts once, with completions "
                f"{list(sampling.completion_numbers)}, got position {position} with completions {numbers}; {CHECK_IT}"
            )
        seen.add(position)
        yield position, completions_N
    if len(seen) != len(prompts):
        raise ContractError(f"{lm.name} must answer every prompt, got {len(seen)} of {len(prompts)}; {CHECK_IT}")


def _say_what_is_taken_out(lm: ServerLM, prompts: Sequence[Prompt], progress: Progress) -> None:
    if found := lm.taken_out(prompts):
        examples = ", ".join(text for text, _ in found.most_common(REDACTED_SHOWN))
        progress.say(
            f"{found.total():,} personal details are taken out of prompts before they are sent, {len(found):,} "
            f"different ones, as {examples}; lm.server.redact says what is taken for one"
        )


def _stream(
    lm: ServerLM, prompts: Sequence[Prompt], sampling: Sampling, cache: CompletionCache, step: Step, purpose: str
) -> None:
    """Cache a server's completions as they arrive; those of prompts that another process has claimed are waited for."""
    left = list({prompt_digest(prompt): prompt for prompt in prompts}.values())
    while True:
        held = cache.read(lm.name, left, sampling)
        left = [p for p, completions in zip(left, held, strict=True) if len(completions) < sampling.num_completions]
        if not left:
            break
        if not _ask_unclaimed(lm, left, sampling, cache, step, purpose):
            time.sleep(OTHERS_POLL_S)
    step(max(0.0, len(prompts) * sampling.num_completions - step.done))
    _require_some_use(lm, prompts, sampling, cache)


def _ask_unclaimed(
    lm: ServerLM, prompts: Sequence[Prompt], sampling: Sampling, cache: CompletionCache, step: Step, purpose: str
) -> bool:
    """Ask for what no other process has claimed; whether there was anything."""
    asked: list[tuple[Prompt, bytes]] = []
    num_missing: list[int] = []

    def claimable() -> Iterator[tuple[Prompt, tuple[int, ...]]]:
        for start in range(0, len(prompts), CLAIMED_TOGETHER):
            keys = {request_key(lm.name, p, sampling): p for p in prompts[start : start + CLAIMED_TOGETHER]}
            own = cache.leases.claim(list(keys))
            mine = {key: prompt for key, prompt in keys.items() if key in own}
            # Read after the claim: the process that held it before may have answered in the meantime.
            held = cache.read(lm.name, list(mine.values()), sampling)
            for (key, prompt), completions in zip(mine.items(), held, strict=True):
                missing = tuple(number for number in sampling.completion_numbers if number not in completions)
                if missing:
                    asked.append((prompt, key))
                    num_missing.append(len(missing))
                    yield prompt, missing
                else:
                    cache.leases.release([key])

    asks = claimable()
    first = next(asks, None)
    if first is None:
        return False
    try:
        answers = lm.answer(chain([first], asks), sampling, cache.usage(), cache.has_usable(lm.name))
        with closing(answers) as batches:
            for batch in batches:
                usage = sum((answer.usage for answer in batch), Usage())
                news = [answer for answer in batch if answer.completions]
                if news or usage != Usage():
                    fresh = [(asked[answer.ask][0], answer.completions) for answer in news]
                    cache.write(lm.name, sampling, fresh, usage, purpose)
                for answer in news:
                    step(len(answer.completions))
                    num_missing[answer.ask] -= len(answer.completions)
                cache.leases.release([asked[answer.ask][1] for answer in news if not num_missing[answer.ask]])
                cache.leases.renew()
    finally:
        cache.leases.release_all()
    return True


def _require_some_use(lm: ServerLM, prompts: Sequence[Prompt], sampling: Sampling, cache: CompletionCache) -> None:
    found = [completion for held in cache.read(lm.name, prompts, sampling) for completion in held.values()]
    if len(found) >= MANY and not any(completion.status is CompletionStatus.OK for completion in found):
        raise GenerationError(
            f"not one of {len(found)} completions of {lm.name} is usable (the first is {found[0].status}: "
            f"{found[0].reason}); look at them with: sqlite3 {cache.path} 'select status, reason, raw "
            f"from completions', then change the model or its settings"
        )


def completions_note(parts: Iterable[UserCompletions]) -> dict[str, Any]:
    """For a manifest: how many completions have no usable text, by status; nothing if all have one."""
    statuses = (
        completion.status for part in parts for completions_N in part.completions_UN for completion in completions_N
    )
    counts = Counter(status.value for status in statuses if status is not CompletionStatus.OK)
    return {"unusable": dict(sorted(counts.items()))} if counts else {}
