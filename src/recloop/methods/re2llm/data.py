"""The first step of Re2LLM: the sessions and how they are put into words; and how a question is asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from recloop.data.load import DataConfig
from recloop.data.released_sessions import read_released
from recloop.data.sessions import SessionTask, sessions_of_log, task_digest
from recloop.data.simulated_sessions import simulate_sessions
from recloop.experiment.step import StepKind
from recloop.llm.bundled import columns_note, with_readable_columns
from recloop.llm.cache import CompletionCache
from recloop.llm.chat import chat_tokens
from recloop.llm.language_model import Sampling
from recloop.llm.sampling import sample_completions
from recloop.methods.re2llm.config import RELEASED, SIMULATED, Re2llmConfig
from recloop.methods.run_log import read_run_log
from recloop.methods.study import COMPLETIONS_FILE, Study
from recloop.prompts.budget import PromptTooLong, counted_by_lines, within_budget
from recloop.prompts.claims import HistoryItem
from recloop.prompts.lines import NOUNS, clean_item
from recloop.prompts.next_item import SYSTEM, Ranking, SessionText, next_item_text, parse_ranking, with_distinct_titles
from recloop.records import Completion, Log, Prompt
from recloop.rerankers.metrics import NOT_RANKED

CUTS = "prompts.json"
PREPARE = StepKind("prepare", reads=("data", "sessions", "data_seed", "question", "lm"))

PromptOf = Callable[[SessionText], str]


@dataclass(frozen=True, slots=True)
class Questions:
    """The sessions of a run in words.

    texts: what prompts show, train sessions first. items: cleaned, by number.
    digest: of the step that made them; an input of every step that reads them.
    columns: new names of the log's columns that the language model is shown under another name.
    num_ranked: titles asked for.
    """

    task: SessionTask
    items: tuple[HistoryItem, ...]
    texts: tuple[SessionText, ...]
    digest: str
    columns: Mapping[str, str]
    num_ranked: int

    def text(self, session: int, hint: str) -> str:
        """What a session is asked with, under a hint."""
        return next_item_text(self.texts[session], hint, self.num_ranked)

    def read(self, session: int, answer: str) -> tuple[Ranking, int]:
        """What an answer ranks, and the place of the right one in it, from 1; `NOT_RANKED` where it is not named."""
        titles = [item.title for item in self.texts[session].candidates]
        ranking = parse_ranking(answer, titles, self.num_ranked)
        return ranking, ranking.rank_of(self.task.sessions[session].answer_place) or NOT_RANKED

    @property
    def train(self) -> range:
        """Numbers of the training sessions."""
        return range(len(self.task.train))

    @property
    def test(self) -> range:
        """Numbers of the test sessions."""
        return range(len(self.task.train), len(self.texts))


def load_sessions(config: Re2llmConfig, read: Callable[[DataConfig], Log], log: Log | None = None) -> SessionTask:
    """The sessions that the configuration names, or those of a log that was passed as an object.

    Args:
        read: reads a log that they are cut from.
    """
    data, sessions, seed = config.data, config.sessions, config.data_seed
    if log is None and data.name == SIMULATED:
        return simulate_sessions(data.simulated_sessions, seed)
    if log is None and data.name == RELEASED:
        assert data.path is not None
        return read_released(data.path, sessions.num_train, sessions.num_test, seed)
    return sessions_of_log(log or read(data), sessions, seed)


def readable_sessions(study: Study) -> tuple[SessionTask, dict[str, str]]:
    """`load_sessions`, with columns under names that the language model can read, and those that are new."""
    config, progress = study.config, study.progress
    read = partial(read_run_log, seed=config.data_seed, progress=progress, folder=study.run.path)
    task = load_sessions(config, read, study.own.log)
    return with_readable_columns(task, study.first_lm.folder, study.progress)


def prepare(study: Study) -> Questions:
    """Read, cut or simulate the sessions, and shorten them until every prompt fits; or find that done."""
    task, columns = readable_sessions(study)
    items = clean_items(task)
    with study.step(PREPARE, "", {"sessions": task_digest(task), "lm": study.first_lm.digest}) as step:
        if not step.is_done:
            texts = session_texts(task, items)
            fit = partial(_fit, study, _prompt_counter(study, are_many=True))
            cuts = within_budget(fit, texts, hint="; or fewer candidates")
            (step.folder / CUTS).write_text(json.dumps(cuts) + "\n", encoding="utf-8")
            step.note(
                num_train=len(task.train),
                num_test=len(task.test),
                num_items=task.items.height,
                num_items_cut=sum(cut for cut, _ in cuts),
                num_without_attributes=sum(not has_attributes for _, has_attributes in cuts),
                data_notes=dict(task.notes),
                reading=list(task.reading),
                **columns_note(columns),
            )
    cuts = json.loads((study.run.folder("prepare") / CUTS).read_text(encoding="utf-8"))
    texts = tuple(
        cut_text(text, cut, has_attributes=has_attributes)
        for text, (cut, has_attributes) in zip(session_texts(task, items), cuts, strict=True)
    )
    num_ranked = study.config.question.num_ranked
    return Questions(task, items, texts, study.run.digest("prepare"), columns, num_ranked)


def clean_items(task: SessionTask) -> tuple[HistoryItem, ...]:
    """Every item of the catalogue, fit for a line."""
    rows = task.items.select("title", *task.attributes).iter_rows()
    return tuple(clean_item(title, values) for title, *values in rows)


def session_texts(task: SessionTask, items: Sequence[HistoryItem]) -> list[SessionText]:
    """What the prompts of all sessions show, nothing cut yet."""
    return [session_text(task, items, session.items, session.candidates) for session in task.sessions]


def session_text(
    task: SessionTask, items: Sequence[HistoryItem], shown: Sequence[int], candidates: Sequence[int]
) -> SessionText:
    """What the prompt about one session shows."""
    offered = with_distinct_titles([items[i] for i in candidates])
    return SessionText(NOUNS[task.domain], task.attributes, tuple(items[i] for i in shown), offered)


def cut_text(text: SessionText, num_cut: int, *, has_attributes: bool) -> SessionText:
    """Without the oldest `num_cut` items, and perhaps without the candidates' attributes."""
    bare = tuple(replace(item, values=((),) * len(item.values)) for item in text.candidates)
    return replace(text, shown=text.shown[num_cut:], candidates=text.candidates if has_attributes else bare)


def _prompt_counter(study: Study, *, are_many: bool) -> Callable[[str], int]:
    """Counts the tokens of a whole prompt with this text; of many texts their lines once."""
    lm = study.open_lm(study.first_lm.folder)
    around = chat_tokens(lm) + lm.count_tokens(SYSTEM)
    count = counted_by_lines(lm.count_tokens) if are_many else lm.count_tokens
    return lambda text: around + count(text)


def _fit(study: Study, count: Callable[[str], int], text: SessionText) -> tuple[int, bool]:
    """How many of the oldest items to cut, and whether candidates keep their attributes."""
    asked = study.config.question
    cut, num_tokens = _cut_to_fit(
        count, text, asked.max_prompt_tokens, lambda cut: next_item_text(cut, "", asked.num_ranked)
    )
    if cut is None:
        raise PromptTooLong("question.max_prompt_tokens", asked.max_prompt_tokens, num_tokens)
    return cut


def fitting_prompt(study: Study, text: SessionText, budget: int, build: PromptOf) -> str | None:
    """The prompt `build` makes of a session, cut as far as `budget` tokens ask; None if nothing fits."""
    cut, _ = _cut_to_fit(_prompt_counter(study, are_many=False), text, budget, build)
    return None if cut is None else build(cut_text(text, cut[0], has_attributes=cut[1]))


def _cut_to_fit(
    count: Callable[[str], int], text: SessionText, budget: int, build: PromptOf
) -> tuple[tuple[int, bool] | None, int]:
    """The least cut with which the prompt fits, None if none does; and the tokens of the last one tried."""
    num_tokens = 0
    for has_attributes in (True, False):
        for num_cut in range(len(text.shown)):
            num_tokens = count(build(cut_text(text, num_cut, has_attributes=has_attributes)))
            if num_tokens <= budget:
                return (num_cut, has_attributes), num_tokens
    return None, num_tokens


def ask(study: Study, texts: Mapping[int, str], purpose: str) -> dict[int, Completion]:
    """One answer to every text, by number, from the run's cache if there; a server's cost is booked under `purpose`."""
    found = ask_often(study, texts, purpose, 1, study.config.lm.temperature)
    return {number: completions_N[0] for number, completions_N in found.items()}


def ask_often(
    study: Study, texts: Mapping[int, str], purpose: str, num_answers: int, temperature: float
) -> dict[int, tuple[Completion, ...]]:
    """As `ask`, several answers to every text."""
    sampling = sampling_of(study, num_answers, temperature)
    prompts = [Prompt(number, SYSTEM, text, 0, 0) for number, text in texts.items()]
    if not prompts:
        return {}
    with CompletionCache(study.run.path / COMPLETIONS_FILE) as cache:
        lm_here = study.open_lm(study.first_lm.folder)
        found = sample_completions(lm_here, prompts, sampling, cache, study.progress, purpose)
    return dict(zip(found.user_U.tolist(), found.completions_UN, strict=True))


def sampling_of(study: Study, num_answers: int, temperature: float) -> Sampling:
    """How every question of a run is answered."""
    lm = study.config.lm
    return Sampling(num_answers, temperature, lm.top_p, lm.max_tokens, study.config.data_seed)
