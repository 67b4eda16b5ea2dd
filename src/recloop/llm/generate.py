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
from recloop.records import Completion, Prompt, UserCompletions

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
        accept: whether a completion of a prompt is good enough, as `truth_check` says; None takes all.
        tries: how often each is drawn at most, until it is accepted; if it never is, the last one stays.
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
    if tries < 1 or (tries > 1 and (not callable(accept) or sampling.temperature == 0)):
        raise SettingError(
            f"tries must be at least 1, and more need a check as accept and a temperature above 0; got tries={tries}, "
            f"accept={accept!r}, temperature={sampling.temperature:g}"
        )
    found = sample_completions(lm, prompts, sampling, cache, progress, purpose)
    if accept is None or tries == 1:
        return found
    prompt_of = {prompt.user: prompt for prompt in prompts}
    drawn = dict(zip(found.user_U.tolist(), map(list, found.completions_UN), strict=True))
    for draw in range(1, tries):
        refused = {
            user: [place for place, one in enumerate(own) if not accept(prompt_of[user], one)]
            for user, own in drawn.items()
        }
        users_by_count: dict[int, list[int]] = defaultdict(list)
        for user, places in refused.items():
            if places:
                users_by_count[len(places)].append(user)
        if not users_by_count:
            break
        first = sampling.first_completion + draw * sampling.num_completions
        for count, users in sorted(users_by_count.items()):
            asked, only = [prompt_of[user] for user in users], sampling.only(range(first, first + count))
            again = sample_completions(lm, asked, only, cache, progress, purpose)
            for user, completions in zip(again.user_U.tolist(), again.completions_UN, strict=True):
                for place, one in zip(refused[user], completions, strict=True):
                    drawn[user][place] = replace(one, completion=drawn[user][place].completion)
    return UserCompletions(found.user_U, tuple(map(tuple, drawn.values())), found.prompts_U)
