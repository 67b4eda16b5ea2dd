"""The tables of a study: made from per-user scores, and written as files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from recloop.errors import DataError, SettingError
from recloop.evaluation.labels import (
    CHANCE,
    VariantLabel,
    at_most,
    conventions,
    in_table_order,
    metric_title,
    ranker_of,
    variant_label,
)
from recloop.evaluation.per_user_scores import VariantScores
from recloop.evaluation.results import COMPLETIONS, PER_USER
from recloop.evaluation.significance import LEVEL, Comparison, StatisticsConfig, compare
from recloop.evaluation.terminal import RESULTS
from recloop.files import atomic_write_bytes, atomic_write_json, atomic_write_text

if TYPE_CHECKING:
    from pathlib import Path

    from recloop.experiment.run_folder import RunStep

LATEX = "tables.tex"
OTHERS_IN_LATEX = 3  # metrics beside the tested one; what fits a page
COMPLETION_COLUMNS: dict[str, type[pl.DataType]] = {
    **dict.fromkeys(("user_id", "variant"), pl.String),
    **dict.fromkeys(("seed", "number"), pl.Int64),
    **dict.fromkeys(("text", "status"), pl.String),
    "reward": pl.Float64,
}
Truth = Mapping[
    str, Mapping[str, float | None]
]  # by variant: the fields of `TextTruth`, None where nothing was counted
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


@dataclass(frozen=True, slots=True)
class Units:
    """What a table averages over and compares one by one; units other than users have one list each.

    name: in the singular, e.g. ``user`` or ``request``.
    user_ids: of each unit, by its number, as in the source; empty where units have no users.
    """

    name: str = "user"
    user_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TableSettings:
    """How the tables of a study are compared.

    metrics: all are shown.
    tested: the one of them that is tested.
    seed: of flips and resamples.
    own_labels: of variants that are not built in.
    """

    metrics: tuple[str, ...]
    tested: str
    statistics: StatisticsConfig
    seed: int
    units: Units = Units()
    own_labels: tuple[VariantLabel, ...] = ()


@dataclass(frozen=True, slots=True)
class VariantTable:
    """One main table.

    main: the metric that is tested; the verdict is about the variant of its first contrast.
    others: the same variants by other metrics, without tests.
    scores: what the table was made from.
    labels: of every variant, by name.
    reference: the variant at which a faint line of the plot stands.
    reranker: the evaluators' kind; empty where no reranker reads the texts.
    chance: what candidates in random order score by the tested metric; None where nobody worked it out.
    """

    title: str
    main: Comparison
    others: tuple[Comparison, ...]
    scores: tuple[VariantScores, ...]
    labels: Mapping[str, VariantLabel]
    reference: str
    units: Units = Units()
    reranker: str = ""
    chance: float | None = None

    def __post_init__(self) -> None:
        if self.reference not in self.main.estimates:
            names = ", ".join(self.main.estimates)
            raise SettingError(f"no variant {self.reference!r} in the table, got {names}; check the name")

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """By every metric, the tested one first."""
        return (self.main, *self.others)


def make_table(
    title: str,
    scores: Sequence[VariantScores],
    contrasts: Iterable[tuple[str, str]],
    settings: TableSettings,
    reference: str,
    reranker: str = "",
) -> VariantTable:
    """A table of these variants in the order of tables.

    Args:
        contrasts: pairs of names; a pair with a variant that is not there is left out.
        reference, reranker: as in `VariantTable`.

    Raises:
        SettingError: a variant has no label, or the reference is no variant of the table.
    """
    own = settings.own_labels
    by_name = {one.name: one for one in scores}
    ordered = tuple(by_name[name] for name in in_table_order(by_name, own))
    found = [pair for pair in contrasts if set(pair) <= set(by_name)]

    def by(metric: str, pairs: Sequence[tuple[str, str]] = ()) -> Comparison:
        return compare(ordered, pairs, metric, settings.statistics, settings.seed)

    main, others = by(settings.tested, found), tuple(by(one) for one in settings.metrics if one != settings.tested)
    labels = {name: variant_label(name, own) for name in by_name}
    chance = main.estimates[CHANCE].value if CHANCE in by_name else None
    return VariantTable(title, main, others, ordered, labels, reference, settings.units, reranker, chance)


def below_chance(table: VariantTable) -> str:
    """One sentence on the variants that are worse than a random order by the tested metric; empty for none."""
    chance = table.chance
    if chance is None:
        return ""
    worse = {table.labels[name].label: one for name, one in table.main.estimates.items() if one.value < chance}
    if not worse:
        return ""
    told = ", ".join(at_most([f"{label} {one.value:.4f}" for label, one in worse.items()]))
    metric = metric_title(table.main.metric)
    return f"Below chance ({metric} {chance:.4f}): {told}. A difference among these says nothing of taste."


def write_results(
    folder: Path,
    step: RunStep,
    tables: Sequence[VariantTable],
    completions: Sequence[pl.DataFrame],
    truth: Truth | None = None,
) -> None:
    """The files of tables and completions into a run folder; a line per table, variant and metric into its log."""
    write_tables(folder, tables, truth)
    write_completions(folder, completions)
    step.publish(RESULTS, LATEX, PER_USER, COMPLETIONS)
    step.log(*metric_lines(tables))


def write_tables(folder: Path, tables: Sequence[VariantTable], truth: Truth | None = None) -> None:
    """Write ``results.json``, ``tables.tex`` and ``per_user.parquet`` into a run folder."""
    atomic_write_json(folder / RESULTS, results_json(tables, truth))
    atomic_write_text(folder / LATEX, "\n".join(map(latex_table, tables)))
    write_parquet(folder / PER_USER, [_per_user(table) for table in tables])


def write_completions(folder: Path, completions: Sequence[pl.DataFrame]) -> None:
    """``completions.parquet`` of a run: what every variant's language model wrote about whom.

    Raises:
        DataError: a frame lacks one of `COMPLETION_COLUMNS`; others may follow them.
    """
    for frame in completions:
        if missing := [name for name in COMPLETION_COLUMNS if name not in frame.columns]:
            raise DataError(f"completions need the columns {', '.join(COMPLETION_COLUMNS)}, got no {missing[0]}")
    frames = [frame.cast(dict(COMPLETION_COLUMNS)) for frame in completions]  # pyright: ignore[reportArgumentType]
    write_parquet(folder / COMPLETIONS, frames or [pl.DataFrame(schema=COMPLETION_COLUMNS)])


def latex_table(table: VariantTable) -> str:
    """A booktabs table: the tested metric with its interval, then others; the caption states the conventions."""
    main, others = table.main, table.others[:OTHERS_IN_LATEX]
    demonstration = "Demonstration, one seed. " if main.is_demonstration else ""
    caption = f"{demonstration}{conventions(main)} Intervals: {100 * LEVEL:g}% bootstrap over users."
    metrics = [metric_title(main.metric), "interval", *(metric_title(other.metric) for other in others)]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption.translate(_LATEX)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
        r"\toprule",
        " & ".join(name.translate(_LATEX) for name in ("Variant", *metrics)) + r" \\",
        r"\midrule",
    ]
    for name, one in main.estimates.items():
        cells = [f"{one.value:.4f}", f"[{one.low:.4f}, {one.high:.4f}]"]
        cells += [f"{other.estimates[name].value:.4f}" for other in others]
        lines.append(" & ".join([table.labels[name].label.translate(_LATEX), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def metric_lines(tables: Sequence[VariantTable]) -> list[dict[str, Any]]:
    """One line per table, variant and metric for metrics.jsonl."""
    return [
        {"table": table.title, "variant": name, "metric": comparison.metric, **asdict(estimate)}
        for table in tables
        for comparison in table.comparisons
        for name, estimate in comparison.estimates.items()
    ]


def results_json(tables: Sequence[VariantTable], truth: Truth | None = None) -> dict[str, Any]:
    """What results.json holds: tables, labels of variants, and what was counted in their texts."""
    return {
        "tables": [
            {
                "title": table.title,
                "unit": table.units.name,
                "reranker": table.reranker,
                "is_demonstration": table.main.is_demonstration,
                "chance": table.chance,
                "below_chance": below_chance(table),
                "metrics": [_comparison_json(comparison) for comparison in table.comparisons],
            }
            for table in tables
        ],
        "labels": {name: one.label for table in tables for name, one in table.labels.items()},
        "truth": dict(truth or {}),
    }


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    shared = {name: getattr(comparison, name) for name in ("metric", "mean", "empty", "num_users", "num_lists")}
    variants = [{"name": name, "estimate": asdict(estimate)} for name, estimate in comparison.estimates.items()]
    return shared | {"variants": variants, "contrasts": [asdict(contrast) for contrast in comparison.contrasts]}


def _per_user(table: VariantTable) -> pl.DataFrame:
    ids, frames = table.units.user_ids, list[pl.DataFrame]()
    for one in table.scores:
        user_ids = pl.Series([ids[unit] if ids else None for unit in one.user_U.tolist()], dtype=pl.String)
        units = {"user_id": user_ids, table.units.name: one.user_U, "num_lists": one.num_lists_U}
        shared = {"table": table.title, "reranker": ranker_of(one.name, table.reranker), "variant": one.name}
        for s, seed in enumerate(one.seeds):
            columns = {name: [value] * len(one.user_U) for name, value in {**shared, "seed": seed}.items()}
            frames.append(pl.DataFrame({**columns, **units, **{metric: one.of(metric)[s] for metric in one.metrics}}))
    return pl.concat(frames)


def write_parquet(path: Path, frames: Sequence[pl.DataFrame]) -> None:
    """The rows of all frames as one file, whole or not at all."""
    buffer = io.BytesIO()
    pl.concat(frames, how="diagonal").write_parquet(buffer)
    atomic_write_bytes(path, buffer.getvalue())
