"""N completions for every prompt; one that a check refuses is drawn again (rejection sampling).

Further draws have numbers of their own, so the cache keeps them too, and the same seed gives the same texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from recloop.errors import SettingError
from recloop.llm.cache import CompletionCache
from recloop.llm.language_model import LanguageModel, Sampling
from recloop.llm.sampling import sample_completions
from recloop.progress import SILENT, Progress, terminal_progress
from recloop.records import Completion, CompletionStatus, Prompt, UserCompletions

Check = Callable[[Prompt, Completion], bool]


def generate(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    n: int = 1,
    *,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_tokens: int = 64,
    seed: int = 0,
    accept: Check | None = None,
    tries: int = 1,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> UserCompletions:
    """The users in ascending order with their prompts and N completions each.

    Args:
        lm: from `load_lm`, or any object with `name`, `generate` and `count_tokens`.
        prompts: one per user.
        n: completions per prompt.
        temperature: 0 takes the likeliest token each time; 1 is the model's own distribution.
        top_p: share of the probability mass sampled from.
        max_tokens: longest completion, its end token included.
        seed: the same seed, prompt and model give the same completions.
        accept: whether a completion of a prompt is good enough, as `truth_check` says; None takes all. One that it
            refuses is an empty text in the end, whose status says so.
        tries: how often each is drawn at most, until it is accepted.
        cache: SQLite file of completions; what it holds is not generated again. None keeps nothing.
        progress: told how far it is; None for the terminal.

    Raises:
        SettingError: a setting out of bounds, or more than one try without a check or at temperature 0.
        GenerationError: two prompts of one user, or the language model failed.
        BudgetError: a language model behind a server has reached a cap.
        ContractError: the language model does not do what its protocol says.

    Example:
        >>> from recloop.testing import FakeLM
        >>> prompt = Prompt(user=7, system="", text='5 stars | "Ox" | genre War', num_items_shown=1, num_items_cut=0)
        >>> generate(FakeLM(), [prompt], n=2).user_U.tolist()
        [7]
    """
    sampling = Sampling(n, temperature, top_p, max_tokens, seed)
    with CompletionCache(":memory:" if cache is None else cache) as opened:
        return sample_accepted(lm, prompts, sampling, opened, accept, tries, progress or terminal_progress())


def sample_accepted(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    cache: CompletionCache,
    accept: Check | None,
    tries: int,
    progress: Progress = SILENT,
    purpose: str = "",
) -> UserCompletions:
    """`generate` with an open cache; `purpose` is what a server's cost is booked under."""
    is_check = (accept is None or callable(accept)) and type(tries) is int
    if not is_check or tries < 1 or (tries > 1 and (accept is None or sampling.temperature == 0)):
        raise SettingError(
            f"tries must be a whole number from 1, and more need a check as accept and a temperature above 0; got "
            f"tries={tries!r}, {accept!r} as accept and temperature={sampling.temperature:g}"
        )
    found = sample_completions(lm, prompts, sampling, cache, progress, purpose)
    if accept is None:
        return found
    prompt_of = {prompt.user: prompt for prompt in prompts}
    drawn = dict(zip(found.user_U.tolist(), map(list, found.completions_UN), strict=True))
    refused = {(user, place) for user, own in drawn.items() for place in range(len(own))}
    for draw in range(tries):
        refused = {(user, place) for user, place in refused if not accept(prompt_of[user], drawn[user][place])}
        if draw + 1 == tries or not refused:
            break
        places_of: dict[int, list[int]] = defaultdict(list)
        for user, place in sorted(refused):
            places_of[user].append(place)
        first = sampling.first_completion + (draw + 1) * sampling.num_completions
        for count in sorted(set(map(len, places_of.values()))):
            asked = [prompt_of[user] for user, places in places_of.items() if len(places) == count]
            again = sample_completions(lm, asked, sampling.only(range(first, first + count)), cache, progress, purpose)
            for user, completions in zip(again.user_U.tolist(), again.completions_UN, strict=True):
                for place, one in zip(places_of[user], completions, strict=True):
                    drawn[user][place] = replace(one, completion=drawn[user][place].completion)
    if refused:
        total = sum(map(len, drawn.values()))
        progress.say(f"{len(refused):,} of {total:,} completions are empty: the check refused each draw of them")
    for user, place in refused:
        drawn[user][place] = _unaccepted(drawn[user][place], tries)
    return UserCompletions(found.user_U, tuple(map(tuple, drawn.values())), found.prompts_U)


def _unaccepted(completion: Completion, tries: int) -> Completion:
    """An empty text that says why; one that had no use before stays as it is."""
    if completion.status is not CompletionStatus.OK:
        return completion
    reason = f"refused by the check, {tries} draw{'s' * (tries > 1)}"
    reason = "; ".join(filter(None, (completion.reason, reason)))
    raw = completion.raw or completion.text
    return replace(completion, text="", status=CompletionStatus.UNACCEPTED, reason=reason, raw=raw)
