"""Before a run costs anything: its prompts to look at, and a few completions of them that are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.errors import GenerationError
from recloop.experiment.step import StepKind, StepReached
from recloop.llm.cache import CompletionCache, usage_note
from recloop.llm.ray_lm import RayLM
from recloop.llm.sampling import sample_completions
from recloop.llm.server.client import ServerLM
from recloop.methods.study import COMPLETIONS_FILE

if TYPE_CHECKING:
    from recloop.llm.language_model import Sampling
    from recloop.prompts.plausibility import Finding
    from recloop.records import Completion, Prompt

NUM_PROMPTS = 20
SEED = 0x9EF
PREFLIGHT = StepKind("preflight")
LOOK = "prompts"  # in place of a verb: the prompts are shown, and nothing is asked


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried.

    prompts: of the method; some of them are drawn.
    sampling: as the run will sample them, so that a server is not asked for them again.
    check: the drawn prompts by user, and a completion of each -> what is found.
    is_taught: the run teaches the form first, so that nothing stops it.
    """

    prompts: Sequence[Prompt]
    sampling: Sampling
    check: Callable[[Sequence[Prompt], Sequence[Completion]], Sequence[Finding]]
    is_taught: bool = False


def is_tried(config: Any) -> bool:
    """Whether a run with this configuration has the step."""
    return NUM_PROMPTS > 0 and getattr(config, "preflight", "off") != "off"


def preflight(study: Any, inputs: Mapping[str, Any], plan: Callable[[], Trial]) -> None:
    """Sample a completion of 20 prompts, and check them; the step notes what was found.

    Args:
        study: of the run (`Steps`), with the method's configuration, its language model and what opens it.
        inputs: of the step, beside the language model.

    Raises:
        GenerationError: a share is beyond its bound, and the setting is ``stop``.
    """
    if study.until == LOOK:
        raise StepReached(prompts_text(plan().prompts, study.open_lm(study.first_lm.folder).count_tokens))
    if not is_tried(study.config):
        return
    with study.step(PREFLIGHT, "", {"lm": study.first_lm.digest, **inputs}) as step:
        if not step.is_done:
            _try(study, step, plan())


def prompts_text(prompts: Sequence[Prompt], count_tokens: Callable[[str], int]) -> str:
    """How long prompts are, and the first and the longest of them in full."""
    sizes = np.array([count_tokens(prompt.system) + count_tokens(prompt.text) for prompt in prompts])
    num_cut = sum(prompt.num_items_cut > 0 for prompt in prompts)
    head = (
        f"{len(prompts):,} prompts of {sizes.min():,} to {sizes.max():,} tokens without the chat template, median "
        f"{int(np.median(sizes)):,}; {num_cut:,} leave out the oldest items"
    )
    parts = [head]
    for number in dict.fromkeys((0, int(sizes.argmax()))):
        prompt = prompts[number]
        num_items = prompt.num_items_shown + prompt.num_items_cut
        items = f", {prompt.num_items_shown} of {num_items} items" if num_items else ""
        title = f"--- prompt {number + 1}, {sizes[number]:,} tokens{items}"
        parts.append(f"{title}\n[system] {prompt.system}\n[user] {prompt.text}")
    return "\n\n".join(parts)


def _try(study: Any, step: Any, trial: Trial) -> None:
    drawn = np.random.default_rng(SEED).permutation(len(trial.prompts))[:NUM_PROMPTS]
    prompts = sorted((trial.prompts[n] for n in drawn.tolist()), key=lambda prompt: prompt.user)
    lm, held = study.open_lm(study.first_lm.folder), study.run.path / COMPLETIONS_FILE
    is_server = isinstance(lm, ServerLM) or (isinstance(lm, RayLM) and lm.uses_server)
    # A model in this process samples them again in the batches of the run, which a cache would change.
    with CompletionCache(held if is_server else ":memory:") as cache:
        found = sample_completions(lm, prompts, trial.sampling, cache, study.progress, step.name)
    completions = [completions_N[0] for completions_N in found.completions_UN]
    findings = trial.check(prompts, completions)
    beyond = [one for one in findings if not one.is_within]
    study.progress.say(f"preflight, {len(prompts)} completions: {'; '.join(one.told for one in findings)}")
    if beyond and study.config.preflight == "stop" and not trial.is_taught:
        raise GenerationError(
            f"what {study.config.lm.name} writes must be of use, got of {len(prompts)} completions "
            f"{'; '.join(one.told for one in beyond)}, e.g. {completions[0].text[:160]!r}; "
            f"{'; '.join(dict.fromkeys(one.do for one in beyond))}; preflight=warn goes on all the same"
        )
    step.note(
        tokens=sum(one.num_tokens for one in completions),
        num_checked=len(prompts),
        findings=[[one.what, f"{one.share:.0%}", one.bound, "" if one.is_within else "beyond"] for one in findings],
        **(usage_note(held, step.name, study.config.lm) if is_server else {}),
    )
