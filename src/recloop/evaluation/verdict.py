"""What a table comes to, in plain sentences: computed from its contrasts, whatever they say.

One subject, the variant that a method is about, is told against its base, its controls and what needs no language
model. The report, the terminal and `Results.verdict` say the same sentences, since all read results.json.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from recloop.evaluation.labels import (
    CHANCE,
    LABELS,
    VariantKind,
    at_most,
    in_words,
    interval,
    metric_title,
    p_value,
    short,
)
from recloop.evaluation.significance import MIN_SEEDS, Contrast, Estimate, Verdict

NORMAL_95 = 1.96


class Outcome(StrEnum):
    """What the sentences come to; the value is a badge."""

    GAIN = "Gain shown"
    IN_DOUBT = "Gain in doubt"  # it is shown, but a control, truth or chance speaks against it
    NO_EFFECT = "No effect shown"
    HARM = "Loss shown"
    TOO_FEW = "Demonstration, not evidence"


@dataclass(frozen=True, slots=True)
class Control:
    """What a subject has to beat before its gain counts. names: of the variants that are this control."""

    names: tuple[str, ...]
    words: str
    doubt: str
    credit: str = ""  # said when it is beaten; where there is one, that the control is missing is said too


@dataclass(frozen=True, slots=True)
class Subject:
    """The variant a verdict is about, how sentences call it, and what it is told against."""

    name: str
    words: str
    base: str
    base_words: str
    controls: tuple[Control, ...] = ()


@dataclass(frozen=True, slots=True)
class TrueShare:
    """The share of what a variant's texts say that is true of their users, in [0, 1], and the number of texts."""

    share: float
    num_texts: int


@dataclass(frozen=True, slots=True)
class Compared:
    """One table, as its verdict needs it.

    metric: the tested one, as tables print it.
    values: of every variant; chance: what a random order scores, None where that is not defined.
    truth: of the variants that a language model wrote, where it was counted.
    """

    metric: str
    contrasts: Sequence[Contrast]
    values: Mapping[str, float]
    labels: Mapping[str, str]
    num_seeds: int
    chance: float | None = None
    truth: Mapping[str, TrueShare] = field(default_factory=dict[str, TrueShare])

    def against(self, name: str, other: str) -> Contrast | None:
        """`name` minus `other`, also where the table tests the opposite; None where it tests neither."""
        for one in self.contrasts:
            if (one.name, one.against) == (name, other):
                return one
            if (one.against, one.name) == (name, other):
                return _turned(one)
        return None


@dataclass(frozen=True, slots=True)
class PlainVerdict:
    """What a table comes to.

    title: the table's.
    subject: the variant it is about; contrasts: that variant minus each that it is tested against.
    """

    title: str
    outcome: Outcome
    sentences: tuple[str, ...]
    subject: str
    contrasts: tuple[Contrast, ...]


_RANDOM_LABELS = Control(
    ("random_label_dpo", "random_label_sft", "random_label_grpo"),
    "training on random labels",
    "the gain may not come from the feedback",
    "so the gain comes from the feedback",
)
_SHUFFLED = Control(("shuffled",), "the texts of other users", "the gain may not come from what is said of the user")
SUBJECTS = {
    one.name: one
    for one in (
        Subject("trained", "the trained text", "untuned", "the untuned one", (_RANDOM_LABELS, _SHUFFLED)),
        Subject("untuned", "the untuned text", "no_text", "the reranker without text", (_SHUFFLED,)),
        Subject("id_history", "ID history", "no_text", "the reranker without it"),
        Subject(
            "rerec", "ReRec", "base_model", "the model before training",
            (Control(("grpo_ndcg",), "GRPO by rank and format alone", "what ReRec adds may not help",
                     "so what ReRec adds helps"),
             Control(("supervised",), "fine-tuning alone", "the gain may not come from the rewards")),
        ),
        Subject(
            "ppo", "a hint chosen for each session", "no_hint", "no hint",
            (Control(("best_single",), "one hint for all sessions", "choosing may not matter", "so choosing matters"),
             Control(("random_hint",), "a random hint", "which hint is given may not matter")),
        ),
    )
}  # fmt: skip
"""Of the methods of recloop. A table about another variant is told by its first contrast and its labels."""
WITHOUT_LM = {
    "id_history": ("a reranker that reads the history as IDs", "use it where there is none, or for its words"),
    "best_template": ("a summary by a fixed rule", "the rule writes as useful a text and needs no model"),
    "history_text": ("the history itself as text", "encode the history, or use it for its words"),
    "rating_mean": ("the rating-weighted mean of item vectors", "use the mean, or the text for its words"),
    "no_text": ("the reranker without text", "leave the text out"),
}
"""What needs no language model, in words, and what to do where it is better; of others the label is said."""


def verdicts(results: Mapping[str, Any]) -> tuple[PlainVerdict, ...]:
    """The verdict of every table that tests something.

    Args:
        results: as in results.json.
    """
    tested = [table for table in results["tables"] if table["metrics"][0]["contrasts"]]
    truth = _true_shares(results.get("truth", {}))
    return tuple(
        replace(verdict_of(_compared(table, results["labels"], truth)), title=table["title"]) for table in tested
    )


def verdict_text(results: Mapping[str, Any]) -> str:
    """The verdicts as text: a paragraph each, with the table's title where there are several."""
    found = verdicts(results)
    paragraphs = [" ".join(one.sentences) for one in found]
    if len(found) > 1:
        paragraphs = [f"{one.title}. {text}" for one, text in zip(found, paragraphs, strict=True)]
    return "\n\n".join(paragraphs) or "No variants were tested against each other, so there is no verdict."


def verdict_of(table: Compared) -> PlainVerdict:
    """What one table comes to; it tests at least one contrast."""
    subject, main = subject_of(table)
    is_above = _side(main) > 0
    chance = _chance(table, subject)
    doubts = list(_doubts(table, subject)) if is_above else []
    truth, is_less_true = _truth(table, subject, is_gain=is_above)
    outcome = {
        Verdict.BETTER: Outcome.IN_DOUBT if chance or doubts or is_less_true else Outcome.GAIN,
        Verdict.WORSE: Outcome.HARM,
        Verdict.NOT_SHOWN: Outcome.NO_EFFECT,
        Verdict.TOO_FEW_SEEDS: Outcome.TOO_FEW,
    }[main.verdict]
    sentences = [
        *_warning(main, table),
        _main(main, subject, table, has_doubts=outcome is not Outcome.GAIN),
        *chance,
        *(doubts or (_credit(table, subject) if is_above else [])),
        *truth,
        *_without_lm(table, subject),
        *_beside_ids(table, subject),
    ]
    others = (table.against(subject.name, name) for name in table.values)
    return PlainVerdict("", outcome, tuple(sentences), subject.name, tuple(one for one in others if one is not None))


def subject_of(table: Compared) -> tuple[Subject, Contrast]:
    """What the table is about, the variant of its first contrast; its contrast to its base, else that first one."""
    first = table.contrasts[0]
    subject = SUBJECTS.get(first.name) or Subject(first.name, table.labels[first.name], "", "")
    main = table.against(subject.name, subject.base)
    if main is not None:
        return subject, main
    return replace(subject, base=first.against, base_words=table.labels[first.against]), first


def _side(contrast: Contrast) -> int:
    """1 above, -1 below, 0 not told apart: by the test, or by the interval where seeds are too few for a test."""
    if contrast.verdict is Verdict.TOO_FEW_SEEDS:
        return (contrast.difference.low > 0) - (contrast.difference.high < 0)
    return (contrast.verdict is Verdict.BETTER) - (contrast.verdict is Verdict.WORSE)


def _warning(main: Contrast, table: Compared) -> list[str]:
    if main.verdict is not Verdict.TOO_FEW_SEEDS:
        return []
    if table.num_seeds == 1:
        return ["One seed is a demonstration, not evidence: a second seed can turn any difference around."]
    if table.num_seeds < MIN_SEEDS:
        return [f"{table.num_seeds} seeds are a demonstration, not evidence: a claim needs at least {MIN_SEEDS}."]
    return ["Every seed gave the same numbers, so they count as one: this is a demonstration, not evidence."]


def _main(main: Contrast, subject: Subject, table: Compared, *, has_doubts: bool) -> str:
    where = "Here" if main.verdict is Verdict.TOO_FEW_SEEDS else "On this log"
    metric, difference = table.metric, main.difference
    match _side(main):
        case 1:
            verb = "is above" if has_doubts else "beats"
            return f"{where} {subject.words} {verb} {subject.base_words} by {_gap(difference, metric)}."
        case -1:
            return f"{where} {subject.words} is below {subject.base_words} by {_gap(_negative(difference), metric)}."
        case _:
            told = f"{subject.words} scores {short(difference.value, sign=True)} {metric} {interval(difference)}"
            why = ""
            if difference.low > 0 or difference.high < 0:
                agree = min(difference.by_seed) > 0 or max(difference.by_seed) < 0
                why = f" (p {p_value(main.p_holm)} after Holm)" if agree else " (seeds disagree)"
            return f"{where} no effect is shown{why}: {told} against {subject.base_words}."


def _chance(table: Compared, subject: Subject) -> list[str]:
    if table.chance is None or table.values[subject.name] >= table.chance:
        return []
    return [f"It is below chance ({short(table.chance)}): the difference says nothing of taste."]


def _doubts(table: Compared, subject: Subject) -> Iterator[str]:
    """Which controls say that a difference to the base may be no gain."""
    for control in subject.controls:
        contrast = _tested(table, subject, control)
        if contrast is None:
            if control.credit:
                yield f"{control.words[0].upper()}{control.words[1:]} was not run: {control.doubt}."
        elif _side(contrast) < 0:
            gap = _gap(_negative(contrast.difference))
            yield f"It is below {control.words} by {gap}: {control.doubt}."
        elif _side(contrast) == 0:
            difference = contrast.difference
            told = f"{short(difference.value, sign=True)} {interval(difference)}"
            yield f"It does not beat {control.words} ({told}): {control.doubt}."


def _credit(table: Compared, subject: Subject) -> list[str]:
    """That the controls were beaten; what follows from it only where enough seeds say so."""
    said: list[str] = []
    for control in subject.controls:
        contrast = _tested(table, subject, control)
        if control.credit and contrast is not None:
            is_shown = contrast.verdict is Verdict.BETTER
            verb, credit = ("also beats", f", {control.credit}") if is_shown else ("is also above", "")
            said.append(f"It {verb} {control.words} by {_gap(contrast.difference)}{credit}.")
    return said


def _tested(table: Compared, subject: Subject, control: Control) -> Contrast | None:
    found = (table.against(subject.name, name) for name in control.names if name != subject.base)
    return next((one for one in found if one is not None), None)


def _truth(table: Compared, subject: Subject, *, is_gain: bool) -> tuple[list[str], bool]:
    """What became of the texts' truth, and whether it fell by more than texts differ by chance.

    Texts count as independent. Those of one user are not quite, so it errs towards saying that truth fell.
    """
    new, old = table.truth.get(subject.name), table.truth.get(subject.base)
    if new is None or old is None:
        return [], False
    spread = math.sqrt(sum(one.share * (1 - one.share) / one.num_texts for one in (new, old)))
    change, told = new.share - old.share, f"({new.share:.0%}, {old.share:.0%} before)"
    if change < -NORMAL_95 * spread:
        end = ", so this is not called a gain" if is_gain else ""
        return [f"Fewer of its statements are true {told}{end}."], True
    how = "More of its statements are true" if change > NORMAL_95 * spread else "Its statements are as often true"
    return [f"{how} {told}."], False


def _without_lm(table: Compared, subject: Subject) -> list[str]:
    """How the subject stands to what needs no language model."""
    names = [name for name in table.values if name not in (subject.name, subject.base, CHANCE)]
    baselines = [name for name in names if name in LABELS and LABELS[name].kind is VariantKind.WITHOUT_LM]
    tested = [one for name in baselines if (one := table.against(subject.name, name)) is not None]
    tested.sort(key=lambda one: one.difference.value)
    below, even, above = ([one for one in tested if _side(one) == side] for side in (-1, 0, 1))
    is_by_lm = subject.name in LABELS and LABELS[subject.name].kind is VariantKind.METHOD
    if not tested:
        return ["What needs no language model was not run: it may do as well."] if is_by_lm else []
    said: list[str] = []
    if below:
        words, advice = WITHOUT_LM.get(below[0].against, (table.labels[below[0].against], ""))
        gap = _gap(_negative(below[0].difference))
        said.append(f"It is below {words} by {gap}{': ' + advice if advice else ''}.")
    if below[1:]:
        said.append(f"It is also below {_named(below[1:], table)}.")
    if even:
        said.append(f"It is not told apart from {_named(even, table)}.")
    verb = "beats" if above and all(one.verdict is Verdict.BETTER for one in above) else "is above"
    if above and is_by_lm and not (below or even):
        nearest = f"nearest is {table.labels[above[0].against]}, by {_gap(above[0].difference)}"
        said.append(f"It {verb} all that needs no language model and was run; {nearest}.")
    elif above:
        said.append(f"It {verb} {_named(above, table)}.")
    return said


def _beside_ids(table: Compared, subject: Subject) -> list[str]:
    """What the text adds to a reranker that reads the history as IDs as well."""
    contrast = table.against(f"{subject.name}_beside_ids", "id_history")
    if contrast is None:
        return []
    difference = contrast.difference
    match _side(contrast):
        case 1:
            return [f"Read beside the IDs it adds {_gap(difference)} to them."]
        case -1:
            return [f"Read beside the IDs it takes {_gap(_negative(difference))} from them."]
        case _:
            told = f"{short(difference.value, sign=True)} {interval(difference)}"
            return [f"Read beside the IDs it adds nothing that can be told apart ({told})."]


def _named(contrasts: Sequence[Contrast], table: Compared) -> str:
    names = [table.labels[one.against] for one in contrasts]
    return in_words(at_most(names))


def _gap(difference: Estimate, metric: str = "") -> str:
    return " ".join(part for part in (short(difference.value), metric, interval(difference)) if part)


def _negative(one: Estimate) -> Estimate:
    return Estimate(-one.value, -one.high, -one.low, tuple(-seed for seed in one.by_seed))


def _turned(one: Contrast) -> Contrast:
    opposite = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    verdict = opposite.get(one.verdict, one.verdict)
    return replace(one, name=one.against, against=one.name, difference=_negative(one.difference), verdict=verdict)


def _compared(table: Mapping[str, Any], labels: Mapping[str, str], truth: Mapping[str, TrueShare]) -> Compared:
    main = table["metrics"][0]
    values = {one["name"]: one["estimate"]["value"] for one in main["variants"]}
    contrasts = [
        Contrast(
            one["name"], one["against"], _estimate(one["difference"]), one["p"], one["p_holm"], Verdict(one["verdict"])
        )
        for one in main["contrasts"]
    ]
    num_seeds = max(len(one["estimate"]["by_seed"]) for one in main["variants"])
    chance = values.get(CHANCE, table.get("chance"))
    return Compared(metric_title(main["metric"]), contrasts, values, labels, num_seeds, chance, truth)


def _estimate(one: Mapping[str, Any]) -> Estimate:
    return Estimate(one["value"], one["low"], one["high"], tuple(one["by_seed"]))


def _true_shares(truth: Mapping[str, Mapping[str, Any]]) -> dict[str, TrueShare]:
    """Of values; of titles where no texts name values. Variants whose texts have none are left out."""
    measure = "true" if any(one["true"] is not None for one in truth.values()) else "titles_true"
    told = {name: one for name, one in truth.items() if one[measure] is not None}
    return {name: TrueShare(one[measure], one["num_texts"]) for name, one in told.items()}
