"""What was chosen and by which numbers; what happens when one thing is changed; what a leak would claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from recloop.methods.dpo4rec.evaluate import RANDOM_LABELS, SHUFFLED, TRAINED, UNTUNED
from studies.evidence.figures import Bar, interval_plot
from studies.evidence.measuring import LEAKY
from studies.evidence.moments import Moments, pool
from studies.evidence.numbers import UnitResult
from studies.evidence.pooling import (
    Evidence,
    Pooled,
    pooled_contrast,
    pooled_predicted,
    pooled_reliability,
    pooled_rows,
    tables_of,
)
from studies.evidence.sections import PRIMARY_METRIC, Part, backbones_of, figure, main_results
from studies.evidence.study import Study
from studies.evidence.wording import (
    NOT_RUN,
    RANKERS,
    number,
    panels,
    reliable,
    variant_title,
    signed,
    table,
    with_interval,
)

BASE_KIND = "base"
ABOUT_PREDICTED = (
    'The predicted gain is one of the reward, as under "How much of the reward can a prompt teach?", by the '
    "feedback of the first line's run for all variants, chance in it included: one scale for how far each went."
)
ABOUT_CHOICES = "Settings whose intervals overlap are not told apart."
ABOUT_LEAK = (
    "On purpose, and nowhere else, a reward model is fitted on the very users it rewards. Claimed: what it then "
    "says of the language model it trained, on those users. True: the same language model on test users, read "
    "by an evaluator of its own."
)


def choices(evidence: Evidence) -> Part:
    """The valid users' numbers of every variant, and which is in use."""
    lines: list[str] = []
    for name in evidence.of_place("choices"):
        study = evidence.studies[name]
        about = (study.about, ABOUT_CHOICES, ABOUT_PREDICTED)
        lines += [f"### {study.title}", "", *about, "", *choice_table(evidence, name)]
    return Part(lines or [NOT_RUN])


def choice_table(evidence: Evidence, study: str) -> list[str]:
    """One line per variant that was run: the trained row on valid users, and how far its feedback went."""
    used = used_variants(evidence, study)
    rows: list[list[str]] = []
    for name, variant in evidence.studies[study].variants.items():
        results = evidence.of_study(study, name)
        backbones = backbones_of(results)
        tables = tables_of(results, backbones[0], "valid") if backbones else []
        trained = pooled_rows(tables, PRIMARY_METRIC).get(TRAINED)
        if trained is None:
            continue
        predicted = gains_predicted(results).get(TRAINED)
        rows.append(
            [
                "" if variant.kind == BASE_KIND else variant.kind,
                variant.title + (" (used)" if name in used else ""),
                number(trained.values.mean),
                difference_text(pooled_contrast(tables, PRIMARY_METRIC, TRAINED, UNTUNED)),
                with_interval(predicted) if predicted else "",
                reliability_text(results),
                f"{sum(r.rewards[0].pairs.get('num_pairs', 0) for r in results):,}",
                f"{trained.values.num_users:,}",
            ]
        )
    head = (
        *("changed", "setting", f"trained, {PRIMARY_METRIC}, valid", "less untuned", "predicted gain"),
        *("reliability", "pairs", "users"),
    )
    lines = table(head, rows, left=2) if rows else []
    return [*missing_variants(evidence, study), *lines]


def missing_variants(evidence: Evidence, study: str) -> list[str]:
    """A line that names the variants of which nothing was run; none when there are none."""
    variants = evidence.studies[study].variants
    titles = [variant.title for name, variant in variants.items() if not evidence.of_study(study, name)]
    return [f"{NOT_RUN}: {'; '.join(titles)}", ""] if titles else []


def used_variants(evidence: Evidence, study: str) -> set[str]:
    """The variants that have, in all that any variant changes, the settings of the main study they were chosen for.

    That is the base of these choices where it is a main study, otherwise the first one.
    """
    main, about = evidence.of_place("main"), evidence.studies[study]
    if not main:
        return set()
    chosen_for = about.base if about.base in main else main[0]
    config = next(s.unit.settings for s in evidence.states if s.unit.study == chosen_for)
    own = {s.unit.variant: s.unit.settings for s in evidence.states if s.unit.study == study}
    keys = {key for variant in about.variants.values() for key in leaves(variant.run)}
    return {variant for variant in own if all(value_at(own[variant], key) == value_at(config, key) for key in keys)}


def leaves(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of all values.

    Example:
        >>> leaves({"dpo": {"lr": 1, "beta": 2}, "rounds": 3})
        ['dpo.lr', 'dpo.beta', 'rounds']
    """
    found: list[str] = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        found += leaves(cast(dict[str, Any], value), f"{name}.") if isinstance(value, dict) else [name]
    return found


def value_at(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted name."""
    value: Any = settings
    for part in key.split("."):
        value = value[part]
    return value


def reliability_text(results: Sequence[UnitResult]) -> str:
    """Of the reward that made the pairs, all lists."""
    metric = results[0].rewards[0].metric
    found = [one for one in pooled_reliability(results) if (one.metric, one.num_lists) == (metric, None)]
    return reliable(found[0]) if found else ""


def difference_text(pooled: Pooled | None) -> str:
    """A difference with its interval, or nothing."""
    return "" if pooled is None else with_interval(pooled.values)


def ablations(evidence: Evidence) -> Part:
    """Per variant: what training gained, beside the main study's gain on the same panels."""
    lines: list[str] = []
    figures: dict[str, str] = {}
    for name in evidence.of_place("ablations"):
        study = evidence.studies[name]
        lines += [f"### {study.title}", "", study.about, ABOUT_PREDICTED, "", *missing_variants(evidence, name)]
        rows: list[list[str]] = []
        bars: list[Bar] = []
        for title, results in variants_of(evidence, name):
            for ranker in backbones_of(results):
                for cells, bar in variant_rows(title, results, ranker):
                    rows.append(cells)
                    bars.append(bar)
        head = (
            *("changed", "evaluator", "untuned", "trained"),
            *("trained less untuned", "less random labels", "less shuffled", "panels", "predicted gain"),
        )
        lines += table(head, rows, left=2) if rows else []
        if bars:
            figures[f"{name}.svg"] = interval_plot(bars, f"trained less untuned, {PRIMARY_METRIC}")
            lines += figure(f"{name}.svg", f"{study.title}: trained less untuned")
    return Part(lines or [NOT_RUN], figures)


def variants_of(evidence: Evidence, name: str) -> list[tuple[str, list[UnitResult]]]:
    """The main study on the panels of the ablations, then every variant that does not leak."""
    study = evidence.studies[name]
    wanted = set(study.panels)
    base = [
        (f"as in: {evidence.studies[main].title}", [result for result in results if result.panel in wanted])
        for main, variant, results in main_results(evidence, "main")
        if study.reuses_from == (f"{main}.{variant}" if variant else main)
    ]
    honest = {key: variant for key, variant in study.variants.items() if key not in leaking_variants(study)}
    return [*base, *((variant.title, evidence.of_study(name, key)) for key, variant in honest.items())]


def variant_rows(title: str, results: Sequence[UnitResult], ranker: str) -> list[tuple[list[str], Bar]]:
    """A line for the trained row, and one for each round before the last."""
    tables = tables_of(results, ranker)
    rows = pooled_rows(tables, PRIMARY_METRIC)
    predicted = gains_predicted(results)
    found: list[tuple[list[str], Bar]] = []
    names = sorted((name for name in rows if name.startswith(f"{TRAINED}_r")), key=lambda n: int(n.rpartition("_r")[2]))
    for name in (*names, TRAINED):
        gain = pooled_contrast(tables, PRIMARY_METRIC, name, UNTUNED)
        if gain is None:
            continue
        label = f"{title}, {variant_title(name).lower()}" if names else title
        others = (pooled_contrast(tables, PRIMARY_METRIC, name, baseline) for baseline in (RANDOM_LABELS, SHUFFLED))
        cells = [label, RANKERS[ranker], number(rows[UNTUNED].values.mean), number(rows[name].values.mean)]
        cells += [with_interval(gain.values), *map(difference_text, others), panels(gain)]
        cells.append(with_interval(predicted[name]) if name in predicted else "")
        bar = Bar(f"{label}, {RANKERS[ranker]}", gain.values.mean, *gain.values.interval, gain.by_panel)
        found.append((cells, bar))
    return found


def gains_predicted(results: Sequence[UnitResult]) -> dict[str, Moments]:
    """By row, on the scale of the run that the variant takes from; a run that takes from none has its own."""
    sources = [result.predicted_by_source for result in results]
    if any(result.reused_from for result in results):
        rows = [row for row in sources[0] if all(row in one for one in sources)]
        return {row: pool([one[row] for one in sources]) for row in rows}
    return {row: values for one in pooled_predicted(results) for row, values in one.reached.items()}


def leakage(evidence: Evidence) -> Part:
    """A reward model fitted on the users it rewards: its claim, and the truth."""
    lines = [
        ABOUT_LEAK,
        "",
    ]
    rows: list[list[str]] = []
    for name, study in evidence.studies.items():
        for key in leaking_variants(study):
            results = [result for result in evidence.of_study(name, key) if result.leakage is not None]
            leaks = [result.leakage for result in results if result.leakage is not None]
            if not leaks:
                rows.append([study.variants[key].title, NOT_RUN, "", "", ""])
            for ranker in backbones_of(results):
                truth = pooled_contrast(tables_of(results, ranker), PRIMARY_METRIC, LEAKY, UNTUNED)
                claim, room, honest = (
                    pool([getattr(leak, what) for leak in leaks])
                    for what in ("claimed", "best_less_mean", "honest_best_less_mean")
                )
                rows.append(
                    [
                        f"{study.title}, {RANKERS[ranker]}",
                        f"{with_interval(claim)} ({leaks[0].metric})",
                        f"{difference_text(truth)} ({PRIMARY_METRIC})",
                        signed(room.mean),
                        signed(honest.mean),
                    ]
                )
    head = (
        *("study", "claimed: trained less untuned", "true: trained less untuned"),
        *("best completion less mean, leaky reward model", "honest reward model"),
    )
    return Part([*lines, *table(head, rows)] if rows else [NOT_RUN])


def leaking_variants(study: Study) -> list[str]:
    """The variants that leak on purpose."""
    return [name for name, variant in study.variants.items() if "leakage" in variant.extras]
