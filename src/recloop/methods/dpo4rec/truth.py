"""What the texts about test users say, and how much of it is true: counted with the tables, told in the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from recloop.evaluation.labels import in_table_order, variant_label
from recloop.evaluation.report_sections import Note, PlainTable, Section
from recloop.evaluation.tables import Truth
from recloop.methods.dpo4rec.data import Task
from recloop.methods.dpo4rec.generate import TEST, fixed_texts, read_user_texts
from recloop.methods.dpo4rec.names import PUBLISHED_TEXT, TRAINED, UNTUNED
from recloop.methods.study import Study
from recloop.prompts.text_truth import assess_texts, what_texts_say
from recloop.records import UserCompletions

if TYPE_CHECKING:
    from jaxtyping import Int64

LIKED_BY_RATING = (
    "A value is liked if at least two items carry it and their mean rating is above the user's mean. It is disliked "
    "below that mean, and without ratings it is liked if two items carry it. A title is liked if rated above the mean."
)
LIKED_BY_SHARE = (
    "A value is liked if clearly more items carry it than in train users' histories, disliked if clearly fewer do. "
    "A title is liked if it was rated above the user's mean, or if there are no ratings."
)
MEASURES = (  # field of `TextTruth`, how the report calls it, how it prints it
    ("true", "Values: true", "{:.0%}"),
    ("grounded", "Values: in the history", "{:.0%}"),
    ("values", "Values named, a text", "{:.1f}"),
    ("titles_true", "Titles: true", "{:.0%}"),
    ("titles_grounded", "Titles: in the history", "{:.0%}"),
    ("titles", "Titles named, a text", "{:.1f}"),
    ("in_form", "In canonical form", "{:.0%}"),
    ("repeating", "Repeating itself", "{:.0%}"),
    ("same_text", "Users with another's text", "{:.0%}"),
    ("words", "Words, a text", "{:.0f}"),
    ("num_texts", "Texts", "{:,}"),
)


def truth_of_texts(study: Study, task: Task) -> dict[str, dict[str, float | None]]:
    """By variant that a language model wrote, the fields of `TextTruth`; None where there was nothing to count."""
    histories, rates = task.lists.histories, task.population_rates
    found = {
        name: assess_texts(task.log, histories, own, rates) for name, own in texts_of_test_users(study, task).items()
    }
    return {
        name: {measure: None if math.isnan(value) else value for measure, value in asdict(one).items()}
        for name, one in found.items()
    }


def truth_section(truth: Truth, task: Task) -> Section:
    """The texts before and after training, and those of other variants, measure by measure."""
    ordered = in_table_order(truth)
    names = [name for name in (UNTUNED, TRAINED) if name in truth]
    names += [name for name in ordered if name not in names]
    note = Note(
        "Values and titles are found in the texts about test users by their words. One is in the history if an item of "
        "the user's whole history carries it. It is true if the history supports what the text says: likes or "
        f"dislikes. {LIKED_BY_SHARE if task.population_rates else LIKED_BY_RATING} What a text names without saying "
        "either counts as named only. Likes and dislikes are read by cue words. In prose about one in ten of those "
        "read is wrong, and some are missed."
    )

    def told(value: float | None, form: str) -> str:
        return "\u2013" if value is None else form.format(value)

    counted = [one for one in MEASURES if any(truth[name][one[0]] is not None for name in names)]
    rows = tuple((what, *(told(truth[name][field], form) for name in names)) for field, what, form in counted)
    columns = ("Counted", *(variant_label(name).label for name in names))
    parts = (PlainTable("Texts about test users, first seed", columns, rows), note) if names else ()
    return Section("truth", "What the texts say, before and after", parts, is_open=True)


def said_of_test_users(study: Study, task: Task, variant: str) -> Int64[np.ndarray, " U"]:
    """By number of a user, the place in `SAYS` of what a variant's texts of all seeds say; 0 of other users."""
    said_U = np.zeros(task.log.num_users, dtype=np.int64)
    for seed in study.config.seeds:
        texts = read_user_texts(study, variant, f"sample.{variant}.s{seed}").parts[TEST]
        said = what_texts_say(task.log, task.lists.histories, texts, task.population_rates)
        said_U[texts.user_U] = np.maximum(said_U[texts.user_U], said)
    return said_U


def texts_of_test_users(study: Study, task: Task) -> Mapping[str, UserCompletions]:
    """By variant, the texts about test users that a language model wrote; the first seed's."""
    texts: dict[str, UserCompletions] = {}
    for step in study.run.manifest["steps"]:
        verb, _, key = step.partition(".")
        variant, _, seed = key.rpartition(".s")
        if verb == "sample" and seed == str(study.config.seeds[0]):
            texts[variant] = read_user_texts(study, variant, step).parts[TEST]
        elif verb == "encode" and variant == PUBLISHED_TEXT and task.log.user_knowledge is not None:
            written = dict(task.log.user_knowledge.select("user", "text").iter_rows())
            texts[variant] = fixed_texts(variant, written, task).parts[TEST]
    return {name: own for name, own in texts.items() if any(one.text for row_N in own.completions_UN for one in row_N)}
