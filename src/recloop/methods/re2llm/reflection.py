"""Reflective exploration: the language model studies its mistakes and leaves hints; two filters keep the few.

For every training session whose answer was not among the first: what went wrong, then the answer and an
analysis, then hints. A hint that names a title is dropped. So is one with which the answer is still not among
the first (effectiveness), and one that repeats a kept hint (redundancy).

Source: Re2LLM (arXiv 2403.16427), section on reflective exploration. Deviations: titles in hints are looked
for; redundancy may be assessed by an encoder; mistakes are taken in batches, and the filters see one hint
after the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from recloop.encoders.sentence import EncoderCache, encode_texts
from recloop.experiment.step import StepKind
from recloop.files import atomic_write_text, sha256_of_file
from recloop.llm.bundled import in_shown_names
from recloop.llm.cache import usage_note
from recloop.methods.re2llm.data import Questions, ask, fitting_prompt
from recloop.methods.re2llm.hint_base import (
    NO_HINT,
    Hint,
    HintBase,
    Origin,
    most_alike,
    read_hint_base,
    require_distinct,
    write_hint_base,
)  # fmt: skip
from recloop.methods.study import COMPLETIONS_FILE, VECTORS_FILE, Study, derived_seed
from recloop.prompts.next_item import Ranking, SessionText
from recloop.prompts.reflection import parse_hints, reflection_text, same_text, says_yes
from recloop.rerankers.metrics import NOT_RANKED, metric_of_rank

HINTS = "hints.json"
HINTS_PER_MISTAKE = 2  # asked for
BATCH_SIZE = 16  # mistakes taken together, so that their prompts are asked together
WRONG_BEYOND = 10  # a mistake is an answer that is not among the first this many
EXPLORE = StepKind("explore", reads=("explore", "question", "lm", "encoder", "reward", "data_seed"))


Mistake = tuple[int, Ranking, int]
"""A training session, what its answer ranked, and the rank of the right one."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A hint before the filters, the session whose mistake it came from, and the answer's rank without it."""

    session: int
    text: str
    rank_before: int


def explore(study: Study, questions: Questions) -> HintBase:
    """Find hints, or read those that were given; ``hints.json`` at the top of the run is for people.

    The run itself reads the step's own copy: to use an edited file, begin another run with `explore.file`.
    """
    config = study.config.explore
    source = "" if config.file is None else sha256_of_file(config.file)
    inputs = {"sessions": questions.digest, "lm": study.first_lm.digest, "file": source}
    with study.step(EXPLORE, "", inputs) as step:
        if not step.is_done:
            if config.file is not None:
                given = read_hint_base(config.file)
                shown = (replace(hint, text=in_shown_names(hint.text, questions.columns)) for hint in given.hints)
                base = replace(given, hints=tuple(shown))
            elif config.hints == "released":
                base = HintBase(tuple(map(Hint, dict.fromkeys(questions.task.hints))))
            else:
                base = reflect(study, questions, step.name)
            require_distinct([hint.text for hint in base.hints], "the run")
            write_hint_base(step.folder / HINTS, base)
            atomic_write_text(study.run.path / HINTS, (step.folder / HINTS).read_text(encoding="utf-8"))
            step.note(
                num_hints=len(base.hints),
                hint_counts=base.counts,
                **usage_note(study.run.path / COMPLETIONS_FILE, step.name, study.config.lm),
            )
    kept, shown = study.run.folder("explore") / HINTS, study.run.path / HINTS
    if not shown.exists():
        atomic_write_text(shown, kept.read_text(encoding="utf-8"))
    elif shown.read_bytes() != kept.read_bytes():  # may be somebody's work
        study.progress.say(f"{shown} was edited and is left as it is; this run goes by {kept}")
    return read_hint_base(kept)


def reflect(study: Study, questions: Questions, purpose: str) -> HintBase:
    """Reflect on mistakes, batch by batch, until the base is full or the mistakes are used up."""
    config = study.config.explore
    kept: list[Hint] = []
    counts: Counter[str] = Counter()
    mistakes = find_mistakes(study, questions, purpose)
    counts["mistakes"] = len(mistakes)
    order = np.random.default_rng(derived_seed(study.config.data_seed, "explore")).permutation(len(mistakes))
    chosen = [mistakes[n] for n in order[: config.max_mistakes].tolist()]
    for start in range(0, len(chosen), BATCH_SIZE):
        if len(kept) >= config.max_hints:
            break
        batch = chosen[start : start + BATCH_SIZE]
        counts["mistakes looked at"] += len(batch)
        proposals = propose(study, questions, batch, counts, purpose)
        texts = {n: questions.text(proposal.session, proposal.text) for n, proposal in enumerate(proposals)}
        answers = ask(study, texts, purpose)
        for n, proposal in enumerate(proposals):
            _, rank = questions.read(proposal.session, answers[n].text)
            if len(kept) >= config.max_hints:
                counts["after the base was full"] += 1
            elif config.effective and not NOT_RANKED < rank <= WRONG_BEYOND:
                counts["not effective"] += 1
            elif is_redundant(study, proposal.text, [hint.text for hint in kept], purpose):
                counts["redundant"] += 1
            else:
                kept.append(_with_origin(study, questions, proposal, rank))
    return HintBase(tuple(kept), dict(counts))


def find_mistakes(study: Study, questions: Questions, purpose: str) -> list[Mistake]:
    """Training sessions whose answer is not among the first, with what was ranked instead."""
    answers = ask(study, {s: questions.text(s, NO_HINT) for s in questions.train}, purpose)
    read = {s: questions.read(s, answers[s].text) for s in questions.train}
    return [(s, ranking, rank) for s, (ranking, rank) in read.items() if not NOT_RANKED < rank <= WRONG_BEYOND]


def propose(
    study: Study, questions: Questions, batch: Sequence[Mistake], counts: Counter[str], purpose: str
) -> list[Proposal]:
    """The three turns for a batch of mistakes, and the hints that name no title."""
    texts = {number: questions.texts[number] for number, *_ in batch}
    ranked = {number: [texts[number].candidates[p].title for p in ranking.places] for number, ranking, _ in batch}
    answer = {n: texts[n].candidates[questions.task.sessions[n].answer_place] for n in texts}

    def turn(said: Mapping[int, tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
        def build(n: int, text: SessionText) -> str:
            return reflection_text(text, ranked[n], questions.num_ranked, answer[n], HINTS_PER_MISTAKE, said[n])

        budget = study.config.explore.max_prompt_tokens
        prompts = {n: fitting_prompt(study, texts[n], budget, partial(build, n)) for n in said}
        fitting = {n: prompt for n, prompt in prompts.items() if prompt is not None}
        if len(fitting) < len(prompts):
            counts["too long to look at"] += len(prompts) - len(fitting)
        return {n: (*said[n], completion.text) for n, completion in ask(study, fitting, purpose).items()}

    replies = turn(turn(turn(dict.fromkeys(texts, ()))))
    proposals: list[Proposal] = []
    for number, _, rank in batch:
        if number not in replies:
            continue
        titles = [item.title for item in texts[number].candidates]
        parsed = parse_hints(replies[number][-1], titles, HINTS_PER_MISTAKE)
        counts["proposed"] += len(parsed.hints)
        counts["naming a title"] += parsed.num_leaking
        counts["too short or long"] += parsed.num_unfit
        counts["said twice in one reply"] += parsed.num_repeated
        counts["more than asked for"] += parsed.num_beyond
        proposals += [Proposal(number, hint, rank) for hint in parsed.hints]
    return proposals


def is_redundant(study: Study, text: str, known: Sequence[str], purpose: str) -> bool:
    """Whether a hint repeats a kept one; the same words always do."""
    if not known or text in known:
        return text in known
    match study.config.explore.redundant:
        case "off":
            return False
        case "lm":
            return says_yes(ask(study, {0: same_text(text, known)}, purpose)[0].text)
        case _:
            with EncoderCache(study.run.path / VECTORS_FILE) as cache:
                vectors_HD = encode_texts(study.open_encoder(), [text, *known], cache)
            return most_alike(vectors_HD[0], vectors_HD[1:]) > study.config.explore.max_alike


def _with_origin(study: Study, questions: Questions, proposal: Proposal, rank: int) -> Hint:
    before, after = metric_of_rank(study.config.reward, np.array([proposal.rank_before, rank])).tolist()
    session = questions.task.sessions[proposal.session]
    return Hint(proposal.text, Origin(proposal.session, questions.items[session.answer].title, before, after))
