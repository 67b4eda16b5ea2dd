"""N drafts for every prompt, each generated once however often it is asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from recloop.errors import ContractError, GenerationError
from recloop.llm.cache import DraftJournal
from recloop.llm.completion_text import tidy_draft
from recloop.llm.concurrent_sampling import stream_drafts
from recloop.llm.language_model import LanguageModel, Sampling, prompt_digest
from recloop.llm.server.streaming import StreamingModel
from recloop.llm.shared_prefix import share_heads
from recloop.progress import SILENT, Progress, Step
from recloop.records import Draft, Prompt, UserDrafts

CHUNK_DRAFTS = 1024  # drafts committed together: what a kill can cost, some ten seconds of the embedded LM
OTHERS_POLL_S = 0.25


def sample_drafts(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    journal: DraftJournal,
    progress: Progress = SILENT,
    purpose: str = "",
) -> UserDrafts:
    """N drafts for every prompt, of which only those missing from the journal are generated.

    For a model in this process, work is cut into chunks that depend on the prompts alone and are committed
    whole: a run killed at any point and resumed puts the same prompts into the same batches as one that was
    not, so even the last bits of a logit are the same. The answers of a served model are committed as they
    arrive.

    A prompt without a usable answer keeps its user: its drafts are empty texts whose status says why.

    Args:
        prompts: one per user.
        purpose: what a served model's cost is booked under.

    Raises:
        GenerationError: two prompts of one user, or a served model that is gone or refuses everything.
        BudgetError: a served model has reached a cap.
        ContractError: the language model leaves prompts or drafts out, or mixes them up.
    """
    users = [prompt.user for prompt in prompts]
    if len(set(users)) != len(users):
        again = next(user for user in users if users.count(user) > 1)
        raise GenerationError(f"each user must have one prompt, got several for user {again}; sample them apart")
    in_order = _longest_first(prompts)
    chunk = max(1, CHUNK_DRAFTS // sampling.num_drafts)
    with progress.stage("sample drafts", total=len(prompts) * sampling.num_drafts, unit="drafts") as step:
        if isinstance(lm, StreamingModel):
            stream_drafts(lm, in_order, sampling, journal, step, purpose)
        else:
            chunks = [in_order[start : start + chunk] for start in range(0, len(in_order), chunk)]
            _fill_all(lm, chunks, sampling, journal, step)
    ordered = sorted(prompts, key=lambda prompt: prompt.user)
    found = journal.read(lm.name, ordered, sampling)
    drafts_UN = tuple(tuple(drafts[number] for number in sampling.draft_numbers) for drafts in found)
    return UserDrafts(np.array(sorted(users), dtype=np.int64), drafts_UN)


def _longest_first(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts of like length side by side, and those that begin alike together."""
    texts = [prompt.system + prompt.text for prompt in prompts]
    together = [sorted((-len(texts[n]), prompts[n].user, n) for n in head.members) for head in share_heads(texts, 0)]
    return [prompts[n] for members in sorted(together) for *_, n in members]


def _fill_all(
    lm: LanguageModel,
    chunks: Sequence[Sequence[Prompt]],
    sampling: Sampling,
    journal: DraftJournal,
    step: Step,
) -> None:
    """Every chunk once, whoever does it: one that another process is at is looked at again later."""
    left = list(chunks)
    while left:
        later: list[Sequence[Prompt]] = []
        for prompts in left:
            held = journal.read(lm.name, prompts, sampling)
            keys = {
                journal.key(lm.name, prompt, sampling)
                for prompt, drafts in zip(prompts, held, strict=True)
                if len(drafts) < sampling.num_drafts
            }
            try:
                if len(journal.leases.claim(list(keys))) == len(keys):
                    _fill(lm, prompts, sampling, journal, step)
                else:
                    later.append(prompts)
            finally:
                journal.leases.release_all()
        if len(later) == len(left):
            time.sleep(OTHERS_POLL_S)
        left = later


def _fill(lm: LanguageModel, prompts: Sequence[Prompt], sampling: Sampling, journal: DraftJournal, step: Step) -> None:
    """Generate what the journal lacks of these prompts and commit it at once."""
    missing: dict[range, dict[bytes, Prompt]] = {}
    for prompt, held in zip(prompts, journal.read(lm.name, prompts, sampling), strict=True):
        absent = [number for number in sampling.draft_numbers if number not in held]
        if absent:  # from the first to the last of them: a gap is rare, and drawing it again changes nothing
            span = range(absent[0], absent[-1] + 1)
            missing.setdefault(span, {}).setdefault(prompt_digest(prompt), prompt)
    fresh: list[tuple[Prompt, Sequence[Draft]]] = []
    for span, by_digest in missing.items():
        wanted = list(by_digest.values())
        part = replace(sampling, first_draft=span.start, num_drafts=len(span))
        answered: dict[int, tuple[Draft, ...]] = {}
        for position, drafts_N in _checked(lm, wanted, part):
            answered[position] = tuple(map(tidy_draft, drafts_N))
            step(len(drafts_N))
            journal.leases.renew()
        if len(answered) != len(wanted):
            raise ContractError(
                f"{lm.name} must answer every prompt, got {len(answered)} of {len(wanted)}; "
                f"run recloop.testing.check_language_model on it"
            )
        fresh.extend((wanted[position], drafts_N) for position, drafts_N in answered.items())
    if fresh:
        journal.write(lm.name, sampling, fresh)
    step.skip(len(prompts) * sampling.num_drafts - sum(len(drafts_N) for _, drafts_N in fresh))


def _checked(
    lm: LanguageModel, prompts: Sequence[Prompt], sampling: Sampling
) -> Iterable[tuple[int, tuple[Draft, ...]]]:
    seen: set[int] = set()
    for position, drafts_N in lm.generate(prompts, sampling):
        numbers = [draft.draft for draft in drafts_N]
        is_known = 0 <= position < len(prompts) and position not in seen
        if not is_known or numbers != list(sampling.draft_numbers):
            raise ContractError(
                f"{lm.name} must yield each position of {len(prompts)} prompts once, with drafts "
                f"{list(sampling.draft_numbers)}, got position {position} with drafts {numbers}; "
                f"run recloop.testing.check_language_model on it"
            )
        seen.add(position)
        yield position, drafts_N
