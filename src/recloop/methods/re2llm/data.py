"""What every stage of Re2LLM is handed, and its first: the sessions and how they are put into words."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

from recloop.data.load import read_log
from recloop.data.released_sessions import read_released
from recloop.data.sessions import SessionTask, sessions_of_log, task_digest
from recloop.data.simulated_sessions import simulate_sessions
from recloop.encoders.load import encoder_from_config, encoder_inputs
from recloop.encoders.sentence import TextEncoder
from recloop.errors import SettingError
from recloop.experiment.run_folder import RunFolder
from recloop.experiment.stages import Staged
from recloop.experiment.verbs import require_verb
from recloop.llm.cache import CompletionCache
from recloop.llm.chat import chat_tokens
from recloop.llm.language_model import LanguageModel, Sampling
from recloop.llm.load import lm_digest, lm_folder, lm_from_config
from recloop.llm.sampling import sample_completions
from recloop.llm.bundled import columns_note, with_readable_columns
from recloop.methods.re2llm.config import Re2llmConfig, SessionDataConfig
from recloop.progress import Progress
from recloop.prompts.claims import HistoryItem
from recloop.prompts.next_item import SYSTEM, SessionText, clean_item, next_item_text, with_distinct_titles
from recloop.prompts.user_profile import NOUNS
from recloop.records import Completion, Prompt

COMPLETIONS_FILE, VECTORS_FILE, CUTS = "completions.sqlite", "vectors.sqlite", "prompts.json"

PromptOf = Callable[[SessionText], str]


@dataclass(frozen=True, slots=True)
class Study(Staged):
    """One run: what was asked for, and the models it opens on demand.

    lm_folder: where the language model's weights lie; None for one passed as an object.
    lm_digest: of the language model; an input of every stage that asks it.
    encoder: what `encoder_inputs` says of the encoder, asked when something is to be encoded.
    """

    config: Re2llmConfig
    lm_folder: Path | None
    lm_digest: str
    open_lm: Callable[[], LanguageModel]
    open_encoder: Callable[[], TextEncoder]
    encoder: Callable[[], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Questions:
    """The sessions of a run in words.

    texts: what prompts show, train sessions first. items: cleaned, by number.
    digest: of the stage that made them; an input of every stage that reads them.
    columns: new names of the log's columns that the language model is shown under another name.
    """

    task: SessionTask
    items: tuple[HistoryItem, ...]
    texts: tuple[SessionText, ...]
    digest: str
    columns: Mapping[str, str]

    @property
    def train(self) -> range:
        """Numbers of the training sessions."""
        return range(len(self.task.train))

    @property
    def test(self) -> range:
        """Numbers of the test sessions."""
        return range(len(self.task.train), len(self.texts))


def open_study(
    config: Re2llmConfig,
    run: RunFolder,
    progress: Progress,
    until: str | None,
    lm: LanguageModel | None,
    encoder: TextEncoder | None,
) -> Study:
    """The study of a run; no model is loaded yet.

    Args:
        lm, encoder: objects to use in place of the configured ones.

    Raises:
        SettingError: an unknown stage.
    """
    require_verb("re2llm", until)
    if lm is not None:
        folder, digest = None, lm.name
    else:
        folder, digest = lm_folder(config.lm), lm_digest(config.lm)

    @lru_cache(maxsize=1)
    def open_lm() -> LanguageModel:
        return lm or lm_from_config(config.lm)

    @lru_cache(maxsize=1)
    def open_encoder() -> TextEncoder:
        return encoder or encoder_from_config(config.encoder)

    inputs = lru_cache(maxsize=1)(partial(encoder_inputs, config.encoder, encoder))
    return Study(run, progress, until, config, folder, digest, open_lm, open_encoder, inputs)


def load_sessions(config: SessionDataConfig, seed: int, progress: Progress) -> SessionTask:
    """The sessions that the configuration names."""
    match config.name:
        case "simulated":
            return simulate_sessions(config.simulated, seed)
        case "log":
            return sessions_of_log(read_log(config.log, seed, progress), config.sessions, seed)
        case "released":
            assert config.path is not None
            return read_released(config.path, config.sessions.num_train, config.sessions.num_test, seed)


def readable_sessions(study: Study) -> tuple[SessionTask, dict[str, str]]:
    """`load_sessions`, with columns under names that the language model can read, and those that are new."""
    task = load_sessions(study.config.data, study.config.data_seed, study.progress)
    return with_readable_columns(task, study.lm_folder, study.progress)


def prepare(study: Study) -> Questions:
    """Read, cut or simulate the sessions, and cut them until every prompt fits; or find that done."""
    config = study.config
    task, columns = readable_sessions(study)
    with study.stage("prepare", "", {"sessions": task_digest(task), "lm": study.lm_digest}) as stage:
        if not stage.is_done:
            items = clean_items(task, config)
            cuts = [_fit(study, text) for text in session_texts(task, items)]
            (stage.folder / CUTS).write_text(json.dumps(cuts) + "\n", encoding="utf-8")
            stage.note(
                num_train=len(task.train),
                num_test=len(task.test),
                num_items=task.items.height,
                num_items_cut=sum(cut for cut, _ in cuts),
                num_without_attributes=sum(not has_attributes for _, has_attributes in cuts),
                data_notes=dict(task.notes),
                **columns_note(columns),
            )
    items = clean_items(task, config)
    cuts = json.loads((study.run.folder("prepare") / CUTS).read_text(encoding="utf-8"))
    texts = tuple(
        cut_text(text, cut, has_attributes=has_attributes)
        for text, (cut, has_attributes) in zip(session_texts(task, items), cuts, strict=True)
    )
    return Questions(task, items, texts, study.run.digest("prepare"), columns)


def clean_items(task: SessionTask, config: Re2llmConfig) -> tuple[HistoryItem, ...]:
    """Every item of the catalogue, fit for a line."""
    asked = config.question
    return tuple(
        clean_item(title, values, max_title_words=asked.max_title_words, max_values=asked.max_values)
        for title, *values in task.items.select("title", *task.attributes).iter_rows()
    )


def session_texts(task: SessionTask, items: Sequence[HistoryItem]) -> list[SessionText]:
    """What the prompts of all sessions show, nothing cut yet."""
    return [
        SessionText(
            NOUNS[task.domain],
            task.attributes,
            tuple(items[i] for i in session.items),
            with_distinct_titles([items[i] for i in session.candidates]),
        )
        for session in task.sessions
    ]


def cut_text(text: SessionText, num_cut: int, *, has_attributes: bool) -> SessionText:
    """Without the oldest `num_cut` items, and perhaps without the candidates' attributes."""
    bare = tuple(replace(item, values=((),) * len(item.values)) for item in text.candidates)
    return replace(text, shown=text.shown[num_cut:], candidates=text.candidates if has_attributes else bare)


def _fit(study: Study, text: SessionText) -> tuple[int, bool]:
    """How many of the oldest items to cut, and whether candidates keep their attributes."""
    asked = study.config.question
    cut, num_tokens = _cut_to_fit(
        study, text, asked.max_prompt_tokens, lambda cut: next_item_text(cut, "", asked.num_ranked)
    )
    if cut is None:
        raise SettingError(
            f"question.max_prompt_tokens must hold the candidates, got {asked.max_prompt_tokens}; "
            f"use at least {num_tokens}, or fewer candidates"
        )
    return cut


def fitting_prompt(study: Study, text: SessionText, budget: int, build: PromptOf) -> str | None:
    """The prompt `build` makes of a session, cut as far as `budget` tokens ask; None if nothing fits."""
    cut, _ = _cut_to_fit(study, text, budget, build)
    return None if cut is None else build(cut_text(text, cut[0], has_attributes=cut[1]))


def _cut_to_fit(study: Study, text: SessionText, budget: int, build: PromptOf) -> tuple[tuple[int, bool] | None, int]:
    """The least cut with which the prompt fits, None if none does; and the tokens of the last one tried."""
    lm = study.open_lm()
    around = chat_tokens(lm) + lm.count_tokens(SYSTEM)
    num_tokens = 0
    for has_attributes in (True, False):
        for num_cut in range(len(text.shown)):
            num_tokens = around + lm.count_tokens(build(cut_text(text, num_cut, has_attributes=has_attributes)))
            if num_tokens <= budget:
                return (num_cut, has_attributes), num_tokens
    return None, num_tokens


def ask(study: Study, texts: Mapping[int, str], purpose: str) -> dict[int, Completion]:
    """One answer to every text; what the run's cache holds is not asked for again.

    Args:
        texts: user turns by any number.
        purpose: the stage a model behind a server's cost is booked under.
    """
    found = ask_often(study, texts, purpose, 1, study.config.lm.temperature)
    return {number: completions_N[0] for number, completions_N in found.items()}


def ask_often(
    study: Study, texts: Mapping[int, str], purpose: str, num_answers: int, temperature: float
) -> dict[int, tuple[Completion, ...]]:
    """As `ask`, several answers to every text."""
    lm = study.config.lm
    sampling = Sampling(num_answers, temperature, lm.top_p, lm.max_tokens, study.config.data_seed)
    prompts = [Prompt(number, SYSTEM, text, 0, 0) for number, text in texts.items()]
    if not prompts:
        return {}
    with CompletionCache(study.run.path / COMPLETIONS_FILE) as cache:
        completions = sample_completions(study.open_lm(), prompts, sampling, cache, study.progress, purpose)
    return dict(zip(completions.user_U.tolist(), completions.completions_UN, strict=True))
