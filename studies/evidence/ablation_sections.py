"""The sections of choices, of ablations and of the leak on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from recloop.methods.dpo4rec.names import RANDOM_LABELS, SHUFFLED, TRAINED, UNTUNED
from studies.evidence.figures import Interval, interval_plot
from studies.evidence.labels import (
    NOT_RUN,
    RANKERS,
    fold_means,
    number,
    reliable,
    signed,
    table,
    variant_title,
    with_interval,
)
from studies.evidence.numbers import RunNumbers
from studies.evidence.pooling import (
    Evidence,
    Pooled,
    pooled_contrast,
    pooled_predicted,
    pooled_reliability,
    pooled_variants,
    tables_of,
)
from studies.evidence.sections import PRIMARY_METRIC, Part, backbones_of, figure, main_results
from studies.evidence.statistics import Moments, pool
from studies.evidence.study import Study
from studies.evidence.tables import LEAKY

BASE_KIND = "base"
ABOUT_PREDICTED = (
    'The predicted gain is a gain in reward, as under "How much of the reward can a prompt teach?". It is predicted '
    "from the rewards of the first line's run for all settings, so they share one scale; chance is part of it."
)
ABOUT_CHOICES = "Settings whose intervals overlap are not separated."
ABOUT_LEAK = (
    "On purpose, and nowhere else, a reward model is fitted on the very users it rewards. Claimed: its own value for "
    "the language model trained with it, on those users. True: the same language model on test users, with an "
    "evaluation reranker of its own."
)


def choices(evidence: Evidence) -> Part:
    """The valid users' numbers of every setting, and which one is in use."""
    lines: list[str] = []
    for name in evidence.of_place("choices"):
        study = evidence.studies[name]
        about = (study.about, ABOUT_CHOICES, ABOUT_PREDICTED)
        lines += [f"### {study.title}", "", *about, "", *choice_table(evidence, name)]
    return Part(lines or [NOT_RUN])


def choice_table(evidence: Evidence, study: str) -> list[str]:
    """One line per setting that was run: its trained variant on valid users, and its predicted gain."""
    used = used_settings(evidence, study)
    rows: list[list[str]] = []
    for name, setting in evidence.studies[study].settings.items():
        results = evidence.of_study(study, name)
        backbones = backbones_of(results)
        tables = tables_of(results, backbones[0], "valid") if backbones else []
        trained = pooled_variants(tables, PRIMARY_METRIC).get(TRAINED)
        if trained is None:
            continue
        predicted = gains_predicted(results).get(TRAINED)
        rows.append(
            [
                "" if setting.kind == BASE_KIND else setting.kind,
                setting.title + (" (used)" if name in used else ""),
                number(trained.values.mean),
                difference_text(pooled_contrast(tables, PRIMARY_METRIC, TRAINED, UNTUNED)),
                with_interval(predicted) if predicted else "",
                reliability_text(results),
                f"{sum(r.rewards[0].pairs.get('num_pairs', 0) for r in results):,}",
                f"{trained.values.num_users:,}",
            ]
        )
    head = (
        *("changed", "setting", f"trained, {PRIMARY_METRIC}, valid", "minus untuned", "predicted gain"),
        *("reliability", "pairs", "users"),
    )
    lines = table(head, rows, left=2) if rows else []
    return [*missing_settings(evidence, study), *lines]


def missing_settings(evidence: Evidence, study: str) -> list[str]:
    """A line that names the settings without a done run; no line when all have one."""
    settings = evidence.studies[study].settings
    titles = [setting.title for name, setting in settings.items() if not evidence.of_study(study, name)]
    return [f"{NOT_RUN}: {'; '.join(titles)}", ""] if titles else []


def used_settings(evidence: Evidence, study: str) -> set[str]:
    """The settings that equal the main study they were chosen for, in all that any setting changes.

    That study is the base of these choices where it is a main one, otherwise the first main study.
    """
    main, about = evidence.of_place("main"), evidence.studies[study]
    if not main:
        return set()
    chosen_for = about.base if about.base in main else main[0]
    config = next(s.run.config_json for s in evidence.states if s.run.study == chosen_for)
    own = {s.run.setting: s.run.config_json for s in evidence.states if s.run.study == study}
    keys = {key for setting in about.settings.values() for key in leaves(setting.run)}
    return {name for name, tree in own.items() if all(value_at(tree, key) == value_at(config, key) for key in keys)}


def leaves(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted names of all values.

    Example:
        >>> leaves({"dpo": {"learning_rate": 1, "beta": 2}, "rounds": 3})
        ['dpo.learning_rate', 'dpo.beta', 'rounds']
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


def reliability_text(results: Sequence[RunNumbers]) -> str:
    """Reliability over all lists of the reward that made the pairs."""
    metric = results[0].rewards[0].metric
    found = [one for one in pooled_reliability(results) if (one.metric, one.num_lists) == (metric, None)]
    return reliable(found[0]) if found else ""


def difference_text(pooled: Pooled | None) -> str:
    """A difference with its interval, or nothing."""
    return "" if pooled is None else with_interval(pooled.values)


def ablations(evidence: Evidence) -> Part:
    """What training gained under each setting, beside the main study's gain on the same folds."""
    lines: list[str] = []
    figures: dict[str, str] = {}
    for name in evidence.of_place("ablations"):
        study = evidence.studies[name]
        lines += [f"### {study.title}", "", study.about, ABOUT_PREDICTED, "", *missing_settings(evidence, name)]
        rows: list[list[str]] = []
        intervals: list[Interval] = []
        for title, results in ablation_settings(evidence, name):
            for ranker in backbones_of(results):
                for cells, interval in setting_rows(title, results, ranker):
                    rows.append(cells)
                    intervals.append(interval)
        head = (
            *("changed", "evaluation reranker", "untuned", "trained"),
            *("trained minus untuned", "minus random labels", "minus shuffled", "folds", "predicted gain"),
        )
        lines += table(head, rows, left=2) if rows else []
        if intervals:
            figures[f"{name}.svg"] = interval_plot(intervals, f"trained minus untuned, {PRIMARY_METRIC}")
            lines += figure(f"{name}.svg", f"{study.title}: trained minus untuned")
    return Part(lines or [NOT_RUN], figures)


def ablation_settings(evidence: Evidence, name: str) -> list[tuple[str, list[RunNumbers]]]:
    """The main study on the folds of the ablations, then every setting that does not leak."""
    study = evidence.studies[name]
    wanted = set(study.folds)
    base = [
        (f"as in: {evidence.studies[main].title}", [result for result in results if result.fold in wanted])
        for main, setting, results in main_results(evidence, "main")
        if study.reuses_from == (f"{main}.{setting}" if setting else main)
    ]
    honest = {key: setting for key, setting in study.settings.items() if key not in leaking_settings(study)}
    return [*base, *((setting.title, evidence.of_study(name, key)) for key, setting in honest.items())]


def setting_rows(title: str, results: Sequence[RunNumbers], ranker: str) -> list[tuple[list[str], Interval]]:
    """A line for the trained variant, and one for each round before the last."""
    tables = tables_of(results, ranker)
    variants = pooled_variants(tables, PRIMARY_METRIC)
    predicted = gains_predicted(results)
    found: list[tuple[list[str], Interval]] = []
    rounds = [name for name in variants if name.startswith(f"{TRAINED}_r")]
    for name in (*sorted(rounds, key=lambda name: int(name.rpartition("_r")[2])), TRAINED):
        gain = pooled_contrast(tables, PRIMARY_METRIC, name, UNTUNED)
        if gain is None:
            continue
        label = f"{title}, {variant_title(name).lower()}" if rounds else title
        others = (pooled_contrast(tables, PRIMARY_METRIC, name, baseline) for baseline in (RANDOM_LABELS, SHUFFLED))
        cells = [label, RANKERS[ranker], number(variants[UNTUNED].values.mean), number(variants[name].values.mean)]
        cells += [with_interval(gain.values), *map(difference_text, others), fold_means(gain)]
        cells.append(with_interval(predicted[name]) if name in predicted else "")
        interval = Interval(f"{label}, {RANKERS[ranker]}", gain.values.mean, *gain.values.interval, gain.by_fold)
        found.append((cells, interval))
    return found


def gains_predicted(results: Sequence[RunNumbers]) -> dict[str, Moments]:
    """The predicted gain by variant, on the scale of the source run; a run without one has its own scale."""
    sources = [result.predicted_by_source for result in results]
    if any(result.reused_from for result in results):
        names = [name for name in sources[0] if all(name in one for one in sources)]
        return {name: pool([one[name] for one in sources]) for name in names}
    return {name: values for one in pooled_predicted(results) for name, values in one.reached.items()}


def leakage(evidence: Evidence) -> Part:
    """The claim of a reward model fitted on the users it rewards, and the truth."""
    lines = [ABOUT_LEAK, ""]
    rows: list[list[str]] = []
    for name, study in evidence.studies.items():
        for key in leaking_settings(study):
            results = [result for result in evidence.of_study(name, key) if result.leakage is not None]
            leaks = [result.leakage for result in results if result.leakage is not None]
            if not leaks:
                rows.append([study.settings[key].title, NOT_RUN, "", "", ""])
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
        *("study", "claimed: trained minus untuned", "true: trained minus untuned"),
        *("best completion minus mean, leaky reward model", "honest reward model"),
    )
    return Part([*lines, *table(head, rows)] if rows else [NOT_RUN])


def leaking_settings(study: Study) -> list[str]:
    """The settings that leak on purpose."""
    return [name for name, setting in study.settings.items() if "leakage" in setting.extras]
