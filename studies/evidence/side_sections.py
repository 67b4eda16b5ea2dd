"""The sections of reward reliability, of the texts, of cost, and the list of study runs."""

from __future__ import annotations

from collections.abc import Sequence

from recloop.progress import format_seconds
from studies.evidence.figures import Line, line_plot
from studies.evidence.labels import NOT_RUN, percent, reliable, table, variant_title, with_interval
from studies.evidence.numbers import RunNumbers, WritingNumbers
from studies.evidence.pooling import (
    Evidence,
    pooled_change,
    pooled_predicted,
    pooled_reliability,
    pooled_writing,
)
from studies.evidence.sections import Part, figure, main_results, not_run
from studies.evidence.writing import COMPARED

PERCENT_SKILLS = ("well_formed", "grounded", "true", "true_likes", "true_dislikes", "coverage")
ABOUT_RELIABILITY = (
    "Would other lists of the same users prefer the same completions? The reliability is the correlation of completion "
    "effects between a user's odd and even lists, stepped up to all lists (Spearman-Brown), with 95% intervals over "
    "users. It is that of the frozen reward model on the untuned language model's completions about reward users. "
    "Where the interval contains 0, the reward is noise."
)
ABOUT_PREDICTED = (
    "A reward that is not noise may still depend on nothing that the prompt shows. The table has the cross-user R² of "
    "the within-user reward: the share of it that other users' completions predict. The gain is the reward of the "
    "completion that is predicted to be a user's best, minus the user's mean, which is about what training can gain. "
    "Reward model and completions are as above; intervals are 95% intervals over users."
)
ABOUT_REACHED = (
    "How far did each language model go in that direction? The table has the reward predicted for its completions "
    "about test users, minus the same for the untuned model. It is predicted from the texts alone; no list of a test "
    "user is used. Intervals are over users, given the predictions. The same rewards made the pairs, so chance in them "
    "counts as reached too: this shows whether a model does what it was trained to do. What test users' own lists say "
    "of it is in the tables of the frozen reward model below."
)
ABOUT_COST = (
    "Means per study run; memory is the most that any step of any run used. Runs that reused results of another run "
    "are left out."
)
SKILL_WORDS = {
    "well_formed": "canonical form and finished",
    "grounded": "claims about a value that the history shows",
    "true": "claims that the history supports",
    "true_likes": "likes that the history supports",
    "true_dislikes": "dislikes that the history supports",
    "coverage": "share of the five strongest likes that are named",
    "claims_per_completion": "claims per completion",
    "claims_of_four": "claims per completion, where the history supports four",
    "distinct_attribute_sets": "different sets of claims among a user's completions",
    "tokens_per_completion": "tokens per completion",
}


def reliability(evidence: Evidence) -> Part:
    """Split-half reliability by kind of reward and by lists per user, for every log."""
    lines = [ABOUT_RELIABILITY, ""]
    figures: dict[str, str] = {}
    for study, setting, results in (*main_results(evidence, "main"), *main_results(evidence, "external")):
        about = evidence.studies[study]
        if not about.claims:  # another study has the same folds
            continue
        found = pooled_reliability(results)
        lines += [f"### {about.title}", "", *not_run(evidence, study, setting)]
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
            label = "all" if count is None else str(count)
            rows.append([label, f"{users:,}", *("" if one is None else reliable(one) for one in cells)])
        lines += table(("lists per user", "users", *metrics), rows)
        curves = [
            Line(metric, tuple(float(c) for c, _ in points), tuple(r for _, r in points))
            for metric in metrics
            if (points := [(o.num_lists, o.reliability) for o in found if o.metric == metric and o.num_lists])
        ]
        if curves:
            name = f"{study}-reliability.svg"
            figures[name] = line_plot(curves, "Reliability of the reward", "lists per user", "split-half reliability")
            lines += figure(name, f"{about.title}: reliability by lists per user")
    return Part(lines, figures)


def predicted(evidence: Evidence) -> Part:
    """How much of every kind of reward other users' completions predict, for every log."""
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
        [log.title, one.metric, variant_title(name), with_interval(values)]
        for log, one in by_log
        for name, values in one.reached.items()
    ]
    head = ("log", "reward", "cross-user R²", "gain of the predicted best")
    return Part(
        [
            ABOUT_PREDICTED,
            "",
            *table(head, rows, left=2),
            ABOUT_REACHED,
            "",
            *table(("log", "reward", "language model", "predicted reward minus untuned"), reached, left=3),
        ]
    )


def written(evidence: Evidence) -> Part:
    """Form, truth, attributes and entropy of each language model's texts about test users."""
    lines: list[str] = []
    for study, setting, results in (*main_results(evidence, "main"), *main_results(evidence, "external")):
        lines += [f"### {evidence.studies[study].title}", "", *not_run(evidence, study, setting)]
        models = pooled_writing(results)
        if not models:
            continue
        head = ("metric", *(variant_title(model.variant) for model in models), "trained minus untuned, by user")
        lines += table(head, [*skill_rows(models, results), *attribute_rows(models)])
        lines += example_lines(results)
    return Part(lines or [NOT_RUN])


def skill_rows(models: Sequence[WritingNumbers], results: Sequence[RunNumbers]) -> list[list[str]]:
    """A line per metric and a column per language model."""
    rows = [["completions", *(f"{model.num_completions:,}" for model in models), ""]]
    for name in models[0].skill:
        change = pooled_change(results, name) if name in COMPARED else None
        cells = [skill_text(name, model.skill[name]) for model in models]
        rows.append([SKILL_WORDS.get(name, name), *cells, "" if change is None else with_interval(change)])
    surprisal = ["" if model.surprisal is None else f"{model.surprisal:.3f}" for model in models]
    return [*rows, ["entropy: nats per token of its own completions", *surprisal, ""]]


def attribute_rows(models: Sequence[WritingNumbers]) -> list[list[str]]:
    """The share of completions and of claims about each attribute."""
    attributes = list(models[0].attribute_of_completions)
    rows = [
        [
            f"completions with a claim about {attribute}",
            *(percent(m.attribute_of_completions[attribute]) for m in models),
            "",
        ]
        for attribute in attributes
    ]
    return rows + [
        [f"claims about {attribute}", *(percent(m.attribute_of_claims[attribute]) for m in models), ""]
        for attribute in attributes
    ]


def skill_text(name: str, value: float | None) -> str:
    """A metric in percent or as a number."""
    if value is None:
        return ""
    return percent(value) if name in PERCENT_SKILLS else f"{value:.2f}"


def example_lines(results: Sequence[RunNumbers]) -> list[str]:
    """The first completions about the first test users of a simulated log."""
    shown = [example for result in results[:1] for example in result.examples]
    if not shown:
        return []
    lines = ["First completion about the first test users, not selected:", ""]
    for number, example in enumerate(shown, start=1):
        texts = [
            [variant_title(name), f"`{text.replace('|', '/').replace('`', ' ')}`"]
            for name, text in example.completions.items()
        ]
        lines += table((f"user {number}", "completion"), texts, left=2)
    return lines


def cost(evidence: Evidence) -> Part:
    """The cost of one run of every main study, by kind of step."""
    lines = [ABOUT_COST, ""]
    for study, setting, results in (*main_results(evidence, "main"), *main_results(evidence, "external")):
        whole = [result for result in results if result.reused_from is None]
        lines += [f"### {evidence.studies[study].title}", "", *not_run(evidence, study, setting)]
        if not whole:
            lines += ["Every run reused results of another run.", ""] if results else []
            continue
        rows: list[list[str]] = []
        for kind in dict.fromkeys(one.kind for result in whole for one in result.costs):
            own = [one for result in whole for one in result.costs if one.kind == kind]
            tokens = [one.tokens for one in own if one.tokens is not None]
            rows.append(
                [
                    kind,
                    f"{sum(one.num_steps for one in own) / len(whole):.0f}",
                    format_seconds(sum(one.wall_s for one in own) / len(whole)).strip(),
                    f"{sum(tokens) / len(whole):,.0f}" if tokens else "",
                    f"{max(one.peak_memory_mib for one in own):,.0f}",
                ]
            )
        total = format_seconds(sum(result.wall_s for result in whole) / len(whole)).strip()
        rows.append(["all", "", total, "", ""])
        lines += table(("step", "times", "wall time", "tokens written", "peak memory, MiB"), rows)
    return Part(lines)


def study_runs_done(evidence: Evidence) -> Part:
    """Every study run: done, or why not, and its minutes."""
    rows = [
        [
            f"`{state.run.name}`",
            "done" if state.numbers is not None else f"*{state.why}*",
            f"{state.minutes:.0f}",
        ]
        for state in evidence.states
    ]
    about = "Minutes are for two cores: measured where a run of the same setting is done, otherwise estimated."
    return Part([about, "", *table(("study run", "state", "minutes"), rows, left=2)])
