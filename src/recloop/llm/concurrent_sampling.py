"""Drafts of a served model into the journal: each answer is committed as it arrives.

Several processes may do this on one journal: a prompt is claimed before it is sent, so none is sent twice,
and who has nothing left to claim waits for the others' answers.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import chain

from recloop.errors import GenerationError
from recloop.llm.cache import DraftJournal
from recloop.llm.language_model import Sampling, prompt_digest
from recloop.llm.server.streaming import NOTHING_SPENT, Ask, Standing, StreamingModel
from recloop.progress import Step
from recloop.records import DraftStatus, Prompt

CLAIMED_TOGETHER = 32
OTHERS_POLL_S = 0.25
MANY = 20  # drafts of which one at least must be usable


def stream_drafts(
    lm: StreamingModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    journal: DraftJournal,
    step: Step,
    purpose: str,
) -> None:
    """Have all drafts of `prompts` in the journal, asking only for those it lacks.

    Args:
        purpose: what the spending is booked under.

    Raises:
        GenerationError: the server is gone or refuses everything, or not one draft is usable.
        BudgetError: a cap is reached. In either case all that was received is in the journal.
    """
    total = step.done + len(prompts) * sampling.num_drafts
    left = list({prompt_digest(prompt): prompt for prompt in prompts}.values())
    while True:
        held = journal.read(lm.name, left, sampling)
        left = [p for p, drafts in zip(left, held, strict=True) if len(drafts) < sampling.num_drafts]
        if not left:
            break
        if not _pass(lm, left, sampling, journal, step, purpose):
            time.sleep(OTHERS_POLL_S)
    step(max(0.0, total - step.done))
    _require_some_use(lm, prompts, sampling, journal)


def _pass(
    lm: StreamingModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    journal: DraftJournal,
    step: Step,
    purpose: str,
) -> bool:
    """Ask for what can be claimed now; whether there was anything."""
    taken: list[tuple[Prompt, bytes]] = []
    num_missing: list[int] = []

    def claimable() -> Generator[Ask]:
        for start in range(0, len(prompts), CLAIMED_TOGETHER):
            keys = {journal.key(lm.name, p, sampling): p for p in prompts[start : start + CLAIMED_TOGETHER]}
            own = journal.leases.claim(list(keys))
            mine = {key: prompt for key, prompt in keys.items() if key in own}
            # Read after the claim: whoever held it before may have answered in the meantime.
            held = journal.read(lm.name, list(mine.values()), sampling)
            for (key, prompt), drafts in zip(mine.items(), held, strict=True):
                missing = tuple(number for number in sampling.draft_numbers if number not in drafts)
                if missing:
                    taken.append((prompt, key))
                    num_missing.append(len(missing))
                    yield Ask(prompt, missing)
                else:
                    journal.leases.release([key])

    asks = claimable()
    first = next(asks, None)
    if first is None:
        return False
    standing = Standing(journal.spent(), journal.has_usable(lm.name))
    try:
        with closing(lm.answer(chain([first], asks), sampling, standing)) as batches:
            for answers in batches:
                spent = sum((answer.spent for answer in answers), NOTHING_SPENT)
                fresh = [(taken[answer.ask][0], answer.drafts) for answer in answers if answer.drafts]
                if fresh or spent != NOTHING_SPENT:
                    journal.write(lm.name, sampling, fresh, spent, purpose)
                step(sum(len(drafts) for _, drafts in fresh))
                for answer in answers:
                    if answer.drafts:
                        num_missing[answer.ask] -= len(answer.drafts)
                journal.leases.release([taken[a.ask][1] for a in answers if a.drafts and not num_missing[a.ask]])
                journal.leases.renew()
    finally:
        journal.leases.release_all()
    return True


def _require_some_use(lm: StreamingModel, prompts: Sequence[Prompt], sampling: Sampling, journal: DraftJournal) -> None:
    drafts = [draft for by_number in journal.read(lm.name, prompts, sampling) for draft in by_number.values()]
    if len(drafts) >= MANY and not any(draft.status is DraftStatus.OK for draft in drafts):
        raise GenerationError(
            f"not one of {len(drafts)} drafts of {lm.name} is usable (the first is {drafts[0].status}: "
            f"{drafts[0].reason}); look at them with: sqlite3 {journal.path} 'select status, reason, raw "
            f"from drafts', then change the model or its settings"
        )
