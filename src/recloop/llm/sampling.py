"""N completions for every prompt, each generated once however often it is asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from recloop.errors import ContractError, GenerationError
from recloop.llm.cache import CompletionCache
from recloop.llm.completion_text import tidy_completion
from recloop.llm.concurrent_sampling import stream_completions
from recloop.llm.language_model import LanguageModel, Sampling, prompt_digest
from recloop.llm.server.streaming import StreamingModel
from recloop.llm.shared_prefix import share_heads
from recloop.progress import SILENT, Progress, Step
from recloop.records import Completion, Prompt, UserCompletions

CHUNK_COMPLETIONS = 1024  # completions committed together: what a kill can cost, some ten seconds of the bundled LM
OTHERS_POLL_S = 0.25


def sample_completions(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    cache: CompletionCache,
    progress: Progress = SILENT,
    purpose: str = "",
) -> UserCompletions:
    """N completions for every prompt, of which only those missing from the cache are generated.

    For a model in this process, work is cut into chunks that depend on the prompts alone and are committed
    whole: a run killed at any point and resumed puts the same prompts into the same batches as one that was
    not, so even the last bits of a logit are the same. The answers of a model behind a server are committed as they
    arrive.

    A prompt without a usable answer keeps its user: its completions are empty texts whose status says why.

    Args:
        prompts: one per user.
        purpose: what a model behind a server's cost is booked under.

    Raises:
        GenerationError: two prompts of one user, or a model behind a server that is gone or refuses everything.
        BudgetError: a model behind a server has reached a cap.
        ContractError: the language model leaves prompts or completions out, or mixes them up.
    """
    users = [prompt.user for prompt in prompts]
    if len(set(users)) != len(users):
        again = next(user for user in users if users.count(user) > 1)
        raise GenerationError(f"each user must have one prompt, got several for user {again}; sample them apart")
    in_order = _longest_first(prompts)
    chunk = max(1, CHUNK_COMPLETIONS // sampling.num_completions)
    with progress.stage(
        "sample completions", total=len(prompts) * sampling.num_completions, unit="completions"
    ) as step:
        if isinstance(lm, StreamingModel):
            stream_completions(lm, in_order, sampling, cache, step, purpose)
        else:
            chunks = [in_order[start : start + chunk] for start in range(0, len(in_order), chunk)]
            _fill_all(lm, chunks, sampling, cache, step)
    ordered = sorted(prompts, key=lambda prompt: prompt.user)
    found = cache.read(lm.name, ordered, sampling)
    completions_UN = tuple(
        tuple(completions[number] for number in sampling.completion_numbers) for completions in found
    )
    return UserCompletions(np.array(sorted(users), dtype=np.int64), completions_UN)


def _longest_first(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts of like length side by side, and those that begin alike together."""
    texts = [prompt.system + prompt.text for prompt in prompts]
    together = [sorted((-len(texts[n]), prompts[n].user, n) for n in head.members) for head in share_heads(texts, 0)]
    return [prompts[n] for members in sorted(together) for *_, n in members]


def _fill_all(
    lm: LanguageModel,
    chunks: Sequence[Sequence[Prompt]],
    sampling: Sampling,
    cache: CompletionCache,
    step: Step,
) -> None:
    """Every chunk once, whoever does it: one that another process is at is looked at again later."""
    left = list(chunks)
    while left:
        later: list[Sequence[Prompt]] = []
        for prompts in left:
            held = cache.read(lm.name, prompts, sampling)
            keys = {
                cache.key(lm.name, prompt, sampling)
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
    """Generate what the cache lacks of these prompts and commit it at once."""
    missing: dict[range, dict[bytes, Prompt]] = {}
    for prompt, held in zip(prompts, cache.read(lm.name, prompts, sampling), strict=True):
        absent = [number for number in sampling.completion_numbers if number not in held]
        if absent:  # from the first to the last of them: a gap is rare, and drawing it again changes nothing
            span = range(absent[0], absent[-1] + 1)
            missing.setdefault(span, {}).setdefault(prompt_digest(prompt), prompt)
    fresh: list[tuple[Prompt, Sequence[Completion]]] = []
    for span, by_digest in missing.items():
        wanted = list(by_digest.values())
        part = replace(sampling, first_completion=span.start, num_completions=len(span))
        answered: dict[int, tuple[Completion, ...]] = {}
        for position, completions_N in _checked(lm, wanted, part):
            answered[position] = tuple(map(tidy_completion, completions_N))
            step(len(completions_N))
            cache.leases.renew()
        if len(answered) != len(wanted):
            raise ContractError(
                f"{lm.name} must answer every prompt, got {len(answered)} of {len(wanted)}; "
                f"run recloop.testing.check_language_model on it"
            )
        fresh.extend((wanted[position], completions_N) for position, completions_N in answered.items())
    if fresh:
        cache.write(lm.name, sampling, fresh)
    step.skip(len(prompts) * sampling.num_completions - sum(len(completions_N) for _, completions_N in fresh))


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
                f"{list(sampling.completion_numbers)}, got position {position} with completions {numbers}; "
                f"run recloop.testing.check_language_model on it"
            )
        seen.add(position)
        yield position, completions_N
