"""Reward reliability, what the language models write, cost, and the list of units."""

from __future__ import annotations

from collections.abc import Sequence

from recloop.evaluation.report_sections import Chart, Curve
from recloop.progress import format_seconds
from studies.evidence.figures import lines as line_figure
from studies.evidence.numbers import UnitResult, WritingNumbers
from studies.evidence.pooling import (
    Evidence,
    pooled_change,
    pooled_predicted,
    pooled_reliability,
    pooled_writing,
)
from studies.evidence.sections import Part, figure, main_results, not_run
from studies.evidence.wording import NOT_RUN, percent, reliable, variant_title, table, with_interval
from studies.evidence.writing import COMPARED

PERCENT_SKILLS = ("well_formed", "grounded", "true", "true_likes", "true_dislikes", "coverage")
ABOUT_RELIABILITY = (
    "Would other lists of the same users prefer the same completions? Correlation of completion effects between a "
    "user's odd and even lists, stepped up to all of them (Spearman-Brown); 95% intervals over users. Under "
    "the frozen reward model, completions of the untuned language model, reward users. An interval that holds 0 is "
    "noise."
)
ABOUT_PREDICTED = (
    "What is no noise may still be nothing that a prompt shows. Share of what sets a user's completions apart "
    "that other users' completions predicts, and what the completion that is predicted to be a user's best did earn, "
    "over the user's mean: about what training can win. RewardModel and completions as above; 95% intervals over users."
)
ABOUT_REACHED = (
    "And how far did each language model go that way? What its completions about test users are predicted to earn, "
    "from what they say alone, over the untuned model's; no list of a test user is looked at. Intervals are "
    "over users, given what was predicted. The same feedback made the pairs, so chance in it counts as "
    "reached too: this is whether a model does what it was told, and the frozen reward model's tables below have "
    "what test users' own lists say of it."
)
ABOUT_COST = (
    "Means per unit; memory is the most any stage of any unit held. Units that took over completions of another "
    "unit are left out."
)
SKILL_WORDS = {
    "well_formed": "canonical form and finished",
    "grounded": "claims about a value the history shows",
    "true": "claims the history supports",
    "true_likes": "likes the history supports",
    "true_dislikes": "dislikes the history supports",
    "coverage": "of the five strongest likes, named",
    "claims_per_completion": "claims per completion",
    "distinct_attribute_sets": "different sets of claims among a user's completions",
    "tokens_per_completion": "tokens per completion",
}


def reliability(evidence: Evidence) -> Part:
    """Split-half reliability by kind of reward and by lists per user, for every log."""
    lines = [
        ABOUT_RELIABILITY,
        "",
    ]
    figures: dict[str, str] = {}
    for study, variant, results in (*main_results(evidence, "main"), *main_results(evidence, "external")):
        about = evidence.studies[study]
        if not about.claims:  # panels of another study once more
            continue
        found = pooled_reliability(results)
        lines += [f"### {about.title}", "", *not_run(evidence, study, variant)]
        if not found:
            lines += ["Too few users have two lists with a positive.", ""] if results else []
            continue
        metrics = list(dict.fromkeys(one.metric for one in found))
        counts = list(dict.fromkeys(one.num_lists for one in found))
        by_key = {(one.metric, one.num_lists): one for one in found}
        rows: list[list[str]] = []
        for count in counts:
            cells = [by_key.get((metric, count)) for metric in metrics]
            users = max(one.num_users for one in cells if one is not None)
            told = "all" if count is None else str(count)
            rows.append([told, f"{users:,}", *("" if one is None else reliable(one) for one in cells)])
        lines += table(("lists per user", "users", *metrics), rows)
        curves = [
            Curve(metric, tuple(float(c) for c, _ in points), tuple(r for _, r in points))
            for metric in metrics
            if (points := [(o.num_lists, o.reliability) for o in found if o.metric == metric and o.num_lists])
        ]
        if curves:
            name = f"{study}-reliability.svg"
            chart = Chart("Reliability of the reward", "lists per user", "split-half reliability", tuple(curves))
            figures[name] = line_figure(chart)
            lines += figure(name, f"{about.title}: reliability by lists per user")
    return Part(lines, figures)


def predicted(evidence: Evidence) -> Part:
    """The part of every kind of reward that other users' completions predicts, for every log."""
    by_log = [
        (evidence.studies[study], one)
        for study, _, results in (*main_results(evidence, "main"), *main_results(evidence, "external"))
        for one in pooled_predicted(results)
    ]
    if not by_log:
        return Part([NOT_RUN, ""])
    rows = [
        [log.title, one.metric, percent(one.explained), with_interval(one.gained)] for log, one in by_log if log.claims
    ]
    reached = [
        [log.title, one.metric, variant_title(row), with_interval(values)]
        for log, one in by_log
        for row, values in one.reached.items()
    ]
    head = ("log", "reward", "predicted", "gain of the predicted best")
    return Part(
        [
            ABOUT_PREDICTED,
            "",
            *table(head, rows, left=2),
            ABOUT_REACHED,
            "",
            *table(("log", "reward", "language model", "predicted, less untuned"), reached, left=3),
        ]
    )


def written(evidence: Evidence) -> Part:
    """Form, truth, attributes and entropy of what each language model writes about test users."""
    lines: list[str] = []
    for study, variant, results in (*main_results(evidence, "main"), *main_results(evidence, "external")):
        lines += [f"### {evidence.studies[study].title}", "", *not_run(evidence, study, variant)]
        models = pooled_writing(results)
        if not models:
            continue
        head = ("metrics", *(variant_title(model.row) for model in models), "trained less untuned, by user")
        lines += table(head, [*skill_rows(models, results), *attribute_rows(models)])
        lines += example_lines(results)
    return Part(lines or [NOT_RUN])


def skill_rows(models: Sequence[WritingNumbers], results: Sequence[UnitResult]) -> list[list[str]]:
    """A line per measure, a column per language model."""
    rows = [["completions", *(f"{model.num_completions:,}" for model in models), ""]]
    for name in models[0].skill:
        change = pooled_change(results, name) if name in COMPARED else None
        cells = [skill_text(name, model.skill[name]) for model in models]
        rows.append([SKILL_WORDS.get(name, name), *cells, "" if change is None else with_interval(change)])
    surprisal = ["" if model.surprisal is None else f"{model.surprisal:.3f}" for model in models]
    return [*rows, ["entropy: nats per token of its own completions", *surprisal, ""]]


def attribute_rows(models: Sequence[WritingNumbers]) -> list[list[str]]:
    """Of which attributes completions speak."""
    attributes = list(models[0].attribute_of_completions)
    rows = [
        [
            f"completions that claim something of {attribute}",
            *(percent(m.attribute_of_completions[attribute]) for m in models),
            "",
        ]
        for attribute in attributes
    ]
    return rows + [
        [f"claims that are of {attribute}", *(percent(m.attribute_of_claims[attribute]) for m in models), ""]
        for attribute in attributes
    ]


def skill_text(name: str, value: float | None) -> str:
    """A measure in percent or as it is."""
    if value is None:
        return ""
    return percent(value) if name in PERCENT_SKILLS else f"{value:.2f}"


def example_lines(results: Sequence[UnitResult]) -> list[str]:
    """First completions about the first test users of a simulated data."""
    shown = [example for result in results[:1] for example in result.examples]
    if not shown:
        return []
    lines = ["First completion about the first test users, as they come:", ""]
    for number, example in enumerate(shown, start=1):
        told = [
            [variant_title(row), f"`{text.replace('|', '/').replace('`', ' ')}`"]
            for row, text in example.completions.items()
        ]
        lines += table((f"user {number}", "completion"), told, left=2)
    return lines


def cost(evidence: Evidence) -> Part:
    """What one unit of every main study took, by kind of stage."""
    lines = [
        ABOUT_COST,
        "",
    ]
    for study, variant, results in (*main_results(evidence, "main"), *main_results(evidence, "external")):
        whole = [result for result in results if result.reused_from is None]
        lines += [f"### {evidence.studies[study].title}", "", *not_run(evidence, study, variant)]
        if not whole:
            lines += ["Every unit took from another what it has in common with it.", ""] if results else []
            continue
        rows: list[list[str]] = []
        for verb in dict.fromkeys(one.verb for result in whole for one in result.costs):
            own = [one for result in whole for one in result.costs if one.verb == verb]
            tokens = [one.tokens for one in own if one.tokens is not None]
            rows.append(
                [
                    verb,
                    f"{sum(one.num_stages for one in own) / len(whole):.0f}",
                    format_seconds(sum(one.wall_s for one in own) / len(whole)).strip(),
                    f"{sum(tokens) / len(whole):,.0f}" if tokens else "",
                    f"{max(one.peak_memory_mib for one in own):,.0f}",
                ]
            )
        total = format_seconds(sum(result.wall_s for result in whole) / len(whole)).strip()
        rows.append(["all", "", total, "", ""])
        lines += table(("stage", "times", "wall time", "tokens written", "peak memory, MiB"), rows)
    return Part(lines)


def units(evidence: Evidence) -> Part:
    """Every unit: done, or why not and how long it takes."""
    rows = [
        [
            f"`{state.unit.name}`",
            "done" if state.result is not None else f"*{state.why}*",
            f"{state.minutes:.0f}",
        ]
        for state in evidence.states
    ]
    about = "Minutes are for two cores; of a done unit's siblings they are measured, of others estimated."
    return Part([about, "", *table(("unit", "state", "minutes"), rows, left=2)])
