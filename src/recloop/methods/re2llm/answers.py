"""Every session asked with every hint, once: the ranks of all answers, and what was wrong with them.

Axes: ``S`` sessions (train, then test), ``H`` hints, the empty one first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from recloop.encoders.sentence import EncoderCache, count_cut, encode_texts
from recloop.experiment.step import StepKind
from recloop.llm.cache import usage_note
from recloop.methods.re2llm.data import Questions, ask
from recloop.methods.re2llm.hint_base import HintBase
from recloop.methods.study import COMPLETIONS_FILE, VECTORS_FILE, Study
from recloop.prompts.lines import history_line
from recloop.records import CompletionStatus
from recloop.rerankers.metrics import metric_of_rank

RANKS, ANSWERS, STATES = "ranks.safetensors", "answers.parquet", "states.safetensors"
SAMPLE = StepKind("sample", reads=("question", "lm", "data_seed"))
ENCODE = StepKind("encode", reads=("encoder",))


@dataclass(frozen=True, slots=True)
class Answers:
    """The rank of each session's answer under each hint, as `Questions.read` gives it."""

    ranks_SH: np.ndarray
    digest: str

    def rewards(self, metric: str) -> np.ndarray:
        """The gain of each hint in each session over no hint, which is the first, ``[S, H]``: the paper's reward."""
        values_SH = metric_of_rank(metric, self.ranks_SH)
        return values_SH - values_SH[:, :1]


def answer_all(study: Study, questions: Questions, base: HintBase) -> Answers:
    """Ask every session with every hint; with the prompts of exploration, each at most once."""
    inputs = {"sessions": questions.digest, "hints": study.run.digest("explore"), "lm": study.first_lm.digest}
    with study.step(SAMPLE, "", inputs) as step:
        if not step.is_done:
            pairs = [(s, h) for s in range(len(questions.texts)) for h in range(len(base.texts))]
            texts = {n: questions.text(s, base.texts[h]) for n, (s, h) in enumerate(pairs)}
            completions = ask(study, texts, step.name)
            ranks_SH = np.zeros((len(questions.texts), len(base.texts)), dtype=np.int64)
            rows: list[dict[str, Any]] = []
            for n, (s, h) in enumerate(pairs):
                answer = completions[n]
                ranking, ranks_SH[s, h] = questions.read(s, answer.text)
                told = {"text": answer.text, "status": answer.status.value}
                rows.append({"session": s, "hint": h, "rank": int(ranks_SH[s, h]), **told, **ranking.defects})
            save_file({"ranks_SH": ranks_SH}, step.folder / RANKS)
            table = pl.DataFrame(rows)
            table.write_parquet(step.folder / ANSWERS)
            unusable = Counter(d.status.value for d in completions.values() if d.status is not CompletionStatus.OK)
            step.note(
                tokens=sum(completion.num_tokens for completion in completions.values()),
                num_prompts=len(set(texts.values())),
                defects={name: int(table[name].sum()) for name in table.columns if name.startswith("num_")},
                **({"unusable": dict(sorted(unusable.items()))} if unusable else {}),
                **usage_note(study.run.path / COMPLETIONS_FILE, step.name, study.config.lm),
            )
    ranks_SH = load_file(study.run.folder("sample") / RANKS)["ranks_SH"]
    return Answers(ranks_SH, study.run.digest("sample"))


@dataclass(frozen=True, slots=True)
class States:
    """A vector per session: the mean over the vectors of its items' texts, as in the paper."""

    vectors_SD: np.ndarray
    digest: str


def encode_sessions(study: Study, questions: Questions) -> States:
    """The state of every session."""
    with study.step(ENCODE, "", {"sessions": questions.digest, **study.encoder()}) as step:
        if not step.is_done:
            encoder = study.open_encoder()
            sessions = questions.task.sessions
            used = sorted({item for session in sessions for item in session.items})
            lines = [history_line(questions.task.attributes, questions.items[item]) for item in used]
            with EncoderCache(study.run.path / VECTORS_FILE) as cache:
                vectors_ID = encode_texts(encoder, lines, cache, study.progress)
            place_of = {item: place for place, item in enumerate(used)}
            states_SD = np.stack([vectors_ID[[place_of[i] for i in s.items]].mean(axis=0) for s in sessions])
            save_file({"vectors_SD": states_SD.astype(np.float32)}, step.folder / STATES)
            step.note(encoder=encoder.name, distinct_texts=len(lines), texts_cut=count_cut(encoder, lines))
    vectors_SD = load_file(study.run.folder("encode") / STATES)["vectors_SD"].astype(np.float64)
    return States(vectors_SD, study.run.digest("encode"))
