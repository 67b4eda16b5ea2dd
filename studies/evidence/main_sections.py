"""The sections of the claims and of the main tables."""

from __future__ import annotations

from collections.abc import Sequence

from recloop.methods.dpo4rec.compare import BASELINES_OF_TRAINED
from recloop.methods.dpo4rec.names import (
    BEST_OF_N,
    BEST_TEMPLATE,
    ID_HISTORY,
    NO_TEXT,
    RANDOM_LABELS,
    REWARD_MODEL,
    SHUFFLED,
    TRAINED,
    TRAINED_BESIDE_IDS,
    UNTUNED,
    UNTUNED_BESIDE_IDS,
)
from recloop.prompts.text_truth import SAYS
from studies.evidence.figures import Interval, interval_plot
from studies.evidence.labels import (
    NOT_RUN,
    RANKERS,
    by_heading,
    contrast_cells,
    fold_means,
    level,
    number,
    percent,
    points,
    signed,
    table,
    variant_title,
    verdict,
    with_interval,
)
from studies.evidence.numbers import RunNumbers, TableNumbers
from studies.evidence.pooling import (
    Evidence,
    Pooled,
    PooledContrast,
    gap_closed,
    pooled_change,
    pooled_contrast,
    pooled_contrasts,
    pooled_variants,
    pooled_writing,
    tables_of,
)
from studies.evidence.sections import (
    PRIMARY_METRIC,
    SHOWN_METRICS,
    Part,
    backbones_of,
    figure,
    main_results,
    not_run,
)
from studies.evidence.statistics import pool
from studies.evidence.tables import BESIDE_IDS, CHECKED, SAID, SLICED, TRANSFERRED, TRIES

SHORT_ROWS = (SHUFFLED, NO_TEXT, UNTUNED, TRAINED, BEST_TEMPLATE, ID_HISTORY, UNTUNED_BESIDE_IDS, TRAINED_BESIDE_IDS)
MUST_BEAT = (UNTUNED, RANDOM_LABELS, SHUFFLED)
ALPHA, MIN_FOLDS = 0.01, 3
MOST_GROUNDED_LOST = 0.02
CLAIM_METRICS = ("ndcg@5", "map@5")


def claims(evidence: Evidence) -> Part:
    """The claims, and whether they hold."""
    rows: list[list[str]] = []
    few: list[str] = []
    for study, _, results in claiming(evidence):
        title = evidence.studies[study].title
        if len(results) < MIN_FOLDS:
            done = f"{len(results)} of {MIN_FOLDS} folds" if results else NOT_RUN
            few.append(f"- {title}: {done}, so it shows nothing yet; its tables show what was done")
            continue
        for ranker in backbones_of(results):
            tables = tables_of(results, ranker)
            for metric in CLAIM_METRICS:
                found = {c.against: c for c in pooled_contrasts(tables, metric, TRAINED, BASELINES_OF_TRAINED)}
                rows += [
                    [
                        title,
                        RANKERS[ranker],
                        metric,
                        f"trained above {variant_title(baseline)}",
                        *claim_cells(found.get(baseline)),
                    ]
                    for baseline in MUST_BEAT
                ]
    head = (
        "lists",
        "evaluation reranker",
        "metric",
        "claim",
        "difference",
        "Holm",
        "folds",
        f"Holm < {ALPHA}, all folds",
    )
    shown = table(head, rows, left=4) if rows else []
    few += [""] if few else []
    return Part([*shown, *few, *gap_lines(evidence), *grounded_lines(evidence), *checked_lines(evidence)])


def claiming(evidence: Evidence) -> list[tuple[str, str, list[RunNumbers]]]:
    """The main studies on which the claims are tested."""
    return [one for one in main_results(evidence, "main") if evidence.studies[one[0]].claims]


def claim_cells(contrast: PooledContrast | None) -> list[str]:
    """The cells of a claim: difference, p, folds, verdict."""
    if contrast is None:
        return [NOT_RUN, "", "", ""]
    difference, _, p_holm, by_fold = contrast_cells(contrast)
    return [difference, p_holm, by_fold, verdict(contrast, ALPHA, MIN_FOLDS)]


def gap_lines(evidence: Evidence) -> list[str]:
    """Share of the gain from choosing among N completions that training gives with one completion."""
    rows: list[list[str]] = []
    for study, _, results in claiming(evidence):
        for ranker in [*backbones_of(results), *([REWARD_MODEL] if results else [])]:
            closed = gap_closed(tables_of(results, ranker), PRIMARY_METRIC)
            if closed is None and ranker == REWARD_MODEL:
                continue  # several reward models are averaged, so there is no best completion under one of them
            if closed is None:
                cells = ["", "best of N is not above the untuned model, or one of them is missing", "", ""]
            else:
                share = "the gap may be 0"
                if closed.interval is not None:
                    share = f"{percent(closed.share)} ({' to '.join(map(percent, closed.interval))})"
                low, high = closed.above_half.interval
                state = "**holds**" if low > 0 else "**does not hold**" if high < 0 else "open"
                if len(results) < MIN_FOLDS:
                    state = f"{len(results)} of {MIN_FOLDS} folds: open"
                cells = [signed(closed.gap), share, with_interval(closed.above_half), state]
            rows.append([evidence.studies[study].title, RANKERS[ranker], *cells])
    head = (
        "lists",
        "evaluation reranker",
        "best of N minus untuned",
        "closed by training (95% interval)",
        "trained minus untuned, less half the gap",
        "more than half",
    )
    about = (
        f"Does training close the gap between untuned and cross-validated best-of-N ({PRIMARY_METRIC})? The better of "
        "a user's untuned test texts is chosen by half of the user's lists and scored on the other half. A user with "
        "one list has the mean. So where users have few lists, or texts that hardly differ, the gap says little:"
    )
    return [about, "", *table(head, rows, left=2)] if rows else [f"Gap to best-of-N closed: {NOT_RUN}", ""]


def grounded_lines(evidence: Evidence) -> list[str]:
    """Whether training made the language model claim what the history does not show."""
    lines: list[str] = []
    for study, _, results in claiming(evidence):
        change = pooled_change(results, "grounded")
        if change is not None:
            state = "**holds**" if change.mean >= -MOST_GROUNDED_LOST else "**does not hold**"
            low, high = change.interval
            lines.append(
                f"- {evidence.studies[study].title}: of a user's claims, the share whose value the history has, liked "
                f"or not, changes by {points(change.mean)} [{points(low)}, {points(high)}] points; at most 2 lost: "
                f"{state}"
            )
    return [*(lines or [f"Groundedness before and after training: {NOT_RUN}"]), ""]


def checked_lines(evidence: Evidence) -> list[str]:
    """Whether a gain stays when untrue texts are drawn again; nothing where no study asks that."""
    rows: list[list[str]] = []
    for study, _, results in claiming(evidence):
        truth = {one.variant: one.skill.get("true") for one in pooled_writing(results)}
        if CHECKED not in truth:
            continue
        for ranker in backbones_of(results):
            tables = tables_of(results, ranker)
            found = [pooled_contrast(tables, PRIMARY_METRIC, CHECKED, against) for against in (UNTUNED, TRAINED)]
            rows.append(
                [
                    evidence.studies[study].title,
                    RANKERS[ranker],
                    *(percent(truth.get(name)) for name in (UNTUNED, TRAINED, CHECKED)),
                    *(with_interval(one.values) if one else NOT_RUN for one in found),
                    fold_means(found[0]) if found[0] else "",
                ]
            )
    head = (
        *("lists", "evaluation reranker", "true, untuned", "trained", "checked"),
        *("checked minus untuned", "checked minus trained", "checked minus untuned, by fold"),
    )
    about = (
        f"Is a gain one of untruth? For *{variant_title(CHECKED)[0].lower()}{variant_title(CHECKED)[1:]}* (*checked*), "
        f"a text that is cut off or says something untrue of its user's history is drawn again from the same trained "
        f"language model. After {TRIES} draws it is left empty. The evaluation reranker is fitted again, on train "
        f"users' texts that were checked alike. True is the share of all claims; differences are in {PRIMARY_METRIC}:"
    )
    return [about, "", *table(head, rows, left=2)] if rows else []


def main_tables(evidence: Evidence, place: str) -> Part:
    """Every variant and every difference of the studies of one part of the page."""
    lines: list[str] = []
    figures: dict[str, str] = {}
    for study, setting, results in main_results(evidence, place):
        about = evidence.studies[study]
        lines += [f"### {about.title}", "", about.about, "", *not_run(evidence, study, setting)]
        if results:
            lines += [sizes(results), ""]
        for ranker in [*backbones_of(results), *([REWARD_MODEL] if results else [])]:
            tables = tables_of(results, ranker)
            if tables:
                found = pooled_contrasts(tables, PRIMARY_METRIC, TRAINED, BASELINES_OF_TRAINED)
                lines += [f"#### Evaluation reranker: {RANKERS[ranker]}", "", *variants_table(tables)]
                lines += [*where_trained_stands(found), "", *contrasts_table(tables)]
                if ranker != REWARD_MODEL:
                    lines += slices_tables(tables)
                if ranker != REWARD_MODEL and found:
                    name = f"{study}-{ranker}.svg"
                    figures[name] = interval_plot(intervals_of(found), f"trained minus this variant, {PRIMARY_METRIC}")
                    lines += figure(name, f"{about.title}, {RANKERS[ranker]}: trained minus each variant")
    return Part(lines or [NOT_RUN], figures)


def short_histories(evidence: Evidence) -> Part:
    """For every length of the window: text in place of the ids of the history, and beside them."""
    lines: list[str] = []
    for study in evidence.of_place("short"):
        about = evidence.studies[study]
        lines += [f"### {about.title}", "", about.about, ""]
        by_setting = {name: evidence.of_study(study, name) for name in about.settings}
        for ranker in backbones_of([one for results in by_setting.values() for one in results]):
            levels: list[list[str]] = []
            differences: list[list[str]] = []
            for setting, results in by_setting.items():
                title, tables = about.settings[setting].title, tables_of(results, ranker)
                if not tables:
                    continue
                values = pooled_variants(tables, PRIMARY_METRIC)
                found = [values.get(name) for name in SHORT_ROWS]
                levels.append([title, f"{sum(one.num_users for one in tables):,}", *map(_mean_text, found)])
                contrasts = [
                    *pooled_contrasts(tables, PRIMARY_METRIC, TRAINED_BESIDE_IDS, (ID_HISTORY, UNTUNED_BESIDE_IDS)),
                    *pooled_contrasts(tables, PRIMARY_METRIC, TRAINED, (ID_HISTORY, UNTUNED)),
                ]
                differences += [
                    [title, f"{variant_title(c.name)} minus {variant_title(c.against)}", *contrast_cells(c)]
                    for c in contrasts
                ]
            lines += [f"#### Evaluation reranker: {RANKERS[ranker]}", ""]
            lines += table(("items of the history", "test users", *map(variant_title, SHORT_ROWS)), levels)
            head = ("items of the history", f"difference in {PRIMARY_METRIC}", "mean over users", "p", "Holm", "folds")
            lines += table(head, differences, left=2)
        for setting in about.settings:
            lines += not_run(evidence, study, setting)
    return Part(lines or [NOT_RUN])


def _mean_text(pooled: Pooled | None) -> str:
    return "" if pooled is None else number(pooled.values.mean)


def where_trained_stands(contrasts: Sequence[PooledContrast]) -> list[str]:
    """A sentence that says which variants the trained one is above, below, or not separated from."""
    places: dict[str, list[str]] = {"above": [], "below": [], "not separated from": []}
    for contrast in contrasts:
        place = "not separated from"
        if contrast.p_holm < ALPHA and contrast.difference.same_sign:
            place = "above" if contrast.difference.by_fold[0] > 0 else "below"
        places[place].append(f"*{variant_title(contrast.against)}*")
    told = "; ".join(f"{place} {', '.join(titles)}" for place, titles in places.items() if titles)
    return [f"By {PRIMARY_METRIC} trained is {told} (Holm < {ALPHA}, every fold)."] if told else []


def sizes(results: Sequence[RunNumbers]) -> str:
    """The numbers of users and lists, all folds together."""
    groups = [
        f"{group} {sum(r.groups[group][0] for r in results):,} users with "
        f"{sum(r.groups[group][1] for r in results):,} lists"
        for group in results[0].groups
    ]
    folds = "1 fold" if len(results) == 1 else f"{len(results)} folds"
    demonstration = " **Demonstration: one fold, so nothing may be claimed from it.**" if len(results) == 1 else ""
    return f"{folds}: {'; '.join(groups)}.{demonstration}"


def variants_table(tables: Sequence[TableNumbers]) -> list[str]:
    """Means over users, one line per variant."""
    metrics = [metric for metric in SHOWN_METRICS if metric in tables[0].variants[0].values]
    by_metric = {metric: pooled_variants(tables, metric) for metric in metrics}
    rows = [
        [
            variant_title(name),
            level(pooled.values),
            *(number(by_metric[m][name].values.mean) for m in metrics[1:]),
        ]
        for name, pooled in by_heading(by_metric[metrics[0]])
    ]
    return table(("variant", *metrics), rows)


def contrasts_table(tables: Sequence[TableNumbers]) -> list[str]:
    """Trained (and a transferred language model) against every baseline, by both tested metrics."""
    rows: list[list[str]] = []
    for metric in CLAIM_METRICS:
        for name in (TRAINED, TRANSFERRED, CHECKED):
            rows += [
                [metric, f"{variant_title(name)} minus {variant_title(c.against)}", *contrast_cells(c)]
                for c in pooled_contrasts(tables, metric, name, (*BASELINES_OF_TRAINED, TRAINED))
            ]
        rows += [
            [metric, f"{variant_title(c.name)} minus {variant_title(c.against)}", *contrast_cells(c)]
            for c in pooled_contrasts(tables, metric, BESIDE_IDS[0][0], [against for _, against in BESIDE_IDS])
        ]
        bound = pooled_contrasts(tables, metric, BEST_OF_N, (UNTUNED,))
        rows += [
            [
                metric,
                f"{variant_title(BEST_OF_N)} minus {variant_title(UNTUNED)}",
                with_interval(c.difference.values),
                "",
                "",
                "",
            ]
            for c in bound
        ]
    return table(("metric", "difference", "mean over users", "p", "Holm", "folds"), rows, left=2) if rows else []


def band_title(low: int, high: int | None) -> str:
    """As in ``up to 3``, ``4 to 5``, ``31 and more``."""
    return f"{low} and more" if high is None else f"up to {high}" if low == 0 else f"{low} to {high}"


def slices_tables(tables: Sequence[TableNumbers]) -> list[str]:
    """Where differences are large: by history, by popularity of what a user went on to like, by what texts say."""
    lines: list[str] = []
    for by in dict.fromkeys(one.by for table_ in tables for one in table_.slices):
        rows: list[list[str]] = []
        for name, against in SLICED:
            wanted = (name, against, by)
            parts = [one for table_ in tables for one in table_.slices if (one.name, one.against, one.by) == wanted]
            for low, high in sorted({one.low: one.high for one in parts}.items()):
                pooled = pool([one.values[PRIMARY_METRIC] for one in parts if one.low == low])
                band = SAYS[low] if by == SAID else band_title(low, high)
                difference = f"{variant_title(name)} minus {variant_title(against)}"
                rows.append([difference, band, f"{pooled.num_users:,}", with_interval(pooled)])
        lines += [*table(("difference", by, "users", f"mean {PRIMARY_METRIC}"), rows, left=2), ""]
    return lines


def intervals_of(contrasts: Sequence[PooledContrast]) -> list[Interval]:
    """The differences as an interval plot shows them."""
    return [
        Interval(
            variant_title(c.against),
            c.difference.values.mean,
            *c.difference.values.interval,
            c.difference.by_fold,
        )
        for c in contrasts
    ]
