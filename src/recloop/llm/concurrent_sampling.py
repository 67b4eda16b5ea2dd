"""Completions of a language model behind a server, put into the cache: each answer is committed as it arrives.

Several processes may do this with one cache. A prompt is claimed before it is sent, so none is sent twice. A
process with nothing left to claim waits for the answers of the others.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import chain

from recloop.errors import GenerationError
from recloop.llm.cache import CompletionCache, request_key
from recloop.llm.language_model import Sampling, prompt_digest
from recloop.llm.server.client import ServerLM
from recloop.llm.server.streaming import NO_USAGE, Ask, Standing
from recloop.progress import Step
from recloop.records import CompletionStatus, Prompt

CLAIMED_TOGETHER = 32
OTHERS_POLL_S = 0.25
MANY = 20  # guess: with so many completions and none usable, model or settings are wrong


def stream_completions(
    lm: ServerLM, prompts: Sequence[Prompt], sampling: Sampling, cache: CompletionCache, step: Step, purpose: str
) -> None:
    """Put all completions of `prompts` into the cache, asking only for those it lacks.

    Args:
        purpose: what the usage is recorded under.

    Raises:
        GenerationError: the server is gone or refuses everything, or no completion is usable.
        BudgetError: a cap is reached. In either case everything received is in the cache.
    """
    total = step.done + len(prompts) * sampling.num_completions
    left = list({prompt_digest(prompt): prompt for prompt in prompts}.values())
    while True:
        held = cache.read(lm.name, left, sampling)
        left = [p for p, completions in zip(left, held, strict=True) if len(completions) < sampling.num_completions]
        if not left:
            break
        if not _ask_unclaimed(lm, left, sampling, cache, step, purpose):
            time.sleep(OTHERS_POLL_S)
    step(max(0.0, total - step.done))
    _require_some_use(lm, prompts, sampling, cache)


def _ask_unclaimed(
    lm: ServerLM, prompts: Sequence[Prompt], sampling: Sampling, cache: CompletionCache, step: Step, purpose: str
) -> bool:
    """Ask for what no other process has claimed; whether there was anything."""
    asked: list[tuple[Prompt, bytes]] = []
    num_missing: list[int] = []

    def claimable() -> Generator[Ask]:
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
                    yield Ask(prompt, missing)
                else:
                    cache.leases.release([key])

    asks = claimable()
    first = next(asks, None)
    if first is None:
        return False
    standing = Standing(cache.usage(), cache.has_usable(lm.name))
    try:
        with closing(lm.answer(chain([first], asks), sampling, standing)) as batches:
            for answers in batches:
                usage = sum((answer.usage for answer in answers), NO_USAGE)
                fresh = [(asked[answer.ask][0], answer.completions) for answer in answers if answer.completions]
                if fresh or usage != NO_USAGE:
                    cache.write(lm.name, sampling, fresh, usage, purpose)
                step(sum(len(completions) for _, completions in fresh))
                for answer in answers:
                    if answer.completions:
                        num_missing[answer.ask] -= len(answer.completions)
                cache.leases.release([asked[a.ask][1] for a in answers if a.completions and not num_missing[a.ask]])
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
